use std::collections::HashMap;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, Schema};
use lockgate_command::{ResourceKind, Verb};

use crate::SCHEMA;

/// The schema, and the names of [`Verb`] and [`ResourceKind`] as Cedar has them.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) schema: Schema,
    /// One per verb, in the order of [`Verb::ALL`], with its groups as ancestors.
    actions: Vec<Entity>,
    /// The verbs of each action, groups included.
    members: HashMap<EntityUid, Verbs>,
    workload: EntityTypeName,
    /// In the order of [`KINDS`].
    kinds: Vec<EntityTypeName>,
}

/// Every kind, from the target inwards.
pub(crate) const KINDS: [ResourceKind; 6] = [
    ResourceKind::Target,
    ResourceKind::Database,
    ResourceKind::Schema,
    ResourceKind::Table,
    ResourceKind::Column,
    ResourceKind::Function,
];

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verbs(u64);

impl Verbs {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const ALL: Self = Self(u64::MAX);

    pub(crate) fn insert(&mut self, verb: Verb) {
        self.0 |= 1 << verb as u64;
    }

    pub(crate) fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u64) != 0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        Verb::ALL
            .iter()
            .any(|verb| self.contains(*verb) && other.contains(*verb))
    }
}

// One bit each.
const _: () = assert!(Verb::ALL.len() <= u64::BITS as usize);

impl Vocabulary {
    /// Reads [`SCHEMA`]. The error says what is wrong with it.
    pub(crate) fn new() -> Result<Self, String> {
        let (schema, _) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|error| error.to_string())?;
        let type_name = |name: &str| -> Result<EntityTypeName, String> {
            name.parse()
                .map_err(|error: cedar_policy::ParseErrors| error.to_string())
        };
        let action_type = type_name("Action")?;
        let workload = type_name("Workload")?;
        let kinds = KINDS
            .iter()
            .map(|kind| type_name(kind.as_str()))
            .collect::<Result<_, _>>()?;

        let entities = schema
            .action_entities()
            .map_err(|error| error.to_string())?;
        let mut actions = Vec::with_capacity(Verb::ALL.len());
        let mut members: HashMap<EntityUid, Verbs> = HashMap::new();
        for verb in Verb::ALL {
            let id = EntityId::new(verb.as_str());
            let uid = EntityUid::from_type_name_and_id(action_type.clone(), id);
            let entity = entities
                .get(&uid)
                .ok_or_else(|| format!("the schema has no action \"{verb}\""))?;
            actions.push(entity.clone());
            let groups = entities.ancestors(&uid).into_iter().flatten().cloned();
            for action in groups.chain([uid.clone()]) {
                members.entry(action).or_default().insert(*verb);
            }
        }
        Ok(Self {
            schema,
            actions,
            members,
            workload,
            kinds,
        })
    }

    pub(crate) fn action(&self, verb: Verb) -> &Entity {
        // `verb as usize` is its place in Verb::ALL; a test says so.
        &self.actions[verb as usize]
    }

    /// The verbs that are `action` or in it; none for what is no action.
    pub(crate) fn verbs_of(&self, action: &EntityUid) -> Verbs {
        self.members.get(action).copied().unwrap_or(Verbs::NONE)
    }

    pub(crate) fn workload(&self, name: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.workload.clone(), EntityId::new(name))
    }

    pub(crate) fn is_workload(&self, name: &EntityTypeName) -> bool {
        *name == self.workload
    }

    pub(crate) fn resource(&self, kind: ResourceKind, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.kinds[position(kind)].clone(), EntityId::new(id))
    }

    pub(crate) fn kind_of(&self, name: &EntityTypeName) -> Option<ResourceKind> {
        let index = self.kinds.iter().position(|known| known == name)?;
        Some(KINDS[index])
    }
}

fn position(kind: ResourceKind) -> usize {
    match kind {
        ResourceKind::Target => 0,
        ResourceKind::Database => 1,
        ResourceKind::Schema => 2,
        ResourceKind::Table => 3,
        ResourceKind::Column => 4,
        ResourceKind::Function => 5,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_schema_s_actions_are_the_verbs_and_their_groups() {
        let vocabulary = Vocabulary::new().unwrap();
        let in_schema: BTreeSet<String> = vocabulary
            .schema
            .actions()
            .map(|uid| uid.id().unescaped().to_owned())
            .collect();
        let ours: BTreeSet<String> = Verb::ALL
            .iter()
            .flat_map(|verb| [verb.as_str(), verb.group()])
            .map(str::to_owned)
            .collect();
        assert_eq!(in_schema, ours);
    }

    #[test]
    fn each_verb_is_in_its_group_and_in_no_other() {
        let vocabulary = Vocabulary::new().unwrap();
        let groups: BTreeSet<&str> = Verb::ALL.iter().map(|verb| verb.group()).collect();
        for (index, verb) in Verb::ALL.iter().enumerate() {
            assert_eq!(*verb as usize, index);
            for name in &groups {
                let group = format!("Action::\"{name}\"").parse().unwrap();
                let within = vocabulary.verbs_of(&group).contains(*verb);
                assert_eq!(within, verb.group() == *name, "{verb} in {name}");
            }
        }
    }

    #[test]
    fn kinds_have_their_places() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert_eq!(position(*kind), index);
        }
    }
}
