use std::collections::HashMap;
use std::fmt;

use lockgate_command::ConnectionId;
use lockgate_config::{Secrets, Target, UpstreamTls};
use lockgate_ipc::{LoginPlan, Reply, SecretBytes, UpstreamAuth};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use secrecy::{ExposeSecret, SecretString};

/// Passwords, and what is done with them. The proxy never sees one, but where
/// the server asks for it over verified TLS.
#[derive(Default)]
pub(crate) struct Credentials {
    secrets: Secrets,
    logins: HashMap<ConnectionId, Login>,
    begun: u64,
}

/// A login that has begun.
struct Login {
    /// Tells it from others of the same connection.
    number: u64,
    user: String,
    password: Option<SecretString>,
    /// Whether the configuration lets nobody but the verified server have the
    /// password, so that it may be given to the proxy.
    verified_only: bool,
    scram: Option<ScramSha256>,
}

/// A SCRAM exchange that is taken out for the time of its costly step.
pub(crate) struct Proving {
    connection: ConnectionId,
    number: u64,
    scram: ScramSha256,
}

impl Proving {
    /// The client-final-message's proof: PBKDF2 with as many iterations as the
    /// server wishes, up to a hundred thousand. Takes milliseconds; not to be
    /// done on a thread that others wait for.
    pub(crate) fn prove(mut self, server_first: &[u8]) -> Result<Self, NoLogin> {
        match self.scram.update(server_first) {
            Ok(()) => Ok(self),
            Err(why) => Err(NoLogin::Scram(why.to_string())),
        }
    }
}

/// Why there is no login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoLogin {
    /// Nothing under `credentials`.
    #[error("target `{target}` has no `credentials` entry for workload `{workload}`; add one")]
    NoCredential {
        /// Target.
        target: String,
        /// Workload.
        workload: String,
    },
    /// Asked out of order.
    #[error("no login has begun on connection {0}")]
    NotBegun(ConnectionId),
    /// There is no password.
    #[error("the server asks for a password, but the credential has none; add `password`")]
    NoPassword,
    /// It would go to whoever answers.
    #[error(
        "the server asks for the password itself; it is sent only over `tls.upstream = \"verify-full\"`"
    )]
    Unverified,
    /// SCRAM went wrong. Says nothing of the password.
    #[error("SCRAM-SHA-256 with the server failed: {0}")]
    Scram(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} logins, ..)", self.logins.len())
    }
}

impl Credentials {
    /// Uses other secrets from now; logins that have begun go on with theirs.
    pub(crate) fn replace(&mut self, secrets: Secrets) {
        self.secrets = secrets;
    }

    /// The key of a target with a certificate of its own.
    pub(crate) fn key_of(&self, target: &str) -> Option<&SecretString> {
        self.secrets.keys.get(target)
    }

    /// The password for ClickHouse.
    pub(crate) fn clickhouse(&self) -> Option<String> {
        self.secrets
            .clickhouse
            .as_ref()
            .map(|secret| secret.expose_secret().to_owned())
    }

    /// How many passwords there are.
    pub(crate) fn count(&self) -> usize {
        self.secrets
            .passwords
            .values()
            .map(|by_workload| by_workload.len())
            .sum()
    }

    /// The role and password of `workload` at `target`.
    pub(crate) fn find(
        &self,
        workload: &str,
        target: &Target,
    ) -> Result<(String, Option<SecretString>), NoLogin> {
        let entry = target
            .credentials
            .iter()
            .find(|credential| credential.workload == workload)
            .ok_or_else(|| NoLogin::NoCredential {
                target: target.name.clone(),
                workload: workload.to_owned(),
            })?;
        let password = self
            .secrets
            .passwords
            .get(&target.name)
            .and_then(|by| by.get(workload))
            .cloned();
        Ok((entry.user.clone(), password))
    }

    /// Begins a login.
    pub(crate) fn login(
        &mut self,
        connection: ConnectionId,
        workload: &str,
        target: &Target,
    ) -> Result<Reply, NoLogin> {
        let (user, password) = self.find(workload, target)?;
        let auth = match password {
            Some(_) => UpstreamAuth::Password,
            None => UpstreamAuth::None,
        };
        self.begun += 1;
        self.logins.insert(
            connection,
            Login {
                number: self.begun,
                user: user.clone(),
                password,
                verified_only: target.tls.upstream == UpstreamTls::VerifyFull,
                scram: None,
            },
        );
        Ok(Reply::Login(LoginPlan { user, auth }))
    }

