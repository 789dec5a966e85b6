//! Prints the names that a PostgreSQL server brings along, in the form of the
//! files in `data/`. Reads, from standard input, what psql answers to the
//! query that it prints when called with `--query`:
//!
//! ```text
//! cargo run --release -p lockgate-sql --example builtin_names -- --query \
//!     | psql -XAt | cargo run --release -p lockgate-sql --example builtin_names -- DIRECTORY
//! ```
use std::collections::BTreeMap;
use std::io::BufRead;

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

fn main() -> std::io::Result<()> {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument.is_empty() || argument == "--query" {
        println!("{QUERY}");
        return Ok(());
    }
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if let Some((file, name)) = line.split_once('|') {
            files
                .entry(file.to_owned())
                .or_default()
                .push(name.to_owned());
        }
    }
    for (file, mut names) in files {
        names.sort();
        let path = std::path::Path::new(&argument).join(format!("{file}.txt"));
        std::fs::write(path, names.join("\n") + "\n")?;
    }
    Ok(())
}
