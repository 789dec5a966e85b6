//! The bodies of the fuzz targets over a fixed corpus: what a session looks
//! like, and what becomes of it when bytes are changed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::message::*;

#[path = "../../fuzz/bodies.rs"]
mod bodies;

fn startups() -> Vec<Vec<u8>> {
    let packet = |code: u32, body: &[u8]| {
        [
            &(body.len() as u32 + 8).to_be_bytes()[..],
            &code.to_be_bytes(),
            body,
        ]
        .concat()
    };
    let welcome = [
        message(b'R', &[0; 4]),
        message(b'S', b"a\0b\0"),
        message(b'K', &[1; 8]),
        ready(b'I'),
        description(),
        row("x"),
        complete("SELECT 1"),
        ready(b'I'),
    ];
    vec![
        packet(80_877_103, b""),
        packet(80_877_104, b""),
        packet(80_877_102, &[1; 8]),
        packet(3 << 16, b"user\0joe\0database\0shop\0\0"),
        packet(3 << 16 | 2, b"user\0joe\0_pq_.x\0y\0\0"),
        b"\x16\x03\x01\0\0".to_vec(),
        welcome.concat(),
        message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
        error("28P01", "no"),
    ]
}

/// Pieces of a session as [`bodies::relay`] reads them.
fn sessions() -> Vec<Vec<u8>> {
    let client = [
        query("SELECT 1"),
        parse("s", "SELECT 2"),
        bind("", "s", "x"),
        execute("", 0),
        sync(),
        flush(),
        copy_data(b"abc"),
        copy_done(),
        copy_fail("no"),
        describe(b'S', "s"),
        close(b'S', "s"),
        message(b'F', &[0; 12]),
        message(b'X', &[]),
    ];
    let server = [
        description(),
        row("x"),
        complete("SELECT 1"),
        ready(b'I'),
        ready(b'T'),
        ready(b'E'),
        message(b'1', &[]),
        message(b'2', &[]),
        message(b'3', &[]),
        message(b'n', &[]),
        message(b's', &[]),
        message(b'I', &[]),
        copy_in(),
        copy_out(),
        copy_data(b"x"),
        copy_done(),
        error("22012", "x"),
        error("42601", "lockgate_denied_00000000000000000000000000000001"),
        message(b'N', b"SNOTICE\0\0"),
        message(b'S', b"a\0b\0"),
    ];
    let mut random = StdRng::seed_from_u64(7);
    (0..3000)
        .map(|_| {
            let mut session = Vec::new();
            for _ in 0..random.random_range(1..30) {
                let side: u8 = random.random_range(0..4);
                let bytes = match side & 1 {
                    0 => &client[random.random_range(0..client.len())],
                    _ => &server[random.random_range(0..server.len())],
                };
                for piece in bytes.chunks(random.random_range(1..64)) {
                    session.push((piece.len() as u8) << 2 | side);
                    session.extend_from_slice(piece);
                }
            }
            session
        })
        .collect()
}

fn changed(seed: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..3) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// How often all of it is done, each time with other changes: more for a long
/// search (`LOCKGATE_FUZZ_ROUNDS`).
fn rounds() -> u64 {
    let rounds = std::env::var("LOCKGATE_FUZZ_ROUNDS");
    rounds.map_or(1, |rounds| rounds.parse().expect("a number of rounds"))
}

#[test]
fn startups_hold() {
    for round in 0..rounds() {
        let mut random = StdRng::seed_from_u64(1 + round);
        for seed in startups() {
            for _ in 0..2000 {
                bodies::startup(&changed(&seed, &mut random));
            }
        }
    }
}

#[test]
fn sessions_hold() {
    for round in 0..rounds() {
        let mut random = StdRng::seed_from_u64(2 + round);
        for seed in sessions() {
            for _ in 0..10 {
                bodies::relay(&changed(&seed, &mut random));
            }
        }
    }
}
