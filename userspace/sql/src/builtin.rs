//! What PostgreSQL brings along, and what it does. See `data/README.md`.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use lockgate_command::Verb;
use serde::{Deserialize, Serialize};

/// What a built-in function does besides computing its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FunctionClass {
    /// Nothing, or something about the own session only.
    Pure,
    /// Reads a sequence's state or advances it.
    Sequence,
    /// Takes or releases advisory locks.
    Lock,
    /// Sends a notification.
    Notify,
    /// Maintains an index.
    Maintain,
    /// Changes a setting.
    Settings,
    /// Shows what can hold data or secrets of others.
    Inspect,
    /// Touches the server's files.
    Program,
    /// Changes the server or other sessions.
    System,
    /// Runs SQL from a string, or keeps data where no table shows it.
    Opaque,
}

impl FunctionClass {
    /// The verb that a call is, if any.
    pub const fn verb(self) -> Option<Verb> {
        match self {
            Self::Pure => None,
            Self::Sequence => Some(Verb::UseSequence),
            Self::Lock => Some(Verb::Lock),
            Self::Notify => Some(Verb::Notify),
            Self::Maintain => Some(Verb::Maintain),
            Self::Settings | Self::System => Some(Verb::System),
            Self::Inspect => Some(Verb::Inspect),
            Self::Program => Some(Verb::Program),
            Self::Opaque => Some(Verb::Opaque),
        }
    }
}

/// What the built-in function of that name does, the worst of its overloads;
/// none if PostgreSQL 15 to 18 have none of that name.
pub fn function_class(name: &str) -> Option<FunctionClass> {
    let volatile = *FUNCTIONS.get(name)?;
    Some(match by_name(name) {
        Some(class) => class,
        None if volatile => FunctionClass::Opaque,
        None => FunctionClass::Pure,
    })
}

/// Whether PostgreSQL has an operator of that name.
pub fn is_operator(name: &str) -> bool {
    static OPERATORS: LazyLock<HashSet<&str>> =
        LazyLock::new(|| include_str!("../data/operators.txt").lines().collect());
    OPERATORS.contains(name)
        // The parser's own spelling of `<>`.
        || name == "!="
}

/// Whether PostgreSQL's operators of that name make no value of the type of a
/// column, where that is a domain over a plain type: none takes an operand of
/// any type together with an array or a range of it.
pub(crate) fn is_of_one_type(name: &str) -> bool {
    matches!(
        name,
        "=" | "<>"
            | "!="
            | "<"
            | "<="
            | ">"
            | ">="
            | "+"
            | "-"
            | "*"
            | "/"
            | "%"
            | "~"
            | "~*"
            | "!~"
            | "!~*"
            | "~~"
            | "~~*"
            | "!~~"
            | "!~~*"
    )
}

/// The same of its functions: none takes several arguments of any type. There
/// are more such.
pub(crate) fn converts_nothing(name: &str) -> bool {
    matches!(
        name,
        "count"
            | "sum"
            | "avg"
            | "min"
            | "max"
            | "lower"
            | "upper"
            | "length"
            | "char_length"
            | "btrim"
            | "ltrim"
            | "rtrim"
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
            | "now"
            | "string_agg"
            | "to_char"
    )
}

/// Whether PostgreSQL has a type of that name.
pub fn is_type(name: &str) -> bool {
    static TYPES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        let later = include_str!("../data/types-later.txt").lines();
        include_str!("../data/types.txt")
            .lines()
            .chain(later)
            .collect()
    });
    TYPES.contains(name)
}

/// Names of functions, and whether an overload is volatile.
static FUNCTIONS: LazyLock<HashMap<&str, bool>> = LazyLock::new(|| {
    let files = [
        include_str!("../data/functions.txt"),
        include_str!("../data/functions-later.txt"),
    ];
    let lines = files.into_iter().flat_map(str::lines);
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(kind, name)| (name, kind == "v"))
        .collect()
});

