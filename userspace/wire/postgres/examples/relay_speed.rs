//! What the relay costs per message, without sockets and without decisions:
//! `cargo run --release -p lockgate-wire-postgres --example relay_speed`.

use std::time::Instant;

use bytes::{BufMut, BytesMut};
use lockgate_wire_postgres::{Relay, RelaySettings, Request};

const ROUNDS: u32 = 200_000;

fn message(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    out.put_u32(body.len() as u32 + 4);
    out.put_slice(body);
}

fn main() {
    let mut simple = BytesMut::new();
    message(
        &mut simple,
        b'Q',
        b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\0",
    );
    let mut prepared = BytesMut::new();
    message(&mut prepared, b'B', b"\0P0_1\0\0\0\0\x01\0\0\0\x044711\0\0");
    message(&mut prepared, b'D', b"P\0");
    message(&mut prepared, b'E', b"\0\0\0\0\0");
    message(&mut prepared, b'S', b"");

    let mut results = BytesMut::new();
    message(&mut results, b'T', &[0; 40]);
    message(&mut results, b'D', &[0; 15]);
    message(&mut results, b'C', b"SELECT 1\0");
    message(&mut results, b'Z', b"I");
    let mut bound = BytesMut::new();
    message(&mut bound, b'2', b"");
    bound.put_slice(&results);

    let mut prepare = BytesMut::new();
    message(
        &mut prepare,
        b'P',
        b"P0_1\0SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0\0\0",
    );
    message(&mut prepare, b'S', b"");
    let mut done = BytesMut::new();
    message(&mut done, b'1', b"");
    message(&mut done, b'Z', b"I");

    let mut relay = Relay::new(RelaySettings {
        message_bytes: 1 << 20,
        scrub_errors: false,
    });
    let exchange =
        |name: &str, rounds: u32, requests: &[u8], answers: &[u8], relay: &mut Relay<()>| {
            let (mut input, mut upstream) = (BytesMut::new(), BytesMut::new());
            let (mut output, mut client) = (BytesMut::new(), BytesMut::new());
            let mut events = Vec::new();
            let started = Instant::now();
            for round in 0..rounds {
                input.extend_from_slice(requests);
                while let Some(request) = relay
                    .next_request(&mut input, &mut upstream)
                    .expect("requests are well-formed")
                {
                    match request {
                        Request::Query { .. } => {
                            relay.allow_query(round.into(), None, &mut upstream)
                        }
                        Request::Parse { .. } => relay.allow_parse((), &mut upstream),
                        Request::Bind { .. } => relay.allow_bind(round.into(), None, &mut upstream),
                        Request::Execute { .. } => relay.allow_execute(&mut upstream),
                        Request::FunctionCall | Request::Terminate => {}
                    }
                }
                output.extend_from_slice(answers);
                relay
                    .responses(&mut output, &mut client, &mut events)
                    .expect("answers fit");
                upstream.clear();
                client.clear();
                events.clear();
            }
            println!(
                "{name}: {} ns per exchange",
                started.elapsed().as_nanos() / u128::from(rounds)
            );
        };
    exchange("simple query", ROUNDS, &simple, &results, &mut relay);
    exchange("(one Parse)", 1, &prepare, &done, &mut relay);
    exchange(
        "Bind, Describe, Execute, Sync",
        ROUNDS,
        &prepared,
        &bound,
        &mut relay,
    );

    let mut rows = BytesMut::new();
    message(&mut rows, b'T', &[0; 40]);
    for _ in 0..1000 {
        message(&mut rows, b'D', &[7; 95]);
    }
    message(&mut rows, b'C', b"SELECT 1000\0");
    message(&mut rows, b'Z', b"I");
    exchange(
        "1,000 rows of 100 bytes",
        ROUNDS / 100,
        &simple,
        &rows,
        &mut relay,
    );
}
