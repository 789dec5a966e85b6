use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// The three processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// BPF, namespaces, listeners, dialling.
    Gate,
    /// Hostile bytes.
    Proxy,
    /// Secrets, network, record.
    Keeper,
}

impl Role {
    /// As in `lockgate internal ROLE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Proxy => "proxy",
            Self::Keeper => "keeper",
        }
    }
}

/// parent → child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The descriptor is the channel to this peer; it replaces an earlier one.
    Peer(Role),
    /// Check this configuration but do not use it yet; the descriptor is a
    /// memfd with `lockgate_config::Bundle` in JSON. → `Prepared`
    Prepare,
    /// keeper, before `Prepare`: a memfd with `lockgate_config::Secrets` in JSON.
    /// The proxy, likewise, if there is one: a memfd with the key of masks.
    Secrets,
    /// Use what was prepared. → `Committed`
    Commit,
    /// Forget what was prepared.
    Abort,
    /// → `Status`
    Status,
    /// keeper only: the descriptor is a channel that a [`crate::Look`] comes
    /// over, and its answer goes. No answer here.
    Look,
    /// keeper only: numbers of the others for the metrics endpoint, as JSON
    /// objects by role. No answer.
    Numbers(String),
    /// Accept nothing new, end when the last connection has. → the process ends
    Drain,
    /// gate only: unpin everything, then end.
    Release,
}

/// child → parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// Started and sandboxed; orders may come.
    Ready,
    /// `Prepare` went well, or why not.
    Prepared(Result<(), String>),
    /// `Commit` is done.
    Committed,
    /// Numbers and live objects, a JSON object.
    Status(String),
    /// Cannot go on; the process ends after this.
    Fatal(String),
    /// As `Status`, in the descriptor: a memfd.
    StatusAside,
}

impl Report {
    /// `Status` as it can be sent: what is too large for a packet (thousands of
    /// sessions) goes into a memfd beside it.
    ///
    /// # Errors
    /// The memfd could not be made.
    pub fn status(text: String) -> std::io::Result<(Self, Option<OwnedFd>)> {
        /// Leaves room in a packet of 64 KiB.
        const INLINE: usize = 60 * 1024;
        if text.len() <= INLINE {
            return Ok((Self::Status(text), None));
        }
        let fd = crate::to_memfd("status", text.as_bytes())?;
        Ok((Self::StatusAside, Some(fd)))
    }

    /// The text of a status, wherever it is; none for other reports.
    ///
    /// # Errors
    /// The memfd could not be read.
    pub fn into_status(self, fd: Option<OwnedFd>) -> std::io::Result<Option<String>> {
        match (self, fd) {
            (Self::Status(text), _) => Ok(Some(text)),
            (Self::StatusAside, Some(fd)) => {
                let text = String::from_utf8(crate::from_memfd(fd)?);
                text.map(Some).map_err(std::io::Error::other)
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_any_size_arrives() {
        for (size, aside) in [
            (10, false),
            (60 * 1024, false),
            (60 * 1024 + 1, true),
            (1 << 22, true),
        ] {
            let text = "x".repeat(size);
            let (report, fd) = Report::status(text.clone()).unwrap();
            assert_eq!(fd.is_some(), aside, "{size}");
            assert_eq!(report.into_status(fd).unwrap(), Some(text));
        }
        assert_eq!(Report::Ready.into_status(None).unwrap(), None);
        assert_eq!(Report::StatusAside.into_status(None).unwrap(), None);
    }
}
