//! What concerns the session: settings, transactions, cursors, prepared
//! statements, notifications.

use std::borrow::Cow;

use lockgate_command::Verb;
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::{Visit, Walk, Walked, known};
use crate::names::cut;
use crate::settings;

impl Visit for VariableSetStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            kind,
            name,
            args,
            jumble_args: _,
            is_local: _,
            location: _,
        } = self;
        match known(*kind)? {
            VariableSetKind::VarSetValue => {
                let values: Option<Vec<Cow<str>>> = args.iter().map(word).collect();
                // Else a fraction, or an interval of SET TIME ZONE.
                let values = values.unwrap_or_default();
                let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
                settings::set(walk, name, Some(&values))
            }
            VariableSetKind::VarSetDefault | VariableSetKind::VarReset => {
                settings::set(walk, name, None)
            }
            VariableSetKind::VarResetAll => {
                settings::reset_all(walk);
                Ok(())
            }
            // SET TRANSACTION, SET SESSION CHARACTERISTICS.
            VariableSetKind::VarSetMulti => {
                walk.session();
                args.visit(walk)
            }
            // Only in the definition of a function.
            VariableSetKind::VarSetCurrent => Ok(()),
            VariableSetKind::Undefined => Err(super::unknown_node()),
        }
    }
}

/// A value of SET that is a string, a bare word or a whole number.
fn word(node: &Node) -> Option<Cow<'_, str>> {
    let NodeEnum::AConst(AConst {
        isnull: false,
        location: _,
        val: Some(value),
    }) = node.node.as_ref()?
    else {
        return None;
    };
    match value {
        a_const::Val::Sval(text) => Some(text.sval.as_str().into()),
        a_const::Val::Ival(number) => Some(number.ival.to_string().into()),
        _ => None,
    }
}

impl Visit for VariableShowStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { name: _ } = self;
        walk.session();
        Ok(())
    }
}

impl Visit for DiscardStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { target } = self;
        match known(*target)? {
            DiscardMode::DiscardAll => settings::reset_all(walk),
            DiscardMode::DiscardTemp => {
                walk.session();
                walk.facts.names_change = true;
            }
            DiscardMode::DiscardPlans | DiscardMode::DiscardSequences => walk.session(),
            DiscardMode::Undefined => return Err(super::unknown_node()),
        }
        Ok(())
    }
}

impl Visit for TransactionStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            kind,
            options,
            savepoint_name: _,
            gid: _,
            chain: _,
            location: _,
        } = self;
        match known(*kind)? {
            TransactionStmtKind::TransStmtBegin
            | TransactionStmtKind::TransStmtStart
            | TransactionStmtKind::TransStmtCommit
            | TransactionStmtKind::TransStmtSavepoint
            | TransactionStmtKind::TransStmtRelease => walk.session(),
            // A search_path or a temporary table may be undone.
            TransactionStmtKind::TransStmtRollback | TransactionStmtKind::TransStmtRollbackTo => {
                walk.session();
            }
            // A prepared transaction is everybody's: it keeps its locks when
            // the session is gone, and may be another session's.
            TransactionStmtKind::TransStmtPrepare
            | TransactionStmtKind::TransStmtCommitPrepared
            | TransactionStmtKind::TransStmtRollbackPrepared => walk.target(Verb::System),
            TransactionStmtKind::Undefined => return Err(super::unknown_node()),
        }
        options.visit(walk)
    }
}

impl Visit for ExplainStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { query, options } = self;
        options.visit(walk)?;
        // Planning folds functions and ANALYZE runs it all.
        query.visit(walk)
    }
}

impl Visit for PrepareStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            name,
            argtypes,
            query,
        } = self;
        let mut prepared = Walk::default();
        argtypes.visit(&mut prepared)?;
        query.visit(&mut prepared)?;
        let mut named = prepared.facts.clone();
        // Places in this text say nothing of the text that executes it.
        named.indifferent.clear();
        walk.facts.prepares.push((cut(name).to_owned(), named));
        walk.facts.take(prepared.facts);
        Ok(())
    }
}

/// Whoever resolves the text says what is behind the name.
impl Visit for ExecuteStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { name, params } = self;
        walk.facts.executes.insert(cut(name).to_owned());
        params.visit(walk)
    }
}

impl Visit for DeclareCursorStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            portalname: _,
            options: _,
            query,
        } = self;
        walk.facts.declares = true;
        query.visit(walk)
    }
}

/// Statements that change nothing but the session.
macro_rules! session {
    ($($statement:ident { $($other:ident),* })*) => {$(
        impl Visit for $statement {
            fn visit(&self, walk: &mut Walk) -> Walked {
                let Self { $($other: _),* } = self;
                walk.session();
                Ok(())
            }
        }
    )*};
}

session! {
    ClosePortalStmt { portalname }
    DeallocateStmt { name, isall, location }
    UnlistenStmt { conditionname }
    ConstraintsSetStmt { constraints, deferred }
}

/// The cursor's query was decided on at DECLARE.
impl Visit for FetchStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            direction: _,
            how_many: _,
            portalname: _,
            ismove: _,
        } = self;
        walk.session();
        walk.facts.fetches = true;
        Ok(())
    }
}

impl Visit for ListenStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self { conditionname: _ } = self;
        walk.database(Verb::Listen);
        Ok(())
    }
}

impl Visit for NotifyStmt {
    fn visit(&self, walk: &mut Walk) -> Walked {
        let Self {
            conditionname: _,
            payload: _,
            payload_location: _,
        } = self;
        walk.database(Verb::Notify);
        Ok(())
    }
}
