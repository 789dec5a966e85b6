use std::rc::Rc;

use lockgate_ipc::{Dialogue, LoginPlan, Reply, UpstreamAuth};
use lockgate_wire_postgres::{
    LoginDone, LoginEvent, LoginRequest, Mechanism, StartupMessage, UpstreamLogin,
};

use super::error::StartupError;
use crate::links::KeeperError;
use crate::stream::{Side, Stream, to_tokio};
use crate::tls;
use crate::worker::{Intercepted, Worker};

/// Asked after login, and whenever it may have changed: the database, the role, the schemas that unqualified
/// names are looked up in. Everything in it is qualified, so that nobody's own
/// function answers.
pub(super) const NAMES: &str = "SELECT pg_catalog.current_database(), CURRENT_USER, \
     pg_catalog.to_json(pg_catalog.current_schemas(true))::pg_catalog.text";

/// Parameters of the client's startup that lockgate sets itself, or never
/// passes on.
const OWN_PARAMETERS: [&str; 4] = [
    "user",
    "database",
    "replication",
    "standard_conforming_strings",
];

/// Opens the server's socket.
pub(super) async fn dial(
    worker: &Rc<Worker>,
    intercepted: &Intercepted,
) -> Result<Side, StartupError> {
    let socket = worker.shared.gate.dial(intercepted.connection).await?;
    let socket = to_tokio(socket).map_err(StartupError::Server)?;
    Ok(Side::new(Stream::Plain(socket)))
}

/// Asks the server for TLS (SSLRequest) and verifies it. Used where there is
/// no login, that is for cancel requests.
pub(super) async fn start_tls(
    intercepted: &Intercepted,
    mut server: Side,
) -> Result<Side, StartupError> {
    server
        .output
        .extend_from_slice(&lockgate_wire_postgres::ssl_request());
    server.flush().await.map_err(StartupError::Server)?;
    while server.input.is_empty() {
        if !server.receive().await.map_err(StartupError::Server)? {
            return Err(StartupError::ServerGone);
        }
    }
    match &server.input[..] {
        b"S" => encrypt(intercepted, server).await,
        _ => Err(StartupError::ServerWithoutTls),
    }
}

async fn encrypt(intercepted: &Intercepted, server: Side) -> Result<Side, StartupError> {
    // What came in clear behind the answer was not sent by whom TLS verifies.
    let (Stream::Plain(socket), true) = (server.stream, server.input.len() <= 1) else {
        return Err(StartupError::ServerWithoutTls);
    };
    let name = intercepted.matched_name.as_deref();
    let address = intercepted.origin.original.ip();
    let tls = intercepted
        .target
        .upstream
        .connect(socket, name, address)
        .await?;
    Ok(Side::new(Stream::Client(Box::new(tls))))
}

/// A session at the server, and the name rules it began with.
pub(super) struct Established {
    /// The server.
    pub(super) server: Side,
    /// What the server said at login.
    pub(super) done: LoginDone,
}

/// Logs in at the server with the credential keeper has for this workload at
/// this target. What the client knows of passwords plays no part.
pub(super) async fn log_in(
    worker: &Rc<Worker>,
    intercepted: &Intercepted,
    message: &StartupMessage,
) -> Result<Established, StartupError> {
    let connection = intercepted.connection;
    let keeper = &worker.shared.keeper;
    let ask = Dialogue::Login {
        connection,
        target: intercepted.target.name.clone(),
    };
    let plan = match keeper.ask(ask).await.map_err(StartupError::Login)? {
        (Reply::Login(plan), _) => plan,
        _ => return Err(StartupError::Login(KeeperError::Unexpected)),
    };
    let server = dial(worker, intercepted).await?;
    let request = request(intercepted, message, &plan);
    let mut driver = Driver {
        worker,
        intercepted,
        plan,
        server,
        login: UpstreamLogin::new(request),
    };
    driver.login.start(&mut driver.server.output);
    driver.run().await
}

fn request(intercepted: &Intercepted, message: &StartupMessage, plan: &LoginPlan) -> LoginRequest {
    let mut parameters: Vec<(String, String)> = message
        .parameters()
        .iter()
        .filter(|(name, _)| !OWN_PARAMETERS.contains(&name.as_str()) && !name.starts_with("_pq_."))
        .cloned()
        .collect();
    // In the startup message it is the value that RESET goes back to, and it
    // outranks what the role, the database or `options` say.
    parameters.push(("standard_conforming_strings".into(), "on".into()));
    LoginRequest {
        tls: intercepted.target.upstream.is_on(),
        user: plan.user.clone(),
        // The client's own user names its default database, as at the server.
        database: message.database().to_owned(),
        parameters,
        setup: vec![NAMES.to_owned()],
    }
}

struct Driver<'a> {
    worker: &'a Rc<Worker>,
    intercepted: &'a Intercepted,
    plan: LoginPlan,
    server: Side,
    login: UpstreamLogin,
}

