//! INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY, LOCK.

use lockgate_command::{Refusal, Verb};
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::condition::{all_rows, merge_picks_rows, picks_rows};
use super::copy;
use super::query::in_scope;
use super::{Visit, Walk, Walked, known, string};

impl Visit for InsertStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            cols,
            select_stmt,
            on_conflict_clause,
            returning_clause,
            with_clause,
            r#override,
        } = self;
        known::<OverridingKind>(*r#override)?;
        in_scope(walk, with_clause, |walk| {
            walk.relation_if(Verb::Insert, relation);
            // Without a list the values are for all columns in order.
            walk.facts.all_columns |= cols.is_empty();
            assigned(walk, cols)?;
            select_stmt.visit(walk)?;
            if let Some(clause) = on_conflict_clause {
                let OnConflictClause {
                    action,
                    infer: _,
                    target_list: _,
                    where_clause: _,
                    location: _,
                } = &**clause;
                match known(*action)? {
                    OnConflictAction::Undefined | OnConflictAction::OnconflictNone => {
                        return Err(super::unknown_node());
                    }
                    OnConflictAction::OnconflictNothing => {}
                    // The row that is there already is read and changed.
                    OnConflictAction::OnconflictUpdate => {
                        walk.relation_if(Verb::Update, relation);
                        walk.relation_if(Verb::Select, relation);
                    }
                }
            }
            on_conflict_clause.visit(walk)?;
            if returning_clause.is_some() {
                walk.relation_if(Verb::Select, relation);
            }
            returning_clause.visit(walk)
        })
    }
}

impl Visit for OnConflictClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            action,
            infer,
            target_list,
            where_clause,
            location: _,
        } = self;
        known::<OnConflictAction>(*action)?;
        infer.visit(walk)?;
        assigned(walk, target_list)?;
        where_clause.visit(walk)
    }
}

impl Visit for UpdateStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            target_list,
            where_clause,
            from_clause,
            returning_clause,
            with_clause,
        } = self;
        in_scope(walk, with_clause, |walk| {
            walk.relation_if(Verb::Update, relation);
            if !picks_rows(where_clause.as_deref())? {
                walk.relation_if(Verb::UpdateAll, relation);
            }
            walk.reads_columns = false;
            assigned(walk, target_list)?;
            where_clause.visit(walk)?;
            from_clause.visit(walk)?;
            returning_clause.visit(walk)?;
            reads_if_columns(walk, relation);
            Ok(())
        })
    }
}

impl Visit for DeleteStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            using_clause,
            where_clause,
            returning_clause,
            with_clause,
        } = self;
        in_scope(walk, with_clause, |walk| {
            walk.relation_if(Verb::Delete, relation);
            if !picks_rows(where_clause.as_deref())? {
                walk.relation_if(Verb::DeleteAll, relation);
            }
            walk.reads_columns = false;
            using_clause.visit(walk)?;
            where_clause.visit(walk)?;
            returning_clause.visit(walk)?;
            reads_if_columns(walk, relation);
            Ok(())
        })
    }
}

/// PostgreSQL asks for SELECT as soon as a column is read, in WHERE, in SET or
/// in RETURNING; so does this.
fn reads_if_columns(walk: &mut Walk, relation: &Option<RangeVar>) {
    if walk.reads_columns {
        walk.relation_if(Verb::Select, relation);
    }
}

impl Visit for MergeStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            source_relation,
            join_condition,
            merge_when_clauses,
            returning_clause,
            with_clause,
        } = self;
        in_scope(walk, with_clause, |walk| {
            // The condition reads the target.
            walk.relation_if(Verb::Select, relation);
            for clause in merge_when_clauses {
                let Some(NodeEnum::MergeWhenClause(clause)) = &clause.node else {
                    return Err(super::unknown_node());
                };
                let Some(verb) = merge_verb(clause)? else {
                    continue;
                };
                walk.relation_if(verb, relation);
                if let Some(all) = all_rows(verb)
                    && !merge_picks_rows(join_condition.as_deref(), clause)?
                {
                    walk.relation_if(all, relation);
                }
            }
            source_relation.visit(walk)?;
            join_condition.visit(walk)?;
            merge_when_clauses.visit(walk)?;
            returning_clause.visit(walk)
        })
    }
}

