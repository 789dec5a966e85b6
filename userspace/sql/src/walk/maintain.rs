//! VACUUM, ANALYZE, CLUSTER, REINDEX, REFRESH, CHECKPOINT.

use lockgate_command::Verb;
use pg_query::protobuf::*;

use super::{Visit, Walk, Walked, known, string};
use crate::names::{Need, cut};

impl Visit for VacuumStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            options,
            rels,
            is_vacuumcmd: _,
        } = self;
        options.visit(walk)?;
        if rels.is_empty() {
            walk.database(Verb::Maintain);
        }
        rels.visit(walk)
    }
}

impl Visit for VacuumRelation {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            oid: _,
            va_cols,
        } = self;
        walk.relation_if(Verb::Maintain, relation);
        // Nothing of the columns is shown.
        for column in va_cols {
            string(column)?;
        }
        Ok(())
    }
}

impl Visit for ClusterStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            indexname: _,
            params,
        } = self;
        match relation {
            Some(relation) => walk.relation(Verb::Maintain, relation),
            None => walk.database(Verb::Maintain),
        }
        params.visit(walk)
    }
}

impl Visit for ReindexStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            kind,
            relation,
            name,
            params,
        } = self;
        match known(*kind)? {
            ReindexObjectType::ReindexObjectIndex | ReindexObjectType::ReindexObjectTable => {
                walk.relation_if(Verb::Maintain, relation);
            }
            ReindexObjectType::ReindexObjectSchema => {
                walk.need(Need::Schema(Verb::Maintain, cut(name).to_owned()));
            }
            ReindexObjectType::ReindexObjectSystem | ReindexObjectType::ReindexObjectDatabase => {
                walk.database(Verb::Maintain);
            }
            ReindexObjectType::Undefined => return Err(super::unknown_node()),
        }
        params.visit(walk)
    }
}

impl Visit for RefreshMatViewStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            concurrent: _,
            skip_data: _,
            relation,
        } = self;
        walk.relation_if(Verb::Maintain, relation);
        Ok(())
    }
}

impl Visit for CheckPointStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {} = self;
        walk.target(Verb::System);
        Ok(())
    }
}
