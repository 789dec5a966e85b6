//! Relations, types and schemas: made, changed, dropped, given rights on.

use lockgate_command::Verb;
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::change::each;
use super::object::object;
use super::{Visit, Walk, Walked, known, name, qualified, string};
use crate::names::{Need, cut};
use crate::prescan::refusal;

impl Visit for CreateStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            table_elts,
            inh_relations,
            partbound,
            partspec,
            of_typename,
            constraints,
            nnconstraints,
            options,
            oncommit,
            tablespacename: _,
            access_method,
            if_not_exists: _,
        } = self;
        known::<OnCommitAction>(*oncommit)?;
        walk.access_method(access_method);
        walk.creates(relation);
        // Reading a parent will read the new table, too.
        each(inh_relations, |parent| walk.relation(Verb::Alter, parent))?;
        table_elts.visit(walk)?;
        partbound.visit(walk)?;
        partspec.visit(walk)?;
        of_typename.visit(walk)?;
        constraints.visit(walk)?;
        nnconstraints.visit(walk)?;
        options.visit(walk)
    }
}

impl Visit for CreateForeignTableStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            base_stmt,
            servername: _,
            options,
        } = self;
        // The server behind it is reached with rights that are not asked here.
        walk.target(Verb::System);
        base_stmt.visit(walk)?;
        options.visit(walk)
    }
}

impl Visit for CreateTableAsStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            query,
            into,
            objtype,
            is_select_into: _,
            if_not_exists: _,
        } = self;
        known::<ObjectType>(*objtype)?;
        walk.apart(query)?;
        into.visit(walk)
    }
}

impl Visit for ViewStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            view,
            aliases,
            query,
            replace: _,
            options,
            with_check_option,
        } = self;
        known::<ViewCheckOption>(*with_check_option)?;
        walk.creates(view);
        aliases.visit(walk)?;
        walk.apart(query)?;
        options.visit(walk)
    }
}

impl Visit for CreateSeqStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            sequence,
            options,
            owner_id: _,
            for_identity: _,
            if_not_exists: _,
        } = self;
        walk.creates(sequence);
        options.visit(walk)
    }
}

impl Visit for AlterSeqStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            sequence,
            options,
            for_identity: _,
            missing_ok: _,
        } = self;
        walk.relation_if(Verb::Alter, sequence);
        walk.defines();
        options.visit(walk)
    }
}

impl Visit for IndexStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            idxname: _,
            relation,
            access_method,
            table_space: _,
            index_params,
            index_including_params,
            options,
            where_clause,
            exclude_op_names,
            idxcomment: _,
            index_oid: _,
            old_number: _,
            old_create_subid: _,
            old_first_relfilelocator_subid: _,
            unique: _,
            nulls_not_distinct: _,
            primary: _,
            isconstraint: _,
            iswithoutoverlaps: _,
            deferrable: _,
            initdeferred: _,
            transformed: _,
            concurrent: _,
            if_not_exists: _,
            reset_default_tblspc: _,
        } = self;
        walk.relation_if(Verb::Create, relation);
        walk.access_method(access_method);
        walk.defines();
        index_params.visit(walk)?;
        index_including_params.visit(walk)?;
        options.visit(walk)?;
        where_clause.visit(walk)?;
        exclude_op_names.visit(walk)
    }
}

impl Visit for CreateStatsStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            defnames,
            stat_types,
            exprs,
            relations,
            stxcomment: _,
            transformed: _,
            if_not_exists: _,
        } = self;
        for relation in relations {
            match &relation.node {
                Some(NodeEnum::RangeVar(relation)) => walk.relation(Verb::Alter, relation),
                _ => relation.visit(walk)?,
            }
        }
        walk.defines();
        // Without a name it is put beside its table.
        if !defnames.is_empty() {
            walk.need(Need::InSchema(Verb::Create, qualified(defnames)?));
        }
        stat_types.visit(walk)?;
        exprs.visit(walk)
    }
}

impl Visit for AlterStatsStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            defnames,
            stxstattarget,
            missing_ok: _,
        } = self;
        walk.need(Need::InSchema(Verb::Alter, qualified(defnames)?));
        walk.defines();
        stxstattarget.visit(walk)
    }
}

impl Visit for CreateSchemaStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            schemaname,
            authrole,
            schema_elts,
            if_not_exists: _,
        } = self;
        if !schema_elts.is_empty() {
            return Err(refusal(
                "CREATE SCHEMA with objects in it",
                "create the schema first, then each object by its full name",
            ));
        }
        match (schemaname.is_empty(), authrole) {
            (false, _) => walk.need(Need::Schema(Verb::Create, cut(schemaname).to_owned())),
            // Named after a role that only the server knows.
            (true, _) => walk.database(Verb::Create),
        }
        walk.defines();
        // A schema called like the role comes first in the usual path.
        walk.facts.names_change = true;
        authrole.visit(walk)
    }
}

impl Visit for AlterTableStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            cmds,
            objtype,
            missing_ok: _,
        } = self;
        match known(*objtype)? {
            ObjectType::ObjectType => {
                if let Some(of) = relation {
                    composite(walk, of);
                }
            }
            _ => walk.relation_if(Verb::Alter, relation),
        }
        walk.defines();
        cmds.visit(walk)
    }
}

