use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision as Answer, PolicyId, PolicySet, Request, ValidationError,
    ValidationMode, Validator,
};
use lockgate_command::{Access, Denial, PolicyRef, Shown, TargetName, Verb, Verdict, WorkloadName};
use lockgate_config::Bundle;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use crate::decision::{Decision, Ruled};
use crate::entities::Chain;
use crate::read::Placed;
use crate::scope::Scope;
use crate::slice::{Slice, Slices};
use crate::vocabulary::Vocabulary;
use crate::{Finding, Severity, check, lint, read, slice};

/// How much is kept of what was decided, in bytes, and about how much one
/// entry takes.
const CACHE_BYTES: u64 = 16 << 20;
const ENTRY_BYTES: u64 = 256;

/// One accepted set of policies, together with the workloads and targets of
/// the configuration it was accepted with.
///
/// Decisions about single accesses are kept for as long as the set lives. That
/// is sound because policies have no context to read: an answer depends on the
/// set, the workload, the target's tags and the access alone.
pub struct Policies {
    epoch: u64,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) policies: Vec<(Placed, Scope)>,
    by_id: HashMap<PolicyId, usize>,
    slices: Slices,
    warnings: Vec<Finding>,
    authorizer: Authorizer,
    known: Cache<(u32, Access), Arc<Ruled>, Size>,
}

impl Policies {
    /// Reads and checks the policies of a bundle against [`crate::SCHEMA`], in
    /// strict mode, and against the names of its configuration.
    ///
    /// # Errors
    /// All errors found, sorted by file and line; then nothing of the set can
    /// be used.
    pub fn load(bundle: &Bundle) -> Result<Self, Vec<Finding>> {
        let vocabulary =
            Vocabulary::new().map_err(|why| vec![elsewhere("lockgate.cedarschema", why)])?;
        let (placed, mut findings) = read::read(&bundle.policies);
        for placed in &placed {
            findings.extend(check::names(placed, &bundle.config, &vocabulary));
        }
        let by_id: HashMap<PolicyId, usize> = placed
            .iter()
            .enumerate()
            .map(|(index, placed)| (placed.policy.id().clone(), index))
            .collect();
        let mut warnings = Vec::new();
        // With an id given twice there is no set that could be validated.
        if by_id.len() == placed.len() {
            let (errors, warned) = validate(&placed, &by_id, &vocabulary);
            findings.extend(errors);
            warnings.extend(warned);
        }
        let policies: Vec<(Placed, Scope)> = placed
            .into_iter()
            .map(|placed| {
                let scope = Scope::of(&placed.policy, &vocabulary);
                (placed, scope)
            })
            .collect();
        let slices = match findings.is_empty() {
            true => slice::cut(&policies, &bundle.config, &vocabulary),
            false => Ok(Slices::new()),
        };
        match slices {
            Ok(slices) if findings.is_empty() => Ok(Self {
                epoch: bundle.epoch,
                vocabulary,
                policies,
                by_id,
                slices,
                warnings,
                authorizer: Authorizer::new(),
                known: Cache::with_weighter(
                    (CACHE_BYTES / ENTRY_BYTES) as usize,
                    CACHE_BYTES,
                    Size,
                ),
            }),
            Ok(_) => Err(sorted(findings)),
            Err(why) => Err(vec![elsewhere("lockgate.toml", why)]),
        }
    }