fn merge_verb(clause: &MergeWhenClause) -> Result<Option<Verb>, Refusal> {
    match known(clause.command_type)? {
        CmdType::CmdInsert => Ok(Some(Verb::Insert)),
        CmdType::CmdUpdate => Ok(Some(Verb::Update)),
        CmdType::CmdDelete => Ok(Some(Verb::Delete)),
        CmdType::CmdNothing => Ok(None),
        CmdType::Undefined
        | CmdType::CmdUnknown
        | CmdType::CmdSelect
        | CmdType::CmdMerge
        | CmdType::CmdUtility => Err(super::unknown_node()),
    }
}

impl Visit for MergeWhenClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            match_kind,
            command_type,
            r#override,
            condition,
            target_list,
            values,
        } = self;
        known::<MergeMatchKind>(*match_kind)?;
        known::<OverridingKind>(*r#override)?;
        condition.visit(walk)?;
        let inserts = known::<CmdType>(*command_type)? == CmdType::CmdInsert;
        walk.facts.all_columns |= inserts && target_list.is_empty();
        assigned(walk, target_list)?;
        values.visit(walk)
    }
}

/// Targets of an assignment: their names are columns.
fn assigned(walk: &mut Walk, targets: &[Node]) -> Walked {
    for target in targets {
        if let Some(NodeEnum::ResTarget(target)) = &target.node {
            walk.column(&target.name);
            // `SET a = 42`.
            target.val.iter().for_each(|value| walk.indifferent(value));
        }
        target.visit(walk)?;
    }
    Ok(())
}

impl Visit for TruncateStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relations,
            restart_seqs: _,
            behavior,
        } = self;
        each(relations, |relation| {
            walk.relation(Verb::Truncate, relation)
        })?;
        // CASCADE reaches tables that are not named.
        if known::<DropBehavior>(*behavior)? == DropBehavior::DropCascade {
            walk.database(Verb::Truncate);
        }
        Ok(())
    }
}

/// `AccessShareLock` (lockdefs.h).
const ACCESS_SHARE: i32 = 1;

impl Visit for LockStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relations,
            mode,
            nowait: _,
        } = self;
        // ACCESS SHARE is what every SELECT takes, and all it takes the right for.
        let verb = match *mode {
            ACCESS_SHARE => Verb::Select,
            _ => Verb::Lock,
        };
        each(relations, |relation| walk.relation(verb, relation))
    }
}

/// Calls `one` for each relation of a list that holds nothing else.
pub(super) fn each(relations: &[Node], mut one: impl FnMut(&RangeVar)) -> Walked {
    for relation in relations {
        match &relation.node {
            Some(NodeEnum::RangeVar(relation)) => one(relation),
            _ => return Err(super::unknown_node()),
        }
    }
    Ok(())
}

impl Visit for CopyStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            query,
            attlist,
            is_from,
            is_program,
            filename,
            options,
            where_clause,
        } = self;
        let verb = if *is_from { Verb::Insert } else { Verb::Select };
        walk.relation_if(verb, relation);
        walk.facts.all_columns |= relation.is_some() && attlist.is_empty();
        for column in attlist {
            walk.column(string(column)?);
        }
        match (*is_program || !filename.is_empty(), *is_from) {
            (true, _) => walk.target(Verb::Program),
            (false, true) => walk.facts.copy_in = true,
            (false, false) => {
                walk.facts.copy_out = walk.facts.copy_out.and(copy::out(options));
            }
        }
        query.visit(walk)?;
        options.visit(walk)?;
        where_clause.visit(walk)
    }
}

/// `ON CONFLICT (column, expression)`.
impl Visit for InferClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            index_elems,
            where_clause,
            conname: _,
            location: _,
        } = self;
        index_elems.visit(walk)?;
        where_clause.visit(walk)
    }
}
