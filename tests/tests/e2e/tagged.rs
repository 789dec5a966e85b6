//! What a workload learns of tagged columns that it may compare by and not see.

use lockgate_tests::{Agent, Postgres};

use crate::stage::{self, Stage};

/// `report` may filter by tagged columns.
fn stage() -> Stage {
    let postgres = Postgres::start(&Default::default()).unwrap();
    let tags = "tags = [{ columns = \"public.customers.ssn\", tag = \"pii\" }]";
    let mut config = stage::config(&postgres, tags);
    config.policies += r#"
@id("report-filters")
permit (principal == Workload::"report", action == Action::"filter", resource in Target::"orders-db")
when { resource.tags.contains("pii") };
"#;
    let agent = Agent::start(&config).unwrap();
    Stage::over(agent, postgres)
}

#[test]
fn errors_say_nothing_of_a_tagged_column() {
    let stage = stage();
    let quoting = "select id from customers where ssn::int = 1";
    let seen_by_all = stage.postgres.admin("shop", quoting).unwrap_err();
    assert!(
        format!("{seen_by_all:#}").contains("123-45"),
        "the server quotes the value: {seen_by_all:#}"
    );

    let output = stage.psql(
        &stage.report,
        &[
            "\\set VERBOSITY verbose",
            "select id from customers where ssn = '123-45-6789'",
            quoting,
            // From now on, all of this session's.
            "select 'private'::int",
        ],
    );
    assert_eq!(output.stdout, "1\n", "{output:?}");
    for text in ["123-45", "987-65", "private"] {
        assert!(!output.stderr.contains(text), "{output:?}");
    }
    let withheld = output
        .stderr
        .matches("22P02: lockgate: the server's message is withheld");
    assert_eq!(withheld.count(), 2, "{output:?}");

    let program = format!(
        "
with psycopg.connect(dsn, autocommit=True) as c:
    for run in [lambda s: c.execute(s, prepare=True), psycopg.ClientCursor(c).execute]:
        for s in [{quoting:?}, 'select ssn::int from customers', 'select ssn from customers']:
            try:
                print(run(s).fetchall())
            except psycopg.Error as e:
                d = e.diag
                print(e.sqlstate, d.message_primary, d.message_detail, d.context, d.column_name, sep='|')
"
    );
    let output = stage.python(&stage.report, &program);
    assert!(output.ok(), "{output:?}");
    assert!(!output.all().contains("-45"), "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{output:?}");
    for lines in lines.chunks(3) {
        assert!(
            lines[0].starts_with("22P02|lockgate: ") && lines[0].ends_with("|None|None|None"),
            "{output:?}"
        );
        for denied in &lines[1..] {
            assert!(
                denied.starts_with("42501|lockgate: no policy permits `view` on Column"),
                "{output:?}"
            );
        }
    }
}

#[test]
fn who_may_see_all_of_it_sees_the_server_s_errors() {
    let stage = stage();
    let owner = stage.agent.cgroup.unit("owner.service").unwrap();
    let output = stage.psql(&owner, &["select ssn::int from customers"]);
    assert!(
        output
            .stderr
            .contains("invalid input syntax for type integer: \"123-45-6789\""),
        "{output:?}"
    );
}

#[test]
fn the_record_says_what_was_compared_and_what_was_seen() {
    let stage = stage();
    let owner = stage.agent.cgroup.unit("owner.service").unwrap();
    let compared = "select id from customers where ssn = 'x'";
    assert!(stage.psql(&stage.report, &[compared]).ok());
    let seen = stage.psql(&owner, &["select id, ssn from customers order by id"]);
    assert_eq!(seen.stdout, "1|123-45-6789\n2|987-65-4321\n", "{seen:?}");
    for (workload, verb) in [("report", "filter"), ("owner", "view")] {
        let words = ["--workload", workload, "--verb", verb, "--verdict", "allow"];
        let events = stage.agent.events(&words, 1).unwrap();
        let objects = events[0]["objects"].to_string();
        assert!(
            objects.contains("orders-db/shop/public/customers/ssn"),
            "{events:?}"
        );
    }
}
