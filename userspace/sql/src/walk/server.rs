//! Roles, databases, and what reaches out of the database.

use lockgate_command::Verb;
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::{Visit, Walk, Walked, known};
use crate::names::{Need, cut};

/// A role's options may hold its password, in words that are no literals.
impl Visit for CreateRoleStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            stmt_type,
            role: _,
            options,
        } = self;
        known::<RoleStmtType>(*stmt_type)?;
        walk.target(Verb::Role);
        walk.facts.secret = true;
        options.visit(walk)
    }
}

impl Visit for AlterRoleStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            role,
            options,
            action: _,
        } = self;
        walk.target(Verb::Role);
        walk.facts.secret = true;
        role.visit(walk)?;
        options.visit(walk)
    }
}

/// Statements about roles.
macro_rules! roles {
    ($($statement:ident { $($field:ident),* } besides { $($other:ident),* })*) => {$(
        impl Visit for $statement {
            fn visit(&self, walk: &mut Walk) -> Walked {
                let Self { $($field,)* $($other: _),* } = self;
                walk.target(Verb::Role);
                $($field.visit(walk)?;)*
                Ok(())
            }
        }
    )*};
}

roles! {
    // Settings that the next login of the role starts with.
    AlterRoleSetStmt { role } besides { database, setstmt }
    DropRoleStmt { roles } besides { missing_ok }
    GrantRoleStmt { granted_roles, grantee_roles, opt, grantor } besides { is_grant, behavior }
    ReassignOwnedStmt { roles, newrole } besides { }
}

impl Visit for DropOwnedStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { roles, behavior } = self;
        walk.target(Verb::Role);
        known::<DropBehavior>(*behavior)?;
        walk.database(Verb::Drop);
        walk.defines();
        roles.visit(walk)
    }
}

/// Statements about one database of the server.
macro_rules! databases {
    ($($statement:ident { $($field:ident),* } besides { $($other:ident),* } as $verb:ident)*) => {$(
        impl Visit for $statement {
            fn visit(&self, walk: &mut Walk) -> Walked {
                let Self { dbname, $($field,)* $($other: _),* } = self;
                walk.need(Need::OtherDatabase(Verb::$verb, cut(dbname).to_owned()));
                $($field.visit(walk)?;)*
                Ok(())
            }
        }
    )*};
}

databases! {
    AlterDatabaseStmt { options } besides { } as Alter
    AlterDatabaseRefreshCollStmt { } besides { } as Alter
    DropdbStmt { options } besides { missing_ok } as Drop
}

/// A new database is the copy of another.
impl Visit for CreatedbStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { dbname, options } = self;
        walk.need(Need::OtherDatabase(Verb::Create, cut(dbname).to_owned()));
        for option in options {
            let Some(NodeEnum::DefElem(option)) = &option.node else {
                return Err(super::unknown_node());
            };
            let template = option
                .arg
                .as_deref()
                .filter(|_| option.defname == "template");
            let Some(NodeEnum::String(template)) = template.and_then(|arg| arg.node.as_ref())
            else {
                continue;
            };
            if !matches!(&*template.sval, "template0" | "template1") {
                let template = cut(&template.sval).to_owned();
                walk.need(Need::OtherDatabase(Verb::Select, template));
            }
        }
        options.visit(walk)
    }
}

/// Settings that every login to the database starts with.
impl Visit for AlterDatabaseSetStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { dbname: _, setstmt } = self;
        walk.target(Verb::System);
        match setstmt {
            Some(_) => Ok(()),
            None => Err(super::unknown_node()),
        }
    }
}

impl Visit for AlterSystemStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { setstmt } = self;
        walk.target(Verb::System);
        match setstmt {
            Some(_) => Ok(()),
            None => Err(super::unknown_node()),
        }
    }
}

/// Statements that let the database reach other servers, or others reach it.
macro_rules! outside {
    ($($statement:ident { $($field:ident),* } besides { $($other:ident),* })*) => {$(
        impl Visit for $statement {
            fn visit(&self, walk: &mut Walk) -> Walked {
                let Self { $($field,)* $($other: _),* } = self;
                walk.target(Verb::System);
                walk.defines();
                // Options of servers and user mappings hold passwords.
                walk.facts.secret = true;
                $($field.visit(walk)?;)*
                Ok(())
            }
        }
    )*};
}

