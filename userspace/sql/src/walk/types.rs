//! Types, domains and collations: made and changed.

use lockgate_command::Verb;
use pg_query::protobuf::*;

use super::define::cascades;
use super::{Visit, Walk, Walked, known, name, qualified, strings};
use crate::names::Need;

/// A type that a schema holds.
fn type_of(walk: &mut Walk, verb: Verb, names: &[Node]) -> Walked {
    walk.need(Need::InSchema(verb, qualified(names)?));
    walk.defines();
    Ok(())
}

impl Visit for CreateDomainStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            domainname,
            type_name,
            coll_clause,
            constraints,
        } = self;
        type_of(walk, Verb::Create, domainname)?;
        type_name.visit(walk)?;
        coll_clause.visit(walk)?;
        constraints.visit(walk)
    }
}

impl Visit for AlterDomainStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            subtype: _,
            type_name,
            name: _,
            def,
            behavior,
            missing_ok: _,
        } = self;
        type_of(walk, Verb::Alter, type_name)?;
        cascades(walk, *behavior)?;
        def.visit(walk)
    }
}

impl Visit for CompositeTypeStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            typevar,
            coldeflist,
        } = self;
        if let Some(RangeVar {
            catalogname: _,
            schemaname,
            relname,
            inh: _,
            relpersistence: _,
            alias: _,
            location: _,
        }) = typevar
        {
            walk.need(Need::InSchema(Verb::Create, name(schemaname, relname)));
        }
        walk.defines();
        coldeflist.visit(walk)
    }
}

impl Visit for CreateEnumStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { type_name, vals } = self;
        type_of(walk, Verb::Create, type_name)?;
        vals.visit(walk)
    }
}

impl Visit for AlterEnumStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            type_name,
            old_val: _,
            new_val: _,
            new_val_neighbor: _,
            new_val_is_after: _,
            skip_if_new_val_exists: _,
        } = self;
        type_of(walk, Verb::Alter, type_name)
    }
}

/// A range may name functions of users.
impl Visit for CreateRangeStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { type_name, params } = self;
        type_of(walk, Verb::Create, type_name)?;
        walk.code();
        params.visit(walk)
    }
}

impl Visit for AlterTypeStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { type_name, options } = self;
        type_of(walk, Verb::Alter, type_name)?;
        walk.code();
        options.visit(walk)
    }
}

impl Visit for AlterCollationStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { collname } = self;
        type_of(walk, Verb::Alter, collname)
    }
}

/// CREATE AGGREGATE, OPERATOR, TYPE, TEXT SEARCH …, COLLATION.
impl Visit for DefineStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            kind,
            oldstyle: _,
            defnames,
            args,
            definition,
            if_not_exists: _,
            replace: _,
        } = self;
        match known(*kind)? {
            ObjectType::ObjectCollation => type_of(walk, Verb::Create, defnames)?,
            _ => {
                strings(defnames)?;
                walk.code();
            }
        }
        args.visit(walk)?;
        definition.visit(walk)
    }
}
