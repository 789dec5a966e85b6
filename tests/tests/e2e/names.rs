//! What names mean follows the session, and never further than the server.

use lockgate_tests::{Agent, Postgres, PostgresConfig};

use crate::stage::{self, Stage};

/// `report` may read, delete and truncate `public.orders` and nothing else; its
/// role may more.
fn stage() -> Stage {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let admin = |sql: &str| postgres.admin("shop", sql).unwrap();
    admin(
        "create schema hidden; create table hidden.orders as select id, 'secret ' || id as item, qty from orders",
    );
    admin(
        "grant usage on schema hidden to report_ro; grant all on all tables in schema hidden to report_ro",
    );
    let mut config = stage::config(&postgres, "");
    config.policies = r#"
@id("uses") permit (principal == Workload::"report", action in Action::"use", resource in Target::"orders-db");
@id("orders") permit (principal == Workload::"report", action in [Action::"select", Action::"delete", Action::"truncate", Action::"lock"], resource == Table::"orders-db/shop/public/orders");
"#
    .into();
    Stage::over(Agent::start(&config).unwrap(), postgres)
}

/// What `program` prints, with `c` a connection in autocommit and `tell`, which
/// runs a statement and says how it ended.
fn told(stage: &Stage, program: &str) -> Vec<String> {
    let helper = "
c = psycopg.connect(dsn, autocommit=True)
def tell(sql, **how):
    try:
        cur = c.execute(sql, **how)
        return cur.fetchone()[0] if cur.description else 'done'
    except psycopg.Error as e:
        return e.sqlstate
";
    let output = stage.python(&stage.report, &format!("{helper}{program}"));
    assert!(output.ok(), "{output:?}");
    output.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_change_of_search_path_is_followed_once_it_stands() {
    let stage = stage();
    let lines = told(
        &stage,
        "
print(tell('select item from orders order by id'))
# Of every relation of that name, until the server can be asked.
with c.transaction():
    print(tell('set local search_path = public'))
    print(tell('select item from orders order by id'))
    c.execute('rollback')
    c.execute('begin')
print(tell('select item from orders order by id'))
print(tell('set search_path = hidden, public'))
print(tell('select item from orders order by id'), tell('select item from public.orders order by id'))
# Both are on the path: what was prepared earlier may mean the one further back.
print(tell('set search_path = public, hidden'))
print(tell('select item from orders order by id'))
print(tell('set search_path = public'), tell('select item from orders order by id'))
# An error leaves the path as it was; a function that changes it does not.
print(tell('set search_path = hidden; select 1/0'))
print(tell('select item from orders order by id'))
print(tell(\"select set_config('search_path', 'hidden', false)\"))
print(tell('select item from orders order by id', prepare=True))
print(tell('reset search_path'), tell('select item from orders order by id', prepare=True))
print(tell('discard all'), tell('select item from orders order by id'))
with c.pipeline():
    c.execute('set search_path = hidden')
    seen = c.execute('select item from orders order by id')
    try: print(seen.fetchone())
    except psycopg.Error as e: print(e.sqlstate)
",
    );
    assert_eq!(
        lines,
        [
            "item 1",
            "done",
            "42501",
            "item 1",
            "done",
            "42501 item 1",
            "done",
            "42501",
            "done item 1",
            "22012",
            "item 1",
            "hidden",
            "42501",
            "done item 1",
            "done item 1",
            "42501"
        ]
    );
}

#[test]
fn a_schema_that_comes_into_the_path_is_seen() {
    let stage = stage();
    let address = stage.postgres.address().to_owned();
    let program = format!(
        "
import subprocess, time
print(tell('select item from orders order by id'))
print('ready', flush=True)
for _ in range(100):
    time.sleep(0.2)
    seen = tell('select item from orders order by id')
    if seen != 'item 1': break
print(seen)
# {address}
"
    );
    std::thread::scope(|scope| {
        let running = scope.spawn(|| told(&stage, &program));
        std::thread::sleep(std::time::Duration::from_secs(2));
        // The path begins with a schema of the role's own name, if there is one.
        stage
            .postgres
            .admin(
                "shop",
                "begin; create schema report_ro authorization report_ro; create table report_ro.orders as select 1 as id, 'new' as item; \
                 grant select on report_ro.orders to report_ro; commit",
            )
            .unwrap();
        let lines = running.join().unwrap();
        assert_eq!(lines.first().unwrap(), "item 1");
        // Until the catalogue is read anew the server's own rows may be seen.
        assert!(
            ["42501", "new"].contains(&&**lines.last().unwrap()),
            "{lines:?}"
        );
    });
    assert_eq!(
        told(&stage, "print(tell('select item from orders'))"),
        ["42501"]
    );
}

#[test]
fn execute_is_what_was_prepared_as_names_are_now() {
    let stage = stage();
    let lines = told(
        &stage,
        "
print(tell('prepare a as select item from orders order by id'), tell('execute a'), tell('execute a', prepare=True))
print(tell('prepare b(int) as select item from public.orders where id = $1'), tell('execute b(3)'), tell('explain execute b(3)')[:4])
print(tell('prepare c as update orders set qty = 0'), tell('execute c'), tell('execute unknown'))
# The name may stand for the one or the other; so it needs both.
print(tell('deallocate a'), tell('prepare a as select 1'), tell('execute a'))
print(tell('set search_path = hidden'), tell('execute a'), tell('execute b(4)'))
print(tell('reset search_path'), tell('execute a'))
print(tell('prepare d as select 1; execute d'), tell('set search_path = hidden; execute b(1)'), tell('execute b(1); execute b(2)'))
print(tell('create table mine as execute a'))
print(tell(\"select query_to_xml('prepare e as delete from hidden.orders', true, true, '')\"), tell('execute e'))
",
    );
    assert_eq!(
        lines,
        [
            "done item 1 item 1",
            "done item 3 Inde",
            "42501 42501 42501",
            "done done 1",
            "done 42501 item 4",
            "done 1",
            "42501 42501 item 1",
            "42501",
            "42501 42501"
        ]
    );
    let hidden = "select count(*), count(*) filter (where qty = 0) from hidden.orders";
    assert_eq!(stage.postgres.admin("shop", hidden).unwrap(), "10|0");
}

/// The protocol by hand: a portal is bound under one path and executed under
/// another. What the server analyses at Bind keeps its meaning, all else is
/// looked up when it runs.
#[test]
fn what_is_looked_up_at_execute_is_decided_there() {
    let stage = stage();
    let program = "
import socket, struct, sys
s = socket.create_connection((sys.argv[1], 5432), timeout=10)
def message(tag, *parts):
    body = b''.join(parts)
    return tag + struct.pack('!i', len(body) + 4) + body
def text(value): return value.encode() + b'\\0'
def read():
    codes = []
    while True:
        head = s.recv(5, socket.MSG_WAITALL)
        body = s.recv(struct.unpack('!i', head[1:])[0] - 4, socket.MSG_WAITALL)
        if head[:1] == b'E': codes.append(next(f[1:].decode() for f in body.split(b'\\0') if f[:1] == b'C'))
        if head[:1] in b'Dd': codes.append('data')
        if head[:1] == b'Z': return codes
def query(sql):
    s.sendall(message(b'Q', text(sql)))
    return read()
def bind(sql):
    s.sendall(message(b'P', text(''), text(sql), b'\\0\\0') + message(b'B', text('p'), text(''), bytes(6)) + message(b'S'))
    return read()
def execute():
    s.sendall(message(b'E', text('p'), bytes(4)) + message(b'S'))
    return read()
body = struct.pack('!i', 196608) + text('user') + text('x') + text('database') + text('shop') + b'\\0'
s.sendall(struct.pack('!i', len(body) + 4) + body)
read()
for sql in ['truncate orders', 'copy orders to stdout', 'lock table orders', 'delete from orders where id = 1', 'truncate public.orders']:
    query('begin')
    print(sql, bind(sql), query('set local search_path = hidden'), execute())
    query('rollback')
query('prepare x as select item from orders')
query('begin')
print('execute', bind('execute x'), query('set local search_path = hidden'), execute())
query('rollback')
# A name that SQL has given, bound by the protocol.
def run(name):
    s.sendall(message(b'B', text(''), text(name), bytes(6)) + message(b'E', text(''), bytes(4)) + message(b'S'))
    return read()
query('set search_path = public')
print('bind', len(run('x')), query('set search_path = hidden'), run('x'))
";
    let output = stage
        .report
        .python(program, &[stage.postgres.address()])
        .unwrap();
    assert_eq!(
        output.stdout.lines().collect::<Vec<_>>(),
        [
            "truncate orders [] [] ['42501']",
            "copy orders to stdout [] [] ['42501']",
            "lock table orders [] [] ['42501']",
            "delete from orders where id = 1 [] [] []",
            "truncate public.orders [] [] []",
            "execute [] [] ['42501']",
            "bind 10 [] ['42501']"
        ],
        "{output:?}"
    );
}

/// The server keeps the table that a statement was prepared with when one of the
/// same name comes ahead of it on the search path.
#[test]
fn a_table_made_ahead_of_a_prepared_one_hides_nothing() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let admin = |sql: &str| postgres.admin("shop", sql).unwrap();
    admin(
        "create schema ahead; grant usage, create on schema ahead to report_ro; \
         create table kept as select 'kept secret' as item; grant select on kept to report_ro; \
         alter role report_ro set search_path = ahead, public",
    );
    let tag = "tags = [{ columns = \"public.customers.ssn\", tag = \"pii\", mask = \"redact\" }]";
    let mut config = stage::config(&postgres, tag);
    config.policies = r#"
@id("all") permit (principal == Workload::"report", action, resource in Target::"orders-db")
unless { action == Action::"view" };
@id("kept") forbid (principal, action, resource == Table::"orders-db/shop/public/kept");
"#
    .into();
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    let lines = told(
        &stage,
        "
p = c.pgconn
def run(name):
    r = p.exec_prepared(name, [])
    return r.get_value(0, 0).decode() if r.nfields else r.error_field(67).decode()
p.prepare(b'm', b'select ssn from customers order by id')
p.prepare(b'f', b'select item from kept')
print(run(b'm'), run(b'f'))
print(tell('create table customers(id int, ssn text)'), tell('create table kept(item text)'))
print(run(b'm'), run(b'f'))
print(tell('select ssn from customers'), tell('select count(ssn) from ahead.customers'), tell('select item from kept'), tell('select count(*) from ahead.kept'))
",
    );
    assert_eq!(
        lines,
        [
            "[redacted] 42501",
            "done done",
            "42501 42501",
            "42501 0 42501 0"
        ]
    );
    // That the server does so is what makes this worth a test.
    let seen = stage.postgres.admin(
        "shop",
        "drop table ahead.kept; set search_path = ahead, public; prepare f as select item from kept; \
         create table ahead.kept(item text); execute f",
    );
    assert!(seen.unwrap().contains("kept secret"));
}
