//! Names in policies that only a server can know: databases, schemas, tables …

use std::collections::BTreeSet;

use cedar_policy::EntityUid;
use lockgate_command::{Resource, ResourceKind, TargetName, WorkloadName};

use crate::check::unescape;
use crate::set::sorted;
use crate::{Finding, Policies, Severity};

/// What a server does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// In words: `schema "public" has no table "payrol"`.
    pub message: String,
    /// The name that was probably meant.
    pub closest: Option<String>,
}

impl Policies {
    /// What policies name at `target`, below the target itself, each once.
    pub fn names_at(&self, target: &TargetName) -> Vec<Resource> {
        let mut seen = BTreeSet::new();
        self.literals()
            .filter_map(|(_, uid)| self.resource_at(target, &uid))
            .filter(|resource| seen.insert(resource.to_string()))
            .collect()
    }

    /// A finding for each name at `target` that `missing` does not find there.
    /// Such a policy is valid, and does nothing.
    pub fn missing_at(
        &self,
        target: &TargetName,
        missing: impl Fn(&Resource) -> Option<Missing>,
    ) -> Vec<Finding> {
        let finding = |(index, uid): (usize, EntityUid)| {
            let (placed, _) = &self.policies[index];
            let Missing { message, closest } = missing(&self.resource_at(target, &uid)?)?;
            let does = match placed.forbids() {
                true => "forbids",
                false => "permits",
            };
            let id = &placed.reference.id;
            Some(placed.finding(
                Severity::Warning,
                Some(uid.id().unescaped()),
                format!("policy `{id}`: {uid}: {message}, so that it {does} nothing there"),
                Some(match closest {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => "check the name; names are as the server stores them: lower case, unless they were made in quotes".into(),
                }),
            ))
        };
        sorted(self.literals().filter_map(finding).collect())
    }

    /// What permits for `workload` at `target` are for, each once: the target
    /// itself where one is for all of it.
    pub fn permitted_at(&self, workload: &WorkloadName, target: &TargetName) -> Vec<Resource> {
        let mut seen = BTreeSet::new();
        self.policies
            .iter()
            .filter(|(placed, scope)| {
                !placed.forbids()
                    && scope.speaks_of(workload.as_str())
                    && scope.resource.reaches(target)
            })
            .map(|(_, scope)| {
                let anchor = scope.resource.anchor.as_ref();
                anchor
                    .and_then(|anchor| self.resource_at(target, &anchor.uid))
                    .unwrap_or_else(Resource::target)
            })
            .filter(|resource| seen.insert(resource.to_string()))
            .collect()
    }

    /// Every entity that a policy names, with the policy's index.
    fn literals(&self) -> impl Iterator<Item = (usize, EntityUid)> {
        self.policies
            .iter()
            .enumerate()
            .flat_map(|(index, (placed, _))| {
                let mut literals = placed.policy.entity_literals();
                literals.sort();
                literals.dedup();
                literals.into_iter().map(move |uid| (index, uid))
            })
    }

    fn resource_at(&self, target: &TargetName, uid: &EntityUid) -> Option<Resource> {
        let kind = self.vocabulary.kind_of(uid.type_name())?;
        let mut names = uid.id().unescaped().split('/').map(unescape);
        let at = names.next()? == target.as_str();
        let names: Vec<String> = names.collect();
        let fits = kind != ResourceKind::Target && names.len() == kind.depth();
        (at && fits).then(|| Resource::new(kind, names))
    }
}
