//! Any bytes, read in any way: an answer, soon, and no panic.
//!
//! cargo +nightly fuzz run analyse
#![no_main]

use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use lockgate_sql::{
    Analyser, AnalyserSettings, Catalogue, Reading, SearchPath, SessionNames, Tags, resolve,
};

static ANALYSER: LazyLock<Analyser> = LazyLock::new(|| {
    Analyser::new(AnalyserSettings {
        statement_bytes: 65536,
        cache_bytes: 0,
        threads: 1,
    })
});

fuzz_target!(|input: &[u8]| {
    let Some((first, text)) = input.split_first() else {
        return;
    };
    let reading = Reading {
        standard_conforming_strings: first & 1 == 0,
        utf8: first & 2 == 0,
        utf8_names: first & 4 == 0,
    };
    let (done, waits) = mpsc::channel();
    let start = Instant::now();
    ANALYSER.analyse(
        text,
        reading,
        Box::new(move |analysis| done.send(analysis).unwrap()),
    );
    let analysis = waits.recv().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    let session = SessionNames {
        database: "d".into(),
        user: "u".into(),
        search_path: SearchPath::Unknown,
    };
    let resolved = resolve(&analysis, &Catalogue::default(), &session, &Tags::default());
    let statement = resolved.statement;
    assert_eq!(statement.accesses.is_empty(), statement.refusal.is_some());
});
