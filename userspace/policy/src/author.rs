use std::fmt::Write as _;

use lockgate_command::{Resource, ResourceKind, TargetName, Verb, WorkloadName};

use crate::check::{closest, is_escaped, unescape};
use crate::vocabulary::Vocabulary;

/// One policy, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authored {
    /// Its `@id`: the same request gives the same id.
    pub id: String,
    /// Cedar text, with a line break at its end.
    pub text: String,
}

/// Why no policy was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// Neither a verb nor a group.
    #[error("`{verb}` is neither a verb nor a group of verbs; {suggestion}")]
    Verb {
        /// As given.
        verb: String,
        /// The closest one, or where to look.
        suggestion: String,
    },
    /// Not of a known form.
    #[error(
        "`{0}` is not a path; write TARGET[/DATABASE[/SCHEMA[/TABLE[/COLUMN]]]], and a `/` or `%` inside a name as %2F or %25"
    )]
    Path(String),
    /// The verb is never asked about such a resource.
    #[error("`{verb}` is never decided on a {kind}; it would permit nothing{hint}")]
    Nothing {
        /// As given.
        verb: String,
        /// What the path names.
        kind: &'static str,
        /// What to write instead, or nothing.
        hint: &'static str,
    },
    /// The schema that this program carries cannot be read.
    #[error("the schema cannot be read: {0}")]
    Schema(String),
}

/// The Cedar text of [`allow_policies`], for a file of its own.
///
/// # Errors
/// As [`allow_policies`].
pub fn allow_policy(
    workload: &WorkloadName,
    verb: &str,
    path: &str,
) -> Result<String, AuthorError> {
    let policies = allow_policies(workload, verb, path)?;
    let texts: Vec<String> = policies.into_iter().map(|policy| policy.text).collect();
    Ok(texts.join("\n"))
}

/// Writes the policies that let `workload` do `verb`, a verb or a group, on
/// what is at `path`: `TARGET[/DATABASE[/SCHEMA[/TABLE[/COLUMN]]]]`, names
/// escaped as in entity ids; the fourth name is a function's if the verb is
/// `call`. They let it connect, too: what is for the whole target permits `use`
/// beside the verb, and for a part of it a second policy permits `use` on the
/// target. One whose id is already in the set ([`crate::Policies::has`]) need
/// not be added again.
///
/// Whether workload and target exist is for [`crate::Policies::load`] to say.
///
/// # Errors
/// When the verb or the path cannot be understood, or do not fit together.
pub fn allow_policies(
    workload: &WorkloadName,
    verb: &str,
    path: &str,
) -> Result<Vec<Authored>, AuthorError> {
    let vocabulary = Vocabulary::new().map_err(AuthorError::Schema)?;
    if !is_verb(verb) && !is_group(verb) {
        let names = Verb::ALL
            .iter()
            .flat_map(|verb| [verb.as_str(), verb.group()]);
        let suggestion = match closest(verb, names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "groups: use, read, write, schema, code, admin, sensitive, execute".into(),
        };
        return Err(AuthorError::Verb {
            verb: verb.to_owned(),
            suggestion,
        });
    }
    let names: Vec<&str> = path.split('/').collect();
    if !names.iter().all(|name| is_escaped(name)) {
        return Err(AuthorError::Path(path.to_owned()));
    }
    let kind = match (names.len(), verb) {
        (1, _) => ResourceKind::Target,
        (2, _) => ResourceKind::Database,
        (3, _) => ResourceKind::Schema,
        (4, "call") => ResourceKind::Function,
        (4, _) => ResourceKind::Table,
        (5, _) => ResourceKind::Column,
        _ => return Err(AuthorError::Path(path.to_owned())),
    };
    if !reaches(&vocabulary, verb, kind) {
        let hint = match kind {
            ResourceKind::Column => {
                ": on columns `view`, `filter` and `sensitive` are decided, the rest on the table"
            }
            _ => "",
        };
        let kind = kind.as_str();
        return Err(AuthorError::Nothing {
            verb: verb.to_owned(),
            kind,
            hint,
        });
    }
    let target = TargetName::from(unescape(names[0]));
    let mut policies = vec![permit(&vocabulary, workload, verb, kind, path)];
    if kind != ResourceKind::Target {
        let id = Resource::target().entity_id(&target);
        let connect = permit(&vocabulary, workload, "use", ResourceKind::Target, &id);
        policies.push(connect);
    }
    Ok(policies)
}

fn permit(
    vocabulary: &Vocabulary,
    workload: &WorkloadName,
    verb: &str,
    kind: ResourceKind,
    path: &str,
) -> Authored {
    let id = format!("allow:{workload}:{verb}:{path}");
    let id: String = id
        .chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '_' })
        .take(200)
        .collect();
    let connects = matches!(verb, "use" | "connect");
    let action = match (kind, is_group(verb)) {
        (ResourceKind::Target, _) if !connects => {
            format!("in [Action::\"use\", Action::\"{verb}\"]")
        }
        (_, true) => format!("in Action::\"{verb}\""),
        (_, false) => format!("== Action::\"{verb}\""),
    };
    // Only a target holds others and is something by itself; leaves are exact.
    let relation = match kind {
        ResourceKind::Column | ResourceKind::Function => "==",
        _ => "in",
    };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "@id(\"{}\")\npermit (\n  principal == {},\n  action {action},\n  resource {relation} {}\n);\n",
        id.escape_default(),
        vocabulary.workload(workload.as_str()),
        vocabulary.resource(kind, path),
    );
    Authored { id, text }
}

fn reaches(vocabulary: &Vocabulary, verb: &str, kind: ResourceKind) -> bool {
    let group = is_group(verb);
    let verbs = Verb::ALL
        .iter()
        .filter(|known| known.as_str() == verb || group && known.group() == verb);
    let below = |name: &cedar_policy::EntityTypeName| {
        vocabulary.kind_of(name).is_some_and(|below| {
            std::iter::successors(Some(below), |kind| kind.parent()).any(|above| above == kind)
        })
    };
    verbs
        .filter_map(|verb| {
            vocabulary
                .schema
                .resources_for_action(&vocabulary.action(*verb).uid())
        })
        .flatten()
        .any(below)
}

fn is_verb(name: &str) -> bool {
    name.parse::<Verb>().is_ok()
}

fn is_group(name: &str) -> bool {
    Verb::ALL.iter().any(|verb| verb.group() == name)
}
