use std::collections::BTreeSet;
use std::sync::Arc;

use lockgate_command::Refusal;
use pg_query::protobuf::ScanToken;

use crate::Reading;
use crate::builtin::{converts_nothing, is_of_one_type};
use crate::catalogue::FIRST_OF_USERS;
use crate::lineage::Lineage;
use crate::names::Need;
use crate::resolve::CopyOut;
use crate::{lineage, prescan, shape, template, walk};

/// What one text does, as far as the text alone tells: what it needs, with
/// names as they are written. See [`crate::resolve`].
#[derive(Debug)]
pub struct Analysis {
    pub(crate) shape: Option<Arc<str>>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) facts: Facts,
    pub(crate) lineage: Option<Arc<Lineage>>,
    prepares: Vec<(String, Arc<Analysis>)>,
}

/// What the walk found in the tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) needs: BTreeSet<Need>,
    /// Every name in the place of a column: last fields, targets, USING.
    pub(crate) columns: BTreeSet<String>,
    /// Names that stand for whole rows when they stand alone: relations as
    /// they are called in this text.
    pub(crate) rows: BTreeSet<String>,
    /// Whether columns are touched without their names: `*`, NATURAL JOIN,
    /// INSERT without a list.
    pub(crate) all_columns: bool,
    /// Whether it makes arrays or rows of values, whole rows of relations among
    /// them.
    pub(crate) composes: bool,
    /// Whether the text has several statements.
    pub(crate) several: bool,
    /// Whether the meaning of unqualified names may be another afterwards.
    pub(crate) names_change: bool,
    /// Whether it changes the catalogue.
    pub(crate) catalogue_changes: bool,
    /// What it gives a name by PREPARE. Also among all the rest, since a
    /// statement is decided where it is prepared.
    pub(crate) prepares: Vec<(String, Facts)>,
    /// The names that it runs by EXECUTE.
    pub(crate) executes: BTreeSet<String>,
    /// Whether it gives a portal a name.
    pub(crate) declares: bool,
    /// Whether it reads on in a cursor.
    pub(crate) fetches: bool,
    pub(crate) copy_in: bool,
    pub(crate) copy_out: CopyOut,
    /// Whether names are looked up only when it runs.
    pub(crate) late: bool,
    /// Whether the shape may show a secret even without literals.
    pub(crate) secret: bool,
    /// Where the literals begin, in bytes, of which no more was looked at than
    /// that they are there. All else is the same for other values of them.
    pub(crate) indifferent: BTreeSet<i32>,
}

impl Facts {
    /// Whether the text may touch a column of that name.
    pub(crate) fn may_touch(&self, column: &str) -> bool {
        self.all_columns || self.columns.contains(column) || !self.rows.is_disjoint(&self.columns)
    }

    /// Whether PostgreSQL may make a value of the type of a column that the text
    /// does not name: of a literal beside an array, a row, or a function's
    /// argument that may be anything. A domain's literals are made of the type that
    /// it is over, by operators and wherever values of several types meet.
    pub(crate) fn converts(&self) -> bool {
        self.composes
            || !self.rows.is_disjoint(&self.columns)
            || self.needs.iter().any(|need| match need {
                Need::Function(name) | Need::OtherFunction(name) => !converts_nothing(&name.name),
                Need::Operator(name) => !is_of_one_type(&name.name),
                _ => false,
            })
    }
}

impl Analysis {
    /// The analysis of a text that nobody may run.
    pub fn refused(refusal: Refusal) -> Self {
        Self {
            shape: None,
            refusal: Some(refusal),
            facts: Facts::default(),
            lineage: None,
            prepares: Vec::new(),
        }
    }

    /// Why nobody may run the text, whatever it is resolved against.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// The statements that the text gives names by PREPARE.
    pub fn prepares(&self) -> &[(String, Arc<Self>)] {
        &self.prepares
    }

    /// The names of prepared statements that the text runs by EXECUTE.
    pub fn executes(&self) -> impl Iterator<Item = &str> {
        self.facts.executes.iter().map(String::as_str)
    }

    /// Whether the server looks its names up when it is executed, not when it
    /// is bound. What can be planned is analysed at Bind; nothing else is.
    pub fn is_late(&self) -> bool {
        self.facts.late
    }

