//! What lockgate's processes may do, and what they need that for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use lockgate_tests::{Agent, Paused, Postgres, Workload, run, sh};

use crate::stage;

const NOBODY: u32 = 65534;

/// Each capability that gate keeps, and what does not work without it.
const NEEDED: &[(&str, &[&str])] = &[
    ("net_admin", &["earlier"]),
    ("sys_admin", &["start"]),
    ("sys_ptrace", &["others", "unreadable"]),
    // Nor is any cgroup opened by its id.
    ("dac_read_search", &["earlier", "others", "unreadable"]),
    ("sys_nice", &["first"]),
];

#[test]
fn gate_has_no_capability_that_it_does_not_need() {
    let postgres = Postgres::start(&Default::default()).unwrap();
    for (capability, lost) in [(None, &[] as &[&str])]
        .into_iter()
        .chain(NEEDED.iter().map(|(name, lost)| (Some(*name), *lost)))
    {
        assert_eq!(does_not_work(&postgres, capability), lost, "{capability:?}");
    }
}

/// What an agent cannot do without that capability.
fn does_not_work(postgres: &Postgres, without: Option<&'static str>) -> Vec<&'static str> {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Nobody may read it but the one who runs it.
    let psql = folder.path().join("psql");
    fs::copy(real_psql(), &psql).unwrap();
    chown(&psql, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&psql, fs::Permissions::from_mode(0o500)).unwrap();
    let digest = sh(&format!("sha256sum {} | cut -c1-64", psql.display())).unwrap();
    let digest = digest.trim();

    let mut config = stage::config(postgres, "");
    config.without = without;
    config.body = config.body.replace(
        "[[workload]]\nname = \"report\"\nunit = \"report.service\"\n",
        &format!(
            "[[workload]]\nname = \"report\"\nunit = \"path.service\"\nexecutable = \"{}\"\n\
             [[workload]]\nname = \"digest\"\nunit = \"digest.service\"\nsha256 = \"{digest}\"\n",
            psql.display()
        ),
    );
    config.body = config.body.replace(
        "{ workload = \"app\"",
        "{ workload = \"digest\", user = \"report_ro\", password = { file = \"SECRETS/report\" } },\n{ workload = \"app\"",
    );
    config.policies += "\n@id(\"digest\") permit (principal == Workload::\"digest\", action in [Action::\"use\", Action::\"read\"], resource in Target::\"orders-db\");";

    let mut agent = Agent::prepare(&config).unwrap();
    let before = agent.cgroup.unit("path.service").unwrap();
    let address = postgres.address();
    let earlier = "import socket,sys
s = socket.create_connection((sys.argv[1], 5432)); print('open', flush=True)
sys.stdin.readline()
try: print(len(s.recv(1)))
except OSError as e: print(e.errno)";
    let mut earlier = Paused::start(&before, earlier, address).unwrap();
    assert_eq!(earlier.line().unwrap(), "open");
    if agent.launch().is_err() {
        return vec!["start"];
    }
    let mut lost = Vec::new();
    if agent.status().unwrap()["gate"]["ended"] != 1 {
        lost.push("earlier");
    }
    drop(earlier);
    let ask = |unit: &str| {
        let unit: Workload = agent.cgroup.unit(unit).unwrap();
        let mut command = unit.command("setpriv");
        let user = format!("{NOBODY}");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        command.arg(&psql).args(["-XqAt", "-d"]);
        command.arg(format!("host={address} dbname=shop user=x"));
        run(command.args(["-c", "select 1"])).unwrap().stdout == "1\n"
    };
    if !ask("path.service") {
        lost.push("others");
    }
    if !ask("digest.service") {
        lost.push("unreadable");
    }
    if !goes_first(agent.pid("gate").unwrap()) {
        lost.push("first");
    }
    lost
}

/// psql itself, not the script of that name.
fn real_psql() -> &'static Path {
    Path::new("/usr/lib/postgresql/15/bin/psql")
}

/// Whether a process has the thread that looks at each execve, before others.
fn goes_first(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.any(|stat| {
        // proc_pid_stat(5): 41 is the policy, 1 of them SCHED_FIFO.
        let behind = stat.rsplit_once(')').unwrap().1;
        stat.contains("(execs)") && behind.split_whitespace().nth(38) == Some("1")
    })
}
