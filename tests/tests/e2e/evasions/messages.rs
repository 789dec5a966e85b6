//! Messages that no driver sends, in an order that none has.

use lockgate_tests::{bind, execute, message, parse, query, sync, text};

/// What an attack does on the wire.
pub enum Step {
    /// Bytes in one segment.
    Send(Vec<u8>),
    /// The same, one byte at a time.
    Drip(Vec<u8>),
    /// Waits until the server is ready.
    Ready,
}

use Step::{Drip, Ready, Send};

/// A name, and what is sent by one who may read only.
pub type Messages = (&'static str, Vec<Step>);

const DELETE: &str = "delete from orders";

fn all(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.concat()
}

/// Parse, Bind, Execute of one text.
fn run(sql: &str) -> Vec<u8> {
    all(&[parse("", sql), bind("", ""), execute("", 0)])
}

/// FunctionCall without arguments.
fn call(oid: u32) -> Vec<u8> {
    message(
        b'F',
        &[&oid.to_be_bytes()[..], &[0, 0, 0, 0, 0, 0]].concat(),
    )
}

/// FunctionCall with one argument in text.
fn call_with(oid: u32, argument: &str) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0, 0, 1]);
    body.extend((argument.len() as u32).to_be_bytes());
    body.extend(argument.as_bytes());
    body.extend([0, 0]);
    message(b'F', &body)
}

/// Parse with a parameter of this type, Bind with this value of it, in text.
fn run_with(oid: u32, value: &str) -> Vec<u8> {
    let types = [&[0, 1][..], &oid.to_be_bytes()].concat();
    let length = (value.len() as u32).to_be_bytes();
    let values = [&[0, 0, 0, 1][..], &length, value.as_bytes(), &[0, 0]].concat();
    all(&[
        message(b'P', &[text(""), text("select $1 is null"), types].concat()),
        message(b'B', &[text(""), text(""), values].concat()),
        execute("", 0),
    ])
}

/// What a reader finds out from the catalogue.
pub struct Oids {
    pub wipe: u32,
    pub read: u32,
    /// A domain whose check calls wipe(), and types that are made of it.
    pub domain: u32,
    pub array: u32,
    pub composite: u32,
}

