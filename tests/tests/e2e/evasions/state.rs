//! What the server has, and what nobody should have seen.

use std::path::Path;

use lockgate_tests::{Answer, Wire, query};

/// Everything that is in the database and belongs to no session, by parts:
/// rows of tables, large objects, sequences, definitions, roles, settings.
const EVERYTHING: &str = r"
select 'rows of ' || c.oid, (query_to_xml(format(case relkind when 'S' then 'select last_value, is_called from %s' else 'select t::text from %s t order by 1' end, c.oid::regclass), true, true, ''))::text
    from pg_class c join pg_namespace n on n.oid = relnamespace
    where relkind in ('r', 'm', 'S') and relispopulated and nspname !~ '^(pg_|information_schema)' and c.oid::regclass::text <> 'filtered'
union all select 'large objects', (select string_agg(lo_get(oid)::text || coalesce(lomacl::text, '') || lomowner, ',' order by oid) from pg_largeobject_metadata)
union all select 'relations', (select string_agg(concat_ws(' ', oid::regclass, relkind, relowner::regrole, relacl, reloptions, relrowsecurity, relreplident, relispartition), ',' order by oid) from pg_class where relnamespace::regnamespace::text !~ '^pg_(toast_)?temp' and relname !~ '^pg_toast')
union all select 'columns', (select string_agg(concat_ws(' ', attrelid, attname, atttypid, attacl, atthasdef, attgenerated), ',' order by attrelid, attnum) from pg_attribute a join pg_class c on c.oid = attrelid where attrelid >= 16384 and relnamespace::regnamespace::text !~ '^pg_' and attnum > 0)
union all select 'functions', (select string_agg(concat_ws(' ', oid, proname, pronamespace, prosecdef, proconfig, md5(prosrc)), ',' order by oid) from pg_proc where oid >= 16384)
union all select 'access methods', (select string_agg(a::text, ',' order by oid) from pg_am a)
union all select 'casts', (select string_agg(a::text, ',' order by oid) from pg_cast a)
union all select 'collations', (select count(*)::text from pg_collation)
union all select 'conversions', (select count(*)::text from pg_conversion)
union all select 'configurations', (select string_agg(a::text, ',' order by oid) from pg_ts_config a)
union all select 'dictionaries', (select string_agg(a::text, ',' order by oid) from pg_ts_dict a)
union all select 'comments', (select md5(string_agg(a::text, ',' order by objoid, classoid, objsubid)) from pg_description a)
union all select 'shared comments', (select string_agg(a::text, ',' order by objoid, classoid) from pg_shdescription a)
union all select 'constraints', (select string_agg(concat_ws(' ', oid, conname), ',' order by oid) from pg_constraint where oid >= 16384)
union all select 'default rights', (select string_agg(a::text, ',' order by oid) from pg_default_acl a)
union all select 'event triggers', (select string_agg(a::text, ',' order by oid) from pg_event_trigger a)
union all select 'extensions', (select string_agg(a::text, ',' order by oid) from pg_extension a)
union all select 'wrappers', (select string_agg(a::text, ',' order by oid) from pg_foreign_data_wrapper a)
union all select 'servers', (select string_agg(a::text, ',' order by oid) from pg_foreign_server a)
union all select 'user mappings', (select string_agg(a::text, ',' order by oid) from pg_user_mapping a)
union all select 'inheritance', (select string_agg(a::text, ',' order by inhrelid) from pg_inherits a)
union all select 'languages', (select string_agg(a::text, ',' order by oid) from pg_language a)
union all select 'schemas', (select string_agg(concat_ws(' ', oid, nspname, nspacl), ',' order by oid) from pg_namespace where nspname !~ '^pg_(toast_)?temp')
union all select 'operators', (select string_agg(concat_ws(' ', oid, oprname, oprowner), ',' order by oid) from pg_operator where oid >= 16384)
union all select 'policies', (select string_agg(polname, ',' order by oid) from pg_policy)
union all select 'publications', (select string_agg(a::text, ',' order by oid) from pg_publication a)
union all select 'subscriptions', (select count(*)::text from pg_subscription)
union all select 'rules', (select string_agg(concat_ws(' ', oid, rulename), ',' order by oid) from pg_rewrite where oid >= 16384)
union all select 'statistics', (select string_agg(stxname, ',' order by oid) from pg_statistic_ext)
union all select 'transforms', (select count(*)::text from pg_transform)
union all select 'triggers', (select string_agg(concat_ws(' ', oid, tgname, tgenabled), ',' order by oid) from pg_trigger)
union all select 'types', (select string_agg(concat_ws(' ', oid, typname, typnamespace), ',' order by oid) from pg_type where oid >= 16384 and typnamespace::regnamespace::text !~ '^pg_(toast_)?temp')
union all select 'roles', (select string_agg(a::text, ',' order by oid) from pg_authid a)
union all select 'members', (select string_agg(a::text, ',' order by roleid, member) from pg_auth_members a)
union all select 'databases', (select string_agg(concat_ws(' ', datname, datconnlimit, datacl), ',' order by oid) from pg_database)
union all select 'settings', (select string_agg(concat_ws(' ', setdatabase, setrole, setconfig), ',' order by setdatabase, setrole) from pg_db_role_setting)
union all select 'rights on settings', (select string_agg(a::text, ',' order by oid) from pg_parameter_acl a)
union all select 'configuration', (select string_agg(name || setting, ',' order by name) from pg_file_settings where sourcefile ~ 'auto.conf')
union all select 'slots', (select string_agg(slot_name::text, ',') from pg_replication_slots)
union all select 'prepared transactions', (select string_agg(gid, ',') from pg_prepared_xacts)
order by 1";

