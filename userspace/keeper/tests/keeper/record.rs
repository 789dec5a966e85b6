//! Segments: handed out, followed, sealed; writers and keepers that are killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use lockgate_audit::{Event, EventKind, SpoolError, SpoolWriter, Store};
use lockgate_ipc::{Channel, pair};

use crate::agent::{Agent, bundle, recorded, setup, until};

/// Small segments, so that some are filled.
const CONFIG: &str = "audit = { segment_mib = 1, max_segments = 8 }";

/// Nobody dials in these tests.
fn nowhere() -> std::net::SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

fn event(worker: &str, number: u64) -> Event<'static> {
    let kind = EventKind::Agent {
        role: "proxy".into(),
        // Long enough for some thousands to fill a segment.
        what: format!("{worker} {number} {}", "-".repeat(200)),
    };
    Event::now(None, kind)
}

/// Numbers of the events in the store, by worker, in the order of the chain.
fn numbers(state: &Path) -> BTreeMap<String, Vec<u64>> {
    let mut found = BTreeMap::<String, Vec<u64>>::new();
    for row in recorded(state) {
        let what = row.message.unwrap_or_default();
        let mut words = what.split(' ');
        if let (Some(worker), Some(number)) = (words.next(), words.next())
            && let Ok(number) = number.parse()
        {
            found.entry(worker.to_owned()).or_default().push(number);
        }
    }
    found
}

fn assert_chain_is_whole(state: &Path) {
    let store = Store::open_read_only(&state.join("audit.sqlite")).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_whole(), "{report:?}");
}

fn segments(state: &Path) -> Vec<String> {
    let folder = std::fs::read_dir(state.join("spool")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("segment")).collect()
}

