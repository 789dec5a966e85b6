use std::time::Duration;

use crate::bounded::Bounded;
use crate::proc;

/// Longest time to wait for an argument vector: it is in the process's own
/// memory, whose lock that may keep for ever (by a page of a file that is never
/// read).
const PATIENCE: Duration = Duration::from_millis(100);

/// How many may be waited for.
const MOST: usize = 16;

/// What processes say of themselves.
pub(crate) struct Claims(Bounded);

impl Default for Claims {
    fn default() -> Self {
        Self(Bounded::new(MOST))
    }
}

impl Claims {
    /// Empty if the process does not let it be read.
    pub(crate) fn argv(&self, tgid: u32) -> Vec<String> {
        let argv = self.0.run("argv", PATIENCE, move || proc::argv(tgid));
        argv.unwrap_or_default()
    }
}
