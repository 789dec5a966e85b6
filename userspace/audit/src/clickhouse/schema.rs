/// One row for each migration that was done.
pub(super) const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS lockgate_schema (
    version UInt32,
    applied DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = MergeTree ORDER BY version";

/// Statements that lead from each version to the next. Every statement can be
/// repeated.
pub(super) const MIGRATIONS: &[&[&str]] = &[&[EVENTS, EVENTS_LATEST, COMMANDS]];

// The window is set here because the server's default is none at all. It is
// counted in blocks; a batch is one or two.
const EVENTS: &str = "CREATE TABLE IF NOT EXISTS events (
    time         DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
    host         LowCardinality(String),
    boot         UUID,
    stream       UInt32,
    seq          UInt64 CODEC(Delta, ZSTD),
    kind         LowCardinality(String),
    connection   Nullable(UInt64),
    ticket       Nullable(UInt64),
    workload     LowCardinality(String),
    target       LowCardinality(String),
    user         LowCardinality(String),
    database     LowCardinality(String),
    uid          Nullable(UInt32),
    executable   LowCardinality(String),
    verdict      LowCardinality(String),
    enforced     Nullable(Bool),
    writes       Nullable(Bool),
    verbs        Array(LowCardinality(String)),
    objects      Array(LowCardinality(String)),
    policies     Array(LowCardinality(String)),
    shape        String CODEC(ZSTD),
    message      String CODEC(ZSTD),
    outcome      LowCardinality(String),
    error        LowCardinality(String),
    rows         Nullable(UInt64),
    bytes        Nullable(UInt64),
    duration_us  Nullable(UInt64),
    payload_hash FixedString(32),
    hash         FixedString(32),
    salt         String,
    payload      String CODEC(ZSTD),
    INDEX by_connection connection TYPE bloom_filter GRANULARITY 4
) ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, host, boot, stream, seq)
SETTINGS non_replicated_deduplication_window = 10000";

const EVENTS_LATEST: &str = "CREATE VIEW IF NOT EXISTS events_latest AS
SELECT * FROM events LIMIT 1 BY host, boot, stream, seq";

// A command and its end are in the same connection, but not always in the same
// stream: keeper may have been restarted between.
const COMMANDS: &str = "CREATE VIEW IF NOT EXISTS commands AS
SELECT
    c.time AS time, c.host AS host, c.connection AS connection, c.ticket AS ticket,
    c.workload AS workload, c.target AS target, c.user AS user, c.database AS database,
    c.uid AS uid, c.executable AS executable, c.verdict AS verdict, c.enforced AS enforced,
    c.writes AS writes, c.verbs AS verbs, c.objects AS objects, c.policies AS policies,
    c.shape AS shape, c.message AS message, e.outcome AS outcome, e.error AS error,
    e.rows AS rows, e.bytes AS bytes, e.duration_us AS duration_us
FROM (SELECT * FROM events WHERE kind = 'command' LIMIT 1 BY host, boot, stream, seq) AS c
LEFT JOIN (
    SELECT host, boot, connection, ticket, outcome, error, rows, bytes, duration_us
    FROM events WHERE kind = 'ended' LIMIT 1 BY host, boot, connection, ticket
) AS e
ON e.host = c.host AND e.boot = c.boot AND e.connection = c.connection AND e.ticket = c.ticket";
