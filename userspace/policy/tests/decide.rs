//! What is allowed, what is denied, and what the denied are told.

use lockgate_command::{Access, Denial, Resource, ResourceKind, Shown, Verb, Verdict};
use lockgate_config::{Bundle, Config, PolicyFile};
use lockgate_policy::{
    AuthorError, Decision, Explanation, Missing, Policies, allow_policies, allow_policy,
};
use std::sync::Arc;

fn policies(text: &str) -> Policies {
    let config: Config = serde_json::from_value(serde_json::json!({
        "target": [{
            "name": "orders-db", "protocol": "postgres", "match": ["10.0.3.14:5432"],
            "tags": [
                { "columns": "public.customers.ssn", "tag": "pii" },
                { "columns": "shop.public.customers.card", "tag": "pci" },
            ],
        }, { "name": "other-db", "protocol": "postgres", "match": ["10.0.3.15:5432"] }],
        "workload": [{ "name": "report", "unit": "r.service" }, { "name": "deploy", "user": "deploy" }],
    }))
    .unwrap();
    let file = PolicyFile {
        name: "a.cedar".into(),
        text: text.into(),
    };
    let bundle = Bundle {
        epoch: 1,
        config,
        policies: vec![file],
        ..Bundle::default()
    };
    Policies::load(&bundle).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

fn table(name: &str) -> Resource {
    Resource::new(ResourceKind::Table, ["shop", "public", name])
}

fn column(database: &str, name: &str) -> Resource {
    Resource::new(
        ResourceKind::Column,
        [database, "public", "customers", name],
    )
}

fn decide(policies: &Policies, workload: &str, accesses: &[Access]) -> Decision {
    let fresh = policies.decide(&workload.into(), &"orders-db".into(), accesses);
    let again = policies.decide(&workload.into(), &"orders-db".into(), accesses);
    assert_eq!(fresh, again, "the cache changed the answer");
    fresh
}

fn allows(policies: &Policies, workload: &str, verb: Verb, resource: Resource) -> bool {
    decide(policies, workload, &[Access::new(verb, resource)]).verdict == Verdict::Allow
}

fn denial(decision: Decision) -> Arc<Denial> {
    match decision.verdict {
        Verdict::Deny(denial) => denial,
        other => panic!("{other:?}"),
    }
}

const READER: &str = r#"
@id("report-reads")
permit (
  principal == Workload::"report",
  action in [Action::"use", Action::"read"],
  resource in Target::"orders-db"
);

@id("no-payroll")
@reason("payroll is not for reports")
forbid (
  principal,
  action,
  resource in Table::"orders-db/shop/public/payroll"
);
"#;

#[test]
fn who_matches_nothing_may_do_nothing() {
    let policies = policies(READER);
    let target = Resource::target;
    for verb in [Verb::Connect, Verb::Session, Verb::Describe, Verb::Select] {
        assert!(allows(&policies, "report", verb, target()), "{verb}");
        assert!(!allows(&policies, "unknown", verb, target()), "{verb}");
        assert!(!allows(&policies, "deploy", verb, target()), "{verb}");
    }
    assert!(allows(&policies, "report", Verb::Select, table("orders")));
    assert!(!allows(&policies, "report", Verb::Delete, table("orders")));
    let elsewhere = policies.decide(
        &"report".into(),
        &"other-db".into(),
        &[Access::new(Verb::Connect, target())],
    );
    assert!(matches!(elsewhere.verdict, Verdict::Deny(_)));
}

#[test]
fn a_forbid_on_a_group_leaves_the_connection_alone() {
    for group in ["read", "write", "schema", "code", "admin"] {
        let policies = policies(&format!(
            "permit (principal == Workload::\"report\", action, resource);\n\
             forbid (principal, action in Action::\"{group}\", resource);"
        ));
        for verb in Verb::ALL {
            let resource = match verb {
                Verb::View | Verb::Filter => column("shop", "ssn"),
                Verb::Connect | Verb::Execute => Resource::target(),
                _ => table("orders"),
            };
            let allowed = allows(&policies, "report", *verb, resource);
            assert_eq!(allowed, verb.group() != group, "{verb} under {group}");
        }
    }
}

#[test]
fn a_forbid_is_named_with_its_place_and_reason() {
    let decision = decide(
        &policies(READER),
        "report",
        &[Access::new(Verb::Select, table("payroll"))],
    );
    assert_eq!(decision.policies.len(), 1);
    let denial = denial(decision);
    assert_eq!(
        denial.message,
        "lockgate: `select` on Table \"orders-db/shop/public/payroll\" is forbidden to `report` by policy `no-payroll` (a.cedar:9): payroll is not for reports"
    );
    assert_eq!(denial.policies[0].line, 9);
    assert!(!denial.hint.contains("policy allow"), "{}", denial.hint);
}

#[test]
fn what_nothing_permits_is_told_with_what_would_be_allowed() {
    let access = Access::new(Verb::Delete, table("orders"));
    let decision = decide(&policies(READER), "report", std::slice::from_ref(&access));
    assert_eq!(decision.policies, []);
    let denial = denial(decision);
    assert_eq!(
        denial.message,
        "lockgate: no policy permits `delete` on Table \"orders-db/shop/public/orders\" to `report`"
    );
    assert_eq!(
        denial.hint,
        "permitted to `report` on `orders-db`, on all or a part of it: connect, session, describe, select, listen; an operator can run `lockgate policy allow report delete orders-db/shop/public/orders`"
    );
    assert_eq!(denial.access, Some(access));
}

#[test]
fn a_name_that_a_shell_would_read_differently_is_not_suggested() {
    let text = denial(decide(
        &policies(READER),
        "report",
        &[Access::new(Verb::Delete, table("x; rm -rf ~\n"))],
    ));
    assert!(
        !text.hint.contains("lockgate policy allow"),
        "{}",
        text.hint
    );
    assert!(!text.message.contains('\n'), "{}", text.message);
    let long = denial(decide(
        &policies(READER),
        "report",
        &[Access::new(Verb::Delete, table(&"x".repeat(60_000)))],
    ));
    assert!(long.message.len() < 500 && long.hint.len() < 500);
}

#[test]
fn every_access_must_be_permitted() {
    let policies = policies(READER);
    let both = [
        Access::new(Verb::Select, table("orders")),
        Access::new(Verb::Update, table("orders")),
    ];
    let refused = denial(decide(&policies, "report", &both));
    assert_eq!(refused.access.as_ref().unwrap().verb, Verb::Update);
    let reads = [
        Access::new(Verb::Select, table("orders")),
        Access::new(Verb::Session, Resource::target()),
    ];
    let allowed = decide(&policies, "report", &reads);
    assert_eq!(allowed.verdict, Verdict::Allow);
    assert_eq!(allowed.policies.len(), 1, "one policy permits both");
    assert!(matches!(
        decide(&policies, "report", &[]).verdict,
        Verdict::Deny(_)
    ));
}

#[test]
fn a_workload_or_target_that_the_set_was_not_checked_with_is_denied() {
    let policies = policies("permit (principal, action, resource);");
    let access = [Access::new(Verb::Connect, Resource::target())];
    for (workload, target) in [("stranger", "orders-db"), ("report", "nowhere")] {
        let decision = policies.decide(&workload.into(), &target.into(), &access);
        assert!(denial(decision).message.contains("no workload `"));
    }
}

#[test]
fn an_access_the_schema_does_not_have_is_denied() {
    let policies = policies("permit (principal, action, resource);");
    let access = [Access::new(Verb::View, table("customers"))];
    assert!(
        denial(decide(&policies, "report", &access))
            .message
            .contains("the decision failed")
    );
    assert!(allows(
        &policies,
        "report",
        Verb::View,
        column("shop", "ssn")
    ));
}

/// Cedar alone answers Allow here: a forbid that fails is left out.
#[test]
fn an_error_in_a_validated_policy_denies() {
    let text = r#"
permit (principal == Workload::"report", action == Action::"view", resource);
@id("overflow")
forbid (principal, action == Action::"view", resource)
when { 9223372036854775807 + (if resource.tags.contains("pii") then 1 else 0) < 0 };
"#;
    let policies = policies(text);
    assert!(allows(
        &policies,
        "report",
        Verb::View,
        column("shop", "name")
    ));
    let decision = decide(
        &policies,
        "report",
        &[Access::new(Verb::View, column("shop", "ssn"))],
    );
    assert_eq!(&*decision.policies[0].id, "overflow");
    let text = &denial(decision).message;
    assert!(
        text.contains("the decision failed: policy `overflow` (a.cedar:3)"),
        "{text}"
    );
    assert!(text.contains("overflow"), "{text}");
}

#[test]
fn tags_of_the_configuration_are_seen_by_policies() {
    let policies = policies(
        r#"permit (principal == Workload::"report", action in Action::"sensitive", resource) when { resource.tags.contains("pii") };"#,
    );
    assert!(allows(
        &policies,
        "report",
        Verb::View,
        column("shop", "ssn")
    ));
    assert!(allows(
        &policies,
        "report",
        Verb::Filter,
        column("any", "ssn")
    ));
    assert!(!allows(
        &policies,
        "report",
        Verb::View,
        column("shop", "card")
    ));
    assert!(!allows(
        &policies,
        "report",
        Verb::View,
        column("shop", "name")
    ));
}

#[test]
fn a_name_with_a_slash_is_not_in_another_s_schema() {
    let policies = policies(
        r#"permit (principal == Workload::"report", action == Action::"select", resource in Schema::"orders-db/shop/public");"#,
    );
    let forged = Resource::new(ResourceKind::Table, ["shop/public", "x", "y"]);
    assert!(!allows(&policies, "report", Verb::Select, forged));
    assert!(allows(&policies, "report", Verb::Select, table("a/b")));
}

#[test]
fn exact_and_inherited_resources_differ() {
    let policies = policies(
        r#"
permit (principal == Workload::"report", action == Action::"session", resource == Target::"orders-db");
permit (principal == Workload::"deploy", action == Action::"session", resource in Target::"orders-db");
"#,
    );
    assert!(allows(
        &policies,
        "report",
        Verb::Session,
        Resource::target()
    ));
    assert!(!allows(&policies, "report", Verb::Session, table("orders")));
    assert!(allows(&policies, "deploy", Verb::Session, table("orders")));
}

#[test]
fn an_explanation_says_what_the_decision_says_and_more() {
    let policies = policies(READER);
    let explain = |verb, resource| {
        let access = Access::new(verb, resource);
        let explanation = policies.explain(&"report".into(), &"orders-db".into(), &access);
        let decided = decide(&policies, "report", &[access]).verdict == Verdict::Allow;
        assert_eq!(explanation.is_permitted(), decided);
        explanation
    };
    let Explanation::Permitted { policies: by } = explain(Verb::Select, table("orders")) else {
        panic!("reading is permitted");
    };
    assert_eq!(&*by[0].policy.id, "report-reads");
    let Explanation::Forbidden { policies: by } = explain(Verb::Select, table("payroll")) else {
        panic!("payroll is forbidden");
    };
    assert_eq!(by.len(), 1);
    assert_eq!(by[0].policy.line, 9);
    assert_eq!(by[0].reason.as_deref(), Some("payroll is not for reports"));
    assert_eq!(
        explain(Verb::Delete, table("orders")),
        Explanation::Unpermitted {
            command: Some(
                "lockgate policy allow report delete orders-db/shop/public/orders".into()
            )
        }
    );
    let unknown = Resource::new(ResourceKind::Table, ["shop", "?", "x"]);
    assert_eq!(
        explain(Verb::Delete, unknown),
        Explanation::Unpermitted { command: None }
    );
    let failed = explain(Verb::View, table("orders"));
    assert!(matches!(failed, Explanation::Failed { .. }), "{failed:?}");
}

#[test]
fn names_that_a_server_does_not_have_are_found_at_their_lines() {
    let policies = policies(READER);
    let names = policies.names_at(&"orders-db".into());
    assert_eq!(names, [table("payroll")]);
    assert_eq!(policies.names_at(&"other-db".into()), []);
    let missing = |_: &Resource| {
        Some(Missing {
            message: "schema `public` has no table `payroll`".into(),
            closest: Some("payrolls".into()),
        })
    };
    let findings = policies.missing_at(&"orders-db".into(), missing);
    assert_eq!(findings.len(), 1);
    assert_eq!(
        findings[0].to_string(),
        "a.cedar:14: warning: policy `no-payroll`: Table::\"orders-db/shop/public/payroll\": schema `public` has no table `payroll`, so that it forbids nothing there; did you mean `payrolls`?"
    );
    assert_eq!(policies.missing_at(&"orders-db".into(), |_| None), []);
}

#[test]
fn what_allow_writes_allows_that_and_to_connect() {
    let text = allow_policy(&"report".into(), "insert", "orders-db/shop/public/orders").unwrap();
    assert!(
        text.contains("@id(\"allow:report:insert:orders-db/shop/public/orders\")"),
        "{text}"
    );
    let set = policies(&text);
    assert!(allows(&set, "report", Verb::Insert, table("orders")));
    assert!(allows(&set, "report", Verb::Connect, Resource::target()));
    assert!(!allows(&set, "report", Verb::Insert, table("customers")));
    assert!(!allows(&set, "report", Verb::Update, table("orders")));
    assert!(!allows(&set, "deploy", Verb::Insert, table("orders")));

    let whole = allow_policies(&"report".into(), "read", "orders-db").unwrap();
    assert_eq!(
        whole[0].text,
        "@id(\"allow:report:read:orders-db\")\npermit (\n  principal == Workload::\"report\",\n  action in [Action::\"use\", Action::\"read\"],\n  resource in Target::\"orders-db\"\n);\n"
    );
    assert_eq!(whole.len(), 1, "who may read the target may connect");
    assert!(policies(&whole[0].text).has(&whole[0].id));
    let only = allow_policies(&"report".into(), "connect", "orders-db").unwrap();
    assert!(only[0].text.contains("action == Action::\"connect\""));
    assert_eq!(only.len(), 1);
}

#[test]
fn everything_that_allow_writes_is_valid() {
    let paths = [
        "orders-db",
        "orders-db/shop",
        "orders-db/shop/public",
        "orders-db/shop/public/orders",
        "orders-db/shop/public/customers/ssn",
        "orders-db/a%2Fb/50%25/\"q\\",
    ];
    let groups = Verb::ALL.iter().map(|verb| verb.group());
    for verb in Verb::ALL.iter().map(|verb| verb.as_str()).chain(groups) {
        for path in paths {
            match allow_policy(&"report".into(), verb, path) {
                Ok(text) => assert_eq!(policies(&text).lint(), [], "{text}"),
                Err(AuthorError::Nothing { .. }) => {}
                Err(other) => panic!("{verb} {path}: {other}"),
            }
        }
    }
    let set =
        policies(&allow_policy(&"report".into(), "call", "orders-db/shop/public/refund").unwrap());
    let refund = Resource::new(ResourceKind::Function, ["shop", "public", "refund"]);
    assert!(allows(&set, "report", Verb::Call, refund));
}

#[test]
fn allow_says_what_it_does_not_understand() {
    let error = |verb, path| {
        allow_policy(&"report".into(), verb, path)
            .unwrap_err()
            .to_string()
    };
    assert!(error("selct", "orders-db").contains("did you mean `select`?"));
    assert!(error("frobnicate", "orders-db").contains("groups: use, read"));
    for path in ["", "orders-db//x", "a/b/c/d/e/f", "a%b"] {
        assert!(error("read", path).contains("is not a path"), "{path}");
    }
    assert!(error("select", "orders-db/shop/public/customers/ssn").contains("on columns"));
    assert!(error("connect", "orders-db/shop").contains("is never decided on a Database"));
}

/// Columns of customers, each in its output.
fn shows<'a>(outputs: impl IntoIterator<Item = (u16, &'a str)>) -> Vec<Shown> {
    outputs
        .into_iter()
        .map(|(output, name)| Shown {
            output,
            column: column("shop", name),
            type_name: "text".into(),
        })
        .collect()
}

