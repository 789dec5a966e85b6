//! Commands that try to do what their workload may not. The server is asked
//! whether harm was done; its roles are superusers, so that nothing but
//! lockgate stands between. Each attack is first run past lockgate, where it
//! must do its harm: what cannot do harm would prove nothing.

mod acts;
mod attack;
mod makes;
mod messages;
mod reveals;
mod session;
mod state;
mod terminal;

use attack::{Field, Who};
use lockgate_tests::query;

#[test]
fn a_reader_changes_nothing() {
    Field::new().run_all(Who::Reader, acts::BY_A_READER);
}

#[test]
fn a_writer_sets_nothing_off() {
    Field::new().run_all(Who::Writer, acts::BY_A_WRITER);
}

#[test]
fn a_reader_sees_no_secret() {
    Field::new().run_all(Who::Reader, reveals::BY_A_READER);
}

#[test]
fn a_writer_launders_nothing() {
    Field::new().run_all(Who::Writer, reveals::BY_A_WRITER);
}

#[test]
fn who_defines_neither_writes_nor_views_nor_runs_code() {
    Field::new().run_all(Who::Maker, makes::BY_A_MAKER);
}

#[test]
fn messages_in_any_order_do_no_more_than_in_the_usual_one() {
    let mut field = Field::new();
    let mut number = |name: &str| {
        let answer = field.admin(&format!("select {name}::oid"));
        let row = answer.of(b'D')[0];
        String::from_utf8_lossy(&row[6..]).parse().unwrap()
    };
    let oids = messages::Oids {
        wipe: number("'wipe()'::regprocedure"),
        read: number("'pg_read_file(text)'::regprocedure"),
        domain: number("'guarded'::regtype"),
        array: number("'guarded[]'::regtype"),
        composite: number("'wrapped'::regtype"),
    };
    let mut faults = Vec::new();
    for (name, steps) in messages::by_a_reader(&oids) {
        field.run_messages(name, &steps, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Where a message is no message, what stands behind it is never run.
#[test]
fn what_is_no_message_ends_the_session() {
    let mut field = Field::new();
    let before = field.state();
    for (name, bytes) in messages::malformed() {
        let mut wire = field.through(Who::Reader);
        wire.send(&bytes);
        wire.hang_up();
        let said = match name.starts_with("a length of 1 GB") {
            // It waits for the rest.
            true => "waits".into(),
            false => format!("{:?}", wire.until_closed().unwrap().errors()),
        };
        drop(wire);
        let changed = field.state().changed_since(&before);
        assert!(changed.is_empty(), "{name}: {changed:?}");
        println!("held        messages {name}  -- {said}");
    }
    let mut wire = field.past(Who::Reader);
    wire.ask(&query("delete from orders")).unwrap();
    drop(wire);
    let mut wire = field.through(Who::Reader);
    let answer = wire.ask(&query("select count(*) from orders")).unwrap();
    assert!(answer.errors().is_empty(), "lockgate serves on: {answer:?}");
}