/// All of them.
#[rustfmt::skip]
pub fn by_a_reader(oids: &Oids) -> Vec<Messages> {
    let Oids { wipe, read, domain, array, composite } = *oids;
    vec![
        ("one message byte by byte", vec![Drip(query(DELETE)), Ready]),
        ("two messages in one segment", vec![Send(all(&[query("select 1"), query(DELETE)])), Ready, Ready]),
        ("a message and half of the next, then the other half", {
            let (both, half) = (all(&[query("select 1"), query(DELETE)]), query("select 1").len() + 9);
            vec![Send(both[..half].to_vec()), Ready, Send(both[half..].to_vec()), Ready]
        }),
        ("Query under Terminate", vec![Send(all(&[query(DELETE), message(b'X', b"")]))]),
        ("FunctionCall of a function that deletes", vec![Send(call(wipe)), Ready]),
        ("FunctionCall of pg_read_file", vec![Send(call_with(read, "/etc/passwd")), Ready]),
        ("FunctionCall between Parse and Bind", vec![Send(all(&[parse("", "select 1"), call(wipe), bind("", ""), execute("", 0), sync()])), Ready, Ready]),
        ("FunctionCall in a failed pipeline", vec![Send(all(&[query("select 1"), call(wipe), query("select 1")])), Ready, Ready, Ready]),

        ("Parse, Bind, Execute without Sync, then Terminate", vec![Send(all(&[run(DELETE), sync(), message(b'X', b"")]))]),
        ("Flush instead of Sync", vec![Send(all(&[run(DELETE), message(b'H', b""), sync()])), Ready]),
        ("an allowed and a denied statement under one Sync", vec![Send(all(&[run("select 1"), run(DELETE), sync()])), Ready]),
        ("a denied one between two allowed", vec![Send(all(&[run("select 1"), run(DELETE), run("select 1"), sync()])), Ready]),
        ("a denied Parse after an allowed one, then what the name stands for", vec![
            Send(all(&[parse("", "select 1"), sync()])), Ready,
            Send(all(&[parse("", DELETE), sync(), bind("", ""), execute("", 0), sync()])), Ready, Ready]),
        ("the same under a name that is closed first", vec![
            Send(all(&[parse("s", "select 1"), sync()])), Ready,
            Send(all(&[message(b'C', b"Ss\0"), parse("s", DELETE), bind("", "s"), execute("", 0), sync()])), Ready]),
        ("the same with a Sync after each", vec![
            Send(all(&[parse("s", "select 1"), sync(), message(b'C', b"Ss\0"), sync(), parse("s", DELETE), sync(), bind("", "s"), sync(),
                bind("", "s"), execute("", 0), sync()])), Ready, Ready, Ready, Ready, Ready]),
        ("a name that two Parses race for", vec![
            Send(all(&[parse("s", DELETE), sync(), parse("s", "select 1"), sync(), bind("", "s"), execute("", 0), sync()])), Ready, Ready, Ready]),
        ("a portal bound to another statement meanwhile", vec![
            Send(all(&[parse("a", "select 1"), parse("b", DELETE), bind("p", "a"), message(b'C', b"Pp\0"), bind("p", "b"), execute("p", 0), sync()])), Ready]),
        ("Bind alone, of a function that is folded", vec![Send(all(&[parse("", "select quietly(1)"), bind("", ""), sync()])), Ready]),
        ("Parse and Describe, then Bind in another batch", vec![
            Send(all(&[parse("s", DELETE), message(b'D', b"Ss\0"), sync()])), Ready,
            Send(all(&[bind("", "s"), execute("", 0), sync()])), Ready]),
        ("Execute by rows, on and on", vec![
            Send(all(&[parse("", "delete from orders returning id"), bind("", ""), execute("", 1), execute("", 1), execute("", 0), sync()])), Ready]),
        ("PREPARE in SQL, bound by message", vec![Send(query("prepare s as delete from orders")), Ready, Send(all(&[bind("", "s"), execute("", 0), sync()])), Ready]),
        ("DEALLOCATE and PREPARE under a name of Parse", vec![
            Send(all(&[parse("s", "select 1"), sync()])), Ready,
            Send(query("deallocate s; prepare s as delete from orders")), Ready,
            Send(all(&[bind("", "s"), execute("", 0), sync()])), Ready]),
        ("the same in one segment", vec![
            Send(all(&[parse("s", "select 1"), sync(), query("deallocate s; prepare s as delete from orders"), bind("", "s"), execute("", 0), sync()])), Ready, Ready, Ready]),
        ("EXECUTE of a name of Parse", vec![Send(all(&[parse("s", DELETE), sync(), query("execute s")])), Ready, Ready]),
        ("DECLARE in SQL, executed by message", vec![
            Send(query("begin; declare c cursor for select wipe()")), Ready,
            Send(all(&[execute("c", 0), sync(), query("commit")])), Ready, Ready]),
        ("FETCH of a portal of Bind", vec![
            Send(query("begin")), Ready,
            Send(all(&[parse("", "select wipe()"), bind("c", ""), sync(), query("fetch all from c"), query("commit")])), Ready, Ready, Ready]),
        ("FETCH of a portal of Bind that shows a tagged column", vec![
            Send(query("begin")), Ready,
            Send(all(&[parse("", "select ssn from customers"), bind("c", ""), execute("c", 1), sync(), query("fetch all from c"), query("commit")])),
            Ready, Ready, Ready]),
        ("a change of the search path and a name, in one segment", vec![
            Send(all(&[query("set search_path = other"), query("select item from orders")])), Ready, Ready]),
        ("prepared before the search path changes", vec![
            Send(all(&[parse("s", "select item from orders"), sync()])), Ready,
            Send(query("set search_path = other")), Ready,
            Send(all(&[bind("", "s"), execute("", 0), sync()])), Ready]),
        ("the same in one segment", vec![
            Send(all(&[parse("s", "select item from orders"), sync(), query("set search_path = other"), bind("", "s"), execute("", 0), sync()])), Ready, Ready, Ready]),
        ("a search path that a rollback brings back", vec![
            Send(all(&[query("set search_path = other"), query("begin"), query("set search_path = public"), query("rollback"), query("select item from orders")])),
            Ready, Ready, Ready, Ready, Ready]),
        ("backslashes that become escapes, in one segment", vec![
            Send(all(&[query("set standard_conforming_strings = off"), query("select '\\''; delete from orders; --'")])), Ready, Ready]),
        ("the same by RESET of what a transaction set", vec![
            Send(all(&[query("select set_config('standard_conforming_strings', 'off', false)"), query("select '\\''; delete from orders; --'")])), Ready, Ready]),
        ("an encoding in which a quote is half a character, in one segment", vec![
            Send(all(&[query("set client_encoding = 'SJIS'"), message(b'Q', b"select '\x83\\' ; delete from orders; --'\0")])), Ready, Ready,
            Send(query("delete from orders")), Ready]),
        ("an encoding in which a backslash is half a character", vec![
            Send(query("set client_encoding = 'BIG5'")), Ready,
            Send(message(b'Q', b"select E'\xa5\\'; delete from orders; --'\0")), Ready]),
        ("the same in GBK", vec![
            Send(query("set client_encoding to gbk")), Ready,
            Send(message(b'Q', b"select E'\xd5\\'; delete from orders; --'\0")), Ready]),
        ("the same in GB18030", vec![
            Send(query("set client_encoding to gb18030")), Ready,
            Send(message(b'Q', b"select E'\xd5\\'; delete from orders; --'\0")), Ready]),
        ("a thousand denials in one pipeline", {
            let mut steps = vec![Send(query(DELETE).repeat(1000))];
            steps.extend((0..1000).map(|_| Ready));
            steps
        }),
        ("a thousand failures, then one more", {
            let failures = all(&[parse("", "selekt"), sync()]).repeat(1000);
            let mut steps = vec![Send(all(&[failures, run(DELETE), sync()]))];
            steps.extend((0..1001).map(|_| Ready));
            steps
        }),
        ("a statement of 70 kB", vec![Send(query(&format!("{}{DELETE}", " ".repeat(70_000)))), Ready]),
        ("a Parse of 70 kB", vec![Send(all(&[run(&format!("{}{DELETE}", " ".repeat(70_000))), sync()])), Ready]),
        ("a statement of 9 MB", vec![Send(query(&format!("{}{DELETE}", " ".repeat(9_000_000)))), Ready]),
        ("a result in binary", vec![Send(all(&[
            parse("", "select ssn from customers"),
            message(b'B', &[&text("")[..], &text(""), &[0, 0, 0, 0, 0, 1, 0, 1]].concat()), execute("", 0), sync()])), Ready]),
        ("a whole row in binary", vec![Send(all(&[
            parse("", "select c from customers c"),
            message(b'B', &[&text("")[..], &text(""), &[0, 0, 0, 0, 0, 1, 0, 1]].concat()), execute("", 0), sync()])), Ready]),
        ("a COPY in binary", vec![Send(query("copy (select ssn from customers) to stdout (format binary)")), Ready]),
        ("a value by a parameter", vec![Send(all(&[
            parse("", "select ssn from customers where id = $1"),
            message(b'B', &[&text("")[..], &text(""), &[0, 0, 0, 1, 0, 0, 0, 1], b"1", &[0, 0]].concat()), execute("", 0), sync()])), Ready]),
        ("several portals open at once", vec![Send(all(&[
            parse("a", "select id from orders"), parse("b", "select ssn from customers"), bind("x", "a"), bind("y", "b"),
            execute("x", 1), execute("y", 1), execute("x", 1), execute("y", 0), sync()])), Ready]),
        ("a parameter whose domain runs code", vec![Send(all(&[
            parse("", "select $1::guarded"),
            message(b'B', &[&text("")[..], &text(""), &[0, 0, 0, 1, 0, 0, 0, 1], b"1", &[0, 0]].concat()), execute("", 0), sync()])), Ready]),
        ("a parameter of such a domain, by its oid", vec![Send(all(&[run_with(domain, "1"), sync()])), Ready]),
        ("a parameter of an array of it", vec![Send(all(&[run_with(array, "{1}"), sync()])), Ready]),
        ("a parameter of a composite with it", vec![Send(all(&[run_with(composite, "(1)"), sync()])), Ready]),
    ]
}

