//! The packs, asked about SQL: `packs.txt` says what each lets pass.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};

use lockgate_command::{Access, Resource, Shown, Statement, Verb, Verdict};
use lockgate_config::{Bundle, Config, PolicyFile};
use lockgate_policy::{PACKS, Pack, Policies};
use lockgate_sql::{
    Analyser, AnalyserSettings, Catalogue, Reading, SearchPath, SessionNames, Tags, resolve,
};

fn config() -> Config {
    serde_json::from_value(serde_json::json!({
        "target": [
            { "name": "orders-db", "protocol": "postgres", "match": ["10.0.3.14:5432"],
              "tags": [{ "columns": "public.customers.ssn", "tag": "pii" }] },
            { "name": "other-db", "protocol": "postgres", "match": ["10.0.3.15:5432"] },
        ],
        "workload": [{ "name": "app", "user": "0" }, { "name": "other", "user": "1" }],
    }))
    .unwrap()
}

fn pack(name: &str) -> &'static Pack {
    let found = PACKS.iter().find(|pack| pack.name == name);
    found.unwrap_or_else(|| panic!("there is no pack `{name}`"))
}

/// The packs of a line's first field, for `app` at `orders-db`.
fn policies(names: &str) -> Policies {
    let file = |name: &str| PolicyFile {
        name: format!("{name}.cedar"),
        text: pack(name).instantiate(&"app".into(), &"orders-db".into()),
    };
    let bundle = Bundle {
        epoch: 1,
        config: config(),
        policies: names.split(" + ").map(file).collect(),
        ..Bundle::default()
    };
    Policies::load(&bundle).unwrap_or_else(|findings| panic!("{names}: {findings:#?}"))
}

/// What a statement does in a small shop.
fn statement(analyser: &Analyser, text: &str) -> Arc<Statement> {
    let (done, waits) = mpsc::channel();
    let deliver = Box::new(move |analysis| done.send(analysis).unwrap());
    analyser.analyse(text.as_bytes(), Reading::default(), deliver);
    let tables = ["orders", "customers", "items", "ids"];
    let columns = ["id", "amount", "ssn"].map(String::from).to_vec();
    let catalogue = Catalogue::assumed(
        tables.map(|table| ("public".to_owned(), table.to_owned(), columns.clone())),
    );
    let names = SessionNames {
        database: "shop".into(),
        user: "app".into(),
        search_path: SearchPath::Known(vec!["pg_catalog".into(), "public".into()]),
    };
    let tags = Tags::new(&config().targets[0].tags);
    let resolved = resolve(&waits.recv().unwrap(), &catalogue, &names, &tags);
    assert_eq!(resolved.statement.refusal, None, "{text}");
    resolved.statement
}

/// `allow`, `unpermitted`, or the ends of the ids of what forbids it.
fn verdict(policies: &Policies, statement: &Statement) -> String {
    let (workload, target) = ("app".into(), "orders-db".into());
    let mut decision = policies.decide(&workload, &target, &statement.accesses);
    if decision.verdict == Verdict::Allow {
        let permits = decision.policies;
        // No tag here has a mask.
        let mask = |_: &Shown| Err::<(), _>("its tag has no mask".to_owned());
        decision = policies.decide_shown(permits, &workload, &target, &statement.shown, mask);
    }
    match decision.verdict {
        Verdict::Allow => "allow".into(),
        _ if decision.policies.is_empty() => "unpermitted".into(),
        _ => {
            let end = |id: &str| id.rsplit(':').next().unwrap_or(id).to_owned();
            let ends = decision.policies.iter().map(|policy| end(&policy.id));
            ends.collect::<Vec<_>>().join(", ")
        }
    }
}

#[test]
fn each_pack_does_what_its_lines_say() {
    let analyser = Analyser::new(AnalyserSettings {
        statement_bytes: 65_536,
        cache_bytes: 1 << 20,
        threads: 1,
    });
    let (mut wrong, mut tried) = (Vec::new(), BTreeSet::new());
    let lines = include_str!("packs.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(" | ").collect();
        let [names, text, expected] = fields[..] else {
            panic!("{line}");
        };
        tried.extend(names.split(" + "));
        let said = verdict(&policies(names), &statement(&analyser, text));
        if said != expected {
            wrong.push(format!("{names} | {text} | {said}"));
        }
    }
    assert!(wrong.is_empty(), "these differ:\n{}", wrong.join("\n"));
    let all: BTreeSet<&str> = PACKS.iter().map(|pack| pack.name).collect();
    assert_eq!(tried, all, "every pack has its lines");
}

#[test]
fn a_pack_is_for_one_workload_at_one_target() {
    for pack in PACKS {
        let policies = policies(pack.name);
        for verb in Verb::ALL {
            let access = [Access::new(*verb, Resource::target())];
            for (workload, target) in [("other", "orders-db"), ("app", "other-db")] {
                let decision = policies.decide(&workload.into(), &target.into(), &access);
                assert_ne!(decision.verdict, Verdict::Allow, "{}: {verb}", pack.name);
                assert!(decision.policies.is_empty(), "{}: {verb}", pack.name);
            }
        }
    }
}

#[test]
fn each_pack_loads_without_a_remark_and_says_what_it_is_for() {
    for pack in PACKS {
        assert_eq!(policies(pack.name).lint(), [], "{}", pack.name);
        assert!(pack.summary().ends_with('.') || pack.summary().ends_with('…'));
        assert!(pack.summary().len() < 80, "{}", pack.summary());
    }
}
