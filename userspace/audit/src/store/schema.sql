-- Version 1. Never edited: what changes later is a further file.
CREATE TABLE chains (
    chain    INTEGER PRIMARY KEY,
    host     TEXT    NOT NULL,
    boot     BLOB    NOT NULL,
    stream   INTEGER NOT NULL,
    next_seq INTEGER NOT NULL,  -- of the next event
    head     BLOB    NOT NULL,  -- hash of the last event
    segment  INTEGER NOT NULL,  -- index of the segment that was sealed last ...
    offset   INTEGER NOT NULL,  -- ... up to this byte
    batched  INTEGER NOT NULL,  -- seq of the next event that is in no batch
    UNIQUE (host, boot, stream)
) STRICT;

-- What is about to be shipped. A batch never changes; it goes when ClickHouse
-- has said that it has it.
CREATE TABLE batches (
    batch INTEGER PRIMARY KEY,
    chain INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    id           INTEGER PRIMARY KEY,  -- chain << 40 | seq
    time_ns      INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    connection   INTEGER,
    ticket       INTEGER,
    workload     TEXT,
    target       TEXT,
    user         TEXT,
    database     TEXT,
    uid          INTEGER,
    executable   TEXT,
    verdict      TEXT,
    enforced     INTEGER,
    writes       INTEGER,
    verbs        TEXT,                 -- JSON array
    objects      TEXT,                 -- JSON array
    policies     TEXT,                 -- JSON array
    shape        TEXT,
    message      TEXT,
    outcome      TEXT,
    error        TEXT,
    rows         INTEGER,
    bytes        INTEGER,
    duration_us  INTEGER,
    payload_hash BLOB    NOT NULL,
    hash         BLOB    NOT NULL,
    salt         BLOB,                 -- erased together with ...
    payload      TEXT                  -- ... this and all columns made of it
) STRICT;

CREATE INDEX events_by_time ON events (time_ns);
CREATE INDEX events_by_connection ON events (connection, ticket) WHERE connection IS NOT NULL;