/// Everything that acts, and the volatile ones that do not. Where a whole
/// family has one prefix, a newer member falls under it.
fn by_name(name: &str) -> Option<FunctionClass> {
    use FunctionClass::*;
    Some(match name {
        // Volatile only since their results differ.
        "clock_timestamp" | "timeofday" | "random" | "random_normal" | "setseed"
        | "gen_random_uuid" | "uuidv4" | "uuidv7" | "array_sample" | "array_shuffle"
        | "pg_sleep" | "pg_sleep_for" | "pg_sleep_until" | "txid_status" | "pg_xact_status"
        | "amvalidate" | "current_query" | "currtid2" => Pure,
        // Sizes, places and structure; no data.
        "pg_database_size"
        | "pg_indexes_size"
        | "pg_relation_size"
        | "pg_table_size"
        | "pg_tablespace_size"
        | "pg_total_relation_size"
        | "pg_partition_ancestors"
        | "pg_partition_tree"
        | "pg_collation_actual_version"
        | "pg_database_collation_actual_version" => Pure,
        // The server's state as a monitor or a driver asks for it.
        "pg_is_in_recovery"
        | "pg_is_wal_replay_paused"
        | "pg_get_wal_replay_pause_state"
        | "pg_current_wal_flush_lsn"
        | "pg_current_wal_insert_lsn"
        | "pg_current_wal_lsn"
        | "pg_last_wal_receive_lsn"
        | "pg_last_wal_replay_lsn"
        | "pg_last_xact_replay_timestamp"
        | "pg_last_committed_xact"
        | "pg_xact_commit_timestamp"
        | "pg_xact_commit_timestamp_origin"
        | "pg_get_multixact_members"
        | "pg_jit_available"
        | "pg_blocking_pids"
        | "pg_safe_snapshot_blocking_pids"
        | "pg_isolation_test_session_is_blocked"
        | "pg_notification_queue_usage"
        | "pg_export_snapshot"
        | "pg_get_wal_resource_managers"
        | "pg_numa_available"
        | "pg_stat_clear_snapshot"
        | "pg_stat_force_next_flush"
        | "pg_stat_have_stats"
        | "pg_stat_get_io"
        | "pg_stat_get_backend_io"
        | "pg_stat_get_backend_wal"
        | "pg_get_wait_events"
        | "pg_lock_status"
        | "pg_stat_get_recovery_prefetch" => Pure,
        "pg_stat_get_xact_blocks_fetched"
        | "pg_stat_get_xact_blocks_hit"
        | "pg_stat_get_xact_function_calls"
        | "pg_stat_get_xact_function_self_time"
        | "pg_stat_get_xact_function_total_time"
        | "pg_stat_get_xact_numscans"
        | "pg_stat_get_xact_tuples_deleted"
        | "pg_stat_get_xact_tuples_fetched"
        | "pg_stat_get_xact_tuples_hot_updated"
        | "pg_stat_get_xact_tuples_inserted"
        | "pg_stat_get_xact_tuples_newpage_updated"
        | "pg_stat_get_xact_tuples_returned"
        | "pg_stat_get_xact_tuples_updated" => Pure,

        "nextval"
        | "setval"
        | "currval"
        | "lastval"
        | "pg_sequence_last_value"
        | "pg_get_sequence_data" => Sequence,
        "pg_notify" => Notify,
        "set_config" => Settings,
        "brin_desummarize_range"
        | "brin_summarize_new_values"
        | "brin_summarize_range"
        | "gin_clean_pending_list" => Maintain,

        // Texts of others' statements, secrets in settings, values of columns.
        "pg_stat_get_activity"
        | "pg_stat_get_backend_activity"
        | "pg_stat_get_wal_receiver"
        | "pg_stat_get_wal_senders"
        | "pg_stat_get_subscription"
        | "pg_hba_file_rules"
        | "pg_ident_file_mappings"
        | "pg_show_all_file_settings"
        | "pg_prepared_xact"
        | "pg_config"
        | "pg_current_logfile"
        | "pg_get_backend_memory_contexts"
        | "pg_get_shmem_allocations"
        | "pg_get_shmem_allocations_numa"
        | "pg_get_aios"
        | "pg_get_loaded_modules"
        | "pg_mcv_list_items"
        | "pg_get_replication_slots"
        | "pg_show_replication_origin_status"
        | "pg_available_wal_summaries"
        | "pg_get_wal_summarizer_state"
        | "pg_wal_summary_contents"
        | "pg_control_checkpoint"
        | "pg_control_init"
        | "pg_control_recovery"
        | "pg_control_system" => Inspect,

        "pg_stat_file" | "lo_import" | "lo_export" => Program,

        "pg_cancel_backend"
        | "pg_terminate_backend"
        | "pg_reload_conf"
        | "pg_promote"
        | "pg_rotate_logfile"
        | "pg_rotate_logfile_old"
        | "pg_switch_wal"
        | "pg_create_restore_point"
        | "pg_backup_start"
        | "pg_backup_stop"
        | "pg_start_backup"
        | "pg_stop_backup"
        | "pg_wal_replay_pause"
        | "pg_wal_replay_resume"
        | "pg_log_backend_memory_contexts"
        | "pg_log_standby_snapshot"
        | "pg_nextoid"
        | "pg_stop_making_pinned_objects"
        | "pg_import_system_collations"
        | "pg_extension_config_dump"
        | "pg_sync_replication_slots"
        | "pg_drop_replication_slot"
        | "pg_copy_logical_replication_slot"
        | "pg_copy_physical_replication_slot"
        | "pg_create_logical_replication_slot"
        | "pg_create_physical_replication_slot"
        | "pg_restore_attribute_stats"
        | "pg_restore_relation_stats"
        | "pg_clear_attribute_stats"
        | "pg_clear_relation_stats" => System,

        // SQL in a string, or the whole of a table by its name. The cursor of
        // cursor_to_xml was decided on, but not that its rows are wanted.
        "query_to_xml"
        | "query_to_xml_and_xmlschema"
        | "query_to_xmlschema"
        | "cursor_to_xml"
        | "cursor_to_xmlschema"
        | "table_to_xml"
        | "table_to_xml_and_xmlschema"
        | "table_to_xmlschema"
        | "schema_to_xml"
        | "schema_to_xml_and_xmlschema"
        | "schema_to_xmlschema"
        | "database_to_xml"
        | "database_to_xml_and_xmlschema"
        | "database_to_xmlschema"
        | "ts_stat"
        | "ts_rewrite" => Opaque,
        // A type in a string, whose input may be somebody's code.
        "pg_input_is_valid" | "pg_input_error_info" => Opaque,
        // A type by its oid, likewise: a domain's check runs.
        "domain_in" | "domain_recv" | "array_in" | "array_recv" | "record_in" | "record_recv"
        | "range_in" | "range_recv" | "multirange_in" | "multirange_recv" => Opaque,
        // A partitioned table by its oid, whose operator classes are called.
        "satisfies_hash_partition" => Opaque,
        // Functions of languages; no statement needs them.
        "plpgsql_call_handler" | "plpgsql_inline_handler" | "plpgsql_validator" => Opaque,
        "loread" | "lowrite" => Opaque,

        _ if name.starts_with("pg_ls_") || name.starts_with("pg_read_") => Program,
        _ if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") => Lock,
        // Changes in the log are rows of tables.
        _ if name.starts_with("pg_logical_slot_") => Inspect,
        _ if name.starts_with("pg_logical_")
            || name.starts_with("pg_replication_")
            || name.starts_with("binary_upgrade_")
            || name.starts_with("pg_stat_reset") =>
        {
            System
        }
        _ if name.starts_with("lo_") => Opaque,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_not_pure() {
        for (name, class) in [
            ("lower", FunctionClass::Pure),
            ("count", FunctionClass::Pure),
            ("version", FunctionClass::Pure),
            ("nextval", FunctionClass::Sequence),
            ("pg_read_file", FunctionClass::Program),
            ("pg_ls_dir", FunctionClass::Program),
            ("lo_import", FunctionClass::Program),
            ("lo_get", FunctionClass::Opaque),
            ("query_to_xml", FunctionClass::Opaque),
            ("pg_terminate_backend", FunctionClass::System),
            ("set_config", FunctionClass::Settings),
            ("pg_advisory_xact_lock", FunctionClass::Lock),
            ("domain_in", FunctionClass::Opaque),
            ("array_in", FunctionClass::Opaque),
            ("int4in", FunctionClass::Pure),
        ] {
            assert_eq!(function_class(name), Some(class), "{name}");
        }
        assert_eq!(function_class("dblink_exec"), None);
    }

    #[test]
    fn every_volatile_function_was_looked_at() {
        let not: Vec<_> = FUNCTIONS
            .iter()
            .filter(|(name, volatile)| **volatile && by_name(name).is_none())
            .collect();
        assert_eq!(not, []);
    }
}
