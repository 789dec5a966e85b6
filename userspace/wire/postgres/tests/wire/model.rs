//! A server in small: names, transactions, COPY and `ignore_till_sync` as in
//! `src/backend/tcop/postgres.c` and `src/backend/commands/copyfromparse.c`.
//!
//! Its language: `rows N`, `copy in`, `copy in fails` (as by a BEFORE STATEMENT
//! trigger), `copy out`, `begin`, `commit`, `rollback`, `fail`; `;` between
//! statements of a simple query. A leading `secret` or `unbound` changes
//! nothing: the tests' policy looks for it.

use std::collections::{HashMap, HashSet};

use crate::message::*;

/// What ran, and how it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    Query(String),
    /// With the Bind's parameter.
    Bind(String, String),
    Execute(String, String),
}

#[derive(Default)]
pub struct Server {
    input: Vec<u8>,
    /// Answers that the server has not flushed yet.
    waiting: Vec<u8>,
    pub output: Vec<u8>,
    pub ran: Vec<Ran>,
    /// A message came within COPY data that does not belong there.
    pub dead: bool,
    /// Texts with this word do not parse here.
    pub unparsable: Option<&'static str>,
    statements: HashMap<String, String>,
    portals: HashMap<String, (String, String)>,
    transaction: bool,
    aborted: bool,
    ignore_till_sync: bool,
    copy: Option<Copy>,
    /// Parameters of the Binds whose COPY has run: a portal runs it once.
    copied: HashSet<String>,
}

struct Copy {
    extended: bool,
    rows: usize,
    /// Statements of the simple query that come behind.
    rest: Vec<String>,
}

