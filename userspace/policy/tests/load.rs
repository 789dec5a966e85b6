//! What is accepted as a set of policies, and what is said about what is not.

use lockgate_config::{Bundle, Config, PolicyFile};
use lockgate_policy::{Finding, Policies, STARTER, Severity};

fn bundle(text: &str) -> Bundle {
    bundle_of(&[("a.cedar", text)])
}

fn bundle_of(files: &[(&str, &str)]) -> Bundle {
    let config: Config = serde_json::from_value(serde_json::json!({
        "target": [
            { "name": "orders-db", "protocol": "postgres", "match": ["10.0.3.14:5432"] },
            { "name": "cache", "protocol": "tcp", "match": ["10.0.3.14:6379"] },
        ],
        "workload": [
            { "name": "nightly-report", "unit": "nightly-report.service" },
            { "name": "deploy", "user": "deploy" },
        ],
    }))
    .unwrap();
    let policies = files
        .iter()
        .map(|(name, text)| PolicyFile {
            name: (*name).into(),
            text: (*text).into(),
        })
        .collect();
    Bundle {
        epoch: 3,
        config,
        policies,
        ..Bundle::default()
    }
}

/// The one finding of a text that must be refused.
fn refused(text: &str) -> Finding {
    let findings = Policies::load(&bundle(text)).unwrap_err();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = findings[0].clone();
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(finding.file, "a.cedar");
    finding
}

#[test]
fn the_starter_set_is_accepted_without_a_remark() {
    let policies = Policies::load(&bundle_of(STARTER)).unwrap();
    assert_eq!(policies.epoch(), 3);
    assert!(policies.has("nightly-report-reads"));
    assert_eq!(policies.lint(), []);
}

#[test]
fn no_policy_at_all_is_a_set() {
    let policies = Policies::load(&bundle("// nothing yet\n")).unwrap();
    assert!(policies.is_empty());
    assert_eq!(policies.len(), 0);
}

#[test]
fn a_syntax_error_has_its_line() {
    let finding = refused("// one\npermit (\n  principal,\n  acton,\n  resource\n);\n");
    assert_eq!(finding.line, 4, "{finding}");
}

#[test]
fn a_mistyped_action_is_named_with_the_right_one() {
    let text = "permit (\n  principal == Workload::\"deploy\",\n  action == Action::\"selct\",\n  resource\n);";
    let finding = refused(text);
    assert_eq!(finding.line, 3, "{finding}");
    assert!(finding.message.contains("selct"), "{finding}");
    assert!(
        finding.suggestion.as_ref().unwrap().contains("select"),
        "{finding}"
    );
}

#[test]
fn a_mistyped_entity_type_is_named_with_the_right_one() {
    let text = "permit (\n  principal == Workload::\"deploy\",\n  action == Action::\"select\",\n  resource in Databse::\"orders-db/shop\"\n);";
    let findings = Policies::load(&bundle(text)).unwrap_err();
    let first = &findings[0];
    assert_eq!(first.line, 4, "{findings:#?}");
    assert!(
        first.suggestion.as_ref().unwrap().contains("Database"),
        "{first}"
    );
}

#[test]
fn a_workload_that_is_not_in_the_configuration_is_an_error() {
    let text = "forbid (\n  principal == Workload::\"nightly-reprot\",\n  action,\n  resource\n);";
    let finding = refused(text);
    assert_eq!(finding.line, 2);
    assert_eq!(
        finding.suggestion.as_deref(),
        Some("did you mean `nightly-report`?")
    );
    let finding =
        refused("forbid (principal, action, resource) when { principal == Workload::\"xyz\" };");
    assert_eq!(
        finding.suggestion.as_deref(),
        Some("there are: nightly-report, deploy, unknown")
    );
}

#[test]
fn a_target_that_is_not_in_the_configuration_is_an_error() {
    let text =
        "forbid (\n  principal,\n  action,\n  resource in Schema::\"order-db/shop/public\"\n);";
    let finding = refused(text);
    assert_eq!(finding.line, 4);
    assert_eq!(
        finding.suggestion.as_deref(),
        Some("did you mean `orders-db`?")
    );
}

