use std::sync::Arc;

use lockgate_command::{ConnectionId, TargetName};
use lockgate_ipc::{Dialogue, LeafKey, Reply};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::links::{KeeperError, KeeperLink};

/// Why a client did not get its TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    /// The client did not speak TLS, or refused what it was shown. A client
    /// that verifies needs the host CA in its trust store.
    #[error("TLS with the client failed: {0}")]
    Handshake(#[from] std::io::Error),
    /// No certificate to show.
    #[error("no certificate for the client: {0}")]
    Keeper(#[from] KeeperError),
    /// keeper's certificate or key cannot be used.
    #[error("the certificate for the client cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// TLS from the first byte on, without the protocol's name.
    #[error("direct TLS without ALPN protocol `{0}`")]
    Alpn(&'static str),
}

/// TLS as the server the client wanted to reach. With `alpn_required` the
/// client must have named `alpn`; it is offered in any case.
pub(crate) async fn accept(
    socket: TcpStream,
    keeper: &KeeperLink,
    connection: ConnectionId,
    target: &TargetName,
    alpn: &'static str,
    alpn_required: bool,
) -> Result<TlsStream<TcpStream>, AcceptError> {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket);
    let start = acceptor.await?;
    let server_name = start.client_hello().server_name().map(str::to_owned);
    let ask = Dialogue::Leaf {
        connection,
        target: target.clone(),
        server_name,
    };
    let leaf = match keeper.ask(ask).await? {
        (Reply::Leaf(leaf), _) => leaf,
        _ => return Err(KeeperError::Unexpected.into()),
    };
    let config = server_config(leaf, alpn)?;
    let stream = start.into_stream(Arc::new(config)).await?;
    if alpn_required && stream.get_ref().1.alpn_protocol() != Some(alpn.as_bytes()) {
        return Err(AcceptError::Alpn(alpn));
    }
    Ok(stream)
}

fn server_config(leaf: LeafKey, alpn: &'static str) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = leaf.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.key.expose().to_vec()));
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyClient(provider)))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    // Each connection has its own configuration, so tickets could not be
    // redeemed; do not send any.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Requests a client certificate and accepts whatever comes. The kernel has
/// said who is calling; a client that insists on being asked is asked.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
