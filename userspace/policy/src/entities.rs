use std::collections::HashSet;

use cedar_policy::{Entities, Entity, EntityUid, RestrictedExpression};
use lockgate_command::{Access, Resource, ResourceKind, TargetName};
use lockgate_config::{Tag, Target};

use crate::vocabulary::Vocabulary;

/// The resource of a request with all that holds it, itself first.
pub(crate) struct Chain(Vec<(EntityUid, Resource)>);

impl Chain {
    pub(crate) fn new(vocabulary: &Vocabulary, target: &TargetName, resource: &Resource) -> Self {
        let chain = std::iter::successors(Some(resource.clone()), Resource::parent);
        let uid =
            |resource: &Resource| vocabulary.resource(resource.kind(), &resource.entity_id(target));
        Self(chain.map(|resource| (uid(&resource), resource)).collect())
    }

    pub(crate) fn uids(&self) -> impl Iterator<Item = &EntityUid> {
        self.0.iter().map(|(uid, _)| uid)
    }

    /// The entities a request needs: who, the verb, the chain. They conform to
    /// the schema by the way they are made; a test checks it.
    pub(crate) fn entities(
        &self,
        vocabulary: &Vocabulary,
        workload: EntityUid,
        access: &Access,
        tags: &Tags,
    ) -> Result<Entities, String> {
        let mut entities = Vec::with_capacity(self.0.len() + 2);
        entities.push(Entity::with_uid(workload));
        entities.push(vocabulary.action(access.verb).clone());
        let parents = self.uids().skip(1).map(Some).chain([None]);
        for ((uid, resource), parent) in self.0.iter().zip(parents) {
            let parents: HashSet<EntityUid> = parent.cloned().into_iter().collect();
            entities.push(match resource.kind() {
                ResourceKind::Column => {
                    let tags = tags
                        .of(resource)
                        .map(|tag| RestrictedExpression::new_string(tag.to_owned()));
                    let attributes =
                        [("tags".to_owned(), RestrictedExpression::new_set(tags))].into();
                    Entity::new(uid.clone(), attributes, parents)
                        .map_err(|error| error.to_string())?
                }
                _ => Entity::new_no_attrs(uid.clone(), parents),
            });
        }
        Entities::from_entities(entities, None).map_err(|error| error.to_string())
    }
}

/// The tagged columns of one target.
#[derive(Debug, Default)]
pub(crate) struct Tags(Vec<Tagged>);

#[derive(Debug)]
struct Tagged {
    /// Any database if there is none.
    database: Option<String>,
    /// Schema, table, column.
    path: [String; 3],
    tag: String,
}

impl Tags {
    /// The error is for the operator.
    pub(crate) fn new(target: &Target) -> Result<Self, String> {
        let tagged = |Tag { columns, tag, .. }: &Tag| {
            let names: Vec<&str> = columns.split('.').collect();
            let (database, path) = match names.as_slice() {
                _ if names.iter().any(|name| name.is_empty()) => None,
                [schema, table, column] => Some((None, [*schema, *table, *column])),
                [database, schema, table, column] => Some((Some(*database), [*schema, *table, *column])),
                _ => None,
            }
            .ok_or_else(|| {
                format!(
                    "target `{}`: tag `{tag}`: `{columns}` is not schema.table.column or database.schema.table.column",
                    target.name
                )
            })?;
            Ok(Tagged {
                database: database.map(str::to_owned),
                path: path.map(str::to_owned),
                tag: tag.clone(),
            })
        };
        target
            .tags
            .iter()
            .map(tagged)
            .collect::<Result<_, String>>()
            .map(Self)
    }

    fn of<'a>(&'a self, column: &'a Resource) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(|tagged| match column.path() {
                [database, path @ ..] => {
                    tagged.path == path
                        && tagged.database.as_ref().is_none_or(|only| only == database)
                }
                [] => false,
            })
            .map(|tagged| tagged.tag.as_str())
    }
}

#[cfg(test)]
mod tests {
    use lockgate_command::Verb;

    use super::*;
    use crate::vocabulary::KINDS;

    #[test]
    fn what_is_made_here_conforms_to_the_schema() {
        let vocabulary = Vocabulary::new().unwrap();
        let target: Target = serde_json::from_value(serde_json::json!({
            "name": "orders-db", "protocol": "postgres", "match": ["*:5432"],
            "tags": [{ "columns": "public.customers.ssn", "tag": "pii" }],
        }))
        .unwrap();
        let tags = Tags::new(&target).unwrap();
        for kind in KINDS {
            let path = ["shop", "public", "customers", "ssn"];
            let resource = Resource::new(kind, path.into_iter().take(kind.depth()));
            let chain = Chain::new(&vocabulary, &"orders-db".into(), &resource);
            let access = Access::new(Verb::Select, resource);
            let workload = vocabulary.workload("report");
            let made = chain
                .entities(&vocabulary, workload, &access, &tags)
                .unwrap();
            assert_eq!(
                made.len(),
                kind.depth() + 3,
                "workload, action, target and below"
            );
            let checked = Entities::from_entities(made.iter().cloned(), Some(&vocabulary.schema));
            assert!(checked.is_ok(), "{kind:?}: {checked:?}");
        }
    }
}
