//! Runs attacks through the agent and, to prove that each could do harm, past
//! it.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use lockgate_tests::{
    Agent, Answer, Postgres, PostgresConfig, Wire, Workload, bind, execute, message, parse, query,
    sync,
};

use super::messages::Step;
use super::state::{State, made, secret_in, told};
use crate::stage::{self, Stage};

/// How a text gets to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    Extended,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
        })
    }
}

/// A server full of traps, an agent in front of it, and a twin of the database
/// in which attacks may do their harm.
pub struct Field {
    pub stage: Stage,
    /// Read, write, change definitions; each of them with no more.
    pub maker: Workload,
    /// Looks at the database behind the agent, and at the twin's server.
    admin: Wire,
    /// A session whose last statement is nobody's business.
    _other: Wire,
    /// What was seen last, if nothing has happened since.
    known: HashMap<Place, State>,
}

const TWIN: &str = "twin";

impl Field {
    pub fn new() -> Self {
        let postgres = Postgres::start(&PostgresConfig {
            settings: "primary_conninfo = 'host=none password=Fb2-Sr6-Ed4'\nwal_level = logical\nmax_wal_size = 64MB\nmin_wal_size = 32MB".into(),
            ..PostgresConfig::default()
        })
        .unwrap();
        let socket = postgres.socket().display().to_string();
        let traps = include_str!("traps.sql").replace("SOCKET", &socket);
        postgres.admin("shop", &traps).unwrap();
        postgres
            .admin("shop", "analyze customers, orders, vault")
            .unwrap();
        postgres
            .admin("postgres", "create database pristine template shop")
            .unwrap();
        let mut config = stage::config(
            &postgres,
            "tags = [{ columns = \"public.customers.ssn\", tag = \"pii\" }]",
        );
        config
            .body
            .push_str("[[workload]]\nname = \"maker\"\nunit = \"maker.service\"\n");
        config.body = config.body.replace(
            "credentials = [",
            "credentials = [{ workload = \"maker\", user = \"app_rw\", password = { file = \"SECRETS/app\" } },",
        );
        config.policies.push_str(FORBIDDEN);
        let agent = Agent::start(&config).unwrap();
        let maker = agent.cgroup.unit("maker.service").unwrap();
        let mut field = Self {
            admin: direct(&postgres, "postgres", "shop"),
            _other: direct(&postgres, "postgres", "postgres"),
            stage: Stage::over(agent, postgres),
            maker,
            known: HashMap::new(),
        };
        field._other.ask(&query("select 'Lw5-Gd1-Nc6'")).unwrap();
        field.renew_twin();
        field
    }

    /// A marker that the server's own user could make.
    pub fn marker(&self) -> PathBuf {
        self.stage.postgres.socket().join("marker")
    }

    /// What is behind the agent.
    pub fn state(&mut self) -> State {
        State::of(&mut self.admin)
    }

    /// Runs SQL as the superuser, past the agent.
    pub fn admin(&mut self, sql: &str) -> Answer {
        let answer = self.admin.ask(&query(sql)).unwrap();
        assert!(answer.errors().is_empty(), "{sql}: {:?}", answer.errors());
        answer
    }

    /// Makes the twin anew.
    pub fn renew_twin(&mut self) {
        // A subscription would hold it.
        self.admin("delete from pg_subscription");
        self.admin("drop database if exists twin with (force)");
        self.admin("create database twin template pristine strategy file_copy");
        self.known.clear();
    }

    /// A connection to the twin, as the role that `who` logs in with.
    pub fn past(&self, who: Who) -> Wire {
        direct(&self.stage.postgres, who.role(), TWIN)
    }

    /// A connection through the agent.
    pub fn through(&self, who: Who) -> Wire {
        let workload = match who {
            Who::Reader => &self.stage.report,
            Who::Writer => &self.stage.app,
            Who::Maker => &self.maker,
        };
        let mut wire = Wire::dial(workload, self.stage.postgres.address()).unwrap();
        let answer = wire
            .start(&[("user", "whoever"), ("database", "shop")])
            .unwrap();
        assert!(!answer.closed, "no session: {:?}", answer.errors());
        wire
    }
}

/// Whoever attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Reader,
    Writer,
    Maker,
}

impl Who {
    fn role(self) -> &'static str {
        match self {
            Self::Reader => "report_ro",
            Self::Writer | Self::Maker => "app_rw",
        }
    }
}

const FORBIDDEN: &str = r#"
@id("maker-reads-and-defines")
permit (principal == Workload::"maker", action in [Action::"use", Action::"read", Action::"schema"], resource in Target::"orders-db");
@id("nobody-touches-the-vault")
forbid (principal, action, resource in Table::"orders-db/shop/public/vault") unless { principal == Workload::"owner" };
@id("nobody-touches-the-locker")
forbid (principal, action, resource in Table::"orders-db/shop/public/locker") unless { principal == Workload::"owner" };
@id("nobody-touches-other")
forbid (principal, action, resource in Schema::"orders-db/shop/other") unless { principal == Workload::"owner" };
@id("nobody-touches-children")
forbid (principal, action, resource in Table::"orders-db/shop/public/children") unless { principal == Workload::"owner" };
"#;