    /// The same text, where Parse says by their oids of what types its parameters
    /// are: Bind makes values of them, which may run code. None if that adds
    /// nothing, since all of them are PostgreSQL's own.
    pub fn taking(&self, types: &[u32]) -> Option<Self> {
        let of_users = |oid: &&u32| **oid >= FIRST_OF_USERS;
        let mut types = types.iter().filter(of_users).peekable();
        types.peek()?;
        let mut facts = self.facts.clone();
        let needs = types.map(|oid| Need::TypeByOid(*oid));
        facts.needs.extend(needs);
        Some(Self {
            shape: self.shape.clone(),
            refusal: self.refusal.clone(),
            facts,
            lineage: self.lineage.clone(),
            prepares: self.prepares.clone(),
        })
    }

    /// Reads `text`. Runs on a parse thread: a deep tree needs a deep stack.
    pub(crate) fn read(text: &[u8], reading: Reading, statement_bytes: usize) -> Self {
        match read(text, reading, statement_bytes) {
            Ok((mut facts, lineage, shape)) => {
                // A part shows nothing of its own: who executes it needs `view`.
                let part = |facts| Self {
                    shape: shape.clone(),
                    refusal: None,
                    facts,
                    lineage: None,
                    prepares: Vec::new(),
                };
                let prepared = std::mem::take(&mut facts.prepares);
                let parts = prepared.into_iter();
                Self {
                    prepares: parts
                        .map(|(name, facts)| (name, Arc::new(part(facts))))
                        .collect(),
                    lineage: lineage.map(Arc::new),
                    ..part(facts)
                }
            }
            Err(refusal) => Self::refused(refusal),
        }
    }

