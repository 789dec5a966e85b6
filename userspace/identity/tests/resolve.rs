//! Which workload a process belongs to, through the public interface.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lockgate_command::WorkloadName;
use lockgate_config::Workload;
use lockgate_identity::{Ancestor, ExecKey, Executable, Origin, WorkloadError, Workloads};
use proptest::prelude::*;

const ID: &str = "4f2c1e0d9b8a7766554433221100ffeeddccbbaa99887766554433221100abcd";

fn workload(name: &str) -> Workload {
    Workload {
        name: name.into(),
        ..Workload::default()
    }
}

fn unit(name: &str, unit: &str) -> Workload {
    Workload {
        unit: Some(unit.into()),
        ..workload(name)
    }
}

fn origin(cgroup: &str, uid: u32, executable: &str) -> Origin {
    Origin {
        original: "10.0.3.14:5432".parse().unwrap(),
        client: "10.0.3.1:40000".parse().unwrap(),
        tgid: 10,
        tid: 10,
        uid,
        gid: uid,
        cgroup_id: 7,
        cgroup: Some(cgroup.into()),
        netns_cookie: 1,
        connected_ns: 1,
        exec: ExecKey {
            tgid: 10,
            start_ns: 1,
            exec_ns: 1,
        },
        executable: Some(Executable {
            path: executable.into(),
            sha256: Some([0xab; 32]),
        }),
        ancestors: ["/usr/bin/bash", "/usr/bin/runner"]
            .into_iter()
            .zip(2..)
            .map(|(path, tgid)| Ancestor {
                tgid,
                executable: Some(path.into()),
            })
            .collect(),
        argv: vec![],
        comm: "psql".into(),
    }
}

fn load(entries: &[Workload]) -> Result<Workloads, Vec<WorkloadError>> {
    Workloads::load(entries, &BTreeMap::new())
}

fn resolved(entries: &[Workload], origin: &Origin) -> String {
    load(entries).unwrap().resolve(origin).to_string()
}

fn first_error(entry: Workload) -> String {
    load(&[entry]).unwrap_err()[0].to_string()
}

#[test]
fn a_system_unit_matches_in_any_system_slice_and_with_its_delegated_cgroups() {
    let entries = [unit("report", "report.service")];
    for cgroup in [
        "/system.slice/report.service",
        "/system.slice/system-jobs.slice/report.service",
        "/system.slice/report.service/payload/deep",
    ] {
        assert_eq!(
            resolved(&entries, &origin(cgroup, 0, "/bin/x")),
            "report",
            "{cgroup}"
        );
    }
    for cgroup in [
        "/user.slice/user-1000.slice/user@1000.service/app.slice/report.service",
        "/user.slice/report.service",
        "/system.slice/other.service/report.service",
        "/system.slice/report.service.evil",
        "/report.service",
        "/machine.slice/report.service",
    ] {
        assert_eq!(
            resolved(&entries, &origin(cgroup, 0, "/bin/x")),
            "unknown",
            "{cgroup}"
        );
    }
}

#[test]
fn a_path_matches_itself_and_below() {
    let entries = [unit("jobs", "/ci.slice/jobs")];
    assert_eq!(
        resolved(&entries, &origin("/ci.slice/jobs/17", 0, "/bin/x")),
        "jobs"
    );
    assert_eq!(
        resolved(&entries, &origin("/ci.slice/jobs2", 0, "/bin/x")),
        "unknown"
    );
}

#[test]
fn a_short_container_id_matches_and_a_longer_one_wins() {
    let short = Workload {
        container: Some(ID[..12].into()),
        ..workload("short")
    };
    let full = Workload {
        container: Some(ID.into()),
        ..workload("full")
    };
    let inside = origin(&format!("/system.slice/docker-{ID}.scope"), 0, "/bin/x");
    assert_eq!(resolved(std::slice::from_ref(&short), &inside), "short");
    assert_eq!(resolved(&[short, full], &inside), "full");
}