type Answer = Result<(), (&'static str, String)>;

impl Server {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
        for (tag, body) in take(&mut self.input) {
            if !self.dead {
                self.message(tag, &body);
            }
        }
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.copy.is_some() {
            return self.copying(tag, body);
        }
        if self.ignore_till_sync && tag != b'S' {
            return;
        }
        match tag {
            b'Q' => self.query(body),
            b'S' => {
                self.ignore_till_sync = false;
                self.ready();
            }
            b'H' => self.flush(),
            b'd' | b'c' | b'f' => {}
            _ => {
                if let Err(error) = self.extended(tag, body) {
                    self.error(error);
                    self.ignore_till_sync = true;
                }
            }
        }
    }

    fn extended(&mut self, tag: u8, mut body: &[u8]) -> Answer {
        match tag {
            b'P' => {
                let name = take_text(&mut body);
                let text = take_text(&mut body);
                if name.is_empty() {
                    self.statements.remove("");
                }
                self.parses(&text)?;
                self.may_run(&text)?;
                if self.statements.contains_key(&name) {
                    return Err(("42P05", format!("\"{name}\" exists")));
                }
                self.statements.insert(name, text);
                self.waiting.extend(message(b'1', &[]));
            }
            b'B' => {
                let portal = take_text(&mut body);
                let statement = take_text(&mut body);
                let Some(text) = self.statements.get(&statement).cloned() else {
                    return Err(("26000", format!("\"{statement}\" does not exist")));
                };
                self.may_run(&text)?;
                if !portal.is_empty() && self.portals.contains_key(&portal) {
                    return Err(("42P03", format!("\"{portal}\" exists")));
                }
                let parameter = body.get(8..body.len() - 2).unwrap_or_default();
                let parameter = String::from_utf8_lossy(parameter).into_owned();
                self.ran.push(Ran::Bind(parameter.clone(), text.clone()));
                self.portals.insert(portal, (parameter, text));
                self.waiting.extend(message(b'2', &[]));
            }
            b'D' => {
                let known = match body[0] {
                    b'S' => {
                        self.waiting.extend(message(b't', &[0, 0]));
                        true
                    }
                    _ => self.portals.contains_key(&take_text(&mut &body[1..])),
                };
                match known {
                    true => self.waiting.extend(message(b'n', &[])),
                    false => return Err(("34000", "no such portal".into())),
                }
            }
            b'C' => {
                let name = take_text(&mut &body[1..]);
                match body[0] {
                    b'S' => drop(self.statements.remove(&name)),
                    _ => drop(self.portals.remove(&name)),
                }
                self.waiting.extend(message(b'3', &[]));
            }
            b'E' => {
                let portal = take_text(&mut body);
                let Some((bind, text)) = self.portals.get(&portal).cloned() else {
                    return Err(("34000", format!("\"{portal}\" does not exist")));
                };
                self.may_run(&text)?;
                if text.contains("copy in") && !self.copied.insert(bind.clone()) {
                    return Err(("55000", format!("portal \"{portal}\" cannot be run")));
                }
                self.ran.push(Ran::Execute(bind, text.clone()));
                self.statement(&text, true)?;
            }
            other => panic!("the server got a message of type {}", other as char),
        }
        Ok(())
    }

    fn query(&mut self, mut body: &[u8]) {
        let text = take_text(&mut body);
        self.statements.remove("");
        self.portals.remove("");
        if let Err(error) = self.parses(&text) {
            self.error(error);
            return self.ready();
        }
        self.ran.push(Ran::Query(text.clone()));
        if text.trim().is_empty() {
            self.waiting.extend(message(b'I', &[]));
        }
        let statements = text.split(';').filter(|text| !text.trim().is_empty());
        self.run(statements.map(str::to_owned).collect());
    }

    /// The statements of a simple query, up to a COPY that takes data.
    fn run(&mut self, mut statements: Vec<String>) {
        while !statements.is_empty() {
            let text = statements.remove(0);
            if let Err(error) = self
                .may_run(&text)
                .and_then(|()| self.statement(&text, false))
            {
                self.error(error);
                break;
            }
            if let Some(copy) = &mut self.copy {
                copy.rest = statements;
                return;
            }
        }
        self.ready();
    }

    fn parses(&self, text: &str) -> Answer {
        let broken = text.starts_with("lockgate_denied_")
            || self.unparsable.is_some_and(|word| text.contains(word));
        if broken {
            Err(("42601", format!("syntax error at \"{text}\"")))
        } else {
            Ok(())
        }
    }

    fn may_run(&self, text: &str) -> Answer {
        if self.aborted && !matches!(text, "commit" | "rollback") {
            return Err(("25P02", "current transaction is aborted".into()));
        }
        Ok(())
    }

    fn statement(&mut self, text: &str, extended: bool) -> Answer {
        let mut words = text
            .split(' ')
            .skip_while(|word| matches!(*word, "secret" | "unbound"));
        match words.next().unwrap_or_default() {
            "" => self.waiting.extend(message(b'I', &[])),
            "rows" => {
                let count = words
                    .next()
                    .map_or(0, |count| count.parse().expect("a number"));
                if !extended {
                    self.waiting.extend(description());
                }
                for number in 0..count {
                    self.waiting.extend(row(&format!("row {number}")));
                }
                self.waiting.extend(complete(&format!("SELECT {count}")));
            }
            "copy" if words.next() == Some("out") => {
                self.waiting.extend(copy_out());
                self.waiting.extend(copy_data(b"one\n"));
                self.waiting.extend(copy_done());
                self.waiting.extend(complete("COPY 1"));
            }
            "copy" => {
                self.waiting.extend(copy_in());
                self.flush();
                if words.next() == Some("fails") {
                    return Err(("P0001", "raised by a trigger".into()));
                }
                self.copy = Some(Copy {
                    extended,
                    rows: 0,
                    rest: Vec::new(),
                });
            }
            "begin" => {
                self.transaction = true;
                self.waiting.extend(complete("BEGIN"));
            }
            word @ ("commit" | "rollback") => {
                self.transaction = false;
                self.aborted = false;
                self.portals.clear();
                self.waiting.extend(complete(&word.to_uppercase()));
            }
            "fail" => return Err(("22012", "division by zero".into())),
            other => panic!("the server runs `{other}`"),
        }
        Ok(())
    }

    fn copying(&mut self, tag: u8, body: &[u8]) {
        let copy = self.copy.as_mut().expect("a COPY runs");
        match tag {
            b'd' => copy.rows += 1,
            b'S' | b'H' => {}
            b'c' => {
                let Copy {
                    extended,
                    rows,
                    rest,
                } = self.copy.take().expect("a COPY runs");
                self.waiting.extend(complete(&format!("COPY {rows}")));
                if !extended {
                    self.run(rest);
                }
            }
            b'f' => {
                let Copy { extended, .. } = self.copy.take().expect("a COPY runs");
                let reason = take_text(&mut &body[..]);
                self.error(("57014", format!("COPY from stdin failed: {reason}")));
                match extended {
                    true => self.ignore_till_sync = true,
                    false => self.ready(),
                }
            }
            _ => {
                self.error(("08P01", "unexpected message during COPY from stdin".into()));
                self.dead = true;
            }
        }
    }

    fn error(&mut self, (sqlstate, text): (&str, String)) {
        self.waiting.extend(error(sqlstate, &text));
        self.flush();
        self.aborted = self.transaction;
        self.portals.clear();
    }

    fn ready(&mut self) {
        if !self.transaction {
            self.portals.clear();
        }
        self.waiting
            .extend(ready(match (self.aborted, self.transaction) {
                (true, _) => b'E',
                (_, true) => b'T',
                _ => b'I',
            }));
        self.flush();
    }

    fn flush(&mut self) {
        self.output.append(&mut self.waiting);
    }
}