#[test]
fn a_shown_column_is_raw_to_who_may_view_it_else_masked_else_denied() {
    let view = r#"
@id("sees-pci") permit (principal == Workload::"report", action == Action::"view", resource)
when { resource.tags.contains("pci") };
@id("no-card") forbid (principal == Workload::"deploy", action == Action::"view",
  resource == Column::"orders-db/shop/public/customers/card");
"#;
    let policies = policies(view);
    let decide = |workload: &str, shown: &[Shown]| {
        let mask = |shown: &Shown| match shown.column.path()[3].as_str() {
            "ssn" => Ok("x"),
            "card" => Ok("y"),
            _ => Err("its tag has no mask".to_owned()),
        };
        policies.decide_shown(
            Vec::new(),
            &workload.into(),
            &"orders-db".into(),
            shown,
            mask,
        )
    };
    let ids = |decision: &Decision| {
        let ids = decision.policies.iter().map(|policy| policy.id.to_string());
        ids.collect::<Vec<_>>()
    };
    let raw = decide("report", &shows([(0, "card")]));
    assert_eq!(raw.verdict, Verdict::Allow);
    assert_eq!(ids(&raw), ["sees-pci"]);

    let some = decide("report", &shows([(0, "card"), (3, "ssn"), (1, "ssn")]));
    let masked = shows([(1, "ssn"), (3, "ssn")]);
    assert_eq!(some.verdict, Verdict::Mask(masked.into()), "in order");

    let forbidden = decide("deploy", &shows([(0, "card")]));
    assert_eq!(
        forbidden.verdict,
        Verdict::Mask(shows([(0, "card")]).into())
    );
    assert_eq!(ids(&forbidden), ["no-card"], "who forbids the raw value");

    // An output of several columns is masked as soon as one of them is.
    let both = decide("report", &shows([(0, "card"), (0, "ssn")]));
    assert_eq!(both.verdict, Verdict::Mask(shows([(0, "ssn")]).into()));
    let two_masks = decide("deploy", &shows([(0, "ssn"), (0, "card")]));
    assert!(
        matches!(two_masks.verdict, Verdict::Deny(_)),
        "{two_masks:?}"
    );

    let no_mask = denial(decide("report", &shows([(0, "ssn"), (1, "phone")])));
    assert!(no_mask.message.contains("customers/phone"), "{no_mask:?}");
    assert!(no_mask.hint.contains("its tag has no mask"), "{no_mask:?}");
    assert_eq!(
        decide("unknown", &[]).verdict,
        Verdict::Allow,
        "nothing shown"
    );
}

