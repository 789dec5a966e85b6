//! Short texts are read on the caller's thread.

use lockgate_sql::{Analyser, AnalyserSettings, Reading, STACK};

#[test]
fn a_short_text_is_read_here_and_remembered_and_a_long_one_is_not() {
    let read = || {
        let analyser = Analyser::new(AnalyserSettings {
            statement_bytes: 65_536,
            cache_bytes: 1 << 20,
            threads: 1,
        });
        let reading = Reading::default();
        let text = b"select 1";
        assert!(analyser.cached(text, reading).is_none());
        let here = analyser.analyse_here(text, reading).unwrap();
        let again = analyser.cached(text, reading).unwrap();
        assert!(std::sync::Arc::ptr_eq(&here, &again));
        let long = format!("select '{}'", "x".repeat(600));
        assert!(analyser.analyse_here(long.as_bytes(), reading).is_none());
        // The deepest that is short.
        for deep in ["(", "not ", "-", "+", "a.", "case when "] {
            let text = format!("select {}", deep.repeat(504 / deep.len()));
            analyser.analyse_here(text.as_bytes(), reading).unwrap();
        }
        let nested = format!("select {}1{}", "(".repeat(250), ")".repeat(250));
        analyser.analyse_here(nested.as_bytes(), reading).unwrap();
    };
    let thread = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(read)
        .unwrap();
    thread.join().unwrap();
}
