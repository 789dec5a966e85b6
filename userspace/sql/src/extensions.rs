//! What the code of well-known extensions does. See `data/README.md`.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use crate::builtin::FunctionClass;

/// A function of an extension that somebody has looked at.
#[derive(Debug)]
pub(crate) struct Listed {
    /// What it does; none where it is left a call.
    pub(crate) class: Option<FunctionClass>,
    /// Names that its body looks up when it runs, of functions and operators:
    /// others of these names may come first.
    pub(crate) uses: Vec<&'static str>,
}

struct Extension {
    versions: HashSet<&'static str>,
    code: HashMap<&'static str, Listed>,
}

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../data/extensions/", $name, ".txt")))),*]
    };
}

const FILES: &[(&str, &str)] = files! {
    "citext" "hstore" "ltree" "pg_stat_statements" "pg_trgm" "pgcrypto" "postgis" "unaccent"
    "uuid-ossp" "vector"
};

static EXTENSIONS: LazyLock<HashMap<&str, Extension>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|(name, text)| (*name, read(name, text)))
        .collect()
});

fn read(name: &str, text: &'static str) -> Extension {
    let mut extension = Extension {
        versions: HashSet::new(),
        code: HashMap::new(),
    };
    for line in text.lines() {
        let line = line.split(" # ").next().unwrap_or_default();
        let Some((class, rest)) = line.split_once(' ').filter(|(first, _)| *first != "#") else {
            continue;
        };
        let class = match class {
            "versions" => {
                extension.versions = rest.split(' ').collect();
                continue;
            }
            "pure" => Some(FunctionClass::Pure),
            "inspect" => Some(FunctionClass::Inspect),
            "system" => Some(FunctionClass::System),
            "call" => None,
            _ => panic!("data/extensions/{name}.txt: {line}"),
        };
        let (code, uses) = rest.split_once(" using ").unwrap_or((rest, ""));
        let uses = uses.split_whitespace().collect();
        extension.code.insert(code, Listed { class, uses });
    }
    extension
}

/// Whether that version of that extension was looked at.
pub(crate) fn is_listed(extension: &str, version: &str) -> bool {
    EXTENSIONS
        .get(extension)
        .is_some_and(|extension| extension.versions.contains(version))
}

/// What a function of that extension does, by what it runs.
pub(crate) fn listed(extension: &str, version: &str, code: &str) -> Option<&'static Listed> {
    let extension = EXTENSIONS.get(extension)?;
    let known = extension.versions.contains(version);
    extension.code.get(code).filter(|_| known)
}

/// Whether somebody has looked at that function of an extension, whatever came
/// of it. `code` is as [`crate::Catalogue::QUERIES`] give it.
pub fn extension_lists(extension: &str, version: &str, code: &str) -> bool {
    listed(extension, version, code).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_read_and_says_something() {
        for (name, text) in FILES {
            let extension = &EXTENSIONS[name];
            assert!(!extension.versions.is_empty(), "{name}");
            let lines = text.lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(extension.code.len() + 1, lines, "{name}: a line twice");
        }
    }

    #[test]
    fn what_acts_is_not_pure() {
        let class =
            |extension, version, code| listed(extension, version, code).map(|listed| listed.class);
        let pure = Some(Some(FunctionClass::Pure));
        assert_eq!(class("citext", "1.6", "c $libdir/citext citext_eq"), pure);
        assert_eq!(class("citext", "9.9", "c $libdir/citext citext_eq"), None);
        assert_eq!(class("citext", "1.6", "c $libdir/dblink dblink_exec"), None);
        assert_eq!(class("dblink", "1.2", "c $libdir/dblink dblink_exec"), None);
        assert_eq!(
            class("hstore", "1.8", "c $libdir/hstore hstore_populate_record"),
            Some(None)
        );
        assert_eq!(
            class(
                "postgis",
                "3.3.2",
                "c $libdir/postgis-3 pgis_tablefromflatgeobuf"
            ),
            Some(None)
        );
        assert_eq!(
            class(
                "pg_stat_statements",
                "1.10",
                "c $libdir/pg_stat_statements pg_stat_statements_reset_1_7"
            ),
            Some(Some(FunctionClass::System))
        );
    }
}
