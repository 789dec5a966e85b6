//! Processes that die, disks that fill up, readers that run beside a writer.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockgate_audit::{
    EventKind, ReadError, SealError, Sealer, SegmentName, Spool, SpoolError, SpoolReader,
    SpoolSettings, SpoolWriter, Store,
};
use lockgate_command::Verb;

use crate::sample::{BOOT, Decided, TestSpool};

/// Names the segment that a process of this same program is to fill.
const SEGMENT: &str = "LOCKGATE_TEST_SEGMENT";
/// Names the small file system that a process of this same program may fill.
const SMALL_DISK: &str = "LOCKGATE_TEST_SMALL_DISK";

/// Appends commands with rising tickets until the segment is full.
fn fill(segment: File) -> u64 {
    let mut writer = SpoolWriter::open(segment).unwrap();
    let decided = Decided::new(Verb::Select, "orders", "SELECT * FROM orders", true);
    let mut ticket = 0;
    while writer.append(&decided.event(1, ticket)).is_ok() {
        ticket += 1;
    }
    ticket
}

/// Reads on; each ticket must be the next.
fn follow(reader: &mut SpoolReader, next: &mut u64) -> Result<(), ReadError> {
    while let Some(entry) = reader.next_event()? {
        let EventKind::Command(command) = entry.event.kind else {
            panic!("only commands were written");
        };
        assert_eq!(command.ticket.0, *next);
        *next += 1;
    }
    Ok(())
}

/// As a test: a whole segment is read as it was filled. As the child of
/// another test: fills the segment it was given.
#[test]
fn a_full_segment_is_read_whole() {
    if let Some(path) = std::env::var_os(SEGMENT) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        fill(file);
        return;
    }
    let mut spool = TestSpool::new(1 << 20);
    let filled = fill(spool.spool.create(0, 0).unwrap().into());
    let mut reader = spool
        .spool
        .reader(SegmentName {
            stream: 0,
            index: 0,
        })
        .unwrap();
    let mut next = 0;
    follow(&mut reader, &mut next).unwrap();
    reader.check_tail().unwrap();
    assert_eq!(next, filled);
}

struct Writer(Child);

impl Writer {
    fn start(segment: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::a_full_segment_is_read_whole",
                "--nocapture",
            ])
            .env(SEGMENT, segment)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_writer_killed_at_any_moment_leaves_its_events() {
    let mut partly = 0;
    for round in 0..40u64 {
        let mut spool = TestSpool::new(64 << 20);
        let name = SegmentName {
            stream: 0,
            index: 0,
        };
        drop(spool.spool.create(0, 0).unwrap());
        let path = spool.dir.path().join(name.to_string());
        let mut reader = spool.spool.reader(name).unwrap();
        let mut next = 0;
        let writer = Writer::start(&path);
        let patience = Instant::now() + Duration::from_secs(60);
        while next == 0 {
            assert!(Instant::now() < patience, "the writer wrote nothing");
            follow(&mut reader, &mut next).unwrap();
        }
        std::thread::sleep(Duration::from_micros(round * 137));
        drop(writer);
        follow(&mut reader, &mut next).unwrap();
        // The same again from the file alone, as a keeper that was restarted.
        let mut again = 0;
        let mut fresh = spool.spool.reader(name).unwrap();
        follow(&mut fresh, &mut again).unwrap();
        assert_eq!(again, next);
        match fresh.check_tail() {
            Ok(()) => {}
            // It died between the body and the length.
            Err(ReadError::Damaged { offset, .. }) => assert_eq!(offset, fresh.offset()),
            Err(error) => panic!("{error}"),
        }
        partly += u64::from(fresh.offset() < (64 << 20) - 4096);
    }
    assert!(partly > 0, "no writer was killed at work");
}

#[test]
fn a_reader_beside_the_writer_misses_nothing() {
    let mut spool = TestSpool::new(16 << 20);
    let segment: File = spool.spool.create(0, 0).unwrap().into();
    let mut reader = spool
        .spool
        .reader(SegmentName {
            stream: 0,
            index: 0,
        })
        .unwrap();
    let writing = std::thread::spawn(move || fill(segment));
    let mut next = 0;
    while !writing.is_finished() {
        follow(&mut reader, &mut next).unwrap();
    }
    let filled = writing.join().unwrap();
    follow(&mut reader, &mut next).unwrap();
    assert_eq!(next, filled);
}

#[test]
fn a_full_disk_refuses_segments_and_harms_none() {
    if let Some(dir) = std::env::var_os(SMALL_DISK) {
        return on_a_small_disk(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=32m tmpfs \"$0\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::a_full_disk_refuses_segments_and_harms_none",
            "--nocapture",
        ])
        .env(SMALL_DISK, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "needs root for a mount namespace: {text}"
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}

fn on_a_small_disk(dir: &Path) {
    let settings = SpoolSettings {
        segment_bytes: 1 << 20,
        max_segments: 64,
    };
    let mut spool = Spool::open(&dir.join("spool"), BOOT, settings).unwrap();
    let mut sealer = Sealer::new(Store::open(&dir.join("audit.sqlite")).unwrap(), "runner-7");
    let first = spool.create(0, 0).unwrap();
    let mut index = 1;
    let error = loop {
        match spool.create(0, index) {
            Ok(_) => index += 1,
            Err(error) => break error,
        }
    };
    assert!(
        (28..=31).contains(&index),
        "{index} segments of 1 MiB on 32 MiB"
    );
    assert!(matches!(error, SpoolError::NoSpace { .. }), "{error}");
    // The failed one left nothing behind.
    assert_eq!(spool.segments().unwrap().len() as u32, index);
    let mut names = std::fs::read_dir(dir.join("spool")).unwrap();
    assert!(names.all(|name| {
        !name
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".new")
    }));
    // What is left is filled by somebody else.
    let rest = vec![1; 4096];
    let mut other = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("other"))
        .unwrap();
    while std::io::Write::write_all(&mut other, &rest).is_ok() {}
    // A segment that was given keeps its promise: no SIGBUS, all of it.
    let filled = fill(first.into());
    assert!(filled > 1000);
    let mut reader = spool
        .reader(SegmentName {
            stream: 0,
            index: 0,
        })
        .unwrap();
    let mut next = 0;
    follow(&mut reader, &mut next).unwrap();
    assert_eq!(next, filled);
    // The store cannot take it now, says so, and takes it once there is room.
    let mut reader = spool
        .reader(SegmentName {
            stream: 0,
            index: 0,
        })
        .unwrap();
    let error = sealer.seal(&mut reader, 10_000).unwrap_err();
    assert!(matches!(error, SealError::Store(_)), "{error}");
    assert_eq!(sealer.store().events().unwrap(), 0);
    drop(other);
    std::fs::remove_file(dir.join("other")).unwrap();
    for index in 1..index {
        spool.remove(SegmentName { stream: 0, index }).unwrap();
    }
    while !sealer.seal(&mut reader, 500).unwrap().caught_up {}
    assert_eq!(sealer.store().events().unwrap(), filled);
    assert!(sealer.store().verify().unwrap().is_whole());
}