#[test]
fn narrowing_wins_and_what_is_not_attested_matches_nothing() {
    let narrow = Workload {
        executable: Some("/usr/bin/psql".into()),
        ..unit("psql", "ci.service")
    };
    let hashed = Workload {
        sha256: Some("ab".repeat(32)),
        ..unit("hashed", "ci.service")
    };
    let below = Workload {
        ancestor: Some("/usr/bin/runner".into()),
        ..unit("below", "ci.service")
    };
    let broad = unit("ci", "ci.service");
    let mut who = origin("/system.slice/ci.service", 1000, "/usr/bin/psql");

    assert_eq!(resolved(&[broad.clone(), narrow.clone()], &who), "psql");
    assert_eq!(resolved(&[broad.clone(), below.clone()], &who), "below");
    assert_eq!(
        resolved(&[broad.clone(), narrow.clone(), hashed.clone()], &who),
        "hashed"
    );
    let asks = |rule: &Workload, who: &Origin| {
        let workloads = load(std::slice::from_ref(rule)).unwrap();
        workloads.asks_sha256_of(who)
    };
    assert!(asks(&hashed, &who) && !asks(&narrow, &who));
    let other = origin("/system.slice/other.service", 1000, "/usr/bin/psql");
    assert!(!asks(&hashed, &other), "nobody's workload depends on it");

    who.executable = Some(Executable {
        path: "/usr/bin/psql".into(),
        sha256: None,
    });
    assert_eq!(resolved(&[broad.clone(), hashed.clone()], &who), "ci");
    who.executable = None;
    assert_eq!(resolved(&[narrow.clone(), hashed], &who), "unknown");
    who.cgroup = None;
    assert_eq!(resolved(&[broad, narrow], &who), "unknown");
}

#[test]
fn a_user_is_found_by_the_workload_s_name_or_by_number() {
    let named = Workload {
        user: Some("deploy".into()),
        ..workload("deployer")
    };
    let number = Workload {
        user: Some("1001".into()),
        ..workload("number")
    };
    let uids = BTreeMap::from([("deployer".to_owned(), 1000)]);
    let workloads = Workloads::load(&[named.clone(), number], &uids).unwrap();
    let resolve = |uid| workloads.resolve(&origin("/x", uid, "/bin/x"));
    assert_eq!(resolve(1000), WorkloadName::from("deployer"));
    assert_eq!(resolve(1001), WorkloadName::from("number"));
    assert_eq!(resolve(1002), WorkloadName::unknown());
    assert!(first_error(named).contains("user `deploy` is not known on this host"));
}

#[test]
fn each_mistake_is_named() {
    let executable_only = Workload {
        executable: Some("/bin/x".into()),
        ..workload("loose")
    };
    assert!(first_error(executable_only).contains("neither unit, container nor user"));
    assert!(first_error(unit("unknown", "a.service")).contains("is taken"));
    assert!(first_error(unit("a b", "a.service")).contains("a name is letters"));
    assert!(first_error(unit("a", "report")).contains("with its suffix"));
    assert!(first_error(unit("a", "jobs.slice")).contains("full cgroup path"));
    assert!(first_error(unit("a", "x/y.service")).contains("does not begin with one"));
    assert!(first_error(unit("a", "/system.slice/../x")).contains("is not a cgroup path"));
    assert!(
        first_error(unit(
            "a",
            "/user.slice/user-1.slice/user@1.service/a.service"
        ))
        .contains("match on `user`")
    );
    let id = Workload {
        container: Some("ABC".into()),
        ..workload("a")
    };
    assert!(first_error(id).contains("12 to 64"));
    let sha = Workload {
        sha256: Some("ab".into()),
        ..unit("a", "a.service")
    };
    assert!(first_error(sha).contains("64 hex digits"));
    for path in ["bin/x", "/usr/../bin/x", "/usr//bin/x"] {
        let exe = Workload {
            executable: Some(path.into()),
            ..unit("a", "a.service")
        };
        assert!(first_error(exe).contains("is not a full path"), "{path}");
    }
    let twice = load(&[unit("a", "a.service"), unit("a", "b.service")]).unwrap_err();
    assert_eq!(twice, [WorkloadError::Duplicate("a".into())]);
}

#[test]
fn ambiguity_names_both() {
    let same = load(&[unit("b", "x.service"), unit("a", "x.service")]).unwrap_err();
    assert!(
        same[0].to_string().contains("`a` and `b` can both match"),
        "{}",
        same[0]
    );
    let above = |name: &str, path: &str| Workload {
        ancestor: Some(path.into()),
        ..unit(name, "x.service")
    };
    let both = load(&[above("a", "/usr/bin/bash"), above("b", "/usr/bin/runner")]).unwrap_err();
    assert!(
        both[0].to_string().contains("both ancestors"),
        "{}",
        both[0]
    );
    // Different executables exclude each other.
    let exe = |name: &str, path: &str| Workload {
        executable: Some(path.into()),
        ..unit(name, "x.service")
    };
    load(&[exe("a", "/bin/a"), exe("b", "/bin/b")]).unwrap();
}