outside! {
    AlterFdwStmt { options } besides { fdwname, func_options }
    AlterForeignServerStmt { options } besides { servername, version, has_version }
    AlterSubscriptionStmt { options } besides { kind, subname, conninfo, publication, conninfo_location }
    AlterUserMappingStmt { user, options } besides { servername }
    CreateFdwStmt { options } besides { fdwname, func_options }
    CreateForeignServerStmt { options } besides { servername, servertype, version, fdwname, if_not_exists }
    CreateSubscriptionStmt { options } besides { subname, conninfo, publication, conninfo_location }
    CreateUserMappingStmt { user, options } besides { servername, if_not_exists }
    DropSubscriptionStmt { } besides { subname, missing_ok, behavior }
    DropUserMappingStmt { user } besides { servername, missing_ok }
}

impl Visit for CreatePublicationStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            pubname: _,
            options,
            pubobjects,
            for_all_tables,
        } = self;
        publishes(walk, *for_all_tables, pubobjects)?;
        options.visit(walk)
    }
}

impl Visit for AlterPublicationStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            pubname: _,
            options,
            pubobjects,
            for_all_tables,
            action,
        } = self;
        known::<AlterPublicationAction>(*action)?;
        publishes(walk, *for_all_tables, pubobjects)?;
        options.visit(walk)
    }
}

/// Whoever subscribes reads what is published.
fn publishes(walk: &mut Walk, all: bool, objects: &[Node]) -> Walked {
    walk.target(Verb::System);
    walk.defines();
    if all {
        walk.database(Verb::Select);
    }
    objects.iter().try_for_each(|object| object.visit(walk))
}

impl Visit for PublicationObjSpec {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            pubobjtype,
            name,
            pubtable,
            location: _,
        } = self;
        match known(*pubobjtype)? {
            PublicationObjSpecType::PublicationobjTable
            | PublicationObjSpecType::PublicationobjContinuation => {}
            PublicationObjSpecType::PublicationobjTablesInSchema => {
                walk.need(Need::Schema(Verb::Select, cut(name).to_owned()));
            }
            PublicationObjSpecType::PublicationobjTablesInCurSchema => {
                walk.database(Verb::Select);
            }
            PublicationObjSpecType::Undefined => return Err(super::unknown_node()),
        }
        pubtable.visit(walk)
    }
}

impl Visit for PublicationTable {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            where_clause,
            columns,
        } = self;
        walk.relation_if(Verb::Select, relation);
        walk.facts.all_columns = true;
        where_clause.visit(walk)?;
        columns.visit(walk)
    }
}

impl Visit for ImportForeignSchemaStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            server_name: _,
            remote_schema: _,
            local_schema,
            list_type,
            table_list,
            options,
        } = self;
        known::<ImportForeignSchemaType>(*list_type)?;
        walk.target(Verb::System);
        walk.need(Need::Schema(Verb::Create, cut(local_schema).to_owned()));
        walk.defines();
        // Tables of the other server.
        for table in table_list {
            if table.node.is_none() {
                return Err(super::unknown_node());
            }
        }
        options.visit(walk)
    }
}

/// A tablespace is a directory of the server.
impl Visit for CreateTableSpaceStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            tablespacename: _,
            owner,
            location: _,
            options,
        } = self;
        walk.target(Verb::System);
        walk.target(Verb::Program);
        owner.visit(walk)?;
        options.visit(walk)
    }
}

impl Visit for DropTableSpaceStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            tablespacename: _,
            missing_ok: _,
        } = self;
        walk.target(Verb::System);
        Ok(())
    }
}

impl Visit for AlterTableSpaceOptionsStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            tablespacename: _,
            options,
            is_reset: _,
        } = self;
        walk.target(Verb::System);
        options.visit(walk)
    }
}

impl Visit for AlterTableMoveAllStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            orig_tablespacename: _,
            objtype,
            roles,
            new_tablespacename: _,
            nowait: _,
        } = self;
        known::<ObjectType>(*objtype)?;
        walk.target(Verb::System);
        roles.visit(walk)
    }
}

/// A library is code of the server's machine.
impl Visit for LoadStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { filename: _ } = self;
        walk.target(Verb::Program);
        Ok(())
    }
}
