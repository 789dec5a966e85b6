//! Texts that the walk and sqlparser both read, and read differently. The same
//! comparison runs as a test: `tests/differential.rs`.
//!
//! cargo +nightly fuzz run differential
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use lockgate_sql::{Analyser, AnalyserSettings};

#[path = "../../tests/second/mod.rs"]
mod second;

static ANALYSER: LazyLock<Analyser> = LazyLock::new(|| {
    Analyser::new(AnalyserSettings {
        statement_bytes: 65536,
        cache_bytes: 0,
        threads: 1,
    })
});

fuzz_target!(|text: &str| {
    let mut explanations = second::Explanations::read();
    explanations.take(&ANALYSER, text);
    assert!(explanations.unexplained.is_empty(), "{:?}", explanations.unexplained);
});
