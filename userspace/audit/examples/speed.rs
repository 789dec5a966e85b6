//! Prints what recording costs: appending a command, and sealing it into
//! SQLite. `cargo run --release -p lockgate-audit --example speed`
#![allow(missing_docs)]

use std::sync::Arc;
use std::time::Instant;

use lockgate_audit::{
    Claims, Event, EventKind, Query, Sealer, SegmentName, Spool, SpoolError, SpoolSettings,
    SpoolWriter, Store,
};
use lockgate_command::{
    Access, Command, ConnectionId, Outcome, PolicyRef, Resource, ResourceKind, Statement, TextId,
    Ticket, Verb, Verdict,
};
use lockgate_config::{Mode, Protocol};
use lockgate_identity::{ExecKey, Origin};

const COMMANDS: u64 = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "target".into());
    let dir = tempfile::tempdir_in(dir)?;
    let settings = SpoolSettings {
        segment_bytes: 8 << 20,
        max_segments: 1000,
    };
    let mut spool = Spool::open(dir.path(), uuid::Uuid::new_v4(), settings)?;
    let stream = spool.new_stream()?;

    let mut writers = Vec::new();
    for index in 0..32 {
        writers.push(SpoolWriter::open(spool.create(stream, index)?.into())?);
    }
    let mut writers = writers.into_iter();
    let mut writer = writers.next().ok_or("no segment")?;
    writer.append(&connected())?;
    let (command, policies) = select();
    let mut used = 1;
    let started = Instant::now();
    for ticket in 0..COMMANDS {
        let id = ConnectionId(1);
        let event = Event::command(
            id,
            Ticket(ticket),
            &command,
            &Verdict::Allow,
            &policies,
            true,
        );
        let outcome = Outcome::Done {
            rows: 1,
            bytes: 120,
        };
        let kind = EventKind::Ended {
            ticket: Ticket(ticket),
            outcome,
            duration_us: 180,
        };
        for event in [event, Event::now(Some(id), kind)] {
            if let Err(SpoolError::Full) = writer.append(&event) {
                writer = writers.next().ok_or("too few segments")?;
                used += 1;
                writer.append(&event)?;
            }
        }
    }
    let append = started.elapsed();
    let sync = Instant::now();
    writer.sync().sync()?;
    let sync = sync.elapsed();

    let mut sealer = Sealer::new(Store::open(&dir.path().join("audit.sqlite"))?, "speed");
    let started = Instant::now();
    for index in 0..used {
        let mut reader = spool.reader(SegmentName { stream, index })?;
        while !sealer.seal(&mut reader, 4096)?.caught_up {}
    }
    let seal = started.elapsed();
    let events = sealer.store().events()?;
    let started = Instant::now();
    let whole = sealer.store().verify()?.is_whole();
    let verify = started.elapsed();
    let started = Instant::now();
    let newest = sealer.store().search(&Query::default())?.len();
    let first_page = started.elapsed();
    let started = Instant::now();
    let text = Some("no such text".into());
    let none = sealer
        .store()
        .search(&Query {
            text,
            ..Query::default()
        })?
        .len();
    let scan = started.elapsed();
    let size = std::fs::metadata(dir.path().join("audit.sqlite"))?.len();

    println!(
        "append: {} ns per event",
        append.as_nanos() / (2 * u128::from(COMMANDS))
    );
    println!(
        "        {} bytes of spool per command and its end",
        u64::from(used) * (8 << 20) / COMMANDS
    );
    println!("        {} us for the last fdatasync", sync.as_micros());
    println!(
        "seal:   {:.0} events/s into SQLite, {events} events",
        events as f64 / seal.as_secs_f64()
    );
    println!("        {} bytes of SQLite per event", size / events);
    println!(
        "verify: {:.0} events/s, whole: {whole}",
        events as f64 / verify.as_secs_f64()
    );
    println!(
        "search: {} us for the newest {newest}",
        first_page.as_micros()
    );
    println!(
        "        {} ms to look at all of them and find {none}",
        scan.as_millis()
    );
    Ok(())
}

fn connected() -> Event<'static> {
    let address = "127.0.0.1:5432".parse().expect("an address");
    let origin = Origin {
        original: address,
        client: address,
        tgid: 1,
        tid: 1,
        uid: 1000,
        gid: 1000,
        cgroup_id: 1,
        cgroup: None,
        netns_cookie: 1,
        connected_ns: 1,
        exec: ExecKey {
            tgid: 1,
            start_ns: 1,
            exec_ns: 1,
        },
        executable: None,
        ancestors: Vec::new(),
        argv: Vec::new(),
        comm: "pgbench".into(),
    };
    Event::now(
        Some(ConnectionId(1)),
        EventKind::Connected {
            workload: "bench".into(),
            target: "orders-db".into(),
            protocol: Protocol::Postgres,
            mode: Mode::Enforce,
            origin: Box::new(origin),
            claims: Claims::default(),
        },
    )
}

fn select() -> (Command, Vec<PolicyRef>) {
    let shape = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
    let resource = Resource::new(ResourceKind::Table, ["bench", "public", "pgbench_accounts"]);
    let statement = Statement {
        accesses: vec![Access::new(Verb::Select, resource)],
        shown: Vec::new(),
        outputs: None,
        beneath: Vec::new(),
        shape: Some(shape.into()),
        writes: false,
        refusal: None,
    };
    let policy = PolicyRef {
        id: "bench-reads".into(),
        file: "bench.cedar".into(),
        line: 1,
    };
    (
        Command {
            statement: Arc::new(statement),
            text: TextId {
                len: shape.len() as u32,
                digest: [1; 32],
            },
            digest: [2; 32],
        },
        vec![policy],
    )
}
