use std::sync::Arc;

use lockgate_command::{Access, Denial, PolicyRef, Verdict};

use crate::read::Placed;
use crate::slice::Slice;

/// Longest name of a resource in a message, in characters: names come from the
/// client and can be as long as a statement.
const LONGEST: usize = 200;

/// What the policies say of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether all of its accesses are permitted.
    pub verdict: Verdict,
    /// The policies that decided: those that permit, when it is allowed; also
    /// those that forbid `view`, when it is masked; those that forbid, when it
    /// is denied; none when nothing permits an access.
    pub policies: Vec<PolicyRef>,
}

impl Decision {
    /// The same denial, for a value that might have been masked but for `why`.
    pub(crate) fn unmasked(mut self, why: &str) -> Self {
        if let Verdict::Deny(denial) = &mut self.verdict {
            let denial = Arc::make_mut(denial);
            denial.hint = format!("it cannot be shown masked: {why}. {}", denial.hint);
        }
        self
    }
}

/// What the policies say of one access; kept in the cache.
#[derive(Clone, Debug)]
pub(crate) enum Ruled {
    Permitted(Vec<PolicyRef>),
    /// Nothing permits it, and nothing forbids it.
    Unpermitted(Arc<Denial>),
    /// A policy forbids it, or the decision failed.
    Denied(Arc<Denial>),
}

impl Ruled {
    pub(crate) fn forbidden(slice: &Slice, access: &Access, by: &[&Placed]) -> Self {
        let mut by = by.to_vec();
        by.sort_by(|a, b| a.reference.cmp(&b.reference));
        let policies: Vec<String> = by.iter().map(|placed| named(placed)).collect();
        let (word, whose) = match by.as_slice() {
            [_] => ("policy", "it is"),
            _ => ("policies", "they are"),
        };
        Self::denied(
            format!(
                "lockgate: `{}` on {} is forbidden to `{}` by {word} {}",
                access.verb,
                quoted(slice, access),
                slice.workload,
                policies.join("; ")
            ),
            format!(
                "a permit does not lift a forbid; {whose} changed by the operators of lockgate. {}",
                permitted(slice)
            ),
            by.iter().map(|placed| placed.reference.clone()).collect(),
            access,
        )
    }

    pub(crate) fn unpermitted(slice: &Slice, access: &Access) -> Self {
        let hint = match how_to_allow(slice, access) {
            Some(how) => format!("{}; {how}", permitted(slice)),
            None => permitted(slice),
        };
        Self::Unpermitted(denial(
            format!(
                "lockgate: no policy permits `{}` on {} to `{}`",
                access.verb,
                quoted(slice, access),
                slice.workload
            ),
            hint,
            Vec::new(),
            access,
        ))
    }

    /// A policy could not be evaluated, or the request could not be made.
    pub(crate) fn failed(
        slice: &Slice,
        access: &Access,
        why: &str,
        policies: Vec<PolicyRef>,
    ) -> Self {
        Self::denied(
            format!(
                "lockgate: `{}` on {} is denied to `{}`, since the decision failed: {why}",
                access.verb,
                quoted(slice, access),
                slice.workload
            ),
            "whatever cannot be decided is denied; the operators of lockgate have to mend the policy".into(),
            policies,
            access,
        )
    }

    fn denied(message: String, hint: String, policies: Vec<PolicyRef>, access: &Access) -> Self {
        Self::Denied(denial(message, hint, policies, access))
    }
}

fn denial(message: String, hint: String, policies: Vec<PolicyRef>, access: &Access) -> Arc<Denial> {
    Arc::new(Denial {
        message,
        hint,
        policies,
        access: Some(access.clone()),
    })
}

fn named(placed: &Placed) -> String {
    let PolicyRef { id, file, line } = &placed.reference;
    match &placed.reason {
        Some(reason) => format!("`{id}` ({file}:{line}): {reason}"),
        None => format!("`{id}` ({file}:{line})"),
    }
}

fn quoted(slice: &Slice, access: &Access) -> String {
    let id = access.resource.entity_id(&slice.target);
    let mut text: String = id.escape_debug().take(LONGEST).collect();
    if text.len() < id.len() {
        text.push('…');
    }
    format!("{} \"{text}\"", access.resource.kind().as_str())
}

fn permitted(slice: &Slice) -> String {
    let Slice {
        workload,
        target,
        permitted,
        ..
    } = slice;
    if permitted.is_empty() {
        return format!("nothing on `{target}` is permitted to `{workload}`");
    }
    let verbs: Vec<&str> = permitted.iter().map(|verb| verb.as_str()).collect();
    format!(
        "permitted to `{workload}` on `{target}`, on all or a part of it: {}",
        verbs.join(", ")
    )
}

/// What an operator can type. Only for names that mean the same to a shell:
/// they come from the client, and somebody may paste them.
fn how_to_allow(slice: &Slice, access: &Access) -> Option<String> {
    if slice.workload == lockgate_command::WorkloadName::unknown() {
        return Some("this process matches no [[workload]] of lockgate's configuration; an operator can add one for it".into());
    }
    let path = access.resource.path();
    if path.get(1).is_some_and(|schema| schema == "?") {
        return Some("the server's catalogue does not have it; check the name".into());
    }
    allow_command(slice, access).map(|command| format!("an operator can run `{command}`"))
}

/// The command that permits an access.
pub(crate) fn allow_command(slice: &Slice, access: &Access) -> Option<String> {
    let path = access.resource.path();
    let is_known = path.get(1).is_none_or(|schema| schema != "?");
    let id = access.resource.entity_id(&slice.target);
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '%' | '@');
    let short = id.len() <= LONGEST && id.chars().all(plain);
    let is_one = slice.workload != lockgate_command::WorkloadName::unknown();
    (is_one && is_known && short).then(|| {
        format!(
            "lockgate policy allow {} {} {id}",
            slice.workload, access.verb
        )
    })
}