#[test]
fn an_id_must_have_the_form_of_its_type() {
    for id in [
        "Table::\"orders-db\"",
        "Table::\"orders-db/shop/public/a/b\"",
        "Schema::\"orders-db//public\"",
        "Database::\"orders-db/50%\"",
    ] {
        let finding = refused(&format!("forbid (principal, action, resource in {id});"));
        assert!(
            finding.message.contains("this is not the id of a"),
            "{finding}"
        );
        assert!(finding.suggestion.unwrap().contains("write it as"));
    }
}

#[test]
fn strict_validation_refuses_what_could_fail_at_run_time() {
    let finding = refused(
        "permit (principal == Workload::\"deploy\", action, resource) when { resource.tags.contains(\"pii\") };",
    );
    assert!(finding.message.contains("tags"), "{finding}");
    assert!(finding.suggestion.unwrap().contains("resource is Column"));
}

#[test]
fn one_id_for_two_policies_is_an_error_that_names_both_places() {
    let one = "@id(\"x\")\nforbid (principal, action, resource);\n";
    let findings = Policies::load(&bundle_of(&[("a.cedar", one), ("b.cedar", one)])).unwrap_err();
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].file.as_str(), findings[0].line),
        ("b.cedar", 1)
    );
    assert!(findings[0].message.contains("a.cedar:1"), "{}", findings[0]);
    // An id that would be the automatic one of another policy is one, too.
    let text = "forbid (principal, action, resource);\n@id(\"a.cedar#0\")\nforbid (principal, action, resource);";
    assert!(refused(text).message.contains("already that of"));
}

#[test]
fn an_id_that_a_record_could_not_carry_is_refused() {
    for id in ["", "a b", "a\\nb", "é"] {
        let finding = refused(&format!(
            "@id(\"{id}\") forbid (principal, action, resource);"
        ));
        assert!(finding.message.contains("cannot be an @id"), "{finding}");
    }
}

#[test]
fn a_template_is_refused() {
    let finding = refused("\npermit (principal == ?principal, action, resource);");
    assert_eq!(finding.line, 2);
    assert!(finding.message.contains("template"));
}

#[test]
fn all_errors_come_at_once_in_their_order() {
    let bad = "permit (principal == Workload::\"a\", action, resource);\npermit (principal == Workload::\"b\", action, resource);\n";
    let findings =
        Policies::load(&bundle_of(&[("a.cedar", "permit"), ("b.cedar", bad)])).unwrap_err();
    let places: Vec<_> = findings.iter().map(|f| (f.file.as_str(), f.line)).collect();
    assert_eq!(places, [("a.cedar", 1), ("b.cedar", 1), ("b.cedar", 2)]);
}

#[test]
fn a_tag_that_cannot_be_a_column_is_refused() {
    let mut bundle = bundle("");
    for columns in ["ssn", "customers.ssn", "a.b.c.d.e", "public..ssn"] {
        bundle.config.targets[0].tags = vec![lockgate_config::Tag {
            columns: columns.into(),
            tag: "pii".into(),
            mask: None,
        }];
        let findings = Policies::load(&bundle).unwrap_err();
        assert!(
            findings[0].message.contains("is not schema.table.column"),
            "{columns}"
        );
    }
}

fn lint(text: &str) -> Vec<(u32, String)> {
    let policies = Policies::load(&bundle(text)).unwrap();
    policies
        .lint()
        .into_iter()
        .map(|finding| {
            assert_eq!(finding.severity, Severity::Warning);
            assert!(finding.suggestion.is_some());
            (finding.line, finding.message)
        })
        .collect()
}