/// As a test: fills segments of two workers until each has had several. As the
/// child of another test: appends to the segment on its standard input until it
/// is killed, and says each number once it is appended.
#[tokio::test]
async fn what_workers_write_is_sealed_in_order_and_their_segments_are_freed() {
    if std::env::var_os(WRITER).is_some() {
        return write_until_killed();
    }
    let agent = Agent::start(CONFIG, nowhere()).await;
    let mut writers = Vec::new();
    for worker in 0..2u32 {
        let (_, fd) = agent.proxy.segment(worker).await;
        writers.push(SpoolWriter::open(fd.into()).unwrap());
    }
    let mut streams = [None; 2];
    for number in 0..20_000 {
        for worker in 0..2u32 {
            let writer = &mut writers[worker as usize];
            let next = event(&format!("w{worker}"), number);
            match writer.append(&next) {
                Ok(_) => {}
                Err(SpoolError::Full) => {
                    let (segment, fd) = until("a segment is free", async || {
                        let (reply, fd) = agent
                            .proxy
                            .ask(lockgate_ipc::Dialogue::Segment { worker })
                            .await;
                        match (reply, fd) {
                            (lockgate_ipc::Reply::Segment { segment }, Some(fd)) => {
                                Some((segment, fd))
                            }
                            // As many as there may be; some are being sealed.
                            _ => None,
                        }
                    })
                    .await;
                    let known = *streams[worker as usize].get_or_insert(segment.stream);
                    assert_eq!(known, segment.stream, "one stream for one worker");
                    *writer = SpoolWriter::open(fd.into()).unwrap();
                    writer.append(&next).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(streams[0].is_some() && streams[0] != streams[1]);
    drop(writers);
    let state = agent.state.clone();
    agent.drain().await.unwrap();
    let found = numbers(state.path());
    for worker in ["w0", "w1"] {
        assert!(found[worker].iter().copied().eq(0..20_000), "{worker}");
    }
    assert_eq!(segments(state.path()), [""; 0]);
    assert_chain_is_whole(state.path());
}

const WRITER: &str = "LOCKGATE_TEST_WRITER";

fn stdin_descriptor() -> OwnedFd {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap()
}

fn write_until_killed() {
    let mut writer = SpoolWriter::open(stdin_descriptor().into()).unwrap();
    for number in 0.. {
        if writer.append(&event("child", number)).is_err() {
            std::thread::park();
        }
        println!("appended {number}");
    }
}

/// A process that writes to a segment. Killed when dropped.
struct Writer {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(segment: OwnedFd) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "record::what_workers_write_is_sealed_in_order_and_their_segments_are_freed",
                "--nocapture",
            ])
            .env(WRITER, "1")
            .stdin(Stdio::from(segment))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads until it has appended number `least`.
    fn wait_for(&mut self, least: u64) {
        loop {
            if self.next().expect("it writes on") >= least {
                return;
            }
        }
    }

    fn next(&mut self) -> Option<u64> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test's own output stands between.
            if let Some((_, number)) = line.trim_end().split_once("appended ") {
                return number.parse().ok();
            }
        }
    }

    /// SIGKILL; the last number that it said it had appended.
    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut last = 0;
        while let Some(number) = self.next() {
            last = number;
        }
        last
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn assert_each_once(state: &Path, at_least: u64) {
    let found = numbers(state).remove("child").unwrap_or_default();
    let count = found.len() as u64;
    assert!(found.iter().copied().eq(0..count), "lost or doubled");
    assert!(
        count > at_least,
        "{count} events, but {at_least} was appended"
    );
    assert_chain_is_whole(state);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_leaves_every_event_exactly_once() {
    let agent = Agent::start(CONFIG, nowhere()).await;
    let (_, fd) = agent.proxy.segment(0).await;
    let mut writer = Writer::start(fd);
    writer.wait_for(500);
    // It is followed while it writes.
    until("events are sealed while the writer lives", async || {
        numbers(agent.state.path())
            .contains_key("child")
            .then_some(())
    })
    .await;
    let last = writer.kill();
    until("the segment is freed", async || {
        // keeper's own stays.
        (segments(agent.state.path()).len() == 1).then_some(())
    })
    .await;
    assert_each_once(agent.state.path(), last);
}

/// keeper in a process of its own, killed when dropped.
struct Process(Child);

impl Process {
    async fn start(state: &Path) -> (Self, Channel) {
        let (near, far) = pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "record::keeper_ends_with_its_parent",
                "--nocapture",
            ])
            .env(KEEPER, state)
            .stdin(Stdio::from(far))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        (Self(child), Channel::new(near).unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const KEEPER: &str = "LOCKGATE_TEST_KEEPER";

/// As a test: keeper ends when its parent does. As the child of a test: keeper
/// itself, with its parent at the standard input.
#[test]
fn keeper_ends_with_its_parent() {
    if let Some(state) = std::env::var_os(KEEPER) {
        let setup = setup(Path::new(&state), None);
        return lockgate_keeper::run(stdin_descriptor(), setup).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let state = tempfile::tempdir().unwrap();
        let (mut process, parent) = Process::start(state.path()).await;
        let (report, _) = parent.receive::<lockgate_ipc::Report>().await.unwrap();
        assert!(matches!(report, lockgate_ipc::Report::Ready));
        assert!(process.0.try_wait().unwrap().is_none());
        drop(parent);
        let status = until("it ends", async || process.0.try_wait().unwrap()).await;
        assert!(status.success());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_is_followed_by_one_that_loses_and_doubles_nothing() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let mut last = 0;
    let mut writers = Vec::new();
    // The writer of the first round goes on through all of them.
    for round in 0..4u64 {
        let (process, parent) = Process::start(state.path()).await;
        let agent = Agent::configured(parent, state.clone(), bundle(CONFIG), nowhere()).await;
        let (_, fd) = agent.proxy.segment(0).await;
        match round {
            0 => writers.push(Writer::start(fd)),
            // One that is never written to.
            _ => drop(fd),
        }
        last += 300;
        writers[0].wait_for(last);
        until("some is sealed", async || {
            numbers(state.path()).contains_key("child").then_some(())
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_millis(round * 37)).await;
        drop(process);
    }
    let last = writers.remove(0).kill();
    // Neither writer nor keeper lives; what they left is all there is.
    let agent = Agent::start_in(state.clone(), bundle(CONFIG), nowhere(), None).await;
    until("what was left is sealed", async || {
        (segments(state.path()).len() == 1).then_some(())
    })
    .await;
    agent.drain().await.unwrap();
    assert_each_once(state.path(), last);
    let started = recorded(state.path())
        .iter()
        .filter(|row| row.message.as_deref() == Some("keeper started"))
        .count();
    assert_eq!(started, 5);
}

#[tokio::test]
async fn a_full_spool_is_said_and_a_damaged_segment_is_put_aside() {
    let agent = Agent::start(CONFIG, nowhere()).await;
    // keeper has one of eight itself.
    let mut held = Vec::new();
    for worker in 0..7 {
        held.push(agent.proxy.segment(worker).await.1);
    }
    let full = lockgate_ipc::Dialogue::Segment { worker: 8 };
    let why = agent.proxy.refused(full).await;
    assert!(why.contains("audit.max_segments"), "{why}");
    let damaged = std::fs::File::from(held.remove(0));
    damaged.write_all_at(&[0xff; 8192], 0).unwrap();
    drop(damaged);
    until("it is put aside and recorded", async || {
        let aside = segments(agent.state.path())
            .iter()
            .any(|name| name.ends_with(".damaged"));
        let said = recorded(agent.state.path()).iter().any(|row| {
            let message = row.message.as_deref().unwrap_or_default();
            message.contains("damaged")
        });
        (aside && said).then_some(())
    })
    .await;
    assert_eq!(agent.status().await["record"]["damaged"], 1);
    // There is room again.
    agent.proxy.segment(8).await;
}

#[tokio::test]
async fn the_agents_own_events_are_in_the_record() {
    let agent = Agent::start(CONFIG, nowhere()).await;
    let state = agent.state.clone();
    agent.drain().await.unwrap();
    let said: Vec<String> = recorded(state.path())
        .into_iter()
        .filter_map(|row| row.message)
        .collect();
    let expected = [
        "keeper started",
        "configuration epoch 1 is in use: 0 targets, 0 workloads, 0 policy files",
        "the channel to a proxy ended: the peer is gone",
        "keeper ends",
    ];
    assert_eq!(said, expected);
}
