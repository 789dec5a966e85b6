use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use lockgate_audit::{
    Damage, EventKind, ReadError, SegmentName, Spool, SpoolError, SpoolReader, SpoolSettings,
    SpoolWriter,
};
use lockgate_command::Verb;

use crate::sample::{BOOT, Decided, TestSpool, agent, connected};

/// Three records and where each begins; the file's content up to its end.
fn written() -> (TestSpool, PathBuf, Vec<u64>, Vec<u8>) {
    let mut spool = TestSpool::new(4096);
    let (stream, mut writer) = spool.writer();
    let mut bounds = vec![writer.position()];
    for number in 0..3 {
        bounds.push(writer.append(&agent(&format!("event {number}"))).unwrap());
    }
    let path = spool
        .dir
        .path()
        .join(SegmentName { stream, index: 0 }.to_string());
    let content = fs::read(&path).unwrap();
    (spool, path, bounds, content)
}

/// What a reader makes of the file: the events' texts, and how it ended.
fn read(path: &PathBuf) -> (Vec<String>, Result<(), ReadError>) {
    let mut reader = SpoolReader::open(File::open(path).unwrap()).unwrap();
    let mut texts = Vec::new();
    let end = loop {
        match reader.next_event() {
            Ok(Some(entry)) => match entry.event.kind {
                EventKind::Agent { what, .. } => texts.push(what),
                other => panic!("{other:?} was never written"),
            },
            Ok(None) => break reader.check_tail(),
            Err(error) => break Err(error),
        }
    };
    (texts, end)
}

fn put(path: &PathBuf, content: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(content, 0).unwrap();
}

#[test]
fn a_record_torn_at_any_byte_ends_the_prefix_before_it() {
    let (_spool, path, bounds, content) = written();
    let (texts, end) = read(&path);
    assert_eq!(texts, ["event 0", "event 1", "event 2"]);
    end.unwrap();
    for cut in bounds[1]..bounds[2] {
        // Power was lost: this page's rest never reached the disk.
        let mut torn = content.clone();
        torn[cut as usize..].fill(0);
        put(&path, &torn);
        let (texts, end) = read(&path);
        let body_is_whole = torn[..bounds[2] as usize] == content[..bounds[2] as usize];
        match body_is_whole {
            true => assert_eq!(texts, ["event 0", "event 1"], "cut at {cut}"),
            false => {
                assert_eq!(texts, ["event 0"], "cut at {cut}");
                let nothing = cut == bounds[1];
                assert_eq!(end.is_ok(), nothing, "cut at {cut}: {end:?}");
            }
        }
    }
}

#[test]
fn a_writer_that_died_before_the_length_leaves_a_named_tail() {
    let (_spool, path, bounds, content) = written();
    let mut torn = content;
    torn[bounds[2] as usize..bounds[2] as usize + 4].fill(0);
    put(&path, &torn);
    let (texts, end) = read(&path);
    assert_eq!(texts, ["event 0", "event 1"]);
    let Err(ReadError::Damaged {
        offset,
        damage: Damage::Tail,
    }) = end
    else {
        panic!("{end:?}");
    };
    assert_eq!(offset, bounds[2]);
}

#[test]
fn every_flipped_bit_is_found() {
    let (_spool, path, bounds, content) = written();
    let mut unseen = 0;
    for byte in bounds[1]..bounds[2] {
        for bit in 0..8 {
            let mut flipped = content.clone();
            flipped[byte as usize] ^= 1 << bit;
            put(&path, &flipped);
            let (texts, end) = read(&path);
            match end {
                Err(_) => assert_eq!(texts, ["event 0"], "byte {byte}, bit {bit}"),
                // The padding between records means nothing.
                Ok(()) => {
                    assert_eq!(texts, ["event 0", "event 1", "event 2"]);
                    assert!(byte >= bounds[2] - 7, "byte {byte}, bit {bit}");
                    unseen += 1;
                }
            }
        }
    }
    assert!(unseen <= 7 * 8);
}

#[test]
fn every_flipped_bit_of_the_header_is_found() {
    let (_spool, path, _, content) = written();
    for bit in 0..64 * 8 {
        let mut flipped = content.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        put(&path, &flipped);
        let opened = SpoolReader::open(File::open(&path).unwrap());
        assert!(
            matches!(opened, Err(ReadError::NotASegment(_))),
            "bit {bit}"
        );
    }
}