impl Driver<'_> {
    async fn run(mut self) -> Result<Established, StartupError> {
        loop {
            let event = self
                .login
                .feed(&mut self.server.input, &mut self.server.output)
                .map_err(StartupError::ServerProtocol)?;
            match event {
                LoginEvent::NeedMore => self.receive().await?,
                LoginEvent::StartTls => {
                    self.server = encrypt(self.intercepted, self.server).await?;
                    self.login.tls_done(&mut self.server.output);
                }
                LoginEvent::TlsRefused => return Err(StartupError::ServerWithoutTls),
                LoginEvent::NeedScram { plus_offered } => self.scram_start(plus_offered).await?,
                LoginEvent::ScramContinue(server_first) => {
                    let connection = self.intercepted.connection;
                    let server_first = server_first.to_vec();
                    let ask = Dialogue::ScramContinue {
                        connection,
                        server_first,
                    };
                    let answer = self.ask_sasl(ask).await?;
                    self.login.sasl_response(&answer, &mut self.server.output);
                }
                LoginEvent::ScramFinal(server_final) => self.scram_finish(&server_final).await?,
                LoginEvent::NeedPassword { md5_salt } => self.password(md5_salt).await?,
                LoginEvent::Ready(done) => {
                    return Ok(Established {
                        server: self.server,
                        done,
                    });
                }
                LoginEvent::Failed(fields) => {
                    return Err(StartupError::ServerRefused(Box::new(fields)));
                }
            }
        }
    }

    /// Sends what waits, and waits for the server's next bytes.
    async fn receive(&mut self) -> Result<(), StartupError> {
        self.server.flush().await.map_err(StartupError::Server)?;
        match self.server.receive().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StartupError::ServerGone),
            Err(error) => Err(StartupError::Server(error)),
        }
    }

    async fn scram_start(&mut self, plus_offered: bool) -> Result<(), StartupError> {
        self.expect_password()?;
        let binding = self.server_end_point();
        let plus = plus_offered && binding.is_some();
        let ask = Dialogue::ScramStart {
            connection: self.intercepted.connection,
            binding_unoffered: binding.is_some() && !plus_offered,
            channel_binding: binding.filter(|_| plus),
        };
        let first = self.ask_sasl(ask).await?;
        let mechanism = match plus {
            true => Mechanism::ScramSha256Plus,
            false => Mechanism::ScramSha256,
        };
        self.login
            .sasl_initial(mechanism, &first, &mut self.server.output);
        Ok(())
    }

    async fn scram_finish(&mut self, server_final: &[u8]) -> Result<(), StartupError> {
        let ask = Dialogue::ScramFinish {
            connection: self.intercepted.connection,
            server_final: server_final.to_vec(),
        };
        match self
            .worker
            .shared
            .keeper
            .ask(ask)
            .await
            .map_err(StartupError::Login)?
        {
            (Reply::Verified, _) => {
                self.login.sasl_verified();
                Ok(())
            }
            _ => Err(StartupError::Login(KeeperError::Unexpected)),
        }
    }

    async fn password(&mut self, md5_salt: Option<[u8; 4]>) -> Result<(), StartupError> {
        self.expect_password()?;
        let tls_verified = matches!(self.server.stream, Stream::Client(_))
            && self.intercepted.target.upstream.verifies_in_full();
        let connection = self.intercepted.connection;
        let ask = Dialogue::Password {
            connection,
            md5_salt,
            tls_verified,
        };
        match self
            .worker
            .shared
            .keeper
            .ask(ask)
            .await
            .map_err(StartupError::Login)?
        {
            (Reply::Secret(secret), _) => {
                self.login
                    .password(secret.expose(), &mut self.server.output);
                Ok(())
            }
            _ => Err(StartupError::Login(KeeperError::Unexpected)),
        }
    }

    async fn ask_sasl(&self, ask: Dialogue) -> Result<Vec<u8>, StartupError> {
        match self
            .worker
            .shared
            .keeper
            .ask(ask)
            .await
            .map_err(StartupError::Login)?
        {
            (Reply::Sasl(bytes), _) => Ok(bytes),
            _ => Err(StartupError::Login(KeeperError::Unexpected)),
        }
    }

    fn expect_password(&self) -> Result<(), StartupError> {
        match self.plan.auth {
            UpstreamAuth::Password => Ok(()),
            UpstreamAuth::None => Err(StartupError::NoPassword),
        }
    }

    fn server_end_point(&self) -> Option<Vec<u8>> {
        match &self.server.stream {
            Stream::Client(tls) => {
                let certificates = tls.get_ref().1.peer_certificates()?;
                tls::server_end_point(certificates.first()?)
            }
            Stream::Plain(_) | Stream::Server(_) => None,
        }
    }
}
