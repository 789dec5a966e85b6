//! What changing a setting is.

use lockgate_command::{Refusal, Verb};

use crate::names::Need;
use crate::prescan::refusal;
use crate::walk::Walk;

/// `SET name TO values`, or to its default where there are no values.
pub(crate) fn set(walk: &mut Walk, name: &str, values: Option<&[&str]>) -> Result<(), Refusal> {
    let name = name.to_ascii_lowercase();
    let name = name.as_str();
    let is = |wanted: &[&str]| matches!(values, Some([value]) if wanted.iter().any(|w| value.eq_ignore_ascii_case(w)));
    let verb = match name {
        // How the next text is read. A default may be anything.
        "standard_conforming_strings" if is(&["on", "true", "yes", "1"]) => Verb::Session,
        "standard_conforming_strings" => {
            return Err(refusal(
                "a change of standard_conforming_strings",
                "leave it on; write E'…' where backslashes are escapes",
            ));
        }
        "client_encoding" | "names" if is(&["utf8", "utf-8", "unicode"]) => Verb::Session,
        "client_encoding" | "names" => {
            return Err(refusal(
                "a change of client_encoding to other than UTF8",
                "use UTF8 and convert at the client",
            ));
        }
        // What names mean.
        "search_path" => {
            walk.facts.names_change = true;
            Verb::Session
        }
        "role" | "session_authorization" => {
            walk.facts.names_change = true;
            // Back to what the session logged in as.
            let back = values.is_none() || (name == "role" && is(&["none"]));
            if back { Verb::Session } else { Verb::Role }
        }
        "default_table_access_method" if values.is_none() || is(&["heap"]) => Verb::Session,
        // Below 0, floats are rounded: a masked one over a border, perhaps.
        "extra_float_digits" if values.is_none() || is(&["0", "1", "2", "3"]) => Verb::Session,
        name if is_harmless(name) => Verb::Session,
        _ => Verb::System,
    };
    walk.need(Need::Target(verb));
    Ok(())
}

/// RESET ALL, DISCARD ALL: names mean again what they meant at login.
pub(crate) fn reset_all(walk: &mut Walk) {
    walk.need(Need::Target(Verb::Session));
    walk.facts.names_change = true;
}

/// set_config with arguments that only the server will know.
pub(crate) fn not_constant() -> Refusal {
    refusal(
        "set_config with arguments that are computed",
        "write them as literals, or use SET",
    )
}

/// Settings that every role may change and that matter to the session alone.
/// What is not here, such as a setting that a policy of row security reads, is
/// the server's.
fn is_harmless(name: &str) -> bool {
    const PLANNER: &[&str] = &["enable_", "geqo", "jit", "parallel_", "max_parallel_"];
    PLANNER.iter().any(|prefix| name.starts_with(prefix))
        || matches!(
            name,
            // How values look.
            "datestyle" | "intervalstyle" | "timezone" | "bytea_output" | "xmlbinary"
                | "xmloption" | "lc_monetary" | "lc_numeric" | "lc_time"
                | "quote_all_identifiers" | "array_nulls" | "default_text_search_config"
            // Names and messages.
            | "application_name" | "client_min_messages" | "escape_string_warning"
            // Limits and time.
            | "statement_timeout" | "lock_timeout" | "transaction_timeout" | "deadlock_timeout"
                | "idle_in_transaction_session_timeout" | "idle_session_timeout"
                | "client_connection_check_interval" | "tcp_keepalives_idle"
                | "tcp_keepalives_interval" | "tcp_keepalives_count" | "tcp_user_timeout"
            // Memory and plans.
            | "work_mem" | "maintenance_work_mem" | "temp_buffers" | "hash_mem_multiplier"
                | "logical_decoding_work_mem" | "random_page_cost" | "seq_page_cost"
                | "cpu_tuple_cost" | "cpu_index_tuple_cost" | "cpu_operator_cost"
                | "effective_cache_size" | "effective_io_concurrency"
                | "maintenance_io_concurrency" | "default_statistics_target"
                | "constraint_exclusion" | "cursor_tuple_fraction" | "from_collapse_limit"
                | "join_collapse_limit" | "plan_cache_mode" | "recursive_worktable_factor"
                | "min_parallel_table_scan_size" | "min_parallel_index_scan_size"
                | "force_parallel_mode" | "debug_parallel_query" | "synchronize_seqscans"
                | "gin_fuzzy_search_limit" | "gin_pending_list_limit" | "seed"
            // Transactions.
            | "transaction_isolation" | "transaction_read_only" | "transaction_deferrable"
                | "default_transaction_isolation" | "default_transaction_read_only"
                | "default_transaction_deferrable" | "synchronous_commit"
            // Where new tables are put; which tables, their statement says.
            | "default_tablespace" | "temp_tablespaces" | "default_toast_compression"
            // Off makes a query fail that row security would have filtered.
            | "row_security"
            // Only ever forbids.
            | "restrict_nonsystem_relation_kind"
            | "check_function_bodies" | "transform_null_equals"
        )
}
