//! Asking the slice of a workload and target gives what asking Cedar about
//! the whole set gives, with the whole set's entities checked by the schema.

use std::collections::{BTreeSet, HashSet};
use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Decision as Answer, Entities, Entity, EntityUid, PolicyId, PolicySet,
    Request, RestrictedExpression, Schema,
};
use lockgate_command::{Access, Resource, ResourceKind, TargetName, Verb, Verdict};
use lockgate_config::{Bundle, Config, PolicyFile};
use lockgate_policy::{Policies, SCHEMA};
use proptest::prelude::*;
use proptest::sample::select;

fn config() -> Config {
    serde_json::from_value(serde_json::json!({
        "target": [
            { "name": "a", "protocol": "postgres", "match": ["10.0.0.1:5432"],
              "tags": [{ "columns": "s.t.c", "tag": "pii" }] },
            { "name": "a/b", "protocol": "postgres", "match": ["10.0.0.2:5432"] },
        ],
        "workload": [{ "name": "w", "user": "0" }, { "name": "v", "user": "1" }],
    }))
    .unwrap()
}

/// Cedar's own answer about the whole set: allowed or not, and by which.
struct Whole {
    set: PolicySet,
    schema: Schema,
}

impl Whole {
    fn new(policies: &[String]) -> Self {
        let mut set = PolicySet::new();
        for (index, text) in policies.iter().enumerate() {
            let id = PolicyId::new(format!("p{index}"));
            set.add(cedar_policy::Policy::parse(Some(id), text).unwrap())
                .unwrap();
        }
        Self {
            set,
            schema: Schema::from_cedarschema_str(SCHEMA).unwrap().0,
        }
    }

    fn ask(&self, workload: &str, target: &str, access: &Access) -> (bool, BTreeSet<String>) {
        let target = TargetName::from(target);
        let uid = |resource: &Resource| {
            let kind = resource.kind().as_str();
            EntityUid::from_type_name_and_id(
                kind.parse().unwrap(),
                cedar_policy::EntityId::new(resource.entity_id(&target)),
            )
        };
        let workload = EntityUid::from_str(&format!("Workload::\"{workload}\"")).unwrap();
        let action = EntityUid::from_str(&format!("Action::\"{}\"", access.verb)).unwrap();
        let mut entities = vec![Entity::with_uid(workload.clone())];
        for resource in std::iter::successors(Some(access.resource.clone()), Resource::parent) {
            let parents: HashSet<EntityUid> = resource.parent().iter().map(&uid).collect();
            let tagged = target.as_str() == "a"
                && resource
                    .path()
                    .ends_with(&["s", "t", "c"].map(String::from));
            let tags = tagged.then(|| RestrictedExpression::new_string("pii".into()));
            let attributes = match resource.kind() {
                ResourceKind::Column => {
                    [("tags".to_owned(), RestrictedExpression::new_set(tags))].into()
                }
                _ => Default::default(),
            };
            entities.push(Entity::new(uid(&resource), attributes, parents).unwrap());
        }
        let entities = Entities::from_entities(entities, Some(&self.schema)).unwrap();
        let Ok(request) = Request::new(
            workload,
            action,
            uid(&access.resource),
            Context::empty(),
            Some(&self.schema),
        ) else {
            return (false, BTreeSet::new());
        };
        let response = Authorizer::new().is_authorized(&request, &self.set, &entities);
        let names: BTreeSet<String> = response
            .diagnostics()
            .reason()
            .map(ToString::to_string)
            .collect();
        let allowed = response.decision() == Answer::Allow;
        if !allowed && !names.is_empty() {
            return (false, names);
        }
        let failed: BTreeSet<String> = response
            .diagnostics()
            .errors()
            .map(
                |cedar_policy::AuthorizationError::PolicyEvaluationError(error)| {
                    error.policy_id().to_string()
                },
            )
            .collect();
        match failed.is_empty() {
            true => (allowed, names),
            false => (false, failed),
        }
    }
}

/// Few names, so that the resources of policies and requests often meet.
fn resources() -> impl Strategy<Value = Resource> {
    let kinds = select(vec![
        ResourceKind::Target,
        ResourceKind::Database,
        ResourceKind::Schema,
        ResourceKind::Table,
        ResourceKind::Column,
        ResourceKind::Function,
    ]);
    let names = (
        select(vec!["d", "d", "d", "a/b"]),
        select(vec!["s", "s", "s", "?"]),
        select(vec!["t", "t", "a/b"]),
        select(vec!["c", "c", "x"]),
    );
    (kinds, names).prop_map(|(kind, (database, schema, table, column))| {
        let path = [database, schema, table, column];
        Resource::new(kind, path.into_iter().take(kind.depth()))
    })
}