    /// The client-first-message.
    pub(crate) fn scram_start(
        &mut self,
        connection: ConnectionId,
        channel_binding: Option<Vec<u8>>,
        binding_unoffered: bool,
    ) -> Result<Reply, NoLogin> {
        let login = self.begun(connection)?;
        let password = login.password.as_ref().ok_or(NoLogin::NoPassword)?;
        let binding = match channel_binding {
            Some(data) => ChannelBinding::tls_server_end_point(data),
            None if binding_unoffered => ChannelBinding::unrequested(),
            None => ChannelBinding::unsupported(),
        };
        let scram = ScramSha256::new(password.expose_secret().as_bytes(), binding);
        let first = scram.message().to_vec();
        login.scram = Some(scram);
        Ok(Reply::Sasl(first))
    }

    /// Takes the exchange out, to be proven.
    pub(crate) fn scram_take(&mut self, connection: ConnectionId) -> Result<Proving, NoLogin> {
        let login = self.begun(connection)?;
        let scram = login.scram.take().ok_or(NoLogin::NotBegun(connection))?;
        Ok(Proving {
            connection,
            number: login.number,
            scram,
        })
    }

    /// The client-final-message of a proven exchange.
    pub(crate) fn scram_proven(&mut self, proving: Proving) -> Result<Reply, NoLogin> {
        let Proving {
            connection,
            number,
            scram,
        } = proving;
        let login = self.begun(connection)?;
        if login.number != number || login.scram.is_some() {
            return Err(NoLogin::NotBegun(connection));
        }
        let reply = Reply::Sasl(scram.message().to_vec());
        login.scram = Some(scram);
        Ok(reply)
    }

    /// Whether the server has proven that it knows the password.
    pub(crate) fn scram_finish(
        &mut self,
        connection: ConnectionId,
        server_final: &[u8],
    ) -> Result<Reply, NoLogin> {
        let scram = self.begun(connection)?.scram.take();
        let mut scram = scram.ok_or(NoLogin::NotBegun(connection))?;
        scram
            .finish(server_final)
            .map_err(|why| NoLogin::Scram(why.to_string()))?;
        self.logins.remove(&connection);
        Ok(Reply::Verified)
    }

    /// The password itself, or its MD5 form (which is as good as it).
    pub(crate) fn password(
        &mut self,
        connection: ConnectionId,
        md5_salt: Option<[u8; 4]>,
        tls_verified: bool,
    ) -> Result<Reply, NoLogin> {
        if !tls_verified {
            return Err(NoLogin::Unverified);
        }
        let login = self.begun(connection)?;
        // The proxy's word alone is not enough.
        if !login.verified_only {
            return Err(NoLogin::Unverified);
        }
        let password = login
            .password
            .as_ref()
            .ok_or(NoLogin::NoPassword)?
            .expose_secret();
        let secret = match md5_salt {
            Some(salt) => md5_hash(login.user.as_bytes(), password.as_bytes(), salt).into_bytes(),
            None => password.as_bytes().to_vec(),
        };
        self.logins.remove(&connection);
        Ok(Reply::Secret(SecretBytes::from(secret)))
    }

    /// The connection has ended.
    pub(crate) fn release(&mut self, connection: ConnectionId) {
        self.logins.remove(&connection);
    }

