//! Names in policies: workloads and targets must be those of the
//! configuration, ids must have the form of their type.

use cedar_policy::EntityUid;
use lockgate_command::{ResourceKind, WorkloadName};
use lockgate_config::Config;

use crate::read::Placed;
use crate::vocabulary::Vocabulary;
use crate::{Finding, Severity};

/// What is wrong with the names in `placed`. A mistyped name in a `forbid`
/// would forbid nothing, so this refuses the set.
pub(crate) fn names(placed: &Placed, config: &Config, vocabulary: &Vocabulary) -> Vec<Finding> {
    let mut literals = placed.policy.entity_literals();
    literals.sort();
    literals.dedup();
    literals
        .iter()
        .filter_map(|uid| {
            let (message, suggestion) = wrong(uid, config, vocabulary)?;
            let id = uid.id().unescaped();
            Some(placed.finding(Severity::Error, Some(id), message, suggestion))
        })
        .collect()
}

fn wrong(
    uid: &EntityUid,
    config: &Config,
    vocabulary: &Vocabulary,
) -> Option<(String, Option<String>)> {
    let id = uid.id().unescaped();
    if vocabulary.is_workload(uid.type_name()) {
        let unknown = WorkloadName::unknown();
        let names = config
            .workloads
            .iter()
            .map(|workload| workload.name.as_str());
        let names: Vec<&str> = names.chain([unknown.as_str()]).collect();
        return (!names.contains(&id)).then(|| {
            let message = format!("{uid}: the configuration has no [[workload]] of this name");
            (message, did_you_mean(id, names))
        });
    }
    let kind = vocabulary.kind_of(uid.type_name())?;
    let path: Vec<&str> = id.split('/').collect();
    if path.len() != kind.depth() + 1 || !path.iter().all(|name| is_escaped(name)) {
        let message = format!("{uid}: this is not the id of a {}", kind.as_str());
        return Some((message, Some(format!("write it as {}", form(kind)))));
    }
    let target = unescape(path[0]);
    let names: Vec<&str> = config
        .targets
        .iter()
        .map(|target| target.name.as_str())
        .collect();
    (!names.contains(&target.as_str())).then(|| {
        let message = format!("{uid}: the configuration has no [[target]] `{target}`");
        (message, did_you_mean(&target, names))
    })
}

/// The form of an id, with an example's names.
pub(crate) fn form(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Target => r#"Target::"orders-db""#,
        ResourceKind::Database => r#"Database::"orders-db/shop" (target/database)"#,
        ResourceKind::Schema => r#"Schema::"orders-db/shop/public" (target/database/schema)"#,
        ResourceKind::Table => {
            r#"Table::"orders-db/shop/public/customers" (target/database/schema/table)"#
        }
        ResourceKind::Column => {
            r#"Column::"orders-db/shop/public/customers/ssn" (target/database/schema/table/column)"#
        }
        ResourceKind::Function => {
            r#"Function::"orders-db/shop/public/refund" (target/database/schema/function)"#
        }
    }
}

/// Whether a name in a path is not empty and every `%` in it begins `%25` or
/// `%2F`, the only two escapes there are.
pub(crate) fn is_escaped(name: &str) -> bool {
    !name.is_empty()
        && name
            .split('%')
            .skip(1)
            .all(|rest| rest.starts_with("25") || rest.starts_with("2F"))
}

pub(crate) fn unescape(name: &str) -> String {
    name.replace("%2F", "/").replace("%25", "%")
}

/// The closest of `names`, as a suggestion, or all of them if none is close.
pub(crate) fn did_you_mean<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let names: Vec<&str> = names.into_iter().collect();
    if let Some(name) = closest(wrong, names.iter().copied()) {
        return Some(format!("did you mean `{name}`?"));
    }
    match names.as_slice() {
        [] => None,
        some => Some(format!("there are: {}", some.join(", "))),
    }
}

/// The name that `wrong` was probably meant to be.
pub fn closest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}
