use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident = $name:literal in $group:literal;)*) => {
        /// What is done to a resource. Each verb is a Cedar action of the same
        /// name, and a member of the Cedar action group [`Verb::group`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Verb { $($(#[$doc])* $verb,)* }

        impl Verb {
            /// All of them, in the order of this file.
            pub const ALL: &'static [Verb] = &[$(Verb::$verb,)*];

            /// The action's name in policies and in the audit record.
            pub const fn as_str(self) -> &'static str {
                match self { $(Verb::$verb => $name,)* }
            }

            /// The action group a person would look for it in.
            pub const fn group(self) -> &'static str {
                match self { $(Verb::$verb => $group,)* }
            }
        }
    };
}

verbs! {
    /// Open a connection to a target.
    Connect = "connect" in "use";
    /// What touches no object and changes no data: transaction control, SET of
    /// a harmless setting, SHOW, `SELECT 1`.
    Session = "session" in "use";
    /// Read harmless metadata, such as pg_catalog.pg_class.
    Describe = "describe" in "use";
    /// Read rows.
    Select = "select" in "read";
    /// Subscribe to notifications.
    Listen = "listen" in "read";
    /// See the raw value of a tagged column.
    View = "view" in "sensitive";
    /// Use a tagged column in a predicate, sort or join.
    Filter = "filter" in "sensitive";
    /// Add rows.
    Insert = "insert" in "write";
    /// Change rows.
    Update = "update" in "write";
    /// Remove rows.
    Delete = "delete" in "write";
    /// Lock rows or a table.
    Lock = "lock" in "write";
    /// Advance or set a sequence.
    UseSequence = "use_sequence" in "write";
    /// Send a notification.
    Notify = "notify" in "write";
    /// Remove all rows of a table.
    Truncate = "truncate" in "schema";
    /// Create an object.
    Create = "create" in "schema";
    /// Change the definition of an object.
    Alter = "alter" in "schema";
    /// Remove an object.
    Drop = "drop" in "schema";
    /// VACUUM, ANALYZE, REINDEX, CLUSTER, REFRESH.
    Maintain = "maintain" in "schema";
    /// Call a function that is not known to be pure.
    Call = "call" in "code";
    /// Run or define code in the server: DO, CREATE FUNCTION, CREATE EXTENSION.
    Code = "code" in "code";
    /// Give or take rights.
    Grant = "grant" in "admin";
    /// Create, change, drop or assume a role.
    Role = "role" in "admin";
    /// Change the server itself: ALTER SYSTEM, signals to backends, a dangerous setting.
    System = "system" in "admin";
    /// Touch the server's file system or programs: COPY … FROM PROGRAM, pg_read_file.
    Program = "program" in "admin";
    /// Read metadata that can hold data or secrets: pg_stats, pg_authid.
    Inspect = "inspect" in "admin";
    /// Do something whose effect lockgate cannot name.
    Opaque = "opaque" in "admin";
    /// Run a command on a host.
    Execute = "execute" in "execute";
    // The record has them by their numbers: new ones come here, at the end.
    /// Change every row: UPDATE without a condition that tells rows apart.
    UpdateAll = "update_all" in "write";
    /// Remove every row: DELETE without a condition that tells rows apart.
    DeleteAll = "delete_all" in "write";
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Verb {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|verb| verb.as_str() == name)
            .ok_or_else(|| format!("no verb is named `{name}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_found_by_its_name() {
        for verb in Verb::ALL {
            assert_eq!(verb.as_str().parse(), Ok(*verb));
        }
    }
}
