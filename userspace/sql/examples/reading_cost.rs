//! Prints what reading a statement costs: cold (parsed and walked), cached
//! (looked up), resolved (names looked up in a small catalogue).
//!
//! cargo run --release -p lockgate-sql --example reading_cost
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

fn per_round(rounds: u32, mut one: impl FnMut(u32)) -> u128 {
    let start = Instant::now();
    (0..rounds).for_each(&mut one);
    start.elapsed().as_nanos() / u128::from(rounds)
}
