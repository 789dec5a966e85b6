//! Prints what one decision costs with 1,000 policies: sliced and from the
//! cache, beside Cedar asked about the whole set.
//!
//! `cargo run --release -p lockgate-policy --example decision_cost`
use std::time::{Duration, Instant};

use cedar_policy::{Authorizer, Context, Entities, Entity, PolicySet, Request};
use lockgate_command::{Access, Resource, ResourceKind, TargetName, Verb, WorkloadName};
use lockgate_config::{Bundle, Config, PolicyFile};
use lockgate_policy::Policies;

const WORKLOADS: usize = 25;
const TARGETS: usize = 10;
const PER_PAIR: usize = 4;

fn main() {
    let bundle = bundle();
    let begun = Instant::now();
    let policies = Policies::load(&bundle).expect("the generated set is valid");
    println!(
        "{} policies, {WORKLOADS} workloads, {TARGETS} targets; loaded in {:?}",
        policies.len(),
        begun.elapsed()
    );

    // Every access is a new one, so that nothing is found in the cache.
    let asked: Vec<(WorkloadName, TargetName, [Access; 1])> = (0..20_000)
        .map(|index| {
            let table = Resource::new(
                ResourceKind::Table,
                ["shop".into(), "public".into(), format!("table{index}")],
            );
            let workload = format!("workload{}", index % WORKLOADS);
            let target = format!("target{}", index / WORKLOADS % TARGETS);
            let verb = [Verb::Select, Verb::Update, Verb::Drop][index % 3];
            (workload.into(), target.into(), [Access::new(verb, table)])
        })
        .collect();
    let measure = |what: &str| {
        let mut times: Vec<Duration> = asked
            .iter()
            .map(|(workload, target, accesses)| {
                let begun = Instant::now();
                std::hint::black_box(policies.decide(workload, target, accesses));
                begun.elapsed()
            })
            .collect();
        report(what, &mut times);
    };
    measure("not cached");
    measure("cached");
    whole(&bundle);
}

fn whole(bundle: &Bundle) {
    let set: PolicySet = bundle.policies[0].text.parse().expect("parsed before");
    let uid = |text: &str| text.parse().expect("a literal");
    let request = Request::new(
        uid("Workload::\"workload3\""),
        uid("Action::\"select\""),
        uid("Target::\"target3\""),
        Context::empty(),
        None,
    );
    let request = request.expect("unchecked requests are always made");
    let entities = [
        Entity::with_uid(uid("Workload::\"workload3\"")),
        Entity::with_uid(uid("Target::\"target3\"")),
    ];
    let entities = Entities::from_entities(entities, None).expect("distinct");
    let authorizer = Authorizer::new();
    let mut times: Vec<Duration> = (0..2_000)
        .map(|_| {
            let begun = Instant::now();
            std::hint::black_box(authorizer.is_authorized(&request, &set, &entities));
            begun.elapsed()
        })
        .collect();
    report("the whole set", &mut times);
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what:>14}: p50 {:>10.2?}  p99 {:>10.2?}", at(50), at(99));
}

fn bundle() -> Bundle {
    let named = |prefix: &str, count: usize| {
        (0..count)
            .map(move |index| format!("{prefix}{index}"))
            .collect::<Vec<_>>()
    };
    let (workloads, targets) = (named("workload", WORKLOADS), named("target", TARGETS));
    let config: Config = serde_json::from_value(serde_json::json!({
        "target": targets.iter().map(|name| serde_json::json!({ "name": name, "protocol": "postgres", "match": ["*:5432"] })).collect::<Vec<_>>(),
        "workload": workloads.iter().map(|name| serde_json::json!({ "name": name, "unit": format!("{name}.service") })).collect::<Vec<_>>(),
    }))
    .expect("a configuration");
    let mut text = String::new();
    for workload in &workloads {
        for target in &targets {
            let who = format!("principal == Workload::\"{workload}\"");
            text += &format!(
                "permit ({who}, action in Action::\"read\", resource in Target::\"{target}\");\n"
            );
            text += &format!(
                "permit ({who}, action in Action::\"write\", resource in Schema::\"{target}/shop/public\");\n"
            );
            text += &format!(
                "forbid ({who}, action, resource in Table::\"{target}/shop/public/payroll\");\n"
            );
            text += &format!(
                "forbid ({who}, action in Action::\"sensitive\", resource in Target::\"{target}\") unless {{ resource.tags.contains(\"open\") }};\n"
            );
        }
    }
    assert_eq!(WORKLOADS * TARGETS * PER_PAIR, 1_000);
    Bundle {
        epoch: 1,
        config,
        policies: vec![PolicyFile {
            name: "all.cedar".into(),
            text,
        }],
        ..Bundle::default()
    }
}