fn pick<T: Clone + std::fmt::Debug + 'static>(
    values: &[T],
) -> impl Strategy<Value = Option<T>> + use<T> {
    proptest::option::of(proptest::sample::select(values.to_vec()))
}

fn entries() -> impl Strategy<Value = Vec<Workload>> {
    let units = [
        "a.service",
        "/system.slice",
        "/system.slice/a.service",
        "/system.slice/a.service/x",
        "b.service",
    ];
    let one = (
        pick(&units.map(String::from)),
        pick(&[ID[..12].to_owned(), ID.to_owned()]),
        pick(&["0".to_owned(), "1000".into()]),
        pick(&[PathBuf::from("/bin/x"), "/bin/y".into()]),
        pick(&["ab".repeat(32), "cd".repeat(32)]),
        pick(&[PathBuf::from("/usr/bin/bash"), "/usr/bin/runner".into()]),
    );
    proptest::collection::vec(one, 1..6).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(
                |(index, (unit, container, user, executable, sha256, ancestor))| Workload {
                    name: format!("w{index}"),
                    unit,
                    container,
                    user,
                    executable,
                    sha256,
                    ancestor,
                },
            )
            .collect()
    })
}

fn origins() -> impl Strategy<Value = Origin> {
    let cgroups = [
        "/system.slice/a.service".to_owned(),
        "/system.slice/a.service/x/y".into(),
        "/system.slice/b.service".into(),
        format!("/system.slice/docker-{ID}.scope"),
        "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service".into(),
    ];
    (
        proptest::sample::select(cgroups.to_vec()),
        proptest::sample::select(vec![0, 1000]),
        proptest::sample::select(vec!["/bin/x", "/bin/y"]),
        0usize..3,
    )
        .prop_map(|(cgroup, uid, executable, ancestors)| {
            let mut origin = origin(&cgroup, uid, executable);
            origin.ancestors.truncate(ancestors);
            origin
        })
}

proptest! {
    #[test]
    fn the_order_of_the_entries_never_matters(
        (entries, shuffled) in entries().prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
        who in proptest::collection::vec(origins(), 8),
    ) {
        match (load(&entries), load(&shuffled)) {
            (Ok(first), Ok(second)) => for origin in &who {
                prop_assert_eq!(first.resolve(origin), second.resolve(origin));
                prop_assert_eq!(first.resolve(origin), first.resolve(origin));
            },
            (Err(first), Err(second)) => prop_assert_eq!(first.len(), second.len()),
            (first, second) => prop_assert!(false, "{first:?} but {second:?}"),
        }
    }

    /// What wins is never beaten by an entry that asks for the same and more.
    #[test]
    fn one_more_condition_always_wins(entries in entries(), who in origins()) {
        for entry in &entries {
            let mut narrower = entry.clone();
            narrower.name = "narrower".into();
            if narrower.user.is_none() {
                narrower.user = Some(who.uid.to_string());
            } else if narrower.executable.is_none() {
                narrower.executable = who.executable.as_ref().map(|own| own.path.clone());
            } else {
                continue;
            }
            let Ok(alone) = load(std::slice::from_ref(entry)) else { continue };
            let both = load(&[entry.clone(), narrower]).unwrap();
            if alone.resolve(&who) != WorkloadName::unknown() {
                prop_assert_eq!(both.resolve(&who), WorkloadName::from("narrower"));
            }
        }
    }

    #[test]
    fn a_user_s_own_manager_never_gives_a_system_workload(
        name in "[a-z]{1,8}\\.service",
        middle in proptest::collection::vec("[a-z]{1,8}\\.(slice|service|scope)", 0..4),
    ) {
        let path = ["/user.slice/user-1000.slice/user@1000.service".to_owned()]
            .into_iter().chain(middle).chain([name.clone()]).collect::<Vec<_>>().join("/");
        let found = resolved(&[unit("system", &name)], &origin(&path, 1000, "/bin/x"));
        prop_assert_eq!(found, "unknown");
    }
}
