use rusqlite::types::Value;
use serde::Serialize;

use super::{SEQ_BITS, Store, StoreError};
use crate::moment::rfc3339;

/// What to look for: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Exact name.
    pub workload: Option<String>,
    /// Exact name.
    pub target: Option<String>,
    /// `allow`, `deny`, `hold`.
    pub verdict: Option<String>,
    /// Verb's name: commands that do this among others.
    pub verb: Option<String>,
    /// An object: its id (`orders-db/shop/public/customers`), the id of what
    /// holds it (`orders-db/shop`), or the end of its id (`customers`,
    /// `public/customers`).
    pub object: Option<String>,
    /// The role the client asked for, or the uid in decimal.
    pub user: Option<String>,
    /// `connected`, `refused`, `command`, `closed`, `agent`.
    pub kind: Option<String>,
    /// Nanoseconds since the Unix epoch; from here on.
    pub since_ns: Option<i64>,
    /// Up to here, exclusive.
    pub until_ns: Option<i64>,
    /// Part of the statement, the message or the executable, in any case.
    pub text: Option<String>,
    /// [`lockgate_command::ConnectionId`]'s number.
    pub connection: Option<u64>,
    /// How many at most; 100 if absent.
    pub limit: Option<u32>,
}

/// One event for people and scripts. A command carries how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// RFC 3339, UTC.
    pub time: String,
    /// Key of the event, with the next three.
    pub host: String,
    /// UUID of the boot.
    pub boot: String,
    /// Writer.
    pub stream: u32,
    /// Number within the stream.
    pub seq: u64,
    /// `connected`, `refused`, `command`, `closed`, `agent`.
    pub kind: String,
    /// 16 hexadecimal digits.
    pub connection: Option<String>,
    /// Number within the connection.
    pub ticket: Option<u64>,
    /// Who.
    pub workload: Option<String>,
    /// Where.
    pub target: Option<String>,
    /// Claim: the role asked for.
    pub user: Option<String>,
    /// Claim: the database asked for.
    pub database: Option<String>,
    /// Attested.
    pub uid: Option<u32>,
    /// Attested.
    pub executable: Option<String>,
    /// `allow`, `deny`, `hold`.
    pub verdict: Option<String>,
    /// Whether the verdict took effect.
    pub enforced: Option<bool>,
    /// Whether the command may change data.
    pub writes: Option<bool>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Objects by their id.
    pub objects: Vec<String>,
    /// Policies by their id.
    pub policies: Vec<String>,
    /// Text without literals.
    pub shape: Option<String>,
    /// What the client was told, or why.
    pub message: Option<String>,
    /// `done`, `failed`, `denied`, `aborted`; none while it runs.
    pub outcome: Option<String>,
    /// The server's code.
    pub error: Option<String>,
    /// Rows returned or changed.
    pub rows: Option<u64>,
    /// Bytes of the response.
    pub bytes: Option<u64>,
    /// Microseconds.
    pub duration_us: Option<u64>,
    /// Whether the payload was erased.
    pub erased: bool,
}

const SELECT: &str = "SELECT e.time_ns, c.host, c.boot, c.stream, e.id, e.kind, e.connection,
    e.ticket, e.workload, e.target, e.user, e.database, e.uid, e.executable, e.verdict,
    e.enforced, e.writes, e.verbs, e.objects, e.policies, e.shape, e.message,
    coalesce(e.outcome, x.outcome), coalesce(e.error, x.error), coalesce(e.rows, x.rows),
    coalesce(e.bytes, x.bytes), coalesce(e.duration_us, x.duration_us), e.payload IS NULL
    FROM events e JOIN chains c ON c.chain = e.id >> 40
    LEFT JOIN events x ON e.kind = 'command' AND x.kind = 'ended'
        AND x.connection = e.connection AND x.ticket = e.ticket";

impl Store {
    /// The events that match, newest first.
    pub fn search(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let (conditions, values) = conditions(query);
        let sql = format!(
            "{SELECT} WHERE {conditions} ORDER BY e.time_ns DESC, e.id DESC LIMIT {}",
            query.limit.unwrap_or(100)
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

fn conditions(query: &Query) -> (String, Vec<Value>) {
    let Query {
        workload,
        target,
        verdict,
        verb,
        object,
        user,
        kind,
        since_ns,
        until_ns,
        text,
        connection,
        limit: _,
    } = query;
    // How a command ended is shown with it.
    let mut sql = String::from("e.kind <> 'ended'");
    let mut values: Vec<Value> = Vec::new();
    // `?` stands for the value, any number of times.
    let mut add = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(" AND ");
            sql.push_str(&condition.replace('?', &format!("?{}", values.len())));
        }
    };
    let exact = |text: &Option<String>| text.clone().map(Value::Text);
    add("e.workload = ?", exact(workload));
    add("e.target = ?", exact(target));
    add("e.verdict = ?", exact(verdict));
    add("e.kind = ?", exact(kind));
    add("(e.user = ? OR CAST(e.uid AS TEXT) = ?)", exact(user));
    add("e.time_ns >= ?", since_ns.map(Value::Integer));
    add("e.time_ns < ?", until_ns.map(Value::Integer));
    add(
        "e.connection = ?",
        connection.map(|id| Value::Integer(id as i64)),
    );
    add(
        "EXISTS (SELECT 1 FROM json_each(e.verbs) WHERE value = ?)",
        exact(verb),
    );
    add(
        "EXISTS (SELECT 1 FROM json_each(e.objects) WHERE value = ?
            OR substr(value, 1, length(?) + 1) = ? || '/'
            OR substr(value, -length(?) - 1) = '/' || ?)",
        exact(object),
    );
    add(
        "(e.shape LIKE ? ESCAPE '\\' OR e.message LIKE ? ESCAPE '\\' OR e.executable LIKE ? ESCAPE '\\')",
        text.as_deref().map(|text| Value::Text(contains(text))),
    );
    (sql, values)
}

fn contains(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

fn read(row: &rusqlite::Row) -> Result<Row, StoreError> {
    let number = |index| -> rusqlite::Result<Option<u64>> {
        Ok(row
            .get::<_, Option<i64>>(index)?
            .map(|number| number as u64))
    };
    let id: i64 = row.get(4)?;
    Ok(Row {
        time: rfc3339(row.get(0)?),
        host: row.get(1)?,
        boot: uuid::Uuid::from_bytes(row.get(2)?).to_string(),
        stream: row.get(3)?,
        seq: id as u64 & ((1 << SEQ_BITS) - 1),
        kind: row.get(5)?,
        connection: number(6)?.map(|id| lockgate_command::ConnectionId(id).to_string()),
        ticket: number(7)?,
        workload: row.get(8)?,
        target: row.get(9)?,
        user: row.get(10)?,
        database: row.get(11)?,
        uid: row.get(12)?,
        executable: row.get(13)?,
        verdict: row.get(14)?,
        enforced: row.get(15)?,
        writes: row.get(16)?,
        verbs: list(row.get(17)?)?,
        objects: list(row.get(18)?)?,
        policies: list(row.get(19)?)?,
        shape: row.get(20)?,
        message: row.get(21)?,
        outcome: row.get(22)?,
        error: row.get(23)?,
        rows: number(24)?,
        bytes: number(25)?,
        duration_us: number(26)?,
        erased: row.get(27)?,
    })
}

/// A JSON array of strings; none is empty.
pub(super) fn list(array: Option<String>) -> Result<Vec<String>, StoreError> {
    match array {
        None => Ok(Vec::new()),
        Some(array) => {
            serde_json::from_str(&array).map_err(|why| StoreError::Damaged(why.to_string()))
        }
    }
}
