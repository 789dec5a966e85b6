//! A denial is the server's own: what it does to the transaction, to the
//! pipeline and to the session is what the server does.

use lockgate_tests::{Paused, Postgres, Workload};

use crate::stage::Stage;

/// What `program` prints, line by line; it has `psycopg`, `dsn`, and a helper
/// that says how a statement ended.
fn told(stage: &Stage, program: &str) -> Vec<String> {
    let helper = "
from psycopg import errors
def tell(run):
    try:
        cur = run()
        return cur.fetchall() if cur is not None and cur.description else 'done'
    except psycopg.Error as e:
        return e.sqlstate
def status(c): return c.info.transaction_status.name
";
    let output = stage.python(&stage.report, &format!("{helper}{program}"));
    assert!(output.ok(), "{output:?}");
    output.stdout.lines().map(str::to_owned).collect()
}

fn untouched(postgres: &Postgres) {
    assert_eq!(
        postgres.count("orders").unwrap(),
        10,
        "the server has all rows"
    );
}

#[test]
fn in_a_transaction_it_fails_the_transaction_and_rollback_mends_it() {
    let stage = Stage::new();
    // Extended protocol, then simple.
    for prepare in [
        "c.execute(s)",
        "c.execute(s, prepare=True)",
        "psycopg.ClientCursor(c).execute(s)",
    ] {
        let lines = told(
            &stage,
            &format!(
                "
c = psycopg.connect(dsn)
def run(s): return {prepare}
print(tell(lambda: run('select count(*) from orders')), status(c))
print(tell(lambda: run('delete from orders')), status(c))
print(tell(lambda: run('select 1')), status(c))
c.rollback()
print(tell(lambda: run('select 1')), status(c))
c.rollback()
c.autocommit = True
print(tell(lambda: run('delete from orders')), status(c))
print(tell(lambda: run('select 2')), status(c))
"
            ),
        );
        assert_eq!(
            lines,
            [
                "[(10,)] INTRANS",
                "42501 INERROR",
                "25P02 INERROR",
                "[(1,)] INTRANS",
                "42501 IDLE",
                "[(2,)] IDLE"
            ],
            "{prepare}"
        );
    }
    untouched(&stage.postgres);
}

#[test]
fn a_savepoint_survives_it() {
    let stage = Stage::new();
    let lines = told(
        &stage,
        "
c = psycopg.connect(dsn)
tell(lambda: c.execute('begin')); tell(lambda: c.execute('savepoint a'))
print(tell(lambda: c.execute('truncate orders')), status(c))
print(tell(lambda: c.execute('rollback to a')), status(c))
print(tell(lambda: c.execute('select count(*) from orders')), status(c))
",
    );
    assert_eq!(lines, ["42501 INERROR", "done INTRANS", "[(10,)] INTRANS"]);
    untouched(&stage.postgres);
}

#[test]
fn in_a_pipeline_it_ends_that_batch_and_no_other() {
    let stage = Stage::new();
    let lines = told(
        &stage,
        "
c = psycopg.connect(dsn, autocommit=True)
with c.pipeline() as p:
    a = c.execute('select 1'); p.sync()
    try:
        b = c.execute('delete from orders'); d = c.execute('select 2'); p.sync()
    except psycopg.Error as e: print(e.sqlstate)
    try: p.sync()
    except psycopg.Error as e: print(e.sqlstate)
    print(a.fetchall())
print(tell(lambda: c.execute('select 3')), status(c))
",
    );
    assert!(lines.contains(&"42501".to_owned()), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "[(3,)] IDLE", "{lines:?}");
    untouched(&stage.postgres);
}

#[test]
fn a_string_of_several_statements_is_decided_whole() {
    let stage = Stage::new();
    for text in [
        "select 1; delete from orders",
        "delete from orders; select 1",
        "begin; delete from orders; commit",
        ";; delete from orders",
        "commit; delete from orders",
    ] {
        let output = stage.psql(&stage.report, &[text, "select 'on'"]);
        assert!(
            output.stderr.contains("42501") || output.stderr.contains("no policy permits"),
            "{text}: {output:?}"
        );
        assert!(output.stdout.ends_with("on\n"), "{text}: {output:?}");
    }
    untouched(&stage.postgres);
}