/// What is tagged, forbidden by name, or nobody's business; none of it is in
/// the text of an attack in one piece.
const SECRETS: &[&str] = &[
    "Qx7-Zk9-Wv3",
    "Jp4-Mh8-Rt2",
    "Ty8-Bn5-Lc1",
    "Lw5-Gd1-Nc6",
    "Fb2-Sr6-Ed4",
];

/// As many characters of a secret that are seen are harm.
const ENOUGH: usize = 6;

/// One state of a server, to be compared with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(Vec<String>);

impl State {
    /// As `admin` sees it.
    pub fn of(admin: &mut Wire) -> Self {
        let answer = admin.ask(&query(EVERYTHING)).unwrap();
        assert!(answer.errors().is_empty(), "{:?}", answer.errors());
        let rows = answer.of(b'D').into_iter();
        Self(
            rows.map(|row| String::from_utf8_lossy(row).into_owned())
                .collect(),
        )
    }

    /// What became of the rows that were there `before`, and what new ones tell.
    pub fn of_rows_since(&self, before: &Self) -> Vec<String> {
        let is_rows = |row: &&String| row.contains("rows of ");
        let gone = before
            .0
            .iter()
            .filter(is_rows)
            .filter(|row| !self.0.contains(row));
        let new = self
            .0
            .iter()
            .filter(is_rows)
            .filter(|row| !before.0.contains(row));
        let told = new.filter_map(|row| secret_in(row.as_bytes()));
        gone.map(|row| part(row)).chain(told).collect()
    }

    /// The parts that are others than in `before`.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let changed = self.0.iter().filter(|row| !before.0.contains(row));
        let gone = before.0.iter().filter(|row| !self.0.contains(row));
        let mut names: Vec<String> = changed.chain(gone).map(|row| part(row)).collect();
        names.dedup();
        names
    }
}

/// The name of a part.
fn part(row: &str) -> String {
    // Behind the number of columns and the name's length.
    let name: String = row
        .chars()
        .skip(6)
        .take_while(|c| !c.is_control())
        .collect();
    name.chars().take(30).collect()
}

/// A secret in what a client received: six characters of it in a row, also
/// backwards, in hex or base64, or its digest.
pub fn secret_in(bytes: &[u8]) -> Option<String> {
    let seen = String::from_utf8_lossy(bytes).to_lowercase();
    for secret in SECRETS {
        let lower = secret.to_lowercase();
        let reversed: String = lower.chars().rev().collect();
        let squeezed = lower.replace('-', "");
        let hex = |text: &str| {
            text.bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        for text in [&lower, &reversed, &squeezed] {
            for at in 0..=text.len().saturating_sub(ENOUGH) {
                let part = &text[at..at + ENOUGH];
                if seen.contains(part) {
                    return Some(format!("`{part}` was seen"));
                }
            }
        }
        let upper = secret.get(..ENOUGH).unwrap_or_default();
        if seen.contains(&hex(upper)) {
            return Some(format!("`{upper}` was seen in hex"));
        }
    }
    DERIVED
        .iter()
        .find(|derived| seen.contains(&derived.to_lowercase()))
        .map(|derived| format!("`{derived}`, which is made of a secret, was seen"))
}

/// Digests and encodings of the first secret: beginnings of md5, sha256 and
/// base64, its parts as an array. A password's verifier, and a file.
const DERIVED: &[&str] = &[
    "2fc1a8d540003c80",
    "dd5a8e31c80a7d4d",
    "UXg3LVprOS1XdjM",
    "{Qx7,Zk9,Wv3}",
    "SCRAM-SHA-256$4096:",
    "root:x:0:0",
];

/// Whether a program or a function of the server has made the file.
pub fn made(marker: &Path) -> bool {
    let made = marker.exists();
    let _ = std::fs::remove_file(marker);
    made
}

/// What two answers may differ in without telling anything: none of it is in
/// rows or in the kind of an error.
pub fn told(answer: &Answer) -> Vec<Vec<u8>> {
    let rows = answer
        .messages
        .iter()
        .filter(|(tag, _)| matches!(tag, b'D' | b'd' | b'C'));
    let mut told: Vec<Vec<u8>> = rows.map(|(_, body)| body.clone()).collect();
    told.extend(
        answer
            .errors()
            .iter()
            .map(|error| error.as_bytes()[..5].to_vec()),
    );
    told
}
