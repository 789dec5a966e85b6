use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{EntityUid, PolicySet};
use lockgate_command::{ResourceKind, TargetName, Verb, WorkloadName};
use lockgate_config::Config;

use crate::entities::{Chain, Tags};
use crate::read::Placed;
use crate::scope::{Scope, Who};
use crate::vocabulary::Vocabulary;

/// The policies that can apply to one workload at one target.
///
/// Cedar's cost is linear in the policies it is given. Here they are sorted at
/// load by what their heads say, so that a request meets only those that can
/// apply: per verb those for the whole target, and those for each single
/// resource that a head names. Asking the parts one after the other gives what
/// asking all at once gives: one satisfied `forbid` denies, else one satisfied
/// `permit` allows, and no policy sees another.
#[derive(Debug)]
pub(crate) struct Slice {
    /// Names the slice in keys of the cache.
    pub(crate) number: u32,
    pub(crate) workload: WorkloadName,
    pub(crate) target: TargetName,
    pub(crate) tags: Arc<Tags>,
    /// In the order of [`Verb::ALL`].
    verbs: Vec<ByResource>,
    /// Verbs that some policy permits on some part of the target.
    pub(crate) permitted: Vec<Verb>,
}

#[derive(Debug, Default)]
struct ByResource {
    whole: Option<Arc<PolicySet>>,
    single: HashMap<EntityUid, Arc<PolicySet>>,
}

impl Slice {
    /// The sets a request must be asked of.
    pub(crate) fn sets<'a>(
        &'a self,
        verb: Verb,
        chain: &'a Chain,
    ) -> impl Iterator<Item = &'a PolicySet> {
        let by = &self.verbs[verb as usize];
        let single = chain.uids().filter_map(|uid| by.single.get(uid));
        by.whole.iter().chain(single).map(AsRef::as_ref)
    }
}

/// All slices, by workload and target.
pub(crate) type Slices = HashMap<WorkloadName, HashMap<TargetName, Slice>>;

/// Cuts the policies into slices for every workload and target of the
/// configuration and for `unknown`. The error is for the operator.
pub(crate) fn cut(
    policies: &[(Placed, Scope)],
    config: &Config,
    vocabulary: &Vocabulary,
) -> Result<Slices, String> {
    let mut sets = Sets {
        policies,
        known: HashMap::new(),
    };
    let mut tags = HashMap::new();
    for target in &config.targets {
        tags.insert(target.name.as_str(), Arc::new(Tags::new(target)?));
    }
    // Policies that name a target, and those that do not.
    let mut by_target: HashMap<String, Vec<usize>> = HashMap::new();
    let mut anywhere = Vec::new();
    for (index, (_, scope)) in policies.iter().enumerate() {
        match scope.resource.target() {
            None => anywhere.push(index),
            Some(target) => by_target.entry(target).or_default().push(index),
        }
    }
    let unknown = WorkloadName::unknown();
    let workloads = config
        .workloads
        .iter()
        .map(|workload| workload.name.as_str());
    let mut slices = Slices::new();
    let mut number = 0;
    for workload in workloads.chain([unknown.as_str()]) {
        for (target, tags) in &tags {
            let named = by_target.get(*target).into_iter().flatten();
            let mut candidates: Vec<usize> = anywhere
                .iter()
                .chain(named)
                .copied()
                .filter(|index| policies[*index].1.speaks_of(workload))
                .collect();
            candidates.sort_unstable();
            let by_verb = |verb: &Verb| sets.by_resource(*verb, &candidates);
            let verbs = Verb::ALL
                .iter()
                .map(by_verb)
                .collect::<Result<Vec<_>, _>>()?;
            let permits = |verb: &Verb| {
                candidates.iter().any(|index| {
                    let (placed, scope) = &policies[*index];
                    !placed.forbids()
                        && scope.verbs.contains(*verb)
                        && applies(*verb, scope, vocabulary)
                })
            };
            let slice = Slice {
                number,
                workload: WorkloadName::from(workload),
                target: TargetName::from(*target),
                tags: tags.clone(),
                verbs,
                permitted: Verb::ALL.iter().copied().filter(permits).collect(),
            };
            number += 1;
            slices
                .entry(slice.workload.clone())
                .or_default()
                .insert(slice.target.clone(), slice);
        }
    }
    Ok(slices)
}

/// Whether the schema knows the verb for a kind of resource in the scope, so
/// that a permit on a table is not taken for one to connect.
fn applies(verb: Verb, scope: &Scope, vocabulary: &Vocabulary) -> bool {
    debug_assert!(!matches!(scope.workload, Who::Nobody));
    let action = vocabulary.action(verb).uid();
    let Some(kinds) = vocabulary.schema.resources_for_action(&action) else {
        return false;
    };
    let mut kinds = kinds.filter_map(|name| vocabulary.kind_of(name));
    kinds.any(|kind| scope.resource.can_be(kind))
}

/// Equal sets are made once and shared by slices.
struct Sets<'a> {
    policies: &'a [(Placed, Scope)],
    known: HashMap<Vec<usize>, Arc<PolicySet>>,
}

impl Sets<'_> {
    fn by_resource(&mut self, verb: Verb, candidates: &[usize]) -> Result<ByResource, String> {
        let mut whole = Vec::new();
        let mut single: HashMap<&EntityUid, Vec<usize>> = HashMap::new();
        for &index in candidates {
            let (_, scope) = &self.policies[index];
            if !scope.verbs.contains(verb) {
                continue;
            }
            match &scope.resource.anchor {
                Some(anchor) if anchor.kind != Some(ResourceKind::Target) => {
                    single.entry(&anchor.uid).or_default().push(index);
                }
                _ => whole.push(index),
            }
        }
        // A policy for the target alone is asked about everything in it, and
        // Cedar itself finds that it does not apply.
        let single: Vec<(EntityUid, Vec<usize>)> = single
            .into_iter()
            .map(|(uid, indices)| (uid.clone(), indices))
            .collect();
        Ok(ByResource {
            whole: match whole.is_empty() {
                true => None,
                false => Some(self.set(whole)?),
            },
            single: single
                .into_iter()
                .map(|(uid, indices)| Ok((uid, self.set(indices)?)))
                .collect::<Result<_, String>>()?,
        })
    }

    fn set(&mut self, indices: Vec<usize>) -> Result<Arc<PolicySet>, String> {
        if let Some(set) = self.known.get(&indices) {
            return Ok(set.clone());
        }
        let policies = indices
            .iter()
            .map(|index| self.policies[*index].0.policy.clone());
        let set = PolicySet::from_policies(policies).map_err(|error| error.to_string())?;
        let set = Arc::new(set);
        self.known.insert(indices, set.clone());
        Ok(set)
    }
}
