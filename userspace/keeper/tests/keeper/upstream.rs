//! The little of PostgreSQL's protocol that a login needs (PostgreSQL manual,
//! section "Message Flow"), driven by what keeper answers.

use std::net::SocketAddr;
use std::sync::Arc;

use lockgate_command::ConnectionId;
use lockgate_ipc::{Dialogue, LoginPlan, Reply};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::agent::Proxy;

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What a proxy knows of its way to the server.
pub struct Upstream {
    stream: Box<dyn Stream>,
    /// `tls-server-end-point` (RFC 5929), over TLS.
    binding: Option<Vec<u8>>,
    /// What the proxy says about the certificate.
    verified: bool,
}

impl Upstream {
    pub async fn plain(server: SocketAddr) -> Self {
        Self {
            stream: Box::new(TcpStream::connect(server).await.unwrap()),
            binding: None,
            verified: false,
        }
    }

    pub async fn tls(server: SocketAddr, ca: &str, certificate: &[u8]) -> Self {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let request = [0, 0, 0, 8, 4, 210, 22, 47];
        stream.write_all(&request).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'S');
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
            .unwrap();
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("db.internal").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        Self {
            stream: Box::new(stream),
            binding: Some(digest.as_ref().to_vec()),
            verified: true,
        }
    }

    /// Logs in as keeper plans. The error is the server's, or keeper's.
    pub async fn log_in(mut self, proxy: &Proxy, connection: u64) -> Result<Session, String> {
        let plan = match proxy.login(connection).await {
            Reply::Login(plan) => plan,
            Reply::Refused(why) => return Err(why),
            other => panic!("{other:?}"),
        };
        let LoginPlan { user, .. } = &plan;
        let mut startup = Vec::new();
        startup.extend(196_608u32.to_be_bytes());
        startup.extend(format!("user\0{user}\0database\0postgres\0\0").bytes());
        self.send(None, &startup).await;
        let id = ConnectionId(connection);
        loop {
            let (kind, body) = self.receive().await;
            if kind == b'E' {
                return Err(String::from_utf8_lossy(&body).replace('\0', " "));
            }
            if kind != b'R' {
                continue;
            }
            let (code, body) = body.split_at(4);
            let ask = match u32::from_be_bytes(code.try_into().unwrap()) {
                0 => return Ok(Session { upstream: self }),
                3 | 5 => Dialogue::Password {
                    connection: id,
                    md5_salt: body.try_into().ok(),
                    tls_verified: self.verified,
                },
                10 => Dialogue::ScramStart {
                    connection: id,
                    channel_binding: self.binding.clone(),
                    binding_unoffered: false,
                },
                11 => Dialogue::ScramContinue {
                    connection: id,
                    server_first: body.to_vec(),
                },
                12 => Dialogue::ScramFinish {
                    connection: id,
                    server_final: body.to_vec(),
                },
                other => panic!("authentication request {other}"),
            };
            let starts = matches!(ask, Dialogue::ScramStart { .. });
            match proxy.ask(ask).await.0 {
                Reply::Sasl(message) if starts => {
                    let plus = if self.binding.is_some() { "-PLUS" } else { "" };
                    let mut body = format!("SCRAM-SHA-256{plus}\0").into_bytes();
                    body.extend((message.len() as u32).to_be_bytes());
                    body.extend(message);
                    self.send(Some(b'p'), &body).await;
                }
                Reply::Sasl(message) => self.send(Some(b'p'), &message).await,
                Reply::Secret(secret) => {
                    let body = [secret.expose(), b"\0"].concat();
                    self.send(Some(b'p'), &body).await;
                }
                Reply::Verified => {}
                Reply::Refused(why) => return Err(why),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn send(&mut self, kind: Option<u8>, body: &[u8]) {
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        self.stream.write_all(&message).await.unwrap();
    }

    async fn receive(&mut self) -> (u8, Vec<u8>) {
        let kind = self.stream.read_u8().await.unwrap();
        let length = self.stream.read_u32().await.unwrap();
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).await.unwrap();
        (kind, body)
    }
}

/// After AuthenticationOk.
pub struct Session {
    upstream: Upstream,
}

impl Session {
    /// The only value of `sql`'s only row.
    pub async fn value(&mut self, sql: &str) -> String {
        let text = format!("{sql}\0");
        self.upstream.send(Some(b'Q'), text.as_bytes()).await;
        loop {
            let (kind, body) = self.upstream.receive().await;
            match kind {
                b'D' => return String::from_utf8(body[6..].to_vec()).unwrap(),
                b'E' => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }
}
