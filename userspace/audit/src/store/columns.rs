use std::borrow::Cow;

use rusqlite::types::Value;
use rusqlite::{CachedStatement, params};

use super::{NewRow, StoreError, event_id};
use crate::payload::Payload;

/// The columns that are made of the payload, and of nothing else: what is
/// found by them is what the chain covers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Columns<'a> {
    pub(crate) time_ns: i64,
    pub(crate) connection: Option<i64>,
    pub(crate) payload: &'a Payload<'a>,
    verbs: Option<String>,
    objects: Option<String>,
    policies: Option<String>,
}

/// In the order of [`NewRow::insert`].
pub(super) const INSERT: &str = "INSERT INTO events VALUES
    (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
     ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28) ON CONFLICT DO NOTHING";

/// The same columns, for [`Columns::values`].
pub(super) const SELECT: &str = "time_ns, kind, connection, ticket, workload, target, user, \
    database, uid, executable, verdict, enforced, writes, verbs, objects, policies, shape, \
    message, outcome, error, rows, bytes, duration_us";

/// How many columns [`SELECT`] has.
pub(super) const COUNT: usize = 23;

impl<'a> Columns<'a> {
    pub(crate) fn new(time_ns: i64, connection: Option<u64>, payload: &'a Payload<'a>) -> Self {
        let mut verbs: Vec<&str> = Vec::new();
        let mut objects: Vec<&str> = Vec::new();
        for access in &payload.accesses {
            if !verbs.contains(&&*access.verb) {
                verbs.push(&access.verb);
            }
            if objects.last() != Some(&access.object.as_str()) {
                objects.push(&access.object);
            }
        }
        let policies: Vec<&str> = payload.policies.iter().map(|policy| &*policy.id).collect();
        Self {
            time_ns,
            connection: connection.map(|id| id as i64),
            payload,
            verbs: array(&verbs),
            objects: array(&objects),
            policies: array(&policies),
        }
    }

    /// As SQLite holds them, in the order of [`SELECT`].
    pub(super) fn values(&self) -> [Value; COUNT] {
        let payload = self.payload;
        let text = |text: &Option<Cow<str>>| text.as_deref().map(str::to_owned).into();
        let number = |number: Option<u64>| number.map(|number| number as i64).into();
        [
            self.time_ns.into(),
            payload.kind.to_string().into(),
            self.connection.into(),
            number(payload.ticket),
            text(&payload.workload),
            text(&payload.target),
            text(&payload.user),
            text(&payload.database),
            payload.uid.map(i64::from).into(),
            text(&payload.executable),
            text(&payload.verdict),
            payload.enforced.map(i64::from).into(),
            payload.writes.map(i64::from).into(),
            self.verbs.clone().into(),
            self.objects.clone().into(),
            self.policies.clone().into(),
            text(&payload.shape),
            text(&payload.message),
            text(&payload.outcome),
            text(&payload.error),
            number(payload.rows),
            number(payload.response_bytes),
            number(payload.duration_us),
        ]
    }
}

impl NewRow<'_> {
    pub(super) fn insert(
        &self,
        statement: &mut CachedStatement,
        chain: i64,
    ) -> Result<(), StoreError> {
        let Columns {
            time_ns,
            connection,
            payload,
            verbs,
            objects,
            policies,
        } = &self.columns;
        statement.execute(params![
            event_id(chain, self.seq),
            time_ns,
            payload.kind,
            connection,
            payload.ticket.map(|ticket| ticket as i64),
            payload.workload,
            payload.target,
            payload.user,
            payload.database,
            payload.uid,
            payload.executable,
            payload.verdict,
            payload.enforced,
            payload.writes,
            verbs,
            objects,
            policies,
            payload.shape,
            payload.message,
            payload.outcome,
            payload.error,
            payload.rows.map(|rows| rows as i64),
            payload.response_bytes.map(|bytes| bytes as i64),
            payload.duration_us.map(|duration| duration as i64),
            self.payload_hash.0,
            self.hash.0,
            self.salt,
            self.payload,
        ])?;
        Ok(())
    }
}

fn array(texts: &[&str]) -> Option<String> {
    match texts {
        [] => None,
        _ => Some(serde_json::to_string(texts).expect("strings have a JSON form")),
    }
}
