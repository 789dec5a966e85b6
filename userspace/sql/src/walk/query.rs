//! SELECT, and what stands in its clauses.

use std::collections::BTreeSet;
use std::string::String;

use lockgate_command::Verb;
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::expression::{constant, is_name};
use super::{Locked, Visit, Walk, Walked, known, name, qualified, string};
use crate::names::{Name, Need, cut};
use crate::prescan::refusal;

impl Visit for SelectStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            distinct_clause,
            into_clause,
            target_list,
            from_clause,
            where_clause,
            group_clause,
            group_distinct: _,
            having_clause,
            window_clause,
            values_lists,
            sort_clause,
            limit_offset,
            limit_count,
            limit_option,
            locking_clause,
            with_clause,
            op,
            all: _,
            larg,
            rarg,
        } = self;
        known::<LimitOption>(*limit_option)?;
        known::<SetOperation>(*op)?;
        let locked = std::mem::take(&mut walk.locked);
        in_scope(walk, with_clause, |walk| {
            into_clause.visit(walk)?;
            walk.locked = lock_of(locking_clause, locked)?;
            from_clause.visit(walk)?;
            // Only FROM is locked, and nothing in the arms of a UNION.
            walk.locked = Locked::None;
            distinct_clause.visit(walk)?;
            walk.setting = only_setting(from_clause, where_clause.as_deref());
            target_list.visit(walk)?;
            walk.setting = None;
            where_clause.visit(walk)?;
            group_clause.visit(walk)?;
            having_clause.visit(walk)?;
            window_clause.visit(walk)?;
            for row in values_lists {
                if let Some(NodeEnum::List(List { items })) = &row.node {
                    items.iter().for_each(|value| walk.indifferent(value));
                }
            }
            values_lists.visit(walk)?;
            sort_clause.visit(walk)?;
            limit_offset.visit(walk)?;
            limit_count.visit(walk)?;
            larg.visit(walk)?;
            rarg.visit(walk)
        })
    }
}

/// The constant of `FROM pg_settings WHERE name = 'constant'`. psql and pg_dump
/// set what the server may not have by `SELECT set_config(name, …)` from there.
fn only_setting(from: &[Node], condition: Option<&Node>) -> Option<String> {
    let [
        Node {
            node: Some(NodeEnum::RangeVar(settings)),
        },
    ] = from
    else {
        return None;
    };
    let Some(NodeEnum::AExpr(condition)) = &condition?.node else {
        return None;
    };
    let schema = &*settings.schemaname;
    let equals = condition.kind == AExprKind::AexprOp as i32
        && matches!(&condition.name[..], [name] if string(name) == Ok("="));
    let plain = matches!(schema, "" | "pg_catalog")
        && settings.relname == "pg_settings"
        && settings.alias.is_none();
    if !plain || !equals || !is_name(condition.lexpr.as_deref()?) {
        return None;
    }
    constant(condition.rexpr.as_deref()?).map(str::to_owned)
}

/// What of a FROM clause is locked, by the SELECT's own clauses or since the
/// SELECT itself stands in a FROM clause that is.
fn lock_of(clauses: &[Node], outer: Locked) -> Result<Locked, lockgate_command::Refusal> {
    let mut only = BTreeSet::new();
    for clause in clauses {
        let Some(NodeEnum::LockingClause(clause)) = &clause.node else {
            return Err(refusal(
                "an unknown locking clause",
                "report it with the statement",
            ));
        };
        let LockingClause {
            locked_rels,
            strength,
            wait_policy,
        } = clause;
        known::<LockClauseStrength>(*strength)?;
        known::<LockWaitPolicy>(*wait_policy)?;
        if locked_rels.is_empty() {
            return Ok(Locked::All);
        }
        for relation in locked_rels {
            match &relation.node {
                Some(NodeEnum::RangeVar(relation)) => {
                    only.insert(cut(&relation.relname).to_owned())
                }
                _ => return Ok(Locked::All),
            };
        }
    }
    Ok(match outer {
        Locked::All => Locked::All,
        Locked::None | Locked::Only(_) if only.is_empty() => Locked::None,
        Locked::None | Locked::Only(_) => Locked::Only(only),
    })
}

