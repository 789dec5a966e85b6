//! Prints the names that a PostgreSQL server brings along, in the form of the
//! files in `data/`. Reads, from standard input, what psql answers to the
//! query that it prints when called with `--query`:
//!
//! ```text
//! cargo run --release -p lockgate-sql --example builtin_names -- --query \
//!     | psql -XAt | cargo run --release -p lockgate-sql --example builtin_names -- DIRECTORY
//! ```
//!
//! With `--later DIRECTORY`, what the server has beyond these files is added to
//! those named `…-later.txt`.
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Error};
use std::path::{Path, PathBuf};

/// 16384 is FirstNormalObjectId: what has a smaller oid came with the server.
/// A name is volatile if an overload is that SQL can call: not those for
/// triggers, or with arguments that only the server can make.
const QUERY: &str = "
select 'functions', case when bool_or(provolatile = 'v'
        and prorettype::regtype::text not in ('trigger', 'event_trigger')
        and 'internal'::regtype <> all (proargtypes::oid[])) then 'v ' else 'n ' end || proname
    from pg_catalog.pg_proc where oid < 16384 group by proname
union all
select distinct 'operators', oprname::text from pg_catalog.pg_operator where oid < 16384
union all
select distinct 'types', typname::text from pg_catalog.pg_type where oid < 16384
order by 1, 2;";

/// Names to whole lines; the line of a function begins with its volatility.
type Lines = BTreeMap<String, String>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (later, directory) = match &arguments[..] {
        [directory] if directory != "--query" => (false, Path::new(directory)),
        [later, directory] if later == "--later" => (true, Path::new(directory)),
        _ => {
            println!("{QUERY}");
            return Ok(());
        }
    };
    let mut files: BTreeMap<String, Lines> = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if let Some((file, line)) = line.split_once('|') {
            add(files.entry(file.to_owned()).or_default(), line);
        }
    }
    for (file, mut lines) in files {
        let base = directory.join(format!("{file}.txt"));
        if !later {
            write(base, &lines)?;
            continue;
        }
        let known = read(&base)?;
        lines.retain(|name, _| !known.contains_key(name));
        let path = directory.join(format!("{file}-later.txt"));
        for line in read(&path).unwrap_or_default().values() {
            add(&mut lines, line);
        }
        if !lines.is_empty() {
            write(path, &lines)?;
        }
    }
    Ok(())
}

/// Of two lines about one function, that which says it is volatile stays.
fn add(lines: &mut Lines, line: &str) {
    let name = line.split_once(' ').map_or(line, |(_, name)| name);
    let before = lines.get(name);
    if before.is_none_or(|before| before.as_str() < line) {
        lines.insert(name.to_owned(), line.to_owned());
    }
}

fn read(path: &Path) -> Result<Lines, Error> {
    let mut lines = Lines::new();
    for line in fs::read_to_string(path)?.lines() {
        add(&mut lines, line);
    }
    Ok(lines)
}

/// In the order of the lines, not of the names.
fn write(path: PathBuf, lines: &Lines) -> Result<(), Error> {
    let mut lines: Vec<&str> = lines.values().map(String::as_str).collect();
    lines.sort_unstable();
    fs::write(path, lines.join("\n") + "\n")
}
