//! Prints what reading a statement costs: cold (parsed and walked), cached
//! (looked up), resolved (names looked up in a small catalogue).
//!
//! cargo run --release -p lockgate-sql --example reading_cost [-- --json]
//!
//! With `--json`, only what new statements of applications cost, in the form
//! that `cargo xtask bench` takes in.
use std::sync::mpsc;
use std::time::Instant;

use lockgate_sql::{
    Analyser, AnalyserSettings, Catalogue, Reading, SearchPath, SessionNames, Tags, resolve,
};

const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT abalance FROM pgbench_accounts WHERE aid = 12345",
    "UPDATE pgbench_accounts SET abalance = abalance + 17 WHERE aid = 12345",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 2, 3, 4, CURRENT_TIMESTAMP)",
    "SELECT o.id, c.name, sum(i.amount) FROM orders o JOIN customers c ON c.id = o.customer_id \
     JOIN items i ON i.order_id = o.id WHERE o.status = $1 AND o.made > now() - interval '1 day' \
     GROUP BY o.id, c.name HAVING sum(i.amount) > 100 ORDER BY 3 DESC LIMIT 10",
];

fn main() {
    let cold = on_a_parse_stack(cold_us);
    if std::env::args().any(|argument| argument == "--json") {
        let [p50, p99] = cold;
        println!(
            "{}",
            serde_json::json!({ "sql.cold_us_p50": p50, "sql.cold_us_p99": p99 })
        );
        return;
    }
    println!(
        "new statements of applications: {:.0} us p50, {:.0} us p99",
        cold[0], cold[1]
    );
    println!(
        "{:>6} {:>10} {:>10} {:>10}  ns per statement",
        "bytes", "cold", "cached", "resolved"
    );
    let session = SessionNames {
        database: "shop".into(),
        user: "clerk".into(),
        search_path: SearchPath::Known(vec!["pg_catalog".into(), "public".into()]),
    };
    let (catalogue, tags) = (Catalogue::default(), Tags::default());
    for text in STATEMENTS {
        let analyser = Analyser::new(AnalyserSettings {
            statement_bytes: 65536,
            cache_bytes: 64 << 20,
            threads: 1,
        });
        let read = |text: &str| {
            let (done, waits) = mpsc::channel();
            let deliver = Box::new(move |analysis| {
                let _ = done.send(analysis);
            });
            analyser.analyse(text.as_bytes(), Reading::default(), deliver);
            waits.recv().expect("every text gets an answer")
        };
        let cold = per_round(2_000, |round| drop(read(&format!("{text} -- {round}"))));
        let analysis = read(text);
        let cached = per_round(1_000_000, |_| {
            assert!(
                analyser
                    .cached(text.as_bytes(), Reading::default())
                    .is_some()
            );
        });
        let resolved = per_round(100_000, |_| {
            drop(resolve(&analysis, &catalogue, &session, &tags))
        });
        println!(
            "{:>6} {cold:>10} {cached:>10} {resolved:>10}  {:.40}",
            text.len(),
            text
        );
    }
}

/// Half, and 99 of 100, of statements as drivers and ORMs send them are read in
/// no more than so many µs when they are new.
fn cold_us() -> [f64; 2] {
    let corpus = include_str!("../tests/second/applications.sql");
    let analyser = Analyser::new(AnalyserSettings {
        statement_bytes: 65536,
        cache_bytes: 1 << 20,
        threads: 1,
    });
    let mut times = Vec::new();
    for round in 0..400 {
        for text in corpus.split(";\n") {
            // A comment keeps it from being one that is known.
            let text = format!("{text} -- {round}");
            let start = Instant::now();
            let analysis = match analyser.analyse_here(text.as_bytes(), Reading::default()) {
                Some(analysis) => analysis,
                None => {
                    let (done, waits) = mpsc::channel();
                    let deliver = Box::new(move |analysis| drop(done.send(analysis)));
                    analyser.analyse(text.as_bytes(), Reading::default(), deliver);
                    waits.recv().expect("every text gets an answer")
                }
            };
            let time = start.elapsed();
            assert!(analysis.refusal().is_none(), "{text}");
            // The first round is for the processor's caches.
            if round > 0 {
                times.push(time.as_secs_f64() * 1e6);
            }
        }
    }
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

fn on_a_parse_stack<T: Send>(run: fn() -> T) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(lockgate_sql::STACK)
            .spawn_scoped(scope, run);
        thread
            .expect("the system gives a thread")
            .join()
            .expect("it ends well")
    })
}

fn per_round(rounds: u32, mut one: impl FnMut(u32)) -> u128 {
    let start = Instant::now();
    (0..rounds).for_each(&mut one);
    start.elapsed().as_nanos() / u128::from(rounds)
}