/// Runs `body` where the names of `with` hide relations.
pub(super) fn in_scope(
    walk: &mut Walk,
    with: &Option<WithClause>,
    body: impl FnOnce(&mut Walk) -> Walked,
) -> Walked {
    let Some(WithClause {
        ctes,
        recursive,
        location: _,
    }) = with
    else {
        return body(walk);
    };
    let mut names = BTreeSet::new();
    if *recursive {
        for cte in ctes {
            names.insert(cte_name(cte)?);
        }
    }
    // Without RECURSIVE each sees only those before it: in
    // `WITH t AS (SELECT * FROM t)` the inner t is a relation.
    walk.hidden.push(names);
    for cte in ctes {
        cte.visit(walk)?;
        let name = cte_name(cte)?;
        if let Some(names) = walk.hidden.last_mut() {
            names.insert(name);
        }
    }
    let result = body(walk);
    walk.hidden.pop();
    result
}

fn cte_name(cte: &Node) -> Result<String, lockgate_command::Refusal> {
    match &cte.node {
        Some(NodeEnum::CommonTableExpr(cte)) => Ok(cut(&cte.ctename).to_owned()),
        _ => Err(refusal(
            "an unknown WITH clause",
            "report it with the statement",
        )),
    }
}

impl Visit for CommonTableExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            ctename: _,
            aliascolnames,
            ctematerialized,
            ctequery,
            search_clause,
            cycle_clause,
            location: _,
            cterecursive: _,
            cterefcount: _,
            ctecolnames,
            ctecoltypes,
            ctecoltypmods,
            ctecolcollations,
        } = self;
        known::<CteMaterialize>(*ctematerialized)?;
        ctequery.visit(walk)?;
        search_clause.visit(walk)?;
        cycle_clause.visit(walk)?;
        // Labels; and what only the planner fills in.
        aliascolnames.visit(walk)?;
        ctecolnames.visit(walk)?;
        ctecoltypes.visit(walk)?;
        ctecoltypmods.visit(walk)?;
        ctecolcollations.visit(walk)
    }
}

/// A relation in a FROM clause.
impl Visit for RangeVar {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            catalogname: _,
            schemaname,
            relname,
            inh: _,
            relpersistence: _,
            alias,
            location: _,
        } = self;
        if schemaname.is_empty() && walk.hides(relname) {
            return Ok(());
        }
        walk.relation(Verb::Select, self);
        let called = alias.as_ref().map_or(relname, |alias| &alias.aliasname);
        let locks = match &walk.locked {
            Locked::None => false,
            Locked::All => true,
            Locked::Only(names) => names.contains(cut(called)),
        };
        if locks {
            walk.need(Need::Relation(Verb::Lock, name(schemaname, relname)));
        }
        Ok(())
    }
}

impl Visit for RangeSubselect {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            lateral: _,
            subquery,
            alias,
        } = self;
        let outer = walk.locked.clone();
        if let Locked::Only(names) = &outer {
            let called = alias
                .as_ref()
                .is_some_and(|alias| names.contains(cut(&alias.aliasname)));
            walk.locked = if called { Locked::All } else { Locked::None };
        }
        subquery.visit(walk)?;
        walk.locked = outer;
        Ok(())
    }
}

impl Visit for JoinExpr {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            jointype,
            is_natural,
            larg,
            rarg,
            using_clause,
            join_using_alias,
            quals,
            alias,
            rtindex: _,
        } = self;
        known::<JoinType>(*jointype)?;
        larg.visit(walk)?;
        rarg.visit(walk)?;
        // What USING and NATURAL compare by.
        if *is_natural || !using_clause.is_empty() {
            walk.need(Need::Operator(Name::new(None, "=")));
        }
        walk.facts.all_columns |= *is_natural;
        for column in using_clause {
            walk.column(string(column)?);
        }
        for alias in alias.iter().chain(join_using_alias) {
            walk.facts.rows.insert(cut(&alias.aliasname).to_owned());
            walk.facts.all_columns |= !alias.colnames.is_empty();
        }
        let locked = std::mem::take(&mut walk.locked);
        quals.visit(walk)?;
        walk.locked = locked;
        Ok(())
    }
}