#[test]
fn a_record_that_was_moved_or_copied_is_not_believed() {
    let (mut spool, path, bounds, content) = written();
    let (first, second) = (bounds[0] as usize, bounds[1] as usize);
    let mut replayed = content.clone();
    replayed.copy_within(first..second, second);
    put(&path, &replayed);
    let (texts, end) = read(&path);
    assert_eq!(texts, ["event 0"]);
    assert!(
        matches!(
            end,
            Err(ReadError::Damaged {
                damage: Damage::Checksum,
                ..
            })
        ),
        "{end:?}"
    );
    // Nor is one of another stream's segment.
    let (stream, _writer) = spool.writer();
    let other = spool
        .dir
        .path()
        .join(SegmentName { stream, index: 0 }.to_string());
    let file = OpenOptions::new().write(true).open(&other).unwrap();
    file.write_all_at(&content[first..second], first as u64)
        .unwrap();
    assert!(matches!(
        read(&other).1,
        Err(ReadError::Damaged {
            damage: Damage::Checksum,
            ..
        })
    ));
}

#[test]
fn a_length_beyond_the_end_is_named() {
    let (_spool, path, bounds, mut content) = written();
    let at = bounds[1] as usize;
    content[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    put(&path, &content);
    let (_, end) = read(&path);
    assert!(matches!(
        end,
        Err(ReadError::Damaged {
            damage: Damage::Length(u32::MAX),
            ..
        })
    ));
}

#[test]
fn a_segment_cut_short_is_refused_and_a_reader_at_work_does_not_die() {
    let (_spool, path, bounds, _) = written();
    let mut reader = SpoolReader::open(File::open(&path).unwrap()).unwrap();
    // A writer may do this: it has the descriptor.
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(bounds[1])
        .unwrap();
    assert!(matches!(reader.next_event(), Err(ReadError::Io(_))));
    assert!(matches!(
        SpoolReader::open(File::open(&path).unwrap()),
        Err(ReadError::NotASegment(_))
    ));
}

#[test]
fn a_segment_never_grows_and_says_when_it_is_full() {
    let mut spool = TestSpool::new(2048);
    let (stream, mut writer) = spool.writer();
    let decided = Decided::new(Verb::Select, "orders", "SELECT * FROM orders", true);
    let mut appended = 0;
    let error = loop {
        let before = (writer.position(), writer.remaining());
        match writer.append(&decided.event(1, appended)) {
            Ok(position) => {
                assert!(position > before.0);
                assert_eq!(position, writer.position());
                appended += 1;
            }
            Err(error) => {
                assert_eq!(before, (writer.position(), writer.remaining()));
                break error;
            }
        }
    };
    assert!(matches!(error, SpoolError::Full), "{error}");
    assert!(appended > 3);
    let path = spool
        .dir
        .path()
        .join(SegmentName { stream, index: 0 }.to_string());
    assert_eq!(fs::metadata(&path).unwrap().len(), 2048);
    // A smaller event may still fit, and is read in its place.
    let small = writer.append(&agent("x")).is_ok();
    let mut reader = spool
        .spool
        .reader(SegmentName { stream, index: 0 })
        .unwrap();
    let mut read = 0;
    while reader.next_event().unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, appended + u64::from(small));
}

#[test]
fn an_event_larger_than_any_segment_is_told_apart_from_a_full_one() {
    let mut spool = TestSpool::new(2048);
    let (_, mut writer) = spool.writer();
    let large = agent(&"x".repeat(100_000));
    assert!(matches!(
        writer.append(&large),
        Err(SpoolError::TooLarge { limit: 1984 })
    ));
    writer.append(&agent("small")).unwrap();
}

#[test]
fn a_path_that_is_not_utf8_is_refused_not_cut() {
    use std::os::unix::ffi::OsStringExt;
    let mut event = connected(1, "w", "/x");
    let EventKind::Connected { origin, .. } = &mut event.kind else {
        unreachable!()
    };
    let path = std::ffi::OsString::from_vec(vec![b'/', 0xff]);
    origin.executable.as_mut().unwrap().path = path.into();
    let (_, mut writer) = TestSpool::new(4096).writer();
    assert!(matches!(writer.append(&event), Err(SpoolError::Encode(_))));
}

