//! The command line, as an operator and a script see it. Needs neither root
//! nor a running agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// A folder as `lockgate init` makes it, with folders of its own for the agent.
struct Etc(tempfile::TempDir);

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn lockgate(arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_lockgate"))
        .args(arguments)
        .env_remove("LOCKGATE_CONFIG")
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Etc {
    fn new() -> Self {
        let etc = Self(tempfile::tempdir().unwrap());
        let made = lockgate(&["init", "--dir", &etc.text("etc")]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        etc.edit(
            "[agent]",
            &format!(
                "[agent]\nstate_dir = \"{}\"\nrun_dir = \"{}\"",
                etc.text("state"),
                etc.text("run")
            ),
        );
        etc.edit(
            "# [metrics]",
            &format!("[kernel]\npins = \"{}\"\n", etc.text("pins")),
        );
        etc
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn edit(&self, from: &str, to: &str) {
        let path = self.path("etc/lockgate.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}\n{text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let config = self.text("etc/lockgate.toml");
        lockgate(&[arguments, &["--config", &config]].concat())
    }
}

#[test]
fn what_init_writes_passes_check() {
    let etc = Etc::new();
    let checked = etc.run(&["check"]);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    assert!(
        checked
            .stdout
            .ends_with("1 target, 1 workload, 4 policies in 2 files\n"),
        "{}",
        checked.stdout
    );
    let secret = fs::metadata(etc.path("etc/secrets/nightly-report")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    let folder = fs::metadata(etc.path("etc/secrets")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
}

#[test]
fn init_overwrites_only_when_told() {
    let etc = Etc::new();
    let config = fs::read_to_string(etc.path("etc/lockgate.toml")).unwrap();
    let again = lockgate(&["init", "--dir", &etc.text("etc")]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    assert_eq!(
        fs::read_to_string(etc.path("etc/lockgate.toml")).unwrap(),
        config
    );
    fs::write(etc.path("etc/secrets/nightly-report"), "s3cret\n").unwrap();
    let forced = lockgate(&["init", "--dir", &etc.text("etc"), "--force"]);
    assert_eq!(forced.code, 0);
    assert_ne!(
        fs::read_to_string(etc.path("etc/lockgate.toml")).unwrap(),
        config
    );
    let secret = fs::read_to_string(etc.path("etc/secrets/nightly-report")).unwrap();
    assert_eq!(secret, "s3cret\n", "a secret is never overwritten");
}

#[test]
fn check_exits_with_one_for_any_finding_and_two_for_no_file() {
    let etc = Etc::new();
    etc.edit("mode     = \"enforce\"", "mode     = \"observe\"");
    etc.edit("# tags   =", "tags   =");
    let warned = etc.run(&["check"]);
    assert_eq!(warned.code, 1, "{}", warned.stderr);
    assert!(
        warned
            .stderr
            .starts_with("warning: target `orders-db` is only observed")
    );
    assert!(
        warned.stderr.contains("etc/lockgate.toml:"),
        "{}",
        warned.stderr
    );
    assert!(
        !warned.stderr.contains('\u{1b}'),
        "colours, but no terminal"
    );

    etc.edit(
        "workload = \"nightly-report\"",
        "workload = \"nightly-reprot\"",
    );
    let json = etc.run(&["check", "--json"]);
    assert_eq!(json.code, 1);
    let findings: Vec<Value> = json
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let wrong = findings
        .iter()
        .find(|finding| finding["severity"] == "error")
        .unwrap();
    assert_eq!(wrong["message"], "there is no workload `nightly-reprot`");
    assert_eq!(wrong["fix"], "did you mean `nightly-report`?");
    let line = wrong["line"].as_u64().unwrap() as usize;
    let text = fs::read_to_string(etc.path("etc/lockgate.toml")).unwrap();
    let line = text.lines().nth(line - 1).unwrap();
    let column = wrong["column"].as_u64().unwrap() as usize;
    assert!(
        line[column - 1..].starts_with("\"nightly-reprot\""),
        "{line}"
    );

    fs::remove_file(etc.path("etc/lockgate.toml")).unwrap();
    assert_eq!(etc.run(&["check"]).code, 2);
}

#[test]
fn check_finds_what_is_wrong_with_workloads_and_policies_at_their_lines() {
    let etc = Etc::new();
    etc.edit(
        "unit       = \"nightly-report.service\"",
        "executable = \"/usr/bin/python3\"",
    );
    let policies = etc.path("etc/policies/mine.cedar");
    fs::write(
        &policies,
        "\n\npermit (principal == Workload::\"nobody\", action, resource);\n",
    )
    .unwrap();
    let checked = etc.run(&["check", "--json"]);
    assert_eq!(checked.code, 1);
    let findings: Vec<Value> = checked
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let at = |file: &str| {
        let of_file = findings
            .iter()
            .find(|finding| finding["file"].as_str().unwrap().ends_with(file));
        of_file.unwrap_or_else(|| panic!("{file}: {findings:#?}"))
    };
    let workload = at("lockgate.toml");
    assert!(
        workload["message"]
            .as_str()
            .unwrap()
            .contains("neither unit, container nor user")
    );
    let text = fs::read_to_string(etc.path("etc/lockgate.toml")).unwrap();
    let line = text
        .lines()
        .nth(workload["line"].as_u64().unwrap() as usize - 1);
    assert_eq!(line, Some("name       = \"nightly-report\""));
    assert_eq!(at("mine.cedar")["line"], 3);
}

#[test]
fn policy_allow_writes_what_check_accepts_and_only_once() {
    let etc = Etc::new();
    let allow = [
        "policy",
        "allow",
        "nightly-report",
        "insert",
        "orders-db/shop/public/reports",
    ];
    let allowed = etc.run(&allow);
    assert_eq!(allowed.code, 0, "{}", allowed.stderr);
    assert!(
        allowed.stdout.contains("lockgate reload"),
        "{}",
        allowed.stdout
    );
    let path = etc.path("etc/policies/allowed.cedar");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("Table::\"orders-db/shop/public/reports\""),
        "{text}"
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o644
    );
    assert_eq!(etc.run(&["check"]).code, 0);

    let again = etc.run(&allow);
    assert_eq!(again.code, 0);
    assert!(
        again.stdout.contains("may do that already"),
        "{}",
        again.stdout
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let elsewhere = etc.run(&[
        "policy",
        "allow",
        "nightly-report",
        "write",
        "orders-db/shop",
        "--file",
        "mine.cedar",
    ]);
    assert_eq!(elsewhere.code, 0, "{}", elsewhere.stderr);
    assert!(etc.path("etc/policies/mine.cedar").is_file());
    assert_eq!(etc.run(&["check"]).code, 0);

    let printed = etc.run(&["policy", "allow", "ci", "read", "orders-db", "--print"]);
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    assert!(
        printed.stdout.contains("Workload::\"ci\""),
        "{}",
        printed.stdout
    );
}

#[test]
fn policy_allow_that_cannot_be_writes_nothing() {
    let etc = Etc::new();
    let before: Vec<_> = fs::read_dir(etc.path("etc/policies")).unwrap().collect();
    for (arguments, said) in [
        (["nobody", "read", "orders-db"], "nobody"),
        (["nightly-report", "devour", "orders-db"], "devour"),
        (["nightly-report", "read", "order-db"], "order-db"),
    ] {
        let refused = etc.run(&[&["policy", "allow"], &arguments[..]].concat());
        assert_eq!(refused.code, 2, "{arguments:?}: {}", refused.stdout);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    let outside = etc.run(&[
        "policy",
        "allow",
        "nightly-report",
        "write",
        "orders-db",
        "--file",
        "../x.cedar",
    ]);
    assert_eq!(outside.code, 2);
    let after: Vec<_> = fs::read_dir(etc.path("etc/policies")).unwrap().collect();
    assert_eq!(before.len(), after.len());
    assert_eq!(etc.run(&["check"]).code, 0);
}

const ASK: [&str; 6] = [
    "policy",
    "explain",
    "--workload",
    "nightly-report",
    "--target",
    "orders-db",
];

#[test]
fn an_explanation_without_an_agent_goes_by_the_configuration_and_says_so() {
    let etc = Etc::new();
    let explain = |more: &[&str]| etc.run(&[&ASK[..], more].concat());
    let unclear = explain(&["delete from orders"]);
    assert_eq!(unclear.code, 2);
    assert!(
        unclear.stderr.contains("--database NAME"),
        "{}",
        unclear.stderr
    );

    let denied = explain(&["--database", "shop", "delete from orders where id = 1"]);
    assert_eq!(denied.code, 1, "{}", denied.stderr);
    let expected = "\
DENIED: `nightly-report` may not do this at `orders-db`, database `shop`.

  connect      the target           permitted by `nightly-report-reads` (workloads.cedar:9)
  select       table public.orders  permitted by `nightly-report-reads` (workloads.cedar:9)
  delete       table public.orders  NOT PERMITTED by any policy
                                    to permit it: lockgate policy allow nightly-report delete orders-db/shop/public/orders

All of it must be permitted by some policy and forbidden by none; a forbid wins over every permit.

Names are those of policies and tags, and a table that they do not name is taken to be in
`public`: the server was not asked (no agent answers at ";
    assert!(denied.stdout.starts_with(expected), "{}", denied.stdout);

    let allowed = explain(&[
        "--database",
        "shop",
        "--offline",
        "select id from audit.entries",
    ]);
    assert_eq!(allowed.code, 0, "{}", allowed.stdout);
    assert!(allowed.stdout.starts_with("ALLOWED:"), "{}", allowed.stdout);
    assert!(
        allowed.stdout.contains("table audit.entries"),
        "{}",
        allowed.stdout
    );

    let forbidden = explain(&["--database", "shop", "copy orders to program 'cat'"]);
    assert_eq!(forbidden.code, 1);
    let said = "FORBIDDEN by `no-programs` (guardrails.cedar:8): the database server's file system";
    assert!(forbidden.stdout.contains(said), "{}", forbidden.stdout);

    let unread = explain(&["--database", "shop", "selct 1", "--json"]);
    assert_eq!(unread.code, 1);
    let answer: Value = serde_json::from_str(&unread.stdout).unwrap();
    assert_eq!(answer["verdict"], "deny");
    assert_eq!(answer["names_from"], "configuration");
    let construct = answer["refusal"]["construct"].as_str().unwrap();
    assert!(construct.contains("syntax error"), "{answer:#}");

    let connect = etc.run(&[
        "policy",
        "explain",
        "--workload",
        "unknown",
        "--target",
        "orders-db",
    ]);
    assert_eq!(connect.code, 1);
    assert!(
        connect.stdout.contains("`nothing-for-strangers`"),
        "{}",
        connect.stdout
    );

    // The server's word or none.
    assert_eq!(
        explain(&["--database", "shop", "--live", "select 1"]).code,
        3
    );
    let mistyped = [
        "policy",
        "explain",
        "--workload",
        "nightly-reprot",
        "--target",
        "orders-db",
    ];
    let mistyped = etc.run(&mistyped);
    assert_eq!(mistyped.code, 2);
    assert!(
        mistyped.stderr.contains("did you mean `nightly-report`?"),
        "{}",
        mistyped.stderr
    );
}

#[test]
fn explain_knows_the_database_that_policies_speak_of() {
    let etc = Etc::new();
    let allow = [
        "policy",
        "allow",
        "nightly-report",
        "insert",
        "orders-db/shop/sales/reports",
    ];
    assert_eq!(etc.run(&allow).code, 0);
    // A table that a policy names is in its schema only.
    let answer = etc.run(
        &[
            &ASK[..],
            &["--json", "insert into sales.reports values (1)"],
        ]
        .concat(),
    );
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(answer["database"], "shop");
    let insert = &answer["accesses"][1];
    assert_eq!(insert["resource"], "orders-db/shop/sales/reports");
    assert_eq!(insert["policies"][0]["file"], "allowed.cedar");
    assert_eq!(insert["policies"][0]["line"], 1);
}

#[test]
fn packs_are_listed_shown_and_installed() {
    let etc = Etc::new();
    let listed = lockgate(&["policy", "pack", "list"]);
    assert_eq!(listed.code, 0);
    for name in [
        "read-only",
        "analyst",
        "application",
        "migration",
        "no-accidents",
    ] {
        assert!(listed.stdout.contains(name), "{}", listed.stdout);
        let shown = lockgate(&["policy", "pack", "show", name]);
        assert!(
            shown.stdout.contains("Workload::\"WORKLOAD\""),
            "{}",
            shown.stdout
        );
        let install = [
            "policy",
            "pack",
            "install",
            name,
            "--workload",
            "nightly-report",
            "--target",
            "orders-db",
        ];
        let installed = etc.run(&install);
        assert_eq!(installed.code, 0, "{}", installed.stderr);
        let path = etc.path(&format!(
            "etc/policies/{name}-nightly-report-orders-db.cedar"
        ));
        assert!(
            fs::read_to_string(path)
                .unwrap()
                .contains("Workload::\"nightly-report\"")
        );
        let again = etc.run(&install);
        assert_eq!(again.code, 2, "{}", again.stdout);
        assert!(
            again.stderr.contains("is there already"),
            "{}",
            again.stderr
        );
    }
    let checked = etc.run(&["check"]);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    let nobody = [
        "policy",
        "pack",
        "install",
        "read-only",
        "--workload",
        "../x",
        "--target",
        "orders-db",
    ];
    let nobody = etc.run(&nobody);
    assert_eq!(nobody.code, 2);
    assert!(
        nobody.stderr.contains("there is no workload `../x`"),
        "{}",
        nobody.stderr
    );
    let mistyped = lockgate(&["policy", "pack", "show", "readonly"]);
    assert_eq!(mistyped.code, 2);
    assert!(
        mistyped.stderr.contains("did you mean `read-only`?"),
        "{}",
        mistyped.stderr
    );
}

#[test]
fn prepare_writes_roles_without_an_agent() {
    let etc = Etc::new();
    let forbid = "@id(\"no-payroll\") forbid (principal, action, resource in Table::\"orders-db/shop/hr/payroll\");";
    fs::write(etc.path("etc/policies/mine.cedar"), forbid).unwrap();
    let prepared = etc.run(&["target", "prepare", "orders-db"]);
    assert_eq!(prepared.code, 0, "{}", prepared.stderr);
    for line in [
        "CREATE ROLE \"report_ro\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;",
        "GRANT CONNECT ON DATABASE \"shop\" TO \"report_ro\";",
        "GRANT SELECT ON ALL TABLES IN SCHEMA \"hr\" TO \"report_ro\";",
        "REVOKE SELECT ON TABLE \"hr\".\"payroll\" FROM \"report_ro\";",
    ] {
        assert!(
            prepared.stdout.contains(line),
            "{line}\n{}",
            prepared.stdout
        );
    }
    assert!(
        !prepared.stdout.contains("GRANT INSERT"),
        "{}",
        prepared.stdout
    );
    assert!(
        prepared.stderr.contains("was not looked at"),
        "{}",
        prepared.stderr
    );
}

#[test]
fn without_an_agent_questions_exit_with_three() {
    let etc = Etc::new();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["reload"],
        &["stop"],
        &["stop", "--release"],
        &["check", "--target", "orders-db", "--database", "shop"],
    ] {
        let ran = etc.run(arguments);
        assert_eq!(ran.code, 3, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("no agent answers"), "{}", ran.stderr);
    }
}

#[test]
fn release_removes_nothing_that_is_no_pin() {
    let etc = Etc::new();
    fs::create_dir(etc.path("pins")).unwrap();
    fs::write(etc.path("pins/precious"), "x").unwrap();
    let ran = etc.run(&["stop", "--release"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("not on a bpf file system"),
        "{}",
        ran.stderr
    );
    assert!(etc.path("pins/precious").is_file());
}

#[test]
fn usage_errors_exit_with_two() {
    for arguments in [
        &["frobnicate"][..],
        &["check", "--jsno"],
        &["policy", "allow", "x"],
    ] {
        assert_eq!(lockgate(arguments).code, 2, "{arguments:?}");
    }
    let etc = Etc::new();
    let search = etc.run(&["audit", "search", "--since", "yesterday"]);
    assert_eq!(search.code, 2);
    assert!(
        search.stderr.contains("`yesterday` is no time"),
        "{}",
        search.stderr
    );
    assert_eq!(lockgate(&["--help"]).code, 0);
    assert_eq!(lockgate(&["internal", "gate", "x"]).code, 2);
}

#[test]
fn doctor_prints_one_object_per_line() {
    let etc = Etc::new();
    let ran = etc.run(&["doctor", "--json"]);
    let lines: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |state: &str| lines.iter().filter(|line| line["state"] == state).count();
    let broken = count("broken") > 0;
    assert_eq!(ran.code, i32::from(broken), "{}", ran.stdout);
    let grade = &lines.last().unwrap()["grade"];
    assert_eq!(grade == "F", broken, "{}", ran.stdout);
    assert_eq!(grade == "C", !broken && count("open") > 0, "{}", ran.stdout);
    let configuration = lines
        .iter()
        .find(|line| line["name"] == "configuration")
        .unwrap();
    assert_eq!(configuration["state"], "good");
    assert!(lines.iter().any(|line| line["name"] == "kernel"));
}
