use std::collections::BTreeSet;
use std::sync::Arc;

use lockgate_command::Refusal;
use pg_query::protobuf::ScanToken;
use sha2::{Digest, Sha256};

use crate::Reading;
use crate::names::Need;
use crate::{prescan, shape, walk};

/// What one text does, as far as the text alone tells: what it needs, with
/// names as they are written. See [`crate::resolve`].
#[derive(Debug)]
pub struct Analysis {
    pub(crate) text_len: u32,
    pub(crate) text_digest: [u8; 32],
    pub(crate) shape: Option<Arc<str>>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) facts: Facts,
}

/// What the walk found in the tree.
#[derive(Debug, Default)]
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
    /// Whether the text has several statements.
    pub(crate) several: bool,
    /// Whether the meaning of unqualified names may be another afterwards.
    pub(crate) names_change: bool,
    /// Whether it changes the catalogue.
    pub(crate) catalogue_changes: bool,
    /// Whether it gives a prepared statement a name.
    pub(crate) prepares: bool,
    /// Whether it gives a portal a name.
    pub(crate) declares: bool,
    pub(crate) copy_in: bool,
    pub(crate) copy_out: bool,
    /// Whether the shape may show a secret even without literals.
    pub(crate) secret: bool,
}

impl Analysis {
    /// The analysis of a text that nobody may run.
    pub fn refused(text: &[u8], refusal: Refusal) -> Self {
        Self {
            text_len: u32::try_from(text.len()).unwrap_or(u32::MAX),
            text_digest: Sha256::digest(text).into(),
            shape: None,
            refusal: Some(refusal),
            facts: Facts::default(),
        }
    }

    /// Why nobody may run the text, whatever it is resolved against.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Reads `text`. Runs on a parse thread: a deep tree needs a deep stack.
    pub(crate) fn read(text: &[u8], reading: Reading, statement_bytes: usize) -> Self {
        match read(text, reading, statement_bytes) {
            Ok((facts, shape)) => Self {
                text_len: u32::try_from(text.len()).unwrap_or(u32::MAX),
                text_digest: Sha256::digest(text).into(),
                shape,
                refusal: None,
                facts,
            },
            Err(refusal) => Self::refused(text, refusal),
        }
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn memory(&self) -> usize {
        let names = self.facts.needs.len() * 128 + self.facts.columns.len() * 48;
        size_of::<Self>() + self.shape.as_ref().map_or(0, |shape| shape.len()) + names
    }
}

type Read = (Facts, Option<Arc<str>>);

fn read(text: &[u8], reading: Reading, statement_bytes: usize) -> Result<Read, Refusal> {
    let text = prescan::readable(text, reading, statement_bytes)?;
    let tokens = scan(text)?;
    prescan::depth(&tokens)?;
    let tree = pg_query::parse(text, 0).map_err(|error| unreadable(&error))?;
    let facts = walk::statements(&tree.protobuf)?;
    let shape = if facts.secret {
        None
    } else {
        shape::of(text, &tokens)
    };
    Ok((facts, shape))
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