    /// Decides. Every access must be permitted; who may `view` a column may also
    /// `filter` by it, unless that is forbidden. A command without any access is
    /// denied, and so is what a workload or target asks that the configuration
    /// does not have. The denial is about the first access that is refused.
    pub fn decide(
        &self,
        workload: &WorkloadName,
        target: &TargetName,
        accesses: &[Access],
    ) -> Decision {
        let Some(slice) = self.slice(workload, target) else {
            return strangers(workload, target, accesses);
        };
        if accesses.is_empty() {
            let message = "lockgate: a command that says nothing of what it does is denied".into();
            return denied(message, None);
        }
        let mut permits: Vec<PolicyRef> = Vec::new();
        for access in accesses {
            match &*self.ruled_or_viewed(slice, access) {
                Ruled::Permitted(by) if permits.is_empty() => permits.clone_from(by),
                Ruled::Permitted(by) => permits.extend(by.iter().cloned()),
                Ruled::Unpermitted(denial) | Ruled::Denied(denial) => {
                    return Decision {
                        verdict: Verdict::Deny(denial.clone()),
                        policies: denial.policies.clone(),
                    };
                }
            }
        }
        if accesses.len() > 1 {
            permits.sort_unstable();
            permits.dedup();
        }
        Decision {
            verdict: Verdict::Allow,
            policies: permits,
        }
    }

    /// Decides about the tagged columns that a command shows, when its accesses
    /// are permitted by `permits`: raw to those who may `view` them, masked
    /// where `mask` has one for the column, else denied, and the client hears
    /// why it has none. So is an output that would need two masks.
    pub fn decide_shown<M: PartialEq>(
        &self,
        mut permits: Vec<PolicyRef>,
        workload: &WorkloadName,
        target: &TargetName,
        shown: &[Shown],
        mask: impl Fn(&Shown) -> Result<M, String>,
    ) -> Decision {
        let mut masked: BTreeMap<u16, (&Shown, M)> = BTreeMap::new();
        for one in shown {
            let view = Access::new(Verb::View, one.column.clone());
            let decision = self.decide(workload, target, &[view]);
            if decision.verdict != Verdict::Allow {
                let earlier = masked.get(&one.output).map(|(_, mask)| mask);
                let unmasked = match mask(one) {
                    Ok(mask) if earlier.is_none_or(|earlier| *earlier == mask) => {
                        masked.entry(one.output).or_insert((one, mask));
                        None
                    }
                    Ok(_) => Some("its column of the result has values of two masks".to_owned()),
                    Err(why) => Some(why),
                };
                if let Some(why) = unmasked {
                    return decision.unmasked(&why);
                }
            }
            permits.extend(decision.policies);
        }
        permits.sort_unstable();
        permits.dedup();
        Decision {
            verdict: match masked.is_empty() {
                true => Verdict::Allow,
                false => Verdict::Mask(masked.into_values().map(|(one, _)| one.clone()).collect()),
            },
            policies: permits,
        }
    }

    /// Why a command is denied for what it reaches without naming it: a policy
    /// forbids that. Unlike [`Policies::decide`], it asks for no permit.
    pub fn forbids(
        &self,
        workload: &WorkloadName,
        target: &TargetName,
        beneath: &[Access],
    ) -> Option<Arc<Denial>> {
        let slice = self.slice(workload, target)?;
        beneath
            .iter()
            .find_map(|access| match &*self.ruled(slice, access) {
                Ruled::Permitted(_) | Ruled::Unpermitted(_) => None,
                Ruled::Denied(denial) => Some(denial.clone()),
            })
    }

