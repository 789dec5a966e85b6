use lockgate_command::{Verb, WorkloadName};

use crate::read::Placed;
use crate::scope::{Scope, Who};
use crate::vocabulary::Verbs;
use crate::{Finding, Severity};

/// What is valid and still looks wrong.
pub(crate) fn lint(policies: &[(Placed, Scope)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (placed, scope) in policies {
        let id = &placed.reference.id;
        let mut warn = |message: String, suggestion: &str| {
            let suggestion = Some(suggestion.to_owned());
            findings.push(placed.finding(Severity::Warning, None, message, suggestion));
        };
        let conditional = placed.policy.has_non_scope_constraint();
        if placed.forbids() {
            if cuts_the_connection(scope.verbs) && !conditional {
                warn(
                    format!(
                        "forbid `{id}` is for a group that `connect`, `session` and `describe` are in, so that it forbids these, too"
                    ),
                    "add `unless { action in Action::\"use\" }`, or name the verbs",
                );
            }
            let reached = policies
                .iter()
                .any(|(other, reach)| !other.forbids() && reach.overlaps(scope));
            let stays = placed.policy.annotation("guardrail").is_some();
            if !reached && !stays {
                warn(
                    format!("forbid `{id}` takes nothing away: no permit reaches what it forbids"),
                    "check the names in it; if it is meant for permits to come, say so with @guardrail",
                );
            }
            continue;
        }
        let everywhere = scope.resource.kind.is_none() && scope.resource.anchor.is_none();
        match &scope.workload {
            Who::One(name) if name == WorkloadName::unknown().as_str() => warn(
                format!("permit `{id}` is for every process that matches no [[workload]]"),
                "add a [[workload]] for the processes it is meant for and name that",
            ),
            Who::Anyone if everywhere && scope.verbs == Verbs::ALL && !conditional => warn(
                format!("permit `{id}` allows everything to everyone"),
                "name the workload, the action and the resource",
            ),
            Who::Anyone if !conditional => warn(
                format!("permit `{id}` is for every process, those that match no [[workload]] too"),
                "name the workload, or add `unless { principal == Workload::\"unknown\" }`",
            ),
            Who::Anyone | Who::One(_) | Who::Nobody => {}
        }
    }
    findings
}

/// Whether these are verbs of "use" and some others, but not all there are:
/// who forbids everything means the connection, too.
fn cuts_the_connection(verbs: Verbs) -> bool {
    let of_use = |verb: &&Verb| verb.group() == "use";
    let more = Verb::ALL
        .iter()
        .any(|verb| !of_use(&verb) && verbs.contains(*verb));
    verbs != Verbs::ALL
        && more
        && Verb::ALL
            .iter()
            .filter(of_use)
            .all(|verb| verbs.contains(*verb))
}