#[test]
fn a_used_segment_has_no_second_writer() {
    let mut spool = TestSpool::new(4096);
    let fd = spool.spool.create(0, 0).unwrap();
    let again = fd.try_clone().unwrap();
    SpoolWriter::open(fd.into())
        .unwrap()
        .append(&agent("x"))
        .unwrap();
    assert!(matches!(
        SpoolWriter::open(again.into()),
        Err(SpoolError::Used(_))
    ));
}

#[test]
fn streams_are_never_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let settings = SpoolSettings {
        segment_bytes: 4096,
        max_segments: 8,
    };
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut spool = Spool::open(dir.path(), BOOT, settings).unwrap();
        seen.push(spool.new_stream().unwrap());
        seen.push(spool.new_stream().unwrap());
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    // Also where the counter was lost but a segment is left.
    let mut spool = Spool::open(dir.path(), BOOT, settings).unwrap();
    drop(spool.create(41, 0).unwrap());
    drop(spool);
    fs::remove_file(dir.path().join("next-stream")).unwrap();
    let mut spool = Spool::open(dir.path(), BOOT, settings).unwrap();
    assert_eq!(spool.new_stream().unwrap(), 42);
    // And a counter that cannot be read is not begun again.
    drop(spool);
    fs::write(dir.path().join("next-stream"), "many").unwrap();
    assert!(Spool::open(dir.path(), BOOT, settings).is_err());
}

#[test]
fn segments_are_counted_limited_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = SpoolSettings {
        segment_bytes: 4096,
        max_segments: 3,
    };
    let mut spool = Spool::open(dir.path(), BOOT, settings).unwrap();
    for (stream, index) in [(1, 0), (0, 1), (0, 0)] {
        spool.create(stream, index).unwrap();
    }
    let full = spool.create(1, 1).unwrap_err();
    assert!(matches!(full, SpoolError::TooManySegments(3)), "{full}");
    let name = |stream, index| SegmentName { stream, index };
    assert_eq!(
        spool.segments().unwrap(),
        [name(0, 0), name(0, 1), name(1, 0)]
    );
    let fullness = spool.fullness().unwrap();
    assert_eq!(
        (fullness.segments, fullness.max_segments, fullness.bytes),
        (3, 3, 3 * 4096)
    );
    spool.remove(name(0, 0)).unwrap();
    spool.create(1, 1).unwrap();
    let aside = spool.set_aside(name(1, 1)).unwrap();
    assert!(aside.exists());
    assert_eq!(spool.segments().unwrap(), [name(0, 1), name(1, 0)]);
    // Another keeper cannot take it meanwhile; a later one finds the leftovers.
    let second = Spool::open(dir.path(), BOOT, settings).unwrap_err();
    assert!(matches!(second, SpoolError::Owned(_)), "{second}");
    drop(spool);
    fs::write(
        dir.path().join("00000000-00000009.segment.new"),
        "half made",
    )
    .unwrap();
    let spool = Spool::open(dir.path(), BOOT, settings).unwrap();
    assert_eq!(spool.segments().unwrap(), [name(0, 1), name(1, 0)]);
    assert!(!dir.path().join("00000000-00000009.segment.new").exists());
}

#[test]
fn a_segment_knows_whether_somebody_can_still_write_it() {
    let mut spool = TestSpool::new(4096);
    let (stream, writer) = spool.writer();
    let name = SegmentName { stream, index: 0 };
    assert!(spool.spool.has_writer(name).unwrap());
    let sync = writer.sync();
    drop(writer);
    assert!(
        spool.spool.has_writer(name).unwrap(),
        "a descriptor is left"
    );
    drop(sync);
    assert!(!spool.spool.has_writer(name).unwrap());
}

/// What could not be stored is read again, though more was read ahead since.
#[test]
fn a_reader_goes_back_behind_what_it_has_read_ahead() {
    let mut spool = TestSpool::new(4 << 20);
    let (stream, mut writer) = spool.writer();
    for _ in 0..20 {
        writer.append(&agent(&"x".repeat(60_000))).unwrap();
    }
    let name = SegmentName { stream, index: 0 }.to_string();
    let file = File::open(spool.dir.path().join(name)).unwrap();
    let mut reader = SpoolReader::open(file).unwrap();
    let first = reader.offset();
    let all = |reader: &mut SpoolReader| {
        let entries = std::iter::from_fn(|| reader.next_event().unwrap());
        entries.map(|entry| entry.offset).collect::<Vec<_>>()
    };
    let once = all(&mut reader);
    assert_eq!(once.len(), 20);
    reader.seek(first);
    assert_eq!(all(&mut reader), once);
}
