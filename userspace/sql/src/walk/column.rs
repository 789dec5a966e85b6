//! What a definition of a table, an index or a domain is made of.

use lockgate_command::Verb;
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::{Visit, Walk, Walked, items, known, qualified, string};
use crate::names::Need;

impl Visit for ColumnDef {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            colname,
            type_name,
            compression: _,
            inhcount: _,
            is_local: _,
            is_not_null: _,
            is_from_type: _,
            storage: _,
            storage_name: _,
            raw_default,
            cooked_default,
            identity: _,
            identity_sequence,
            generated: _,
            coll_clause,
            coll_oid: _,
            constraints,
            fdwoptions,
            location: _,
        } = self;
        walk.column(colname);
        if !type_name.as_ref().is_some_and(is_serial) {
            type_name.visit(walk)?;
        }
        raw_default.visit(walk)?;
        cooked_default.visit(walk)?;
        if identity_sequence.is_some() {
            // Only the server fills this in.
            return Err(super::unknown_node());
        }
        coll_clause.visit(walk)?;
        constraints.visit(walk)?;
        fdwoptions.visit(walk)
    }
}

/// `serial` and its kin are no types: they make a sequence for the column.
fn is_serial(name: &TypeName) -> bool {
    let [
        Node {
            node: Some(NodeEnum::String(name)),
        },
    ] = &name.names[..]
    else {
        return false;
    };
    matches!(
        &*name.sval,
        "serial" | "serial2" | "serial4" | "serial8" | "bigserial" | "smallserial"
    )
}

impl Visit for Constraint {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            contype,
            conname: _,
            deferrable: _,
            initdeferred: _,
            is_enforced: _,
            skip_validation: _,
            initially_valid: _,
            is_no_inherit: _,
            raw_expr,
            cooked_expr: _,
            generated_when: _,
            generated_kind: _,
            nulls_not_distinct: _,
            keys,
            without_overlaps: _,
            including,
            exclusions,
            options,
            indexname: _,
            indexspace: _,
            reset_default_tblspc: _,
            access_method,
            where_clause,
            pktable,
            fk_attrs,
            pk_attrs,
            fk_with_period: _,
            pk_with_period: _,
            fk_matchtype: _,
            fk_upd_action: _,
            fk_del_action: _,
            fk_del_set_cols,
            old_conpfeqop,
            old_pktable_oid: _,
            location: _,
        } = self;
        known::<ConstrType>(*contype)?;
        walk.access_method(access_method);
        raw_expr.visit(walk)?;
        excluded_by(walk, exclusions)?;
        options.visit(walk)?;
        where_clause.visit(walk)?;
        // A foreign key tells which values its table has.
        walk.relation_if(Verb::Select, pktable);
        for column in [keys, including, fk_attrs, pk_attrs, fk_del_set_cols]
            .into_iter()
            .flatten()
        {
            walk.column(string(column)?);
        }
        old_conpfeqop.visit(walk)
    }
}

/// Pairs of what is compared and the operator that compares.
fn excluded_by(walk: &mut Walk, exclusions: &[Node]) -> Walked {
    for exclusion in exclusions {
        let [compared, operator] = items(exclusion) else {
            return Err(super::unknown_node());
        };
        compared.visit(walk)?;
        walk.need(Need::Operator(qualified(items(operator))?));
    }
    Ok(())
}

impl Visit for IndexElem {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            name,
            expr,
            indexcolname: _,
            collation,
            opclass,
            opclassopts,
            ordering,
            nulls_ordering,
        } = self;
        known::<SortByDir>(*ordering)?;
        known::<SortByNulls>(*nulls_ordering)?;
        walk.column(name);
        expr.visit(walk)?;
        indexed_by(walk, collation, opclass)?;
        opclassopts.visit(walk)
    }
}

impl Visit for PartitionElem {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            name,
            expr,
            collation,
            opclass,
            location: _,
        } = self;
        walk.column(name);
        expr.visit(walk)?;
        indexed_by(walk, collation, opclass)
    }
}

