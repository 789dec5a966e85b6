use std::fmt;

use ring::hmac;

/// The key of a keyed hash: HMAC-SHA-256 (RFC 2104).
///
/// Equal values have equal hashes, so that they can be counted, grouped and
/// joined; without the key nobody can try values out. Whoever can write values
/// into a column that carries the tag, and reads them masked, still can.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// The key of the columns that carry `tag`, from the host's secret. Columns
    /// of one tag can be joined with each other, and with no other.
    pub fn of_tag(secret: &[u8], tag: &str) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut context = hmac::Context::with_key(&secret);
        context.update(b"lockgate mask 1\0");
        context.update(tag.as_bytes());
        let derived = context.sign();
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The first 128 bits of the hash of `value`.
    pub(crate) fn hash(&self, value: &[u8]) -> u128 {
        let tag = hmac::sign(&self.0, value);
        let mut first = [0; 16];
        first.copy_from_slice(&tag.as_ref()[..16]);
        u128::from_be_bytes(first)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_one_secret_and_one_tag() {
        let hash = |secret: &str, tag: &str, value: &str| {
            Key::of_tag(secret.as_bytes(), tag).hash(value.as_bytes())
        };
        let one = hash("secret", "pii", "078-05-1120");
        assert_eq!(one, hash("secret", "pii", "078-05-1120"));
        assert_ne!(one, hash("secret", "pii", "078-05-1121"));
        assert_ne!(one, hash("secret", "card", "078-05-1120"));
        assert_ne!(one, hash("other", "pii", "078-05-1120"));
        let debug = format!("{:?}", Key::of_tag(b"secret", "pii"));
        assert_eq!(debug, "Key(..)");
    }

    /// A changed derivation would break every join with values hashed before.
    #[test]
    fn the_hash_stays_as_it_is() {
        let hash = Key::of_tag(b"0123456789abcdef0123456789abcdef", "pii").hash(b"078-05-1120");
        assert_eq!(format!("{hash:032x}"), "ba6790b7586d9aa29074f300d4237731");
    }
}
