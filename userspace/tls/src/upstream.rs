use std::net::IpAddr;
use std::sync::Arc;

use lockgate_config::{TargetTls, UpstreamTls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why TLS towards a target cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// The configured CA file has no usable certificate.
    #[error("`tls.ca` of the target cannot be used: {0}")]
    Ca(String),
    /// rustls refused the settings.
    #[error("TLS settings of the target cannot be used: {0}")]
    Settings(#[from] rustls::Error),
    /// `verify-full` needs a name to verify.
    #[error("`{0}` is not a name a certificate can carry; set `tls.server_name`")]
    Name(String),
    /// The server failed, or its certificate was refused.
    #[error("TLS with the server failed: {0}")]
    Handshake(#[from] std::io::Error),
}

/// TLS towards one target, by its `tls.upstream`.
#[derive(Clone)]
pub struct Upstream {
    connector: Option<TlsConnector>,
    server_name: Option<String>,
    verifies_name: bool,
}

impl Upstream {
    /// From the configuration and the CA file's PEM text; `alpn` is the name
    /// the protocol goes by.
    pub fn new(
        tls: &TargetTls,
        ca: Option<&str>,
        alpn: Option<&str>,
    ) -> Result<Self, UpstreamTlsError> {
        if tls.upstream == UpstreamTls::Disable {
            return Ok(Self {
                connector: None,
                server_name: None,
                verifies_name: false,
            });
        }
        let mut roots = RootCertStore::empty();
        let pem = ca.ok_or_else(|| UpstreamTlsError::Ca("it is not set".into()))?;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|why| UpstreamTlsError::Ca(why.to_string()))?;
            roots.add(certificate)?;
        }
        if roots.is_empty() {
            return Err(UpstreamTlsError::Ca("it holds no certificate".into()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifies_name = tls.upstream == UpstreamTls::VerifyFull;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|why| UpstreamTlsError::Ca(why.to_string()))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier {
                verifier,
                verifies_name,
            }))
            .with_no_client_auth();
        config.alpn_protocols = alpn
            .map(|name| name.as_bytes().to_vec())
            .into_iter()
            .collect();
        Ok(Self {
            connector: Some(TlsConnector::from(Arc::new(config))),
            server_name: tls.server_name.clone(),
            verifies_name,
        })
    }

    /// Whether this target is spoken to over TLS.
    pub fn is_on(&self) -> bool {
        self.connector.is_some()
    }

    /// Whether the server's certificate is verified in full, so that it may be
    /// shown a password.
    pub fn verifies_in_full(&self) -> bool {
        self.is_on() && self.verifies_name
    }

    /// TLS over `socket`. The name to verify is `tls.server_name`, else the
    /// DNS name the target was matched by, else the address.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        matched_name: Option<&str>,
        address: IpAddr,
    ) -> Result<TlsStream<S>, UpstreamTlsError> {
        let Some(connector) = &self.connector else {
            return Err(UpstreamTlsError::Ca(
                "TLS is disabled for this target".into(),
            ));
        };
        let name = match self.server_name.as_deref().or(matched_name) {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| UpstreamTlsError::Name(name.to_owned()))?,
            None => ServerName::IpAddress(address.into()),
        };
        Ok(connector.connect(name, socket).await?)
    }
}

/// The chain is always verified; the name where `verify-full` asks for it.
#[derive(Debug)]
struct Verifier {
    verifier: Arc<WebPkiServerVerifier>,
    verifies_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match result {
            // webpki looks at the name only after the chain has been verified.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.verifies_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