    /// [`Bundle::epoch`] of the bundle it was loaded from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a policy of this id is in the set.
    pub fn has(&self, id: &str) -> bool {
        self.by_id.contains_key(&PolicyId::new(id))
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is none, so that everything is denied.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// What is valid and still looks wrong, sorted by file and line.
    pub fn lint(&self) -> Vec<Finding> {
        let mut findings = self.warnings.clone();
        findings.extend(lint::lint(&self.policies, &self.slices));
        sorted(findings)
    }

    pub(crate) fn slice(&self, workload: &WorkloadName, target: &TargetName) -> Option<&Slice> {
        self.slices.get(workload)?.get(target)
    }

    fn ruled_or_viewed(&self, slice: &Slice, access: &Access) -> Arc<Ruled> {
        let ruled = self.ruled(slice, access);
        match &*ruled {
            Ruled::Unpermitted(_) if access.verb == Verb::Filter => {
                let view = Access::new(Verb::View, access.resource.clone());
                let viewed = self.ruled(slice, &view);
                match &*viewed {
                    Ruled::Permitted(_) => viewed,
                    Ruled::Unpermitted(_) | Ruled::Denied(_) => ruled,
                }
            }
            _ => ruled,
        }
    }

    fn ruled(&self, slice: &Slice, access: &Access) -> Arc<Ruled> {
        let key = Lookup {
            slice: slice.number,
            access,
        };
        if let Some(ruled) = self.known.get(&key) {
            return ruled;
        }
        let ruled = Arc::new(self.rule(slice, access));
        self.known
            .insert((slice.number, access.clone()), ruled.clone());
        ruled
    }

    fn rule(&self, slice: &Slice, access: &Access) -> Ruled {
        match self.ask(slice, access) {
            Asked::Permitted(by) => {
                let mut permits: Vec<PolicyRef> =
                    by.iter().map(|placed| placed.reference.clone()).collect();
                permits.sort_unstable();
                Ruled::Permitted(permits)
            }
            Asked::Forbidden(by) => Ruled::forbidden(slice, access, &by),
            Asked::Unpermitted => Ruled::unpermitted(slice, access),
            Asked::Failed { why, policies } => Ruled::failed(slice, access, &why, policies),
        }
    }

    /// Asks Cedar.
    pub(crate) fn ask(&self, slice: &Slice, access: &Access) -> Asked<'_> {
        let failed = |why: String| Asked::Failed {
            why,
            policies: Vec::new(),
        };
        let vocabulary = &self.vocabulary;
        let chain = Chain::new(vocabulary, &slice.target, &access.resource);
        let workload = vocabulary.workload(slice.workload.as_str());
        let Some(resource) = chain.uids().next().cloned() else {
            return failed("it names no resource".into());
        };
        let request = Request::new(
            workload.clone(),
            vocabulary.action(access.verb).uid(),
            resource,
            Context::empty(),
            Some(&vocabulary.schema),
        );
        let request = match request {
            Ok(request) => request,
            Err(error) => return failed(error.to_string()),
        };
        let entities = match chain.entities(vocabulary, workload, access, &slice.tags) {
            Ok(entities) => entities,
            Err(why) => return failed(why),
        };
        let mut permits: Vec<&Placed> = Vec::new();
        let mut forbids: Vec<&Placed> = Vec::new();
        let mut errors: Vec<(String, &Placed)> = Vec::new();
        for set in slice.sets(access.verb, &chain) {
            let response = self.authorizer.is_authorized(&request, set, &entities);
            let reasons = response
                .diagnostics()
                .reason()
                .filter_map(|id| self.placed(id));
            match response.decision() {
                Answer::Allow => permits.extend(reasons),
                Answer::Deny => forbids.extend(reasons),
            }
            for error in response.diagnostics().errors() {
                let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
                if let Some(placed) = self.placed(error.policy_id()) {
                    errors.push((error.inner().to_string(), placed));
                }
            }
        }
        if !forbids.is_empty() {
            return Asked::Forbidden(forbids);
        }
        // An error takes its policy out of Cedar's answer. If that was a
        // forbid, the answer is too kind, so that any error denies.
        if let Some((why, placed)) = errors.first() {
            let PolicyRef { id, file, line } = &placed.reference;
            return Asked::Failed {
                why: format!("policy `{id}` ({file}:{line}): {why}"),
                policies: errors
                    .iter()
                    .map(|(_, placed)| placed.reference.clone())
                    .collect(),
            };
        }
        match permits.is_empty() {
            true => Asked::Unpermitted,
            false => Asked::Permitted(permits),
        }
    }

    fn placed(&self, id: &PolicyId) -> Option<&Placed> {
        self.by_id.get(id).map(|index| &self.policies[*index].0)
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies")
            .field("epoch", &self.epoch)
            .field("policies", &self.policies.len())
            .finish_non_exhaustive()
    }
}

