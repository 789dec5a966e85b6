use std::collections::BTreeMap;
use std::path::Path;

use lockgate_command::WorkloadName;
use lockgate_config::Workload;

use crate::rule::Rule;
use crate::{Origin, WorkloadError};

/// The `[[workload]]` entries of a configuration, ready to name processes.
///
/// A process belongs to the most specific workload all of whose conditions it
/// meets, and to `unknown` when there is none. Specificity is compared in this
/// order, the first difference decides:
///
/// 1. `container`: more digits of the id over fewer over none;
/// 2. `unit`: a full path of a unit (more components over fewer), then a
///    unit's name, then a path of slices (more components over fewer), then none;
/// 3. `user`, then `sha256`, then `executable`, then `ancestor`: given over
///    not given.
///
/// A workload that has all conditions of another and one more is thus always
/// the more specific. Two of equal specificity that one process can match are
/// refused at load; the order of the entries never matters.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    /// Most specific first.
    rules: Vec<Rule>,
}

impl Workloads {
    /// Checks the entries. `uids` has the numeric uid of each workload's
    /// `user`, by the *workload's* name ([`lockgate_config::Bundle::uids`]); a
    /// numeric `user` needs no entry.
    ///
    /// # Errors
    /// Everything that is wrong, so that it can be mended in one go.
    pub fn load(
        config: &[Workload],
        uids: &BTreeMap<String, u32>,
    ) -> Result<Self, Vec<WorkloadError>> {
        let mut errors = Vec::new();
        let mut rules: Vec<Rule> = Vec::with_capacity(config.len());
        for entry in config {
            match Rule::new(entry, uids.get(&entry.name).copied()) {
                Ok(rule) if rules.iter().any(|other| other.name == rule.name) => {
                    errors.push(WorkloadError::Duplicate(entry.name.clone()));
                }
                Ok(rule) => rules.push(rule),
                Err(error) => errors.push(error),
            }
        }
        // The name only makes the order of equal, disjoint rules a fixed one.
        rules.sort_by(|a, b| {
            b.specificity()
                .cmp(&a.specificity())
                .then_with(|| a.name.cmp(&b.name))
        });
        for (index, first) in rules.iter().enumerate() {
            for second in &rules[index + 1..] {
                if first.is_ambiguous_with(second) {
                    errors.push(WorkloadError::Ambiguous {
                        first: first.name.to_string(),
                        second: second.name.to_string(),
                        ancestors: !first.has_ancestor_of(second),
                    });
                }
            }
        }
        match errors.is_empty() {
            true => Ok(Self { rules }),
            false => Err(errors),
        }
    }

    /// The workload of a process. What is not attested (no cgroup path, no
    /// executable) meets no condition about it.
    pub fn resolve(&self, origin: &Origin) -> WorkloadName {
        self.rules
            .iter()
            .find(|rule| rule.matches(origin))
            .map_or_else(WorkloadName::unknown, |rule| rule.name.clone())
    }

    /// Whether the workload of a process may depend on its executable's digest,
    /// as far as the rest of `origin` says. Nobody else's has to be hashed.
    pub fn asks_sha256_of(&self, origin: &Origin) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.sha256.is_some() && rule.matches_but_for_sha256(origin))
    }

    /// Paths of executables that conditions name.
    pub fn executables(&self) -> impl Iterator<Item = &Path> {
        self.rules.iter().flat_map(Rule::executables)
    }
}