fn direct(postgres: &Postgres, user: &str, database: &str) -> Wire {
    let socket = postgres.socket().join(".s.PGSQL.5432");
    let mut wire = Wire::direct(&socket).unwrap();
    let answer = wire
        .start(&[("user", user), ("database", database)])
        .unwrap();
    assert!(answer.errors().is_empty(), "{:?}", answer.errors());
    wire
}

/// One attack: its messages, and what undoes what it does to the server.
pub struct Attack<'a> {
    pub text: &'a str,
    pub who: Who,
}

impl Attack<'_> {
    fn steps(&self, text: &str) -> Vec<String> {
        let steps = text.split("\\undo").next().unwrap_or_default();
        // A space on either side belongs to the mark.
        let trim = |step: &str| {
            let step = step.strip_prefix(' ').unwrap_or(step);
            step.strip_suffix(' ').unwrap_or(step).to_owned()
        };
        steps.split("\\g").map(trim).collect()
    }

    fn undo(&self) -> Option<&str> {
        self.text.split_once("\\undo").map(|(_, undo)| undo.trim())
    }
}

/// Where an attack is run: in the twin, past the agent, or through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Past,
    Through,
}

impl Place {
    fn database(self) -> &'static str {
        match self {
            Self::Past => TWIN,
            Self::Through => "shop",
        }
    }
}

/// What became of an attack.
struct Outcome {
    /// What harm it did.
    harm: Option<String>,
    /// What the client was told.
    said: String,
    /// Whether everything is as it was.
    is_same: bool,
}

/// Sends the steps one by one, as a client does that goes on after errors.
fn send(wire: &mut Wire, protocol: Protocol, steps: &[String]) -> Result<Answer> {
    let mut all = Answer::default();
    let mut steps = steps.iter();
    while let Some(step) = steps.next() {
        let messages = match protocol {
            Protocol::Simple => query(step),
            Protocol::Extended => [
                parse("", step),
                bind("", ""),
                message(b'D', b"P\0"),
                execute("", 0),
                sync(),
            ]
            .concat(),
        };
        let mut answer = wire.ask(&messages)?;
        while answer.wants_data() {
            let data = steps.next().map_or("", String::as_str);
            let mut messages = [message(b'd', data.as_bytes()), message(b'c', b"")].concat();
            if protocol == Protocol::Extended {
                messages.extend(sync());
            }
            all.take(answer);
            answer = wire.ask(&messages)?;
        }
        all.take(answer);
        if all.closed {
            break;
        }
    }
    Ok(all)
}

/// Sends what is to be sent, says goodbye, and gives all that came back.
fn follow(wire: &mut Wire, steps: &[Step]) -> Result<Answer> {
    let mut all = Answer::default();
    for step in steps {
        match step {
            Step::Send(bytes) => wire.send(bytes),
            Step::Drip(bytes) => bytes.iter().for_each(|byte| wire.send(&[*byte])),
            Step::Ready => all.take(wire.until_ready()?),
        }
        if all.closed {
            return Ok(all);
        }
    }
    wire.send(&message(b'X', b""));
    all.take(wire.until_closed()?);
    Ok(all)
}

/// Why an attack was not harmful, in the words of whoever refused.
fn reason(answer: &Answer) -> String {
    let errors = answer.errors();
    let own = errors.iter().find(|error| error.contains("lockgate"));
    match own.or(errors.first()) {
        Some(error) => error.replace('\n', " "),
        None => "answered".into(),
    }
}

impl Field {
    /// Runs an attack in one protocol and looks what became of the database.
    fn attempt(&mut self, attack: &Attack, protocol: Protocol, place: Place) -> Outcome {
        let marker = self.marker();
        let socket = self.stage.postgres.socket();
        let text = attack
            .text
            .replace("MARKER", &marker.display().to_string())
            .replace("SOCKET", &socket.display().to_string())
            .replace("DATABASE", place.database());
        let before = self.state_of(place);
        let guesses: &[&str] = match text.contains("GUESS") {
            true => &["Qx7", "Zz0"],
            false => &[""],
        };
        let (mut seen, mut harm, mut said) = (Vec::new(), None, String::new());
        for guess in guesses {
            let steps = attack.steps(&text.replace("GUESS", guess));
            let mut wire = match place {
                Place::Past => self.past(attack.who),
                Place::Through => self.through(attack.who),
            };
            match send(&mut wire, protocol, &steps) {
                Ok(answer) => {
                    harm = harm.or_else(|| secret_in(&answer.bytes()));
                    said = reason(&answer);
                    seen.push(told(&answer));
                }
                Err(error) => said = format!("{error:#}"),
            }
        }
        if let [right, wrong] = &seen[..]
            && right != wrong
        {
            harm.get_or_insert("a guess was told from another".into());
        }
        if made(&marker) {
            harm = Some("a file was made".into());
        }
        let after = self.look(place);
        let changed = match attack.who {
            Who::Maker => after.of_rows_since(&before),
            Who::Reader | Who::Writer => after.changed_since(&before),
        };
        if !changed.is_empty() {
            harm = Some(format!("changed: {}", changed.join(", ")));
        }
        let is_same = after == before;
        if !is_same {
            self.known.clear();
        }
        self.known.insert(place, after);
        Outcome {
            harm,
            said,
            is_same,
        }
    }