/// Cedar's answer about one access.
pub(crate) enum Asked<'a> {
    Permitted(Vec<&'a Placed>),
    Forbidden(Vec<&'a Placed>),
    Unpermitted,
    Failed {
        why: String,
        policies: Vec<PolicyRef>,
    },
}

/// Errors and warnings of Cedar's validator.
fn validate(
    placed: &[Placed],
    by_id: &HashMap<PolicyId, usize>,
    vocabulary: &Vocabulary,
) -> (Vec<Finding>, Vec<Finding>) {
    let set = match PolicySet::from_policies(placed.iter().map(|placed| placed.policy.clone())) {
        Ok(set) => set,
        Err(error) => return (vec![elsewhere("policies", error.to_string())], Vec::new()),
    };
    let result = Validator::new(vocabulary.schema.clone()).validate(&set, ValidationMode::Strict);
    let find = |id: &PolicyId| by_id.get(id).map(|index| &placed[*index]);
    // Cedar says the same of each type of resource that a policy speaks of.
    let mut said = HashSet::new();
    let errors = result
        .validation_errors()
        .filter_map(|error| match find(error.policy_id()) {
            Some(placed) => {
                let suggestion = match error {
                    ValidationError::UnsafeAttributeAccess(_) => Some(
                        "only a Column has attributes: write `resource is Column` into the head, or ask `resource has tags` first",
                    ),
                    _ => None,
                };
                let finding = placed.diagnostic(Severity::Error, error, suggestion);
                let kind = std::mem::discriminant(error);
                said.insert((error.policy_id().clone(), finding.line, kind))
                    .then_some(finding)
            }
            None => Some(elsewhere("policies", error.to_string())),
        });
    let warnings = result
        .validation_warnings()
        .map(|warning| match find(warning.policy_id()) {
            Some(placed) => placed.diagnostic(
                Severity::Warning,
                warning,
                Some("its conditions exclude each other, or its names mislead the eye; mend or remove it"),
            ),
            None => elsewhere("policies", warning.to_string()),
        });
    (errors.collect(), warnings.collect())
}

pub(crate) fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(|a, b| (&a.file, a.line, &a.message).cmp(&(&b.file, b.line, &b.message)));
    findings.dedup();
    findings
}

/// A finding that no policy file is to blame for.
fn elsewhere(file: &str, message: String) -> Finding {
    Finding {
        severity: Severity::Error,
        file: file.to_owned(),
        line: 1,
        message,
        suggestion: None,
    }
}

fn strangers(workload: &WorkloadName, target: &TargetName, accesses: &[Access]) -> Decision {
    let message = format!(
        "lockgate: the policies were loaded for a configuration that has no workload `{workload}` or no target `{target}`"
    );
    denied(message, accesses.first())
}

fn denied(message: String, access: Option<&Access>) -> Decision {
    let denial = Denial {
        message,
        hint: "whatever cannot be decided is denied; tell the operators of lockgate".into(),
        policies: Vec::new(),
        access: access.cloned(),
    };
    Decision {
        verdict: Verdict::Deny(Arc::new(denial)),
        policies: Vec::new(),
    }
}

/// A key of the cache that owns nothing.
#[derive(Hash)]
struct Lookup<'a> {
    // Hashed as the tuple `(u32, Access)` is.
    slice: u32,
    access: &'a Access,
}

impl Equivalent<(u32, Access)> for Lookup<'_> {
    fn equivalent(&self, key: &(u32, Access)) -> bool {
        self.slice == key.0 && *self.access == key.1
    }
}

/// Names come from clients, so that entries are weighed, not counted.
#[derive(Clone)]
struct Size;

impl Weighter<(u32, Access), Arc<Ruled>> for Size {
    fn weight(&self, (_, access): &(u32, Access), _: &Arc<Ruled>) -> u64 {
        let names = access.resource.path().iter().map(|name| name.len() as u64);
        // Once in the key and once in a denial.
        ENTRY_BYTES + 2 * names.sum::<u64>()
    }
}