    /// Whether every text of the same template does the same.
    pub(crate) fn is_of_template(&self, text: &[u8]) -> bool {
        if self.refusal.is_some() {
            return false;
        }
        let indifferent = |at: usize| {
            let at = i32::try_from(at).unwrap_or(i32::MAX);
            self.facts.indifferent.contains(&at)
        };
        let mut all = true;
        // The grammar makes one literal of a minus and a number.
        let is_one = |at: usize| match text[..at].trim_ascii_end() {
            [before @ .., b'-'] => indifferent(at) || indifferent(before.len()),
            _ => indifferent(at),
        };
        template::of(text, &mut Vec::new(), |at| all &= is_one(at)) && all
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn memory(&self) -> usize {
        let names = self.facts.needs.len() * 128 + self.facts.columns.len() * 48;
        let lineage = self.lineage.as_ref().map_or(0, |lineage| lineage.memory);
        let parts = self.prepares.iter().map(|(_, part)| part.memory());
        let shape = self.shape.as_ref().map_or(0, |shape| shape.len());
        size_of::<Self>() + lineage + shape + names + parts.sum::<usize>()
    }
}

type Read = (Facts, Option<Lineage>, Option<Arc<str>>);

fn read(text: &[u8], reading: Reading, statement_bytes: usize) -> Result<Read, Refusal> {
    let text = prescan::readable(text, reading, statement_bytes)?;
    let tokens = scan(text)?;
    prescan::depth(&tokens)?;
    if !reading.utf8_names {
        prescan::names(text, &tokens)?;
    }
    let tree = pg_query::parse(text, 0).map_err(|error| unreadable(&error))?;
    let facts = walk::statements(&tree.protobuf)?;
    let lineage = lineage::read(&tree.protobuf, &facts);
    let shape = if facts.secret {
        None
    } else {
        shape::of(text, &tokens)
    };
    Ok((facts, lineage, shape))
}

fn scan(text: &str) -> Result<Vec<ScanToken>, Refusal> {
    pg_query::scan_tokens(text).map_err(|error| unreadable(&error))
}

/// PostgreSQL's own complaint is not repeated: it quotes the text.
fn unreadable(error: &pg_query::Error) -> Refusal {
    let construct = match error {
        pg_query::Error::Decode(_) => "a statement whose tree is too large to read",
        _ => "a statement with a syntax error, or of a newer syntax than PostgreSQL 18's",
    };
    Refusal {
        construct: construct.into(),
        hint: "check the statement with psql against a server that is not protected".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Analysis {
        Analysis::read(text.as_bytes(), Reading::default(), 65_536)
    }

    fn is_of_template(text: &str) -> bool {
        let analysis = read(text);
        assert_eq!(analysis.refusal, None, "{text}");
        analysis.is_of_template(text.as_bytes())
    }

    /// `#` stands for an integer, `@` for a string.
    const STATEMENTS: &[&str] = &[
        "SELECT abalance FROM pgbench_accounts WHERE aid = #",
        "UPDATE pgbench_accounts SET abalance = abalance + -# WHERE aid = #;",
        "SELECT a FROM t WHERE b IN (#, #, @) AND c BETWEEN # AND # AND d NOT BETWEEN @ AND @",
        "DELETE FROM t WHERE name = @",
        "DELETE FROM t WHERE # = # OR a = #",
        "SELECT a FROM t WHERE a = # ORDER BY # LIMIT #",
        "SELECT a, b FROM t WHERE a LIKE @ GROUP BY #, #",
        "SELECT set_config(name, @, false) FROM pg_settings WHERE name = @",
        "SELECT set_config(@, @, true)",
        "SELECT a::char(#) FROM t WHERE a = @",
        "SELECT nextval(@) FROM t WHERE a = #",
        "SELECT x::regclass, @::regclass FROM t WHERE x = @",
        "SET work_mem = #",
        "SET search_path = @",
        "INSERT INTO t VALUES (#, @), (#, @)",
        "UPDATE t SET a = @ WHERE b = - # RETURNING a",
        "SELECT a FROM t WHERE b = @ \n @",
        "SELECT a -# FROM t WHERE a <> # AND b ->> @ = @",
        "SELECT (SELECT b FROM u WHERE u.a = t.a AND c = #) FROM t",
        "WITH c AS (SELECT a FROM t WHERE b = #) SELECT * FROM c WHERE a > @",
        "COPY (SELECT a FROM t WHERE a = #) TO STDOUT WITH (DELIMITER @)",
        "EXPLAIN SELECT a FROM t WHERE a = #",
        "SELECT a FROM t WHERE a = #; SELECT b FROM u WHERE c = @",
        "SELECT lo_import(@) FROM t WHERE a = #",
        "SELECT a FROM t WHERE a = ANY (ARRAY[#, #]) AND b = #",
        "SELECT a FROM t WHERE a IS DISTINCT FROM # AND NULLIF(a, #) = a",
        "SELECT a FROM t WHERE a AT TIME ZONE @ = @",
        "SELECT a FROM t FETCH FIRST # ROWS ONLY",
        "CREATE TABLE n (a int DEFAULT # CHECK (a > #))",
        "ALTER ROLE r PASSWORD @",
        "SELECT a FROM t WHERE name = @ AND setting = @",
    ];

    fn filled(statement: &str, numbers: &[u32], strings: &[String]) -> String {
        let mut numbers = numbers.iter().cycle();
        let mut strings = strings.iter().cycle();
        let fill = |character| match character {
            '#' => numbers.next().expect("it goes round").to_string(),
            '@' => {
                let string = strings.next().expect("it goes round");
                format!("'{}'", string.replace('\'', "''"))
            }
            other => String::from(other),
        };
        statement.chars().map(fill).collect()
    }

    fn literals() -> impl Strategy<Value = (Vec<u32>, Vec<String>)> {
        let special = prop::sample::select(vec![
            "search_path",
            "role",
            "session_authorization",
            "work_mem",
            "pg_authid",
            "public",
            "",
            "%",
            "it's",
            "--",
            "/*",
            ";",
            "now",
            "secret.t",
            "$1",
        ]);
        let string = prop_oneof![special.prop_map(str::to_owned), "[ -\\[\\]-~]{0,12}"];
        (
            prop::collection::vec(0_u32..1_000_000_000, 1..5),
            prop::collection::vec(string, 1..5),
        )
    }

    proptest! {
        #[test]
        fn texts_of_a_template_do_the_same(
            statement in prop::sample::select(STATEMENTS),
            one in literals(),
            other in literals(),
        ) {
            let one = filled(statement, &one.0, &one.1);
            let other = filled(statement, &other.0, &other.1);
            let analysis = read(&one);
            prop_assume!(analysis.is_of_template(one.as_bytes()));
            let same = read(&other);
            prop_assert_eq!(&same.refusal, &None);
            prop_assert_eq!(&analysis.shape, &same.shape);
            prop_assert_eq!(&analysis.lineage, &same.lineage);
            let facts = |mut analysis: Analysis| {
                // Their places move with the lengths of the others.
                analysis.facts.indifferent.clear();
                analysis.facts
            };
            prop_assert_eq!(facts(analysis), facts(same));
        }
    }

    /// `text` with each literal replaced by `number` or `string`.
    fn with_others(text: &str, number: &str, string: &str) -> String {
        let mut places = Vec::new();
        template::of(text.as_bytes(), &mut Vec::new(), |at| places.push(at));
        let mut other = String::new();
        let mut end = 0;
        for at in places {
            other.push_str(&text[end..at]);
            let rest = &text.as_bytes()[at..];
            if rest[0] == b'\'' {
                other.push_str(string);
                end = at + template::quoted(rest, b'\'').expect("it was quoted");
            } else {
                other.push_str(number);
                end = at + rest.iter().take_while(|b| b.is_ascii_digit()).count();
            }
        }
        other + &text[end..]
    }

    /// Every statement whose needs are written down, with values that have a
    /// meaning of their own somewhere.
    #[test]
    fn what_is_known_of_statements_holds_for_their_templates() {
        let mut compared = 0;
        for line in include_str!("../tests/statements.txt").lines() {
            let Some((text, _)) = line.split_once(" => ") else {
                continue;
            };
            let text = text.replace("\\n", "\n");
            let analysis = read(&text);
            if !analysis.is_of_template(text.as_bytes()) {
                continue;
            }
            for (number, string) in [
                ("0", "''"),
                ("999999999", "'search_path'"),
                ("1", "'pg_authid'"),
                ("25", "'it''s; DROP TABLE t --'"),
            ] {
                let other = with_others(&text, number, string);
                let same = read(&other);
                assert_eq!(same.refusal, None, "{other}");
                assert_eq!(analysis.shape, same.shape, "{text}\n{other}");
                assert_eq!(analysis.lineage, same.lineage, "{text}\n{other}");
                let facts = |analysis: &Analysis| {
                    let needs = &analysis.facts;
                    format!(
                        "{:?}",
                        Facts {
                            indifferent: BTreeSet::new(),
                            ..needs.clone()
                        }
                    )
                };
                assert_eq!(facts(&analysis), facts(&same), "{text}\n{other}");
                compared += 1;
            }
        }
        assert!(compared > 100, "only {compared} were compared");
    }

    #[test]
    fn a_value_that_says_something_keeps_its_text() {
        for text in [
            "SELECT 1",
            "DELETE FROM t WHERE 1 = 1",
            "DELETE FROM t WHERE a = 1 OR 1 = 1",
            "SELECT a FROM t ORDER BY 2",
            "SELECT a FROM t WHERE a = 1 ORDER BY 2",
            "SELECT set_config('search_path', 'x', false)",
            "SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'search_path'",
            "SELECT setting FROM pg_settings WHERE name = 'search_path'",
            "SELECT a::char(3) FROM t WHERE a = 'x'",
            "SELECT 'x'::regclass",
            "SELECT nextval('s')",
            "SET search_path = 'a'",
        ] {
            assert!(!is_of_template(text), "{text}");
        }
    }

    #[test]
    fn everyday_statements_share_a_template() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 42;",
            "UPDATE pgbench_tellers SET tbalance = tbalance + -1735 WHERE tid = 3;",
            "SELECT * FROM t WHERE a = 'x' AND b IN (1, 2, 3) AND c BETWEEN 1 AND 2",
            "DELETE FROM t WHERE id = - 7",
            "INSERT INTO t (a, b) VALUES (1, -2, 'x'), (2, 3, 'it''s')",
            "UPDATE t SET a = 1, b = 'x' WHERE c = 'y'",
        ] {
            assert!(is_of_template(text), "{text}");
        }
    }
}