impl Visit for AlterTableCmd {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            subtype,
            name,
            num: _,
            newowner,
            def,
            behavior,
            missing_ok: _,
            recurse: _,
        } = self;
        walk.column(name);
        use AlterTableType::*;
        match known(*subtype)? {
            AtAddColumn
            | AtAddColumnToView
            | AtColumnDefault
            | AtCookedColumnDefault
            | AtDropNotNull
            | AtSetNotNull
            | AtSetExpression
            | AtDropExpression
            | AtSetStatistics
            | AtSetOptions
            | AtResetOptions
            | AtSetStorage
            | AtSetCompression
            | AtDropColumn
            | AtAddIndex
            | AtReAddIndex
            | AtAddConstraint
            | AtReAddConstraint
            | AtReAddDomainConstraint
            | AtAlterConstraint
            | AtValidateConstraint
            | AtAddIndexConstraint
            | AtDropConstraint
            | AtReAddComment
            | AtAlterColumnType
            | AtClusterOn
            | AtDropCluster
            | AtSetLogged
            | AtSetUnLogged
            | AtDropOids
            | AtSetTableSpace
            | AtSetRelOptions
            | AtResetRelOptions
            | AtReplaceRelOptions
            | AtDropOf
            | AtAddOf
            | AtReplicaIdentity
            | AtAttachPartition
            | AtDetachPartition
            | AtDetachPartitionFinalize
            | AtAddIdentity
            | AtSetIdentity
            | AtDropIdentity
            | AtReAddStatistics => {}
            AtSetAccessMethod => walk.access_method(name),
            // Of a foreign table: what it reads at the other server.
            AtGenericOptions | AtAlterColumnGenericOptions => walk.target(Verb::System),
            // Triggers and rules run, or do not, for everybody.
            AtEnableTrig | AtEnableAlwaysTrig | AtEnableReplicaTrig | AtDisableTrig
            | AtEnableTrigAll | AtDisableTrigAll | AtEnableTrigUser | AtDisableTrigUser
            | AtEnableRule | AtEnableAlwaysRule | AtEnableReplicaRule | AtDisableRule => {
                walk.code()
            }
            // Who sees which rows.
            AtEnableRowSecurity | AtDisableRowSecurity | AtForceRowSecurity
            | AtNoForceRowSecurity => walk.database(Verb::Grant),
            AtChangeOwner => walk.database(Verb::Grant),
            // The parent's name stands in `def`.
            AtAddInherit | AtDropInherit => {
                if let Some(Node {
                    node: Some(NodeEnum::RangeVar(parent)),
                }) = def.as_deref()
                {
                    walk.relation(Verb::Alter, parent);
                    return Ok(());
                }
            }
            Undefined => return Err(super::unknown_node()),
        }
        cascades(walk, *behavior)?;
        newowner.visit(walk)?;
        def.visit(walk)
    }
}

/// CASCADE reaches what is not named.
pub(super) fn cascades(walk: &mut Walk, behavior: i32) -> Walked {
    match known(behavior)? {
        DropBehavior::DropCascade => walk.database(Verb::Drop),
        DropBehavior::DropRestrict | DropBehavior::Undefined => {}
    }
    Ok(())
}

impl Visit for DropStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            objects,
            remove_type,
            behavior,
            missing_ok: _,
            concurrent: _,
        } = self;
        walk.defines();
        for dropped in objects {
            object(walk, Verb::Drop, known(*remove_type)?, Some(dropped))?;
        }
        cascades(walk, *behavior)
    }
}

impl Visit for RenameStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            rename_type,
            relation_type,
            relation,
            object,
            subname,
            newname,
            behavior,
            missing_ok: _,
        } = self;
        known::<DropBehavior>(*behavior)?;
        walk.defines();
        walk.column(subname);
        walk.column(newname);
        match (relation, known(*relation_type)?) {
            // ALTER TYPE … RENAME ATTRIBUTE.
            (Some(of), ObjectType::ObjectType) => composite(walk, of),
            _ => walk.relation_if(Verb::Alter, relation),
        }
        let kind: ObjectType = known(*rename_type)?;
        match kind {
            _ if is_function(kind) => walk.code(),
            // Policies and tags name databases.
            ObjectType::ObjectDatabase => walk.target(Verb::System),
            _ => {}
        }
        match (object, relation) {
            (None, Some(_)) => super::object::on_relation(walk, kind),
            // A schema, database, role or tablespace is named by `subname`.
            (None, None) => {
                let named = Node {
                    node: Some(NodeEnum::String(String {
                        sval: subname.clone(),
                    })),
                };
                super::object::object(walk, Verb::Alter, kind, Some(&named))
            }
            (Some(named), _) => super::object::object(walk, Verb::Alter, kind, Some(named)),
        }
    }
}

/// What is called by name: by another one, another is called.
fn is_function(kind: ObjectType) -> bool {
    matches!(
        kind,
        ObjectType::ObjectFunction
            | ObjectType::ObjectProcedure
            | ObjectType::ObjectRoutine
            | ObjectType::ObjectAggregate
            | ObjectType::ObjectOperator
    )
}