#[test]
fn copy_is_decided_before_its_data() {
    let stage = Stage::new();
    let lines = told(
        &stage,
        "
c = psycopg.connect(dsn, autocommit=True)
def load():
    with c.cursor() as cur:
        with cur.copy('copy orders from stdin') as copy: copy.write_row((99, 'x', 1))
print(tell(load), status(c))
def program():
    with c.cursor() as cur:
        with cur.copy(\"copy orders to program 'touch /tmp/never'\") as copy: list(copy)
print(tell(program), status(c))
with c.cursor() as cur:
    with cur.copy('copy (select id from orders) to stdout') as copy: print(len(list(copy.rows())))
print(tell(lambda: c.execute('select 1')))
",
    );
    assert_eq!(lines, ["42501 IDLE", "42501 IDLE", "10", "[(1,)]"]);
    untouched(&stage.postgres);
}

/// Runs `program` as the workload until it has printed `ready`, forbids all
/// but connecting, lets it go on, and returns what else it printed.
fn forbidden_meanwhile(stage: &Stage, workload: &Workload, program: &str) -> Vec<String> {
    let mut session = Paused::start(workload, program, &stage.dsn("")).unwrap();
    assert_eq!(session.line().unwrap(), "ready");
    let mut config = crate::stage::config(&stage.postgres, "");
    config.policies = "@id(\"connect-only\") permit (principal, action in Action::\"use\", resource in Target::\"orders-db\");".into();
    stage.agent.write(&config).unwrap();
    let reloaded = stage.agent.lockgate(&["reload"]).unwrap();
    assert!(reloaded.ok(), "{reloaded:?}");
    session.go_on().unwrap();
    session.rest().unwrap()
}

#[test]
fn what_was_prepared_while_it_was_allowed_is_decided_anew_at_bind() {
    let stage = Stage::new();
    let rest = forbidden_meanwhile(
        &stage,
        &stage.report,
        "
c = psycopg.connect(dsn, autocommit=True)
s = 'select count(*) from orders'
for _ in range(3): c.execute(s, prepare=True)
print('ready'); sys.stdin.readline()
try: print(c.execute(s, prepare=True).fetchall())
except psycopg.Error as e: print(e.sqlstate)
print(c.execute('select 1').fetchall())
",
    );
    assert_eq!(rest, ["42501", "[(1,)]"]);
}

#[test]
fn a_copy_that_is_forbidden_while_it_runs_is_rolled_back() {
    let stage = Stage::new();
    let rest = forbidden_meanwhile(
        &stage,
        &stage.app,
        "
c = psycopg.connect(dsn, autocommit=True)
try:
    with c.cursor() as cur, cur.copy('copy orders from stdin') as copy:
        for id in range(1000, 9000): copy.write_row((id, 'x' * 100, 1))
        print('ready'); sys.stdin.readline()
        for id in range(9000, 19000): copy.write_row((id, 'x' * 100, 1))
    print('copied')
except psycopg.Error as e: print(e.sqlstate, 'lockgate' in str(e))
print(c.execute('select 1').fetchall())
",
    );
    assert_eq!(rest, ["42501 True", "[(1,)]"]);
    untouched(&stage.postgres);
}

#[test]
fn a_tagged_column_is_seen_only_with_view() {
    let stage = Stage::with(
        "tags = [{ columns = \"public.customers.ssn\", tag = \"pii\" }]",
        &Default::default(),
    );
    for text in [
        "select ssn from customers",
        "select * from customers",
        "select c from customers c",
        "select customers::text from customers",
        "select count(*) from customers where ssn like '1%'",
        "select id from customers order by ssn",
        "table customers",
        "copy customers to stdout",
        "select row_to_json(c) from customers c",
        "with x as (select * from customers) select name from x",
        "create temp table x as select ssn from customers",
    ] {
        let output = stage.psql(&stage.report, &[text]);
        assert!(
            output.stderr.contains("lockgate: no policy permits"),
            "{text}: {output:?}"
        );
        assert!(!output.all().contains("123-45"), "{text}: {output:?}");
    }
    let rest = stage.psql(
        &stage.report,
        &["select id, name from customers order by id"],
    );
    assert_eq!(rest.stdout, "1|Ann\n2|Bob\n", "{rest:?}");
    let view = stage.psql(
        &stage.report,
        &["select name from customer_names order by id"],
    );
    assert_eq!(view.stdout, "Ann\nBob\n", "{view:?}");
    // An error of the server must not print the row.
    let error = stage.psql(
        &stage.app,
        &["update customers set name = null where id = 1"],
    );
    assert!(error.stderr.contains("message is withheld"), "{error:?}");
    assert!(!error.all().contains("123-45"), "{error:?}");
    let owner = stage.agent.cgroup.unit("owner.service").unwrap();
    let seen = stage.psql(&owner, &["select ssn from customers order by id"]);
    assert_eq!(seen.stdout, "123-45-6789\n987-65-4321\n", "{seen:?}");
}

#[test]
fn a_name_prepared_anew_in_sql_is_not_taken_for_the_one_before() {
    let stage = Stage::new();
    let program = "
from psycopg.pq import ExecStatus
c = psycopg.connect(dsn, autocommit=True)
pg = c.pgconn
print(ExecStatus(pg.prepare(b's', b'select 1').status).name)
print(c.execute('select 2').fetchone()[0])
for sql in (b'deallocate s', b'prepare s as select 42'): pg.exec_(sql)
r = pg.exec_prepared(b's', [])
print(ExecStatus(r.status).name, r.get_value(0, 0))
print(ExecStatus(pg.prepare(b't', b'select 3').status).name, pg.exec_prepared(b't', []).get_value(0, 0))";
    let output = stage.python(&stage.report, program);
    assert_eq!(
        output.stdout, "COMMAND_OK\n2\nTUPLES_OK b'42'\nCOMMAND_OK b'3'\n",
        "{output:?}"
    );
}
