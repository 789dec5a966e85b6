//! pg_dump and pg_restore: what they write must be the same to the last byte.

use std::fs;
use std::path::Path;

use super::host::{Client, Host, POLICIES, Who};

/// Differs with each dump, to make it unguessable for what is in the dump.
const RANDOM: &[&str] = &["\\restrict", "\\unrestrict"];

/// Reads a file of a dump, without the lines that differ by their nature.
fn content(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text
        .lines()
        .filter(|line| !RANDOM.iter().any(|r| line.starts_with(r)));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn pg_dump() {
    // The archive formats hold the settings of the database, with their values.
    let settings = r#"@id("backup-of-settings")
permit (principal == Workload::"report", action == Action::"inspect", resource == Table::"orders-db/shop/pg_catalog/pg_db_role_setting");"#;
    let host = Host::with(&[POLICIES, settings].concat(), "");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let dump = |name: &str, options: &[&str]| {
        let file = format!("--file={}", at(name).display());
        Client::new("pg_dump", &[&[&*file], options].concat())
    };

    // Who may read, may dump: as text, and by several connections at once.
    for (name, options) in [
        ("plain", &["--format=plain", "--clean"][..]),
        (
            "inserts",
            &["--format=plain", "--column-inserts", "--schema=public"],
        ),
        (
            "folder",
            &["--format=directory", "--jobs=3", "--compress=0"],
        ),
    ] {
        let (direct, intercepted) = (format!("{name}.direct"), format!("{name}.intercepted"));
        let output = host.direct(&dump(&direct, options), Who::Report);
        assert!(output.ok(), "{output:?}");
        let output = host.intercepted(&dump(&intercepted, options), Who::Report);
        assert!(output.ok(), "{output:?}\n{:#?}", host.denials());
        match name {
            "folder" => {
                let mut files = 0;
                for entry in fs::read_dir(at(&direct)).unwrap() {
                    let name = entry.unwrap().file_name();
                    // The table of contents has the time in it.
                    if name != "toc.dat" {
                        files += 1;
                        let (direct, intercepted) =
                            (at(&direct).join(&name), at(&intercepted).join(&name));
                        assert_eq!(content(&direct), content(&intercepted), "{name:?}");
                    }
                }
                assert!(files >= 6, "{files} files");
            }
            _ => assert_eq!(content(&at(&direct)), content(&at(&intercepted)), "{name}"),
        }
    }
    let denials = host.denials();
    assert!(denials.is_empty(), "{denials:#?}");
}

#[test]
fn pg_dump_of_what_may_not_be_read() {
    let forbidden = r#"@id("no-people") forbid (principal, action, resource == Table::"orders-db/shop/public/people");"#;
    let host = Host::with(&[POLICIES, forbidden].concat(), "");
    let output = host.intercepted(&Client::new("pg_dump", &[]), Who::Report);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output
            .stderr
            .contains("is forbidden to `report` by policy `no-people`")
            && !output.stdout.contains("ann@example.org"),
        "{output:?}"
    );
    let options = [
        "--exclude-table=people",
        "--exclude-table=sales",
        "--table=measures*",
    ];
    let output = host.intercepted(&Client::new("pg_dump", &options), Who::Report);
    assert!(
        output.ok() && output.stdout.contains("COPY public.measures_2026"),
        "{output:?}"
    );
}

#[test]
fn pg_restore() {
    let host = Host::with(
        r#"@id("restoring") permit (principal == Workload::"owner", action, resource in Target::"orders-db");"#,
        "",
    );
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive").display().to_string();
    let output = host.direct(
        &Client::new("pg_dump", &["--format=custom", "--file", &archive]),
        Who::Report,
    );
    assert!(output.ok(), "{output:?}");
    let restore = |database: &str| {
        host.postgres
            .admin(
                "postgres",
                &format!("create database {database} owner owner"),
            )
            .unwrap();
        let options = [
            "--no-owner",
            "--no-privileges",
            "--exit-on-error",
            "--jobs=2",
        ];
        let database = format!("--dbname={database}");
        Client::new(
            "pg_restore",
            &[&options[..], &[&database, &archive]].concat(),
        )
    };
    let output = host.direct(&restore("direct"), Who::Owner);
    assert!(output.ok(), "{output:?}");
    let output = host.intercepted(&restore("intercepted"), Who::Owner);
    assert!(output.ok(), "{output:?}\n{:#?}", host.denials());
    let restored = ["direct", "intercepted"].map(|database| {
        let file = folder.path().join(database);
        let options = ["--file", &file.display().to_string(), database];
        let output = host.direct(&Client::new("pg_dump", &options), Who::Owner);
        assert!(output.ok(), "{output:?}");
        content(&file)
    });
    assert_eq!(restored[0], restored[1]);
    assert!(
        restored[0].contains("CREATE MATERIALIZED VIEW"),
        "{}",
        restored[0]
    );
    let denials = host.denials();
    assert!(denials.is_empty(), "{denials:#?}");
}
