//! docs/configuration.md has every key, and its examples are right.

use std::fs;
use std::path::Path;

use lockgate_config::Config;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    fs::read_to_string(path).unwrap()
}

#[test]
fn every_example_is_read() {
    let document = document();
    let examples: Vec<&str> = document
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 7, "{examples:#?}");
    for example in examples {
        let read = toml::from_str::<Config>(example);
        assert!(read.is_ok(), "{example}\n{}", read.unwrap_err());
    }
}

#[test]
fn every_key_is_described() {
    let document = document();
    let credential = "[[target]]\nname = 'a'\nprotocol = 'tcp'\nmatch = []\n";
    for (section, prefix, before) in [
        ("[agent]", "", ""),
        ("[kernel]", "", ""),
        ("[audit]", "", ""),
        ("[audit.clickhouse]", "clickhouse.", ""),
        ("[metrics]", "", ""),
        ("[limits]", "", ""),
        ("[[target]]", "", ""),
        ("[target.tls]", "tls.", credential),
        ("[[target.tags]]", "", credential),
        ("[[target.credentials]]", "", credential),
        ("[[workload]]", "", ""),
    ] {
        // An unknown key is answered with those there are.
        let text = format!("{before}{section}\nno_such_key = 1\n");
        let error = toml::from_str::<Config>(&text).unwrap_err().to_string();
        let (_, keys) = error
            .split_once("expected ")
            .unwrap_or_else(|| panic!("{error}"));
        let keys: Vec<&str> = keys.split('`').skip(1).step_by(2).collect();
        assert!(!keys.is_empty(), "{section}: {error}");
        for key in keys {
            // `audit.clickhouse` and the like have rows of their own.
            let alone = document.contains(&format!("`{prefix}{key}`"));
            let below = document.contains(&format!("`{prefix}{key}."));
            assert!(
                alone || below,
                "{section} {key} is not in docs/configuration.md"
            );
        }
    }
}