impl Visit for RangeTableSample {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            relation,
            method,
            args,
            repeatable,
            location: _,
        } = self;
        relation.visit(walk)?;
        // The built-in methods are functions by their names.
        walk.need(Need::Function(qualified(method)?));
        args.visit(walk)?;
        repeatable.visit(walk)
    }
}

/// SELECT … INTO and CREATE TABLE AS.
impl Visit for IntoClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            rel,
            col_names,
            access_method,
            options,
            on_commit,
            table_space_name: _,
            view_query,
            skip_data: _,
        } = self;
        known::<OnCommitAction>(*on_commit)?;
        walk.creates(rel);
        walk.access_method(access_method);
        options.visit(walk)?;
        col_names.visit(walk)?;
        match view_query {
            Some(_) => Err(refusal(
                "a query of the planner",
                "report it with the statement",
            )),
            None => Ok(()),
        }
    }
}

/// The locking clauses are read with their SELECT.
impl Visit for LockingClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            locked_rels,
            strength,
            wait_policy,
        } = self;
        known::<LockClauseStrength>(*strength)?;
        known::<LockWaitPolicy>(*wait_policy)?;
        locked_rels.visit(walk)
    }
}

// The rest only holds expressions and parts of the FROM clause.

impl Visit for RangeFunction {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            lateral: _,
            ordinality: _,
            is_rowsfrom: _,
            functions,
            alias,
            coldeflist,
        } = self;
        functions.visit(walk)?;
        alias.visit(walk)?;
        coldeflist.visit(walk)?;
        Ok(())
    }
}

impl Visit for WithClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            ctes,
            recursive: _,
            location: _,
        } = self;
        ctes.visit(walk)?;
        Ok(())
    }
}

impl Visit for CteSearchClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            search_col_list,
            search_breadth_first: _,
            search_seq_column: _,
            location: _,
        } = self;
        search_col_list.visit(walk)?;
        Ok(())
    }
}

impl Visit for CteCycleClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            cycle_col_list,
            cycle_mark_column: _,
            cycle_mark_value,
            cycle_mark_default,
            cycle_path_column: _,
            location: _,
            cycle_mark_type: _,
            cycle_mark_typmod: _,
            cycle_mark_collation: _,
            cycle_mark_neop: _,
        } = self;
        cycle_col_list.visit(walk)?;
        cycle_mark_value.visit(walk)?;
        cycle_mark_default.visit(walk)?;
        Ok(())
    }
}

impl Visit for GroupingSet {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            kind,
            content,
            location: _,
        } = self;
        known::<GroupingSetKind>(*kind)?;
        content.visit(walk)?;
        Ok(())
    }
}

impl Visit for WindowDef {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            name: _,
            refname: _,
            partition_clause,
            order_clause,
            frame_options: _,
            start_offset,
            end_offset,
            location: _,
        } = self;
        partition_clause.visit(walk)?;
        order_clause.visit(walk)?;
        start_offset.visit(walk)?;
        end_offset.visit(walk)?;
        Ok(())
    }
}

impl Visit for ReturningClause {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { options, exprs } = self;
        // Whole rows before and after, since PostgreSQL 18.
        walk.facts.rows.extend(["old".into(), "new".into()]);
        options.visit(walk)?;
        exprs.visit(walk)?;
        Ok(())
    }
}

impl Visit for ReturningOption {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            option,
            value,
            location: _,
        } = self;
        known::<ReturningOptionKind>(*option)?;
        walk.facts.rows.insert(cut(value).to_owned());
        Ok(())
    }
}