#[test]
fn a_forbid_that_no_permit_can_reach_is_remarked() {
    let permit = "@id(\"p\")\npermit (principal == Workload::\"deploy\", action == Action::\"select\", resource in Schema::\"orders-db/shop/public\");permit (principal == Workload::\"deploy\", action == Action::\"connect\", resource);\n";
    let reached = [
        "principal, action, resource",
        "principal, action in [Action::\"select\", Action::\"drop\"], resource in Target::\"orders-db\"",
        "principal, action == Action::\"select\", resource == Table::\"orders-db/shop/public/customers\"",
    ];
    for head in reached {
        assert_eq!(lint(&format!("{permit}forbid ({head});")), [], "{head}");
    }
    let unreached = [
        "principal == Workload::\"nightly-report\", action, resource",
        "principal, action == Action::\"insert\", resource is Table",
        "principal, action == Action::\"select\", resource == Table::\"orders-db/shop/private/customers\"",
        "principal, action == Action::\"select\", resource == Table::\"orders-db/shop/public2/customers\"",
        "principal, action == Action::\"select\", resource in Target::\"cache\"",
        "principal, action == Action::\"select\", resource is Database",
    ];
    for head in unreached {
        let remarks = lint(&format!("{permit}forbid ({head});"));
        assert_eq!(remarks.len(), 1, "{head}");
        assert_eq!(remarks[0].0, 3);
        assert!(remarks[0].1.contains("takes nothing away"));
        assert_eq!(
            lint(&format!("{permit}@guardrail forbid ({head});")),
            [],
            "{head}"
        );
    }
}

#[test]
fn a_permit_to_a_workload_that_cannot_connect_is_remarked() {
    let head = "principal == Workload::\"deploy\", action in Action::\"read\", resource in Target::\"orders-db\"";
    let policies = Policies::load(&bundle(&format!("// one\npermit ({head});"))).unwrap();
    let remarks = policies.lint();
    assert_eq!(remarks.len(), 1, "{remarks:#?}");
    assert_eq!(remarks[0].line, 2);
    assert_eq!(
        remarks[0].message,
        "`deploy` may select at `orders-db` but cannot even connect: no policy permits it `use` there"
    );
    let line = "permit (principal == Workload::\"deploy\", action in Action::\"use\", resource in Target::\"orders-db\");";
    assert!(remarks[0].suggestion.as_ref().unwrap().ends_with(line));
    assert_eq!(lint(&format!("permit ({head});\n{line}")), []);
    // What is for a table lets nobody connect.
    let table = "permit (principal == Workload::\"deploy\", action, resource in Table::\"orders-db/a/b/c\");";
    assert!(lint(table)[0].1.contains("cannot even connect"));
    // One remark for all whom one policy is for.
    let everyone = "permit (principal, action == Action::\"select\", resource) when { principal != Workload::\"unknown\" };";
    let remarks = lint(everyone);
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].1.ends_with("(and 3 more)"), "{remarks:?}");
    // Who may see tagged columns is another question.
    assert_eq!(
        lint(
            "permit (principal == Workload::\"deploy\", action in Action::\"sensitive\", resource);"
        ),
        []
    );
}

#[test]
fn permits_for_all_and_for_unknown_are_remarked() {
    let everything = lint("permit (principal, action, resource);");
    assert!(
        everything[0].1.contains("everything to everyone"),
        "{everything:?}"
    );
    let unknown =
        lint("permit (principal == Workload::\"unknown\", action in Action::\"read\", resource);");
    assert!(
        unknown[0].1.contains("matches no [[workload]]"),
        "{unknown:?}"
    );
    let anyone = lint("permit (principal, action in Action::\"use\", resource);");
    assert!(
        anyone[0].1.contains("match no [[workload]] too"),
        "{anyone:?}"
    );
    assert_eq!(
        lint(
            "permit (principal, action in Action::\"use\", resource) unless { principal == Workload::\"unknown\" };"
        ),
        []
    );
}

#[test]
fn a_policy_that_can_never_apply_is_remarked() {
    for text in [
        "permit (principal == Workload::\"deploy\", action == Action::\"select\", resource) when { principal == Workload::\"nightly-report\" && false };",
        // A verb on a kind it is never decided on.
        "permit (principal == Workload::\"deploy\", action == Action::\"view\", resource == Table::\"orders-db/a/b/c\");",
    ] {
        let text = format!(
            "{text}\npermit (principal == Workload::\"deploy\", action in Action::\"use\", resource);"
        );
        let remarks = lint(&text);
        assert!(remarks[0].1.contains("policy `a.cedar#0`"), "{remarks:?}");
    }
}