/// A composite type, which is named as a relation is.
fn composite(walk: &mut Walk, of: &RangeVar) {
    let RangeVar {
        catalogname: _,
        schemaname,
        relname,
        inh: _,
        relpersistence: _,
        alias: _,
        location: _,
    } = of;
    walk.need(Need::InSchema(Verb::Alter, name(schemaname, relname)));
}

impl Visit for AlterObjectSchemaStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            object_type,
            relation,
            object,
            newschema,
            missing_ok: _,
        } = self;
        walk.defines();
        walk.relation_if(Verb::Alter, relation);
        walk.need(Need::Schema(Verb::Create, cut(newschema).to_owned()));
        if is_function(known(*object_type)?) {
            walk.code();
        }
        match object {
            Some(named) => {
                super::object::object(walk, Verb::Alter, known(*object_type)?, Some(named))
            }
            None => Ok(()),
        }
    }
}

impl Visit for AlterOwnerStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            object_type,
            relation,
            object,
            newowner,
        } = self;
        walk.defines();
        walk.database(Verb::Grant);
        walk.relation_if(Verb::Alter, relation);
        newowner.visit(walk)?;
        match object {
            Some(named) => {
                super::object::object(walk, Verb::Alter, known(*object_type)?, Some(named))
            }
            None => Ok(()),
        }
    }
}

impl Visit for AlterObjectDependsStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            object_type,
            relation,
            object,
            extname: _,
            remove: _,
        } = self;
        walk.code();
        walk.relation_if(Verb::Alter, relation);
        match object {
            Some(named) => {
                super::object::object(walk, Verb::Alter, known(*object_type)?, Some(named))
            }
            None => Ok(()),
        }
    }
}

impl Visit for CommentStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            objtype,
            object,
            comment: _,
        } = self;
        super::object::object(walk, Verb::Alter, known(*objtype)?, object.as_deref())
    }
}

/// What a label does is up to its provider.
impl Visit for SecLabelStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            objtype,
            object,
            provider: _,
            label: _,
        } = self;
        walk.database(Verb::Grant);
        super::object::object(walk, Verb::Alter, known(*objtype)?, object.as_deref())
    }
}

impl Visit for GrantStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            is_grant: _,
            targtype,
            objtype,
            objects,
            privileges,
            grantees,
            grant_option: _,
            grantor,
            behavior,
        } = self;
        known::<DropBehavior>(*behavior)?;
        privileges.visit(walk)?;
        grantees.visit(walk)?;
        grantor.visit(walk)?;
        match known(*targtype)? {
            GrantTargetType::AclTargetObject => {
                for granted in objects {
                    object(walk, Verb::Grant, known(*objtype)?, Some(granted))?;
                }
            }
            GrantTargetType::AclTargetAllInSchema => {
                for schema in objects {
                    walk.need(Need::Schema(Verb::Grant, cut(string(schema)?).to_owned()));
                }
            }
            GrantTargetType::AclTargetDefaults => walk.database(Verb::Grant),
            GrantTargetType::Undefined => return Err(super::unknown_node()),
        }
        Ok(())
    }
}

impl Visit for AlterDefaultPrivilegesStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { options, action } = self;
        walk.database(Verb::Grant);
        options.visit(walk)?;
        action.visit(walk)
    }
}

impl Visit for CreatePolicyStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            policy_name: _,
            table,
            cmd_name: _,
            permissive: _,
            roles,
            qual,
            with_check,
        } = self;
        walk.relation_if(Verb::Grant, table);
        walk.defines();
        roles.visit(walk)?;
        qual.visit(walk)?;
        with_check.visit(walk)
    }
}

impl Visit for AlterPolicyStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            policy_name: _,
            table,
            roles,
            qual,
            with_check,
        } = self;
        walk.relation_if(Verb::Grant, table);
        walk.defines();
        roles.visit(walk)?;
        qual.visit(walk)?;
        with_check.visit(walk)
    }
}

/// A rule may turn any statement on its table into others.
impl Visit for RuleStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            rulename: _,
            where_clause,
            event,
            instead: _,
            actions,
            replace: _,
        } = self;
        known::<CmdType>(*event)?;
        walk.relation_if(Verb::Alter, relation);
        walk.code();
        where_clause.visit(walk)?;
        walk.apart(actions)
    }
}

impl Visit for CreateTrigStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            replace: _,
            isconstraint: _,
            trigname: _,
            relation,
            funcname,
            args,
            row: _,
            timing: _,
            events: _,
            columns,
            when_clause,
            transition_rels,
            deferrable: _,
            initdeferred: _,
            constrrel,
        } = self;
        walk.relation_if(Verb::Alter, relation);
        walk.relation_if(Verb::Alter, constrrel);
        walk.code();
        walk.need(Need::Function(qualified(funcname)?));
        args.visit(walk)?;
        columns.visit(walk)?;
        when_clause.visit(walk)?;
        transition_rels.visit(walk)
    }
}