/// Bytes that are no message, or not the one they say; whoever reads on behind
/// them reads a DELETE.
#[rustfmt::skip]
pub fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let behind = query(DELETE);
    let with = |head: &[u8]| [head, &behind].concat();
    let length = |tag: u8, length: u32, body: &[u8]| with(&[&[tag][..], &length.to_be_bytes(), body].concat());
    vec![
        ("a length of zero", length(b'Q', 0, b"")),
        ("a length of three", length(b'Q', 3, b"")),
        ("a length that is negative", length(b'Q', u32::MAX, b"select 1\0")),
        ("a length of 2 GB", length(b'Q', i32::MAX as u32, b"select 1\0")),
        ("a length of 1 GB", length(b'Q', 0x3fff_fff0, b"select 1\0")),
        ("a Query that ends before its text", length(b'Q', 9, b"selec")),
        ("a Query without its zero", with(&message(b'Q', b"select 1"))),
        ("a Query with something behind its zero", with(&message(b'Q', b"select 1\0delete from orders\0"))),
        ("an unknown type", with(&message(b'~', b""))),
        ("a zero byte between messages", with(&[0])),
        ("an SSLRequest within a session", with(&[0, 0, 0, 8, 4, 210, 22, 47])),
        ("a startup packet within a session", with(&[0, 0, 0, 9, 0, 3, 0, 0, 0])),
        ("a Bind that lacks a format", with(&message(b'B', &[0, 0, 0, 5, 0, 0]))),
        ("a Bind with a value of a negative length", with(&message(b'B', &[0, 0, 0, 0, 0, 1, 255, 255, 255, 254, 0, 0]))),
        ("a Bind with a value that ends behind it", with(&message(b'B', &[0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0]))),
        ("a Parse with types that are not there", with(&message(b'P', b"\0select 1\0\0\x09"))),
        ("a Describe of nothing", with(&message(b'D', b"Xs\0"))),
        ("a Close of nothing", with(&message(b'C', b"X"))),
        ("a Sync with content", with(&message(b'S', b"x"))),
        ("an Execute without its count", with(&message(b'E', b"\0\0\0"))),
        ("a password message within a session", with(&message(b'p', b"x\0"))),
        ("a CopyBoth answer from the client", with(&message(b'W', b"\0\0\0"))),
        ("a name of 70 bytes", with(&parse(&"n".repeat(70), "select 1"))),
    ]
}
