//! Where the values of a result come from.
//!
//! A statement that touches a tagged column needs `view` of it, by name alone:
//! that is always right, and often too much. For what this module recognises,
//! [`Traced`] says it exactly: which outputs show the stored value of which
//! tagged column, unchanged, so that they can be masked; and which columns are
//! only compared, so that `filter` is enough.
//!
//! It goes in the two steps of this crate. [`read`] makes a [`Lineage`] of the
//! text, in names as they are written; [`trace`] gives these names their
//! meaning, by PostgreSQL's own rules of scopes. Whatever either of them is not
//! sure of, they leave to the rule by name.
//!
//! **Recognised** is one statement, alone in its text, that is a SELECT, VALUES
//! or TABLE, a COPY of one of these or of a table to the client, or an INSERT,
//! UPDATE or DELETE with RETURNING and without WITH. Within it: aliases of
//! tables and columns, `*` and `t.*`, WITH (RECURSIVE, too), subqueries in FROM
//! and in expressions, LATERAL, joins, UNION, INTERSECT and EXCEPT.
//!
//! **Shown** is an output that is nothing but a column, through any number of
//! these. In a UNION, each arm's is. Columns that USING or NATURAL merge are not.
//!
//! **Compared** (`filter`) is a column in WHERE, ON, USING, HAVING, GROUP BY,
//! ORDER BY, DISTINCT, in an operand of UNION (without ALL), INTERSECT or
//! EXCEPT, or in a subquery whose value is not used, as that of EXISTS; also
//! within operators, casts and the functions of [`compares`] there. Only in a
//! statement that does nothing but read.
//!
//! **Seen** (`view`) is everything else: whatever computes with a column, whole
//! rows, aggregates, windows, LIMIT, arguments of functions, all of a statement
//! that also writes or calls what is not built in.
//!
//! Values of literals are looked at in one place: an integer that stands alone
//! in ORDER BY, GROUP BY or DISTINCT ON is the number of an output.

mod read;
mod scope;
mod trace;

use std::collections::BTreeSet;

use lockgate_command::{Resource, Shown};

use crate::analysis::Facts;
use crate::names::Name;

pub(crate) use read::read;
pub(crate) use trace::{Table, TableColumn, Tables, trace};

/// Columns that a query of PostgreSQL can have.
const WIDEST: usize = 1664;

/// The parts of a statement that decide where its values come from.
#[derive(Debug, PartialEq)]
pub(crate) struct Lineage {
    pub(crate) root: Root,
    /// About how many bytes of memory it takes.
    pub(crate) memory: usize,
}

/// Statements that have a result.
#[derive(Debug, PartialEq)]
pub(crate) enum Root {
    Query(Query),
    /// `COPY table (columns) TO STDOUT`; no columns are all that are stored.
    Table {
        name: Name,
        columns: Vec<String>,
    },
    /// A statement that writes, by its RETURNING clause.
    Returning {
        /// What is written first, then what stands in FROM or USING.
        from: Vec<Source>,
        outputs: Vec<Output>,
        uses: Vec<Use>,
        /// What the rest of the statement names: there, the rule is by name.
        rest: Box<Facts>,
    },
}

#[derive(Debug, PartialEq)]
pub(crate) struct Query {
    recursive: bool,
    ctes: Vec<Cte>,
    body: Body,
    order: Vec<Key>,
    /// In LIMIT and ORDER BY.
    uses: Vec<Use>,
}

#[derive(Debug, PartialEq)]
struct Cte {
    name: String,
    columns: Vec<String>,
    query: Query,
}

#[derive(Debug, PartialEq)]
enum Body {
    Select(Box<Select>),
    Values {
        width: usize,
        uses: Vec<Use>,
    },
    Set {
        left: Box<Query>,
        right: Box<Query>,
        /// All but UNION ALL.
        compares: bool,
    },
}

#[derive(Debug, PartialEq)]
struct Select {
    from: Vec<Source>,
    outputs: Vec<Output>,
    /// Plain DISTINCT.
    distinct: bool,
    distinct_on: Vec<Key>,
    group: Vec<Key>,
    uses: Vec<Use>,
}

/// What stands in FROM.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    Relation {
        name: Name,
        called: Called,
        /// Of TABLESAMPLE.
        uses: Vec<Use>,
    },
    Query {
        query: Query,
        lateral: bool,
        called: Called,
    },
    /// Functions. Their arguments are seen, so that their rows show nothing.
    Function {
        called: Called,
        uses: Vec<Use>,
    },
    Join(Box<Join>),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Join {
    left: Source,
    right: Source,
    natural: bool,
    using: Vec<String>,
    on: Vec<Use>,
    called: Called,
}

/// `AS alias (columns)`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Called {
    alias: Option<String>,
    columns: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// A column and nothing else.
    Column {
        reference: Reference,
        label: Option<String>,
    },
    /// Something computed; what it uses is said elsewhere.
    Computed { name: Option<String> },
}

/// Names with dots between them.
#[derive(Debug, PartialEq)]
pub(crate) struct Reference {
    names: Vec<String>,
    /// `*` after them.
    star: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Use {
    how: How,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    View,
    Filter,
}

#[derive(Debug, PartialEq)]
enum What {
    Column(Reference),
    Query(Query),
}

/// What rows are sorted or grouped by.
#[derive(Debug, PartialEq)]
enum Key {
    /// An output by its number, from 1.
    Position(usize),
    /// A lone name: of an output or of a column.
    Name(String),
}

/// Where the values of one statement's result come from.
#[derive(Debug, Default)]
pub(crate) struct Traced {
    pub(crate) shown: Vec<Shown>,
    pub(crate) outputs: u16,
    pub(crate) view: BTreeSet<Resource>,
    pub(crate) filter: BTreeSet<Resource>,
}

/// The exact answer is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsure;

/// Built-in functions that say no more of a column in a predicate than the
/// predicate does.
fn compares(name: &str) -> bool {
    matches!(
        name,
        "lower"
            | "upper"
            | "btrim"
            | "ltrim"
            | "rtrim"
            | "length"
            | "char_length"
            | "character_length"
            | "octet_length"
            | "left"
            | "right"
            | "substr"
            | "substring"
            | "starts_with"
            | "strpos"
            | "position"
            | "like_escape"
            | "similar_to_escape"
            | "date_part"
            | "extract"
            | "date_trunc"
            | "timezone"
            | "abs"
            | "ceil"
            | "floor"
            | "round"
            | "trunc"
    )
}
