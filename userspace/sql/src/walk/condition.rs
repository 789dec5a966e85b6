//! Whether a condition tells rows apart.

use lockgate_command::{Refusal, Verb};
use pg_query::NodeEnum;
use pg_query::protobuf::*;

use super::{Visit, Walk, known, unknown_node};

/// Whether a statement with this WHERE reaches some rows and not others. It
/// does not where there is none, where it reads no column (`true`, `$1`,
/// `now() > '2020-01-01'`), and where something constant makes it true for all
/// (`id = 7 OR 1 = 1`). One that is never true reaches no row at all.
///
/// What else a condition may mean is not looked at: `id = id` tells rows apart.
/// That is enough against the forgotten WHERE and the injected OR; whoever may
/// change rows one by one can change all of them.
pub(super) fn picks_rows(condition: Option<&Node>) -> Result<bool, Refusal> {
    let Some(condition) = condition else {
        return Ok(false);
    };
    Ok(truth(condition) == Some(false) || tells_apart(condition)?)
}

/// Whether `clause` of a MERGE picks rows of the table, which `join` matches
/// with those of the source.
pub(super) fn merge_picks_rows(
    join: Option<&Node>,
    clause: &MergeWhenClause,
) -> Result<bool, Refusal> {
    let joined = match join {
        // One that is never true leaves every row to NOT MATCHED BY SOURCE.
        Some(join) => tells_apart(join)?,
        None => false,
    };
    Ok(joined || picks_rows(clause.condition.as_deref())?)
}

/// The verb that says that no row is left out.
pub(super) fn all_rows(verb: Verb) -> Option<Verb> {
    match verb {
        Verb::Update => Some(Verb::UpdateAll),
        Verb::Delete => Some(Verb::DeleteAll),
        _ => None,
    }
}

fn tells_apart(condition: &Node) -> Result<bool, Refusal> {
    let expression = match &condition.node {
        Some(NodeEnum::BoolExpr(expression)) => expression,
        // The row that a cursor is on.
        Some(NodeEnum::CurrentOfExpr(_)) => return Ok(true),
        _ => return reads_a_column(condition),
    };
    let any = |parts: &[Node]| {
        parts
            .iter()
            .try_fold(false, |any, part| Ok(any || tells_apart(part)?))
    };
    match known(expression.boolop)? {
        BoolExprType::AndExpr | BoolExprType::NotExpr => any(&expression.args),
        BoolExprType::OrExpr if expression.args.iter().any(|part| truth(part) == Some(true)) => {
            Ok(false)
        }
        BoolExprType::OrExpr => any(&expression.args),
        BoolExprType::Undefined => Err(unknown_node()),
    }
}

fn reads_a_column(expression: &Node) -> Result<bool, Refusal> {
    let mut walk = Walk::default();
    expression.visit(&mut walk)?;
    Ok(walk.reads_columns)
}

/// What a condition without columns comes to, if that is plain to see.
fn truth(condition: &Node) -> Option<bool> {
    match condition.node.as_ref()? {
        NodeEnum::AConst(AConst {
            val: Some(a_const::Val::Boolval(value)),
            ..
        }) => Some(value.boolval),
        NodeEnum::BoolExpr(expression) => {
            let mut parts = expression.args.iter().map(truth);
            match BoolExprType::try_from(expression.boolop).ok()? {
                BoolExprType::NotExpr => parts.next()?.map(|value| !value),
                BoolExprType::AndExpr => fold(parts, false),
                BoolExprType::OrExpr => fold(parts, true),
                BoolExprType::Undefined => None,
            }
        }
        NodeEnum::AExpr(expression) => compared(expression),
        _ => None,
    }
}

/// `decisive` if any part is, the other if all are that.
fn fold(parts: impl Iterator<Item = Option<bool>>, decisive: bool) -> Option<bool> {
    let mut all_known = true;
    for part in parts {
        match part {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(!decisive)
}

/// Two literals compared with `=` or `<>`. Strings that differ may be equal
/// once they are of a type.
fn compared(expression: &AExpr) -> Option<bool> {
    let [
        Node {
            node: Some(NodeEnum::String(operator)),
        },
    ] = expression.name.as_slice()
    else {
        return None;
    };
    let literal = |node: &Option<Box<Node>>| match node.as_ref()?.node.as_ref()? {
        NodeEnum::AConst(AConst {
            isnull: false,
            val: Some(value),
            ..
        }) => Some(value.clone()),
        _ => None,
    };
    let (left, right) = (literal(&expression.lexpr)?, literal(&expression.rexpr)?);
    let equal = match (&left, &right) {
        (a_const::Val::Ival(left), a_const::Val::Ival(right)) => left.ival == right.ival,
        _ if left == right => true,
        _ => return None,
    };
    match (operator.sval.as_str(), AExprKind::try_from(expression.kind)) {
        ("=", Ok(AExprKind::AexprOp)) => Some(equal),
        ("<>", Ok(AExprKind::AexprOp)) => Some(!equal),
        _ => None,
    }
}