    fn look(&mut self, place: Place) -> State {
        match place {
            Place::Past => State::of(&mut direct(&self.stage.postgres, "postgres", TWIN)),
            Place::Through => State::of(&mut self.admin),
        }
    }

    /// The state of one database, which is known if nothing has changed since.
    fn state_of(&mut self, place: Place) -> State {
        match self.known.remove(&place) {
            Some(state) => state,
            None => self.look(place),
        }
    }

    /// Runs an attack past the agent, where it must do harm, and through it,
    /// where it must not. One line for each protocol.
    fn run(&mut self, attack: &Attack, faults: &mut Vec<String>) {
        let mut could = None;
        for protocol in [Protocol::Simple, Protocol::Extended] {
            let outcome = self.attempt(attack, protocol, Place::Past);
            if !outcome.is_same {
                self.renew_twin();
            }
            // What it did to the whole server.
            if let Some(undo) = attack.undo().filter(|_| attack.who != Who::Maker) {
                self.undo(undo);
            }
            if outcome.harm.is_some() {
                could = outcome.harm;
                break;
            }
            println!(
                "harmless    {protocol:<8} {}  -- {}",
                attack.text.escape_debug(),
                outcome.said
            );
        }
        if could.is_none() {
            faults.push(format!(
                "{}: does no harm past lockgate either",
                attack.text
            ));
        }
        for protocol in [Protocol::Simple, Protocol::Extended] {
            let outcome = self.attempt(attack, protocol, Place::Through);
            let verdict = match outcome.harm {
                Some(_) => "GOT THROUGH",
                None => "held",
            };
            let text = attack.text.escape_debug();
            println!("{verdict:<11} {protocol:<8} {text}  -- {}", outcome.said);
            if !outcome.is_same
                && let Some(undo) = attack.undo()
            {
                self.undo(undo);
            }
            if let Some(harm) = outcome.harm {
                // So that what comes next can do harm again.
                self.admin(
                    "delete from orders where id > 10;
                     insert into orders select g, 'item ' || g, g from generate_series(1, 10) g on conflict do nothing",
                );
                faults.push(format!(
                    "{protocol}: {}: {harm} ({})",
                    attack.text, outcome.said
                ));
            }
        }
    }

    /// Runs statements of which most have nothing to undo.
    fn undo(&mut self, statements: &str) {
        for statement in statements.split(';') {
            self.admin.ask(&query(statement)).unwrap();
        }
        self.known.clear();
    }

    /// Sends messages past the agent, where they must do harm, and through it.
    pub fn run_messages(&mut self, name: &str, steps: &[Step], faults: &mut Vec<String>) {
        let mut harms = Vec::new();
        for past in [true, false] {
            let mut twin = past.then(|| direct(&self.stage.postgres, "postgres", TWIN));
            let admin = twin.as_mut().unwrap_or(&mut self.admin);
            let before = State::of(admin);
            let mut wire = match past {
                true => self.past(Who::Reader),
                false => self.through(Who::Reader),
            };
            let answer = follow(&mut wire, steps);
            let admin = twin.as_mut().unwrap_or(&mut self.admin);
            let changed = State::of(admin).changed_since(&before);
            let (seen, said) = match &answer {
                Ok(answer) => (secret_in(&answer.bytes()), reason(answer)),
                Err(error) => (None, format!("{error:#}")),
            };
            let changed = (!changed.is_empty()).then(|| format!("changed: {}", changed.join(", ")));
            let harm = changed.or(seen);
            drop(twin);
            if past && harm.is_some() {
                self.renew_twin();
            }
            harms.push((harm, said));
        }
        let [(could, why), (harm, said)] = &harms[..] else {
            return;
        };
        let verdict = if harm.is_some() {
            "GOT THROUGH"
        } else {
            "held"
        };
        println!("{verdict:<11} messages {name}  -- {said}");
        if could.is_none() {
            faults.push(format!("{name}: does no harm past lockgate either: {why}"));
        }
        if let Some(harm) = harm {
            faults.push(format!("{name}: {harm} ({said})"));
        }
    }

    /// Runs them all.
    pub fn run_all(&mut self, who: Who, attacks: &[&str]) {
        let mut faults = Vec::new();
        for text in attacks {
            self.run(&Attack { text, who }, &mut faults);
        }
        assert!(
            faults.is_empty(),
            "{} faults:\n{}",
            faults.len(),
            faults.join("\n")
        );
    }
}
