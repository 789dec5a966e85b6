use std::collections::BTreeMap;

use lockgate_command::{Resource, Verb, WorkloadName};

use crate::read::Placed;
use crate::scope::{Scope, Who};
use crate::slice::{Slice, Slices};
use crate::vocabulary::Verbs;
use crate::{Finding, Severity};

/// What is valid and still looks wrong.
pub(crate) fn lint(policies: &[(Placed, Scope)], slices: &Slices) -> Vec<Finding> {
    let mut findings = cannot_connect(policies, slices);
    for (placed, scope) in policies {
        let id = &placed.reference.id;
        let mut warn = |message: String, suggestion: &str| {
            let suggestion = Some(suggestion.to_owned());
            findings.push(placed.finding(Severity::Warning, None, message, suggestion));
        };
        let conditional = placed.policy.has_non_scope_constraint();
        if placed.forbids() {
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

/// Permits that are worth nothing: to do something at a target that the
/// workload may not connect to.
fn cannot_connect(policies: &[(Placed, Scope)], slices: &Slices) -> Vec<Finding> {
    let unknown = WorkloadName::unknown();
    let mut vain: BTreeMap<usize, Vec<(&Slice, Verb)>> = BTreeMap::new();
    for slice in slices.values().flat_map(|targets| targets.values()) {
        if slice.workload == unknown || slice.permitted.contains(&Verb::Connect) {
            continue;
        }
        // Who may see a tag's columns may do so where something else lets it.
        let does = |verb: &&Verb| !matches!(verb.group(), "use" | "sensitive");
        let Some(verb) = slice.permitted.iter().find(does) else {
            continue;
        };
        let permits = |(placed, scope): &(Placed, Scope)| {
            !placed.forbids()
                && scope.verbs.contains(*verb)
                && scope.speaks_of(slice.workload.as_str())
                && scope.resource.reaches(&slice.target)
        };
        if let Some(index) = policies.iter().position(permits) {
            vain.entry(index).or_default().push((slice, *verb));
        }
    }
    let finding = |(index, mut pairs): (usize, Vec<(&Slice, Verb)>)| {
        pairs.sort_by_key(|(slice, _)| (&slice.workload, &slice.target));
        let (
            Slice {
                workload, target, ..
            },
            verb,
        ) = pairs[0];
        let others = match pairs.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let target_id = Resource::target().entity_id(target);
        policies[index].0.finding(
            Severity::Warning,
            None,
            format!(
                "`{workload}` may {verb} at `{target}` but cannot even connect: no policy permits it `use` there{others}"
            ),
            Some(format!(
                "add Action::\"use\" to the actions if the policy is for the whole target, or run `lockgate policy allow {workload} use {target_id}`, which writes: permit (principal == Workload::\"{workload}\", action in Action::\"use\", resource in Target::\"{target_id}\");"
            )),
        )
    };
    vain.into_iter().map(finding).collect()
}