fn uid(target: &str, resource: &Resource) -> String {
    format!(
        "{}::\"{}\"",
        resource.kind().as_str(),
        resource.entity_id(&target.into())
    )
}

fn policies() -> impl Strategy<Value = String> {
    let principal = select(vec![
        "principal",
        "principal is Workload",
        "principal == Workload::\"w\"",
        "principal in Workload::\"v\"",
        "principal is Workload in Workload::\"w\"",
        "principal == Workload::\"unknown\"",
    ]);
    let groups = [
        "use",
        "read",
        "write",
        "schema",
        "code",
        "admin",
        "sensitive",
    ]
    .map(|name| format!("action in Action::\"{name}\""));
    let single = Verb::ALL
        .iter()
        .map(|verb| format!("action == Action::\"{verb}\""));
    let mut actions: Vec<String> = groups.into_iter().chain(single).collect();
    actions.extend(std::iter::repeat_n("action".into(), 30));
    actions.push("action in [Action::\"read\", Action::\"drop\"]".into());
    let place = || (select(vec!["a", "a", "a/b"]), resources());
    let resource = prop_oneof![
        1 => Just("resource".to_owned()),
        1 => Just("resource is Table".to_owned()),
        6 => (place(), select(vec!["==", "in", "in"]))
            .prop_map(|((target, at), how)| format!("resource {how} {}", uid(target, &at))),
        1 => place().prop_map(|(target, at)| format!("resource is Table in {}", uid(target, &at))),
    ];
    let condition = prop_oneof![
        4 => Just(String::new()),
        1 => (select(vec!["a", "a/b"]), resources(), select(vec!["when", "unless"]))
            .prop_map(|(target, resource, word)| format!(" {word} {{ resource in {} }}", uid(target, &resource))),
        1 => Just(" when { resource has tags && resource.tags.contains(\"pii\") }".to_owned()),
        1 => Just(" when { principal == Workload::\"w\" }".to_owned()),
        1 => Just(" when { 9223372036854775807 + (if resource is Column then 1 else 0) > 0 }".to_owned()),
    ];
    (
        select(vec!["permit", "forbid"]),
        principal,
        select(actions),
        resource,
        condition,
    )
        .prop_map(|(effect, principal, action, resource, condition)| {
            format!("{effect} ({principal}, {action}, {resource}){condition};")
        })
}

/// Leaves out what strict validation refuses.
fn valid(policies: Vec<String>) -> Vec<String> {
    let valid = |text: &String| Policies::load(&bundle(std::slice::from_ref(text))).is_ok();
    policies.into_iter().filter(valid).collect()
}

fn bundle(policies: &[String]) -> Bundle {
    let text = policies
        .iter()
        .enumerate()
        .map(|(index, text)| format!("@id(\"p{index}\") {text}\n"))
        .collect();
    let file = PolicyFile {
        name: "p.cedar".into(),
        text,
    };
    Bundle {
        epoch: 1,
        config: config(),
        policies: vec![file],
        ..Bundle::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_slice_answers_as_the_whole_set(
        policies in proptest::collection::vec(policies(), 1..12),
        asked in proptest::collection::vec(
            (select(vec!["w", "v", "unknown"]), select(vec!["a", "a/b"]), select(Verb::ALL), resources()),
            24,
        ),
    ) {
        let policies = valid(policies);
        let sliced = Policies::load(&bundle(&policies)).unwrap();
        let whole = Whole::new(&policies);
        for (workload, target, verb, resource) in asked {
            let access = Access::new(verb, resource);
            let (mut allowed, mut by) = whole.ask(workload, target, &access);
            if verb == Verb::Filter && !allowed && by.is_empty() {
                // Who may view may filter, unless that is forbidden.
                let view = Access::new(Verb::View, access.resource.clone());
                if let (true, views) = whole.ask(workload, target, &view) {
                    (allowed, by) = (true, views);
                }
            }
            let decision = sliced.decide(&workload.into(), &target.into(), std::slice::from_ref(&access));
            prop_assert_eq!(decision.verdict == Verdict::Allow, allowed, "{} {} {}: {:#?}", workload, target, access, policies);
            let deciding: BTreeSet<String> = decision.policies.iter().map(|policy| policy.id.to_string()).collect();
            prop_assert_eq!(deciding, by, "{} {} {}: {:#?}", workload, target, access, policies);
        }
    }
}
