use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One intercepted connection. Unique on a host for as long as its boot lasts:
/// gate counts up from the wall clock's nanoseconds at its own start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as the configuration spells it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A `[[workload]]` of the configuration, or [`WorkloadName::unknown`].
    WorkloadName
}
name! {
    /// A `[[target]]` of the configuration.
    TargetName
}

impl WorkloadName {
    /// The principal of every process that matches no `[[workload]]`.
    pub fn unknown() -> Self {
        Self::from("unknown")
    }
}