    /// Forgets the logins of all other connections.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(ConnectionId) -> bool) {
        self.logins.retain(|connection, _| keep(*connection));
    }

    fn begun(&mut self, connection: ConnectionId) -> Result<&mut Login, NoLogin> {
        self.logins
            .get_mut(&connection)
            .ok_or(NoLogin::NotBegun(connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attested::tests::bundle;

    const ONE: ConnectionId = ConnectionId(1);

    fn credentials() -> Credentials {
        let secrets =
            r#"{"passwords":{"orders-db":{"report":"hunter2"}},"keys":{},"clickhouse":null}"#;
        let mut credentials = Credentials::default();
        credentials.replace(serde_json::from_str(secrets).unwrap());
        credentials
    }

    #[test]
    fn a_password_is_given_over_verified_tls_only() {
        let bundle = bundle();
        let target = &bundle.config.targets[0];
        for salt in [None, Some([1, 2, 3, 4])] {
            let mut credentials = credentials();
            assert_eq!(
                credentials.password(ONE, salt, true).unwrap_err(),
                NoLogin::NotBegun(ONE)
            );
            credentials.login(ONE, "report", target).unwrap();
            assert_eq!(
                credentials.password(ONE, salt, false).unwrap_err(),
                NoLogin::Unverified
            );
            let reply = credentials.password(ONE, salt, true).unwrap();
            assert!(matches!(reply, Reply::Secret(_)));
            assert!(
                credentials.password(ONE, salt, true).is_err(),
                "once per login"
            );
        }
    }

    #[test]
    fn the_proxy_cannot_claim_what_the_configuration_does_not_ask_for() {
        for upstream in [UpstreamTls::Disable, UpstreamTls::VerifyCa] {
            let mut target = bundle().config.targets[0].clone();
            target.tls.upstream = upstream;
            let mut credentials = credentials();
            credentials.login(ONE, "report", &target).unwrap();
            let claimed = credentials.password(ONE, None, true);
            assert_eq!(claimed.unwrap_err(), NoLogin::Unverified);
        }
    }

    #[test]
    fn a_login_that_began_anew_is_not_finished_by_an_older_proof() {
        let bundle = bundle();
        let mut credentials = credentials();
        let target = &bundle.config.targets[0];
        let begin = |credentials: &mut Credentials| {
            credentials.login(ONE, "report", target).unwrap();
            let Reply::Sasl(first) = credentials.scram_start(ONE, None, false).unwrap() else {
                panic!("no SASL message")
            };
            let first = String::from_utf8(first).unwrap();
            first.split_once("r=").unwrap().1.to_owned()
        };
        let nonce = begin(&mut credentials);
        let older = credentials.scram_take(ONE).unwrap();
        let server_first = format!("r={nonce}x,s=c2FsdHNhbHQ=,i=4096");
        let older = older.prove(server_first.as_bytes()).unwrap();
        begin(&mut credentials);
        let late = credentials.scram_proven(older);
        assert_eq!(late.unwrap_err(), NoLogin::NotBegun(ONE));
    }

    #[test]
    fn a_server_cannot_make_keeper_count_for_ever() {
        let bundle = bundle();
        let mut credentials = credentials();
        credentials
            .login(ONE, "report", &bundle.config.targets[0])
            .unwrap();
        let Reply::Sasl(first) = credentials.scram_start(ONE, None, false).unwrap() else {
            panic!("no SASL message")
        };
        let first = String::from_utf8(first).unwrap();
        let nonce = first.split_once("r=").unwrap().1;
        let server_first = format!("r={nonce}x,s=c2FsdHNhbHQ=,i=4294967295");
        let proving = credentials.scram_take(ONE).unwrap();
        let result = proving.prove(server_first.as_bytes());
        assert!(matches!(result, Err(NoLogin::Scram(_))));
    }

    #[test]
    fn another_workload_or_target_has_no_login() {
        let bundle = bundle();
        let mut credentials = credentials();
        let missing = credentials.login(ONE, "stranger", &bundle.config.targets[0]);
        assert!(matches!(missing, Err(NoLogin::NoCredential { .. })));
        let missing = credentials.login(ONE, "report", &bundle.config.targets[1]);
        assert!(matches!(missing, Err(NoLogin::NoCredential { .. })));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let bundle = bundle();
        let mut credentials = credentials();
        credentials
            .login(ONE, "report", &bundle.config.targets[0])
            .unwrap();
        let Reply::Sasl(first) = credentials.scram_start(ONE, None, false).unwrap() else {
            panic!("no SASL message")
        };
        let first = String::from_utf8(first).unwrap();
        let nonce = first.split_once("r=").unwrap().1.to_owned();
        let server_first = format!("r={nonce}server,s=c2FsdHNhbHQ=,i=4096");
        let proving = credentials.scram_take(ONE).unwrap();
        let proving = proving.prove(server_first.as_bytes()).unwrap();
        credentials.scram_proven(proving).unwrap();
        let forged = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let result = credentials.scram_finish(ONE, forged);
        assert!(matches!(result, Err(NoLogin::Scram(_))), "{result:?}");
    }

    #[test]
    fn nothing_that_is_printed_holds_a_password() {
        let bundle = bundle();
        let mut credentials = credentials();
        credentials
            .login(ONE, "report", &bundle.config.targets[0])
            .unwrap();
        let secret = credentials.password(ONE, None, true).unwrap();
        let printed = format!("{credentials:?} {secret:?} {:?}", credentials.secrets);
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
