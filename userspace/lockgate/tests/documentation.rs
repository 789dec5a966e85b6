//! docs/policies.md, run: what it shows is what the commands print. SECURITY.md:
//! what it names is there.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A command of the page and what the page says it prints.
struct Shown {
    line: usize,
    command: String,
    printed: String,
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policies.md");
    fs::read_to_string(path).unwrap()
}

fn blocks(kind: &str) -> Vec<(usize, String)> {
    let page = page();
    let mut lines = page.lines().enumerate();
    let mut found = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line == format!("```{kind}") {
            let block = lines.by_ref().map(|(_, line)| line);
            let block: Vec<&str> = block.take_while(|line| *line != "```").collect();
            found.push((number + 2, block.join("\n")));
        }
    }
    found
}

fn shown() -> Vec<Shown> {
    let of_block = |(line, block): (usize, String)| {
        let (command, printed) = block.split_once('\n').unwrap_or((&block, ""));
        Shown {
            line,
            command: command.strip_prefix("# ").expect("a prompt").to_owned(),
            printed: printed.to_owned(),
        }
    };
    blocks("console").into_iter().map(of_block).collect()
}

#[test]
fn the_page_of_policies_shows_what_its_commands_print() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("lockgate").display().to_string();
    let shown = shown();
    assert!(shown.len() >= 8, "{} commands", shown.len());
    for Shown {
        line,
        command,
        printed,
    } in shown
    {
        let rest = command
            .strip_prefix("lockgate ")
            .expect("a command of lockgate");
        let more = if rest == "init" {
            format!(" --dir {etc}")
        } else {
            String::new()
        };
        // As a person's shell reads it.
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("exec \"$LOCKGATE\" {rest}{more}")])
            .env("LOCKGATE", env!("CARGO_BIN_EXE_lockgate"))
            .env("LOCKGATE_CONFIG", format!("{etc}/lockgate.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let said = said.replace(&etc, "/etc/lockgate");
        assert_eq!(
            said.trim_end(),
            printed,
            "docs/policies.md:{line}: {command}"
        );
        let code = output.status.code().unwrap();
        let expected = i32::from(printed.starts_with("DENIED"));
        assert_eq!(code, expected, "docs/policies.md:{line}: {command}");
    }
    // What it quotes is what `init` wrote.
    let written = fs::read_to_string(format!("{etc}/policies/workloads.cedar")).unwrap();
    for (line, block) in blocks("cedar") {
        assert!(
            written.contains(&block),
            "docs/policies.md:{line} is not in workloads.cedar"
        );
    }
}

#[test]
fn each_test_that_security_md_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = String::new();
    for folder in [
        "tests/tests",
        "userspace/gate/tests",
        "userspace/identity/tests",
    ] {
        read_all(&root.join(folder), &mut sources);
    }
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut named = 0;
    let mut in_table = false;
    for line in text.lines() {
        let last = line.trim_end_matches('|').rsplit('|').next().unwrap_or("");
        in_table = line.starts_with('|') && (in_table || last.trim() == "test");
        if !in_table {
            continue;
        }
        for test in last.split('`').skip(1).step_by(2) {
            named += 1;
            let there = sources.contains(&format!("fn {test}("));
            assert!(there, "SECURITY.md names `{test}`, which is no test");
        }
    }
    assert!(named > 40, "{named} tests are named");
}

fn read_all(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|end| end == "rs") {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