/// An operator class brings functions: one that is named must be PostgreSQL's
/// own, which its name alone does not prove.
fn indexed_by(walk: &mut Walk, collation: &[Node], opclass: &[Node]) -> Walked {
    if !collation.is_empty() {
        walk.need(Need::Collation(qualified(collation)?));
    }
    if !opclass.is_empty() {
        let name = qualified(opclass)?;
        let own = name
            .schema
            .as_deref()
            .is_none_or(|schema| schema == "pg_catalog")
            && (name.name.ends_with("_ops"));
        if !own {
            walk.need(Need::FunctionObject(Verb::Call, name));
        }
    }
    Ok(())
}

impl Visit for TableLikeClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            options: _,
            relation_oid: _,
        } = self;
        walk.relation_if(Verb::Select, relation);
        Ok(())
    }
}

impl Visit for PartitionCmd {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            name,
            bound,
            concurrent: _,
        } = self;
        walk.relation_if(Verb::Alter, name);
        bound.visit(walk)
    }
}

/// An option. Its argument is a value, a list, a type, or a name as a type.
impl Visit for DefElem {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            defnamespace: _,
            defname: _,
            arg,
            defaction,
            location: _,
            arg_location: _,
        } = self;
        known::<DefElemAction>(*defaction)?;
        match arg.as_ref().and_then(|arg| arg.node.as_ref()) {
            // A bare word is parsed as a type: `WITH (fillfactor = x)`.
            Some(NodeEnum::TypeName(_)) | None => Ok(()),
            Some(_) => arg.visit(walk),
        }
    }
}

impl Visit for StatsElem {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { name, expr } = self;
        walk.column(name);
        expr.visit(walk)
    }
}

/// A parameter of a function, of which only the default is run.
impl Visit for FunctionParameter {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            name: _,
            arg_type,
            mode,
            defexpr,
            location: _,
        } = self;
        known::<FunctionParameterMode>(*mode)?;
        arg_type.visit(walk)?;
        defexpr.visit(walk)
    }
}

/// `OPERATOR CLASS … AS …`; the statement that holds it is code anyway.
impl Visit for CreateOpClassItem {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            itemtype: _,
            name,
            number: _,
            order_family,
            class_args,
            storedtype,
        } = self;
        name.visit(walk)?;
        order_family.visit(walk)?;
        class_args.visit(walk)?;
        storedtype.visit(walk)
    }
}

// Expressions, bounds and names that do nothing of their own.

impl Visit for PartitionSpec {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            strategy,
            part_params,
            location: _,
        } = self;
        known::<PartitionStrategy>(*strategy)?;
        part_params.visit(walk)?;
        Ok(())
    }
}

impl Visit for PartitionBoundSpec {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            strategy: _,
            is_default: _,
            modulus: _,
            remainder: _,
            listdatums,
            lowerdatums,
            upperdatums,
            location: _,
        } = self;
        listdatums.visit(walk)?;
        lowerdatums.visit(walk)?;
        upperdatums.visit(walk)?;
        Ok(())
    }
}

impl Visit for ObjectWithArgs {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            objname,
            objargs,
            objfuncargs,
            args_unspecified: _,
        } = self;
        objname.visit(walk)?;
        objargs.visit(walk)?;
        objfuncargs.visit(walk)?;
        Ok(())
    }
}

impl Visit for AccessPriv {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { priv_name: _, cols } = self;
        cols.visit(walk)?;
        Ok(())
    }
}

impl Visit for RoleSpec {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self {
            roletype,
            rolename: _,
            location: _,
        } = self;
        known::<RoleSpecType>(*roletype)?;
        Ok(())
    }
}

impl Visit for TriggerTransition {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self {
            name: _,
            is_new: _,
            is_table: _,
        } = self;
        Ok(())
    }
}

impl Visit for ReplicaIdentityStmt {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self {
            identity_type: _,
            name: _,
        } = self;
        Ok(())
    }
}

impl Visit for AtAlterConstraint {
    fn visit(&self, _: &mut Walk) -> Walked {
        let Self {
            conname: _,
            alter_enforceability: _,
            is_enforced: _,
            alter_deferrability: _,
            deferrable: _,
            initdeferred: _,
            alter_inheritability: _,
            noinherit: _,
        } = self;
        Ok(())
    }
}
