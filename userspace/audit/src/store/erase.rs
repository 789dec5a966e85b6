use super::{Store, StoreError};

impl Store {
    /// Erases what events before `before_ns` (nanoseconds since the Unix epoch)
    /// say: payload, salt and every column made of them. Their headers stay, so
    /// that the chain is whole. Returns how many were erased.
    ///
    /// The file is not made smaller; freed pages are overwritten with zeros.
    pub fn erase_before(&mut self, before_ns: i64) -> Result<u64, StoreError> {
        let erased = self.connection.execute(
            "UPDATE events SET payload = NULL, salt = NULL, connection = NULL, ticket = NULL,
                workload = NULL, target = NULL, user = NULL, database = NULL, uid = NULL,
                executable = NULL, verdict = NULL, enforced = NULL, writes = NULL, verbs = NULL,
                objects = NULL, policies = NULL, shape = NULL, message = NULL, outcome = NULL,
                error = NULL, rows = NULL, bytes = NULL, duration_us = NULL
             WHERE time_ns < ?1 AND payload IS NOT NULL",
            [before_ns],
        )?;
        // What was erased is also in the log of pages.
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(erased as u64)
    }
}
