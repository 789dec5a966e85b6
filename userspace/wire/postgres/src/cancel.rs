use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::ProtocolError;

/// Request code of a CancelRequest: 1234 in the high half, 5678 in the low.
pub(crate) const CODE: u32 = 80_877_102;

/// What a client shows to cancel a command of its session: process id and
/// secret (BackendKeyData, section 54.7). Secrets are 4 bytes in protocol 3.0,
/// up to 256 in 3.2.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    pub(crate) process: u32,
    pub(crate) secret: Bytes,
}

impl CancelKey {
    /// A key made of random bytes, of the length that protocol 3.`minor` has
    /// room for. `random` gives as many as are asked for.
    pub fn generate(minor: u16, random: impl Fn(&mut [u8])) -> Self {
        let length = if minor >= 2 { 32 } else { 4 };
        let mut bytes = vec![0; length + 4];
        random(&mut bytes);
        let secret = Bytes::from(bytes.split_off(4));
        // A process id is positive for those who read it as signed.
        let process = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) >> 1;
        Self { process, secret }
    }

    /// From the body of BackendKeyData or CancelRequest behind its code.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        match body.split_first_chunk::<4>() {
            Some((process, secret)) if (4..=256).contains(&secret.len()) => Ok(Self {
                process: u32::from_be_bytes(*process),
                secret: Bytes::copy_from_slice(secret),
            }),
            _ => Err(ProtocolError::violation(
                "a cancel key has a length that none has",
            )),
        }
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelKey(..)")
    }
}

/// A CancelRequest, as sent on a connection of its own.
pub fn cancel_request(key: &CancelKey) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(12 + key.secret.len() as u32);
    out.put_u32(CODE);
    out.put_u32(key.process);
    out.put_slice(&key.secret);
    out.freeze()
}
