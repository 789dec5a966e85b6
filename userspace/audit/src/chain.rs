use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::Digest;

/// Names one chain: the events of one writer during one boot of one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainKey {
    /// The host's name.
    pub host: String,
    /// Its boot.
    pub boot: Uuid,
    /// The writer's stream.
    pub stream: u32,
}

/// What the chain covers of one event. The payload is covered by its salted
/// hash alone, so that it can be erased and the chain stays whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The chain.
    pub key: &'a ChainKey,
    /// Counts up within the chain from 0, without gaps.
    pub seq: u64,
    /// Nanoseconds since the Unix epoch, UTC.
    pub time_ns: i64,
    /// [`kind_code`] of the event.
    pub kind: u8,
    /// [`payload_hash`].
    pub payload_hash: Digest,
    /// [`Header::hash`] of the event before; zeros for the first.
    pub previous: Digest,
}

/// In front of every hashed header, so that no other use of SHA-256 can give
/// the same input. The digit is the version of the layout.
const DOMAIN: &[u8; 22] = b"lockgate-audit-header\x01";
const PAYLOAD_DOMAIN: &[u8; 23] = b"lockgate-audit-payload\x01";

impl Header<'_> {
    /// SHA-256 of the frozen layout, see docs/audit.md.
    pub fn hash(&self) -> Digest {
        let host = self.key.host.as_bytes();
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update((host.len() as u32).to_be_bytes());
        hash.update(host);
        hash.update(self.key.boot.as_bytes());
        hash.update(self.key.stream.to_be_bytes());
        hash.update(self.seq.to_be_bytes());
        hash.update(self.time_ns.to_be_bytes());
        hash.update([self.kind]);
        hash.update(self.payload_hash.0);
        hash.update(self.previous.0);
        Digest(hash.finalize().into())
    }
}

/// SHA-256 of the salt and the payload's exact bytes.
pub fn payload_hash(salt: &[u8; 16], payload: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(PAYLOAD_DOMAIN);
    hash.update(salt);
    hash.update(payload);
    Digest(hash.finalize().into())
}

/// The number of a kind of event in the header; none for a word that is none.
pub fn kind_code(kind: &str) -> Option<u8> {
    match kind {
        "connected" => Some(1),
        "refused" => Some(2),
        "command" => Some(3),
        "ended" => Some(4),
        "closed" => Some(5),
        "agent" => Some(6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ChainKey {
        ChainKey {
            host: "runner-7".into(),
            boot: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            stream: 3,
        }
    }

    /// The layout is frozen: this value was computed by a program of a few
    /// lines from docs/audit.md alone.
    #[test]
    fn the_layout_is_the_documented_one() {
        let key = key();
        let header = Header {
            key: &key,
            seq: 5,
            time_ns: 1_700_000_000_123_456_789,
            kind: 3,
            payload_hash: payload_hash(&[7; 16], b"{}"),
            previous: Digest([9; 32]),
        };
        assert_eq!(
            header.payload_hash.to_string(),
            "e858e6fb69ff377ba999e16ea81694b7683f18403a2b7426e0ff7e97956e9584"
        );
        assert_eq!(
            header.hash().to_string(),
            "006a2879e16ba93a0e0e0bf6ea396d0e4b02d19a7bdb2dc31e2ba602e703f184"
        );
    }

    #[test]
    fn every_field_is_covered() {
        let key = key();
        let header = Header {
            key: &key,
            seq: 5,
            time_ns: 1,
            kind: 3,
            payload_hash: Digest([1; 32]),
            previous: Digest([2; 32]),
        };
        let other = |change: &dyn Fn(&mut ChainKey)| {
            let mut key = key.clone();
            change(&mut key);
            Header {
                key: &key,
                ..header
            }
            .hash()
        };
        let hashes = [
            header.hash(),
            other(&|key| key.host.push('x')),
            other(&|key| key.boot = Uuid::nil()),
            other(&|key| key.stream += 1),
            Header { seq: 6, ..header }.hash(),
            Header {
                time_ns: 2,
                ..header
            }
            .hash(),
            Header { kind: 4, ..header }.hash(),
            Header {
                payload_hash: Digest([3; 32]),
                ..header
            }
            .hash(),
            Header {
                previous: Digest([3; 32]),
                ..header
            }
            .hash(),
        ];
        let distinct: std::collections::HashSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }
}
