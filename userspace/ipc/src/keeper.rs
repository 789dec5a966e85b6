use lockgate_command::{ConnectionId, TargetName};
use serde::{Deserialize, Serialize};

use crate::SecretBytes;

/// proxy → keeper. `request` is the proxy's number for the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProxyToKeeper {
    /// Repeated in the [`Reply`]; 0 for what has no answer.
    pub request: u64,
    /// What is asked.
    pub ask: Dialogue,
}

/// What a proxy may ask of keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Dialogue {
    /// As whom does this connection log in at this target? → [`Reply::Login`]
    Login {
        /// Attested by gate before.
        connection: ConnectionId,
        /// The target the proxy found.
        target: TargetName,
    },
    /// Begin a SCRAM-SHA-256 exchange (RFC 5802, RFC 7677) with the
    /// connection's password. → [`Reply::Sasl`] with the client-first-message
    ScramStart {
        /// After a `Login`.
        connection: ConnectionId,
        /// `tls-server-end-point` data (RFC 5929 section 4) for
        /// SCRAM-SHA-256-PLUS; none for plain SCRAM-SHA-256.
        channel_binding: Option<Vec<u8>>,
        /// The client could bind but the server did not offer it (gs2 `y`).
        binding_unoffered: bool,
    },
    /// → [`Reply::Sasl`] with the client-final-message
    ScramContinue {
        /// Which.
        connection: ConnectionId,
        /// The server-first-message.
        server_first: Vec<u8>,
    },
    /// → [`Reply::Verified`]
    ScramFinish {
        /// Which.
        connection: ConnectionId,
        /// The server-final-message.
        server_final: Vec<u8>,
    },
    /// The password itself or its md5 form, refused unless the proxy says that
    /// the upstream certificate was verified. → [`Reply::Secret`]
    Password {
        /// After a `Login`.
        connection: ConnectionId,
        /// Salt of AuthenticationMD5Password; none for cleartext.
        md5_salt: Option<[u8; 4]>,
        /// Whether the upstream certificate was verified in full.
        tls_verified: bool,
    },
    /// A certificate to show the client. → [`Reply::Leaf`]
    Leaf {
        /// Attested by gate before.
        connection: ConnectionId,
        /// The target; its names and addresses go into the certificate.
        target: TargetName,
        /// SNI the client sent, used only if it is one of the target's names.
        server_name: Option<String>,
    },
    /// Names, kinds and functions of a database. → [`Reply::Catalogue`], the
    /// descriptor is a memfd with `lockgate_sql::Catalogue` in postcard.
    Catalogue {
        /// Whose credential is used.
        connection: ConnectionId,
        /// The target.
        target: TargetName,
        /// The database.
        database: String,
        /// Read afresh unless what keeper has is newer than this many
        /// milliseconds.
        max_age_ms: u32,
    },
    /// A fresh spool segment for one stream. → [`Reply::Segment`], the
    /// descriptor is the file, opened for reading and writing.
    Segment {
        /// Writer; keeper makes it unique over restarts.
        worker: u32,
    },
    /// The proxy has finished with a segment. No answer.
    SegmentFull {
        /// Which.
        segment: SegmentId,
    },
}

/// Names a spool segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SegmentId {
    /// The writer's stream.
    pub stream: u32,
    /// Counts up within the stream.
    pub index: u32,
}

/// keeper → proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeeperToProxy {
    /// The number of the [`ProxyToKeeper`] that this answers.
    pub request: u64,
    /// The answer.
    pub reply: Reply,
}

/// keeper's answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Login`.
    Login(LoginPlan),
    /// To `ScramStart` and `ScramContinue`.
    Sasl(Vec<u8>),
    /// To `ScramFinish`: the server proved that it knows the password.
    Verified,
    /// To `Password`.
    Secret(SecretBytes),
    /// To `Leaf`.
    Leaf(LeafKey),
    /// To `Catalogue`.
    Catalogue {
        /// Counts up per database with each change seen.
        epoch: u64,
    },
    /// To `Segment`.
    Segment {
        /// Its name.
        segment: SegmentId,
    },
    /// Not done; the text is for the operator's log and holds no secret.
    Refused(String),
}

/// As whom a connection logs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginPlan {
    /// The role at the server.
    pub user: String,
    /// What keeper can do for it.
    pub auth: UpstreamAuth,
}

/// What keeper can do for a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamAuth {
    /// There is a password.
    Password,
    /// There is none: only a server that asks for nothing will do.
    None,
}

/// A short-lived certificate and its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeafKey {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8 DER.
    pub key: SecretBytes,
}
