//! Whether the server itself confirms what is said of tagged columns.
//!
//! Of each statement: which columns a view over it depends on (pg_depend), of
//! which column each output is (RowDescription), and which secrets its rows
//! hold when it is run. All columns are text, so that nearly everything that
//! can be written is valid.

mod made;
mod written;

use std::cell::RefCell;
use std::collections::BTreeSet;

use lockgate_command::{Resource, Verb};
use lockgate_config::Tag;
use lockgate_sql::{Analyser, Catalogue, Resolved, SessionNames, Tags, resolve};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::server::{Answer, Server, Wire};
use crate::shop;

/// Every value of a tagged column begins with this, and no other value does.
const SECRET: &str = "secret-";

const OBJECTS: &str = "
create table customers (id text, name text, ssn text);
create table staff (id text, ssn text, boss text);
create table orders (id text, customer_id text, note text);
create table people (id text, ssn text);
create table managers (extra text) inherits (people);
create table accounts (id text, owner text, iban text) partition by list (id);
create table accounts_1 partition of accounts for values in ('1', '2');
create table accounts_2 partition of accounts default;
create table computed (id text, twice text generated always as (id || id) stored, ssn text);
create view order_view as select id, note from orders;
create view customer_view as select id, ssn as x from customers;
create view over_view as select x as y, id from customer_view;
create view row_view as select id, c from customers c;
insert into customers values ('1', 'ann', 'secret-c1'), ('2', 'bob', 'secret-c2'), ('3', 'eve', null);
insert into staff values ('1', 'secret-s1', '2'), ('2', 'secret-s2', null);
insert into orders values ('1', '1', 'pens'), ('2', '1', 'ink'), ('3', '2', 'desk');
insert into people values ('1', 'secret-p1'); insert into managers values ('2', 'secret-m1', 'x');
insert into accounts values ('1', '1', 'secret-a1'), ('3', '2', 'secret-a2');
insert into computed (id, ssn) values ('1', 'secret-k1');
";

const TAGGED: &[(&str, &str)] = &[
    ("customers", "ssn"),
    ("staff", "ssn"),
    ("people", "ssn"),
    // A partition's, so that what its parent shows is tagged.
    ("accounts_1", "iban"),
    ("computed", "ssn"),
];

struct Judge {
    wire: Wire,
    analyser: Analyser,
    catalogue: Catalogue,
    tags: Tags,
    tally: Tally,
}

/// So that a test which never looks at anything fails.
#[derive(Debug, Default)]
struct Tally {
    valid: usize,
    shown: usize,
    filtered: usize,
    viewed: usize,
    untouched: usize,
}