#[test]
fn who_may_view_may_filter_unless_that_is_forbidden() {
    let policies = policies(
        r#"
permit (principal == Workload::"report", action == Action::"view", resource);
permit (principal == Workload::"deploy", action == Action::"filter", resource);
forbid (principal, action == Action::"filter",
  resource == Column::"orders-db/shop/public/customers/card");
"#,
    );
    let asked = |workload, verb, name| allows(&policies, workload, verb, column("shop", name));
    assert!(asked("report", Verb::Filter, "ssn"));
    assert!(asked("deploy", Verb::Filter, "ssn"));
    assert!(
        !asked("deploy", Verb::View, "ssn"),
        "not the other way round"
    );
    assert!(!asked("report", Verb::Filter, "card"), "forbidden");
    assert!(asked("report", Verb::View, "card"));
}

#[test]
fn what_a_command_reaches_unnamed_needs_no_permit_but_no_forbid_either() {
    let policies = policies(
        r#"
@id("reads-a-view") permit (principal == Workload::"report", action == Action::"select",
  resource == Table::"orders-db/shop/public/names");
@id("no-vault") forbid (principal, action in Action::"read", resource == Table::"orders-db/shop/public/vault");
"#,
    );
    let reaches = |name: &str, verb| {
        let path = ["shop", "public", name];
        let access = Access::new(verb, Resource::new(ResourceKind::Table, path));
        policies.forbids(&"report".into(), &"orders-db".into(), &[access])
    };
    assert_eq!(
        reaches("customers", Verb::Select),
        None,
        "nothing permits it"
    );
    assert_eq!(reaches("vault", Verb::Delete), None, "nor forbids");
    let denial = reaches("vault", Verb::Select).expect("forbidden");
    assert!(denial.message.contains("no-vault"), "{denial:?}");
    assert_eq!(
        policies.forbids(&"report".into(), &"orders-db".into(), &[]),
        None
    );
}
