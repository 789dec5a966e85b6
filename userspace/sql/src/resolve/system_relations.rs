use lockgate_command::Verb;

/// What reading a relation of PostgreSQL's own schemas is: `describe`, or
/// `inspect` where it can hold data, statements or secrets of others.
pub(super) fn reading(schema: &str, name: &str) -> Verb {
    match (schema, name) {
        // Rows of tables, in pieces.
        ("pg_toast", _) | ("pg_catalog", "pg_largeobject") => Verb::Inspect,
        // Values of columns.
        ("pg_catalog", name) if name.starts_with("pg_stats") => Verb::Inspect,
        ("pg_catalog", "pg_statistic" | "pg_statistic_ext_data") => Verb::Inspect,
        // Passwords, and options that hold them.
        (
            "pg_catalog",
            "pg_authid"
            | "pg_shadow"
            | "pg_user_mapping"
            | "pg_user_mappings"
            | "pg_subscription"
            | "pg_db_role_setting"
            | "pg_hba_file_rules"
            | "pg_ident_file_mappings"
            | "pg_file_settings"
            | "pg_config",
        ) => Verb::Inspect,
        ("information_schema", "user_mapping_options" | "_pg_user_mappings") => Verb::Inspect,
        // Statements of others.
        (
            "pg_catalog",
            "pg_stat_activity"
            | "pg_prepared_xacts"
            | "pg_stat_replication"
            | "pg_stat_wal_receiver"
            | "pg_stat_subscription"
            | "pg_stat_ssl"
            | "pg_stat_gssapi"
            | "pg_replication_slots"
            | "pg_replication_origin_status"
            | "pg_shmem_allocations"
            | "pg_shmem_allocations_numa"
            | "pg_backend_memory_contexts"
            | "pg_aios",
        ) => Verb::Inspect,
        ("pg_catalog", name) if name.starts_with("pg_stat_progress") => Verb::Inspect,
        _ => Verb::Describe,
    }
}

/// The one column for which reading a relation is `inspect`: whoever does not
/// touch it reads harmless metadata.
pub(super) fn private_column(schema: &str, name: &str) -> Option<&'static str> {
    match (schema, name) {
        ("pg_catalog", "pg_subscription") => Some("subconninfo"),
        ("pg_catalog", "pg_user_mapping" | "pg_user_mappings") => Some("umoptions"),
        ("pg_catalog", "pg_stat_activity") => Some("query"),
        ("pg_catalog", "pg_db_role_setting") => Some("setconfig"),
        _ => None,
    }
}