pub fn the_server_confirms_what_is_shown(server: &Server) {
    server.rows("postgres", "create database judge");
    server.rows("judge", OBJECTS);
    let tag = |(table, column): &(&str, &str)| Tag {
        columns: format!("public.{table}.{column}"),
        tag: "pii".into(),
        mask: None,
    };
    let tags: Vec<Tag> = TAGGED.iter().map(tag).collect();
    let mut judge = Judge {
        wire: Wire::connect(&server.folder(), "judge"),
        analyser: shop::analyser(),
        catalogue: server.catalogue("judge"),
        tags: Tags::new(&tags),
        tally: Tally::default(),
    };
    judge.wire.must("set statement_timeout = '5s'");
    let mut wrong = Vec::new();
    for statement in written::STATEMENTS.lines().map(str::trim) {
        if statement.is_empty() || statement.starts_with("--") {
            continue;
        }
        match judge.judge(statement) {
            Ok(None) => {}
            Ok(Some(invalid)) => wrong.push(format!("{statement}\n  is not valid: {invalid}")),
            Err(why) => wrong.push(format!("{statement}\n  {why}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let tally = std::mem::take(&mut judge.tally);
    assert!(
        tally.valid > 150 && tally.shown > 50 && tally.filtered > 50 && tally.viewed > 50,
        "{tally:?}"
    );
    made_statements(judge);
}

fn made_statements(judge: Judge) {
    let config = Config {
        // More if PROPTEST_CASES says so.
        cases: Config::default().cases.max(2000),
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let judge = RefCell::new(judge);
    let outcome = runner.run(&prop::collection::vec(any::<u8>(), 4..200), |choices| {
        let statement = made::statement(&choices);
        match judge.borrow_mut().judge(&statement) {
            Ok(_) => Ok(()),
            Err(why) => Err(TestCaseError::fail(format!("{why}\n{statement}"))),
        }
    });
    if let Err(why) = outcome {
        panic!("{why}");
    }
    let tally = judge.into_inner().tally;
    println!("made statements: {tally:?}");
    assert!(
        tally.valid > 800 && tally.shown > 100 && tally.filtered > 100 && tally.viewed > 100,
        "{tally:?}"
    );
}

impl Judge {
    /// An error if the server contradicts what is said of `statement`; why the
    /// server does not take it, if it does not.
    fn judge(&mut self, statement: &str) -> Result<Option<String>, String> {
        let analysis = shop::analyse(&self.analyser, statement);
        let session = SessionNames {
            database: "judge".into(),
            ..shop::session(shop::usual_path())
        };
        let resolved = resolve(&analysis, &self.catalogue, &session, &self.tags);
        self.wire.must("begin");
        let answer = self.wire.query(statement);
        let judged = match &answer.error {
            Some(error) => Ok(Some(error.clone())),
            None => self.compare(statement, &answer, &resolved).map(|()| None),
        };
        self.wire.must("rollback");
        judged
    }

    fn compare(
        &mut self,
        statement: &str,
        answer: &Answer,
        resolved: &Resolved,
    ) -> Result<(), String> {
        let said = Said::new(resolved);
        self.tally.valid += 1;
        self.tally.shown += usize::from(!said.shown.is_empty());
        self.tally.viewed += usize::from(!said.view.is_empty());
        self.tally.filtered += usize::from(!said.filter.is_empty());
        self.tally.untouched += usize::from(said.all().is_empty());
        self.outputs(answer, &said)?;
        secrets(answer, &said)?;
        self.dependencies(statement, answer, &said)
    }

    /// What RowDescription says of each output.
    fn outputs(&mut self, answer: &Answer, said: &Said) -> Result<(), String> {
        if answer.outputs.is_empty() {
            return Ok(());
        }
        if let Some(outputs) = said.outputs
            && usize::from(outputs) != answer.outputs.len()
        {
            return Err(format!("{outputs} outputs, not {}", answer.outputs.len()));
        }
        for (output, (table, column)) in answer.outputs.iter().enumerate() {
            if *table == 0 {
                continue;
            }
            let of = self.tagged_of(*table, *column);
            let claimed = said.shown_by(output);
            if claimed != of && !(claimed.is_empty() && of.is_subset(&said.view)) {
                return Err(format!("output {output} shows {of:?}: {said:?}"));
            }
        }
        Ok(())
    }

    /// What a view over the statement depends on.
    fn dependencies(
        &mut self,
        statement: &str,
        answer: &Answer,
        said: &Said,
    ) -> Result<(), String> {
        let query = match statement.strip_prefix("copy (") {
            Some(copy) => copy.rsplit_once(')').expect("a bracket that closes").0,
            None => statement,
        };
        let reads = ["select", "with", "values", "table", "("];
        if !reads.iter().any(|word| query.starts_with(word)) {
            return Ok(());
        }
        let width = match answer.outputs.len() {
            0 => self.wire.must(query).outputs.len(),
            width => width,
        };
        let names: Vec<String> = (0..width).map(|at| format!("c{at}")).collect();
        self.wire.must("savepoint s");
        let create = format!("create view judged ({}) as {query}", names.join(", "));
        if let Some(why) = self.wire.query(&create).error {
            // A column of a type that a view cannot have, such as a record; or a
            // WITH that writes.
            self.wire.must("rollback to s");
            return match why.contains("pseudo-type") || why.contains("data-modifying") {
                true => Ok(()),
                false => Err(format!("no view: {why}")),
            };
        }
        let rows = self.wire.must(
            "with recursive uses(view, relation, position) as (
                select r.ev_class, d.refobjid, d.refobjsubid from pg_rewrite r
                    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                        and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
            ), below(relation, position) as (
                select relation, position from uses where view = 'judged'::regclass
                union select u.relation, u.position from below b join uses u on u.view = b.relation
            ) select relation, position from below where position > 0",
        );
        let mut used = BTreeSet::new();
        for row in rows.rows {
            let number = |at: usize| row[at].as_deref().unwrap_or_default().parse::<u32>();
            let (table, column) = (number(0).expect("an oid"), number(1).expect("a column"));
            used.extend(self.tagged_of(table, column as i16));
        }
        self.wire.must("rollback to s");
        match used.is_subset(&said.all()) {
            true => Ok(()),
            false => Err(format!("the server uses {used:?}: {said:?}")),
        }
    }

    /// The tagged columns whose values a column has: those of its name up and
    /// down the inheritance.
    fn tagged_of(&mut self, table: u32, column: i16) -> BTreeSet<String> {
        let rows = self.wire.must(&format!(
            "with recursive kin(oid) as (
                select {table}::oid
                union select case when i.inhrelid = k.oid then i.inhparent else i.inhrelid end
                    from kin k join pg_inherits i on k.oid in (i.inhrelid, i.inhparent)
            ) select c.relname, (select attname from pg_attribute
                where attrelid = {table} and attnum = {column})
            from kin k join pg_class c on c.oid = k.oid"
        ));
        let text = |row: &[Option<String>], at: usize| row[at].clone().unwrap_or_default();
        let found = rows.rows.iter().map(|row| (text(row, 0), text(row, 1)));
        found
            .filter(|(table, column)| TAGGED.contains(&(table, column)))
            .map(|(table, column)| format!("{table}.{column}"))
            .collect()
    }
}

/// A secret that comes back is one that is said to be shown, exactly as it is
/// stored, or needs `view`.
fn secrets(answer: &Answer, said: &Said) -> Result<(), String> {
    if !said.view.is_empty() {
        return Ok(());
    }
    let value = |value: &str| (value != "\\N").then(|| value.to_owned());
    let copied = answer.copied.lines();
    let copied = copied.map(|line| line.split('\t').map(value).collect());
    let rows = answer.rows.iter().cloned().chain(copied);
    for row in rows {
        for (output, value) in row.iter().enumerate() {
            let value = value.as_deref().unwrap_or_default();
            let shown = !said.shown_by(output).is_empty();
            let whole = value.starts_with(SECRET) && value.len() == SECRET.len() + 2;
            if value.contains(SECRET) && !(shown && whole) {
                return Err(format!("output {output} shows {value}: {said:?}"));
            }
        }
    }
    Ok(())
}

/// What is said of a statement, columns as `table.column`.
#[derive(Debug)]
struct Said {
    shown: Vec<(usize, String)>,
    outputs: Option<u16>,
    view: BTreeSet<String>,
    filter: BTreeSet<String>,
}

impl Said {
    fn new(resolved: &Resolved) -> Self {
        let statement = &resolved.statement;
        let of = |verb| {
            let accesses = statement.accesses.iter();
            let accesses = accesses.filter(|access| access.verb == verb);
            accesses.map(|access| short(&access.resource)).collect()
        };
        let shown = statement.shown.iter();
        let shown = shown.map(|one| (usize::from(one.output), short(&one.column)));
        Self {
            shown: shown.collect(),
            outputs: statement.outputs,
            view: of(Verb::View),
            filter: of(Verb::Filter),
        }
    }

    fn shown_by(&self, output: usize) -> BTreeSet<String> {
        let shown = self.shown.iter().filter(|(at, _)| *at == output);
        shown.map(|(_, column)| column.clone()).collect()
    }

    fn all(&self) -> BTreeSet<String> {
        let shown = self.shown.iter().map(|(_, column)| column);
        let others = self.view.iter().chain(&self.filter);
        shown.chain(others).cloned().collect()
    }
}

fn short(column: &Resource) -> String {
    column.path()[2..].join(".")
}
