use cedar_policy::{ActionConstraint, EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use lockgate_command::{ResourceKind, TargetName};

use crate::check::unescape;
use crate::vocabulary::{Verbs, Vocabulary};

/// To which requests a policy can apply at all, as its head says. It never
/// leaves out a request that the policy applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) workload: Who,
    pub(crate) verbs: Verbs,
    pub(crate) resource: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Anyone,
    One(String),
    /// The head names something that no workload is.
    Nobody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct What {
    /// Only resources of this kind.
    pub(crate) kind: Option<ResourceKind>,
    /// Only this resource and, unless `exact`, what is in it.
    pub(crate) anchor: Option<Anchor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) uid: EntityUid,
    pub(crate) kind: Option<ResourceKind>,
    pub(crate) exact: bool,
}

impl Scope {
    pub(crate) fn of(policy: &Policy, vocabulary: &Vocabulary) -> Self {
        let one = |uid: EntityUid| match vocabulary.is_workload(uid.type_name()) {
            true => Who::One(uid.id().unescaped().to_owned()),
            false => Who::Nobody,
        };
        let workload = match policy.principal_constraint() {
            PrincipalConstraint::Any => Who::Anyone,
            PrincipalConstraint::Is(name) if vocabulary.is_workload(&name) => Who::Anyone,
            PrincipalConstraint::Is(_) => Who::Nobody,
            // A workload is in nothing but itself.
            PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) => one(uid),
            PrincipalConstraint::IsIn(name, uid) if vocabulary.is_workload(&name) => one(uid),
            PrincipalConstraint::IsIn(..) => Who::Nobody,
        };
        let verbs = match policy.action_constraint() {
            ActionConstraint::Any => Verbs::ALL,
            ActionConstraint::In(actions) => actions
                .iter()
                .map(|action| vocabulary.verbs_of(action))
                .fold(Verbs::NONE, Verbs::union),
            ActionConstraint::Eq(action) => {
                let mut verbs = Verbs::NONE;
                if let Ok(verb) = action.id().unescaped().parse() {
                    verbs.insert(verb);
                }
                verbs
            }
        };
        let anchor = |uid: EntityUid, exact| {
            let kind = vocabulary.kind_of(uid.type_name());
            Some(Anchor { uid, kind, exact })
        };
        let resource = match policy.resource_constraint() {
            ResourceConstraint::Any => What {
                kind: None,
                anchor: None,
            },
            ResourceConstraint::Is(name) => What {
                kind: vocabulary.kind_of(&name),
                anchor: None,
            },
            ResourceConstraint::In(uid) => What {
                kind: None,
                anchor: anchor(uid, false),
            },
            ResourceConstraint::Eq(uid) => What {
                kind: None,
                anchor: anchor(uid, true),
            },
            ResourceConstraint::IsIn(name, uid) => What {
                kind: vocabulary.kind_of(&name),
                anchor: anchor(uid, false),
            },
        };
        Self {
            workload,
            verbs,
            resource,
        }
    }

    pub(crate) fn speaks_of(&self, workload: &str) -> bool {
        match &self.workload {
            Who::Anyone => true,
            Who::One(name) => name == workload,
            Who::Nobody => false,
        }
    }

    /// Whether some request can be in both scopes.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let people = match (&self.workload, &other.workload) {
            (Who::Nobody, _) | (_, Who::Nobody) => false,
            (Who::One(a), Who::One(b)) => a == b,
            _ => true,
        };
        people && self.verbs.overlaps(other.verbs) && self.resource.overlaps(&other.resource)
    }
}

impl What {
    fn overlaps(&self, other: &Self) -> bool {
        let kind = |what: &Self| match &what.anchor {
            Some(Anchor {
                kind, exact: true, ..
            }) => *kind,
            _ => what.kind,
        };
        if let (Some(a), Some(b)) = (kind(self), kind(other))
            && a != b
        {
            return false;
        }
        self.can_hold(other) && other.can_hold(self) && self.meets(other)
    }

    /// The target it is at, unescaped; none for all of them.
    pub(crate) fn target(&self) -> Option<String> {
        let id = self.anchor.as_ref()?.uid.id().unescaped();
        Some(unescape(id.split('/').next().unwrap_or(id)))
    }

    /// Whether something at `target` can be in it.
    pub(crate) fn reaches(&self, target: &TargetName) -> bool {
        self.target().is_none_or(|name| name == target.as_str())
    }

    /// Whether a resource of `wanted` kind can be in it.
    pub(crate) fn can_be(&self, wanted: ResourceKind) -> bool {
        let other = Self {
            kind: Some(wanted),
            anchor: None,
        };
        self.overlaps(&other)
    }

    /// Whether what this anchor allows can be of the kind the other asks for.
    fn can_hold(&self, other: &Self) -> bool {
        let wanted = match &other.anchor {
            Some(Anchor {
                kind, exact: true, ..
            }) => *kind,
            _ => other.kind,
        };
        match (self.anchor.as_ref().and_then(|anchor| anchor.kind), wanted) {
            (Some(above), Some(kind)) => {
                std::iter::successors(Some(kind), |kind| kind.parent()).any(|kind| kind == above)
            }
            _ => true,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (&self.anchor, &other.anchor) else {
            return true;
        };
        let holds = |above: &Anchor, below: &Anchor| {
            above.uid == below.uid
                || !above.exact && is_below(below.uid.id().unescaped(), above.uid.id().unescaped())
        };
        holds(a, b) || holds(b, a)
    }
}

fn is_below(id: &str, above: &str) -> bool {
    id.strip_prefix(above)
        .is_some_and(|rest| rest.starts_with('/'))
}
