use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer, X509Certificate};

/// `tls-server-end-point` channel binding data (RFC 5929 section 4.1): the
/// certificate's hash by the hash function of its signature algorithm, SHA-256
/// where that is MD5 or SHA-1. None where the algorithm names no single hash
/// function (Ed25519, RSASSA-PSS), as in PostgreSQL, which then refuses to bind.
pub(crate) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let signature = &parsed.signature_algorithm.algorithm;
    let hash: &'static Algorithm = if *signature == oid::OID_PKCS1_MD5WITHRSAENC
        || *signature == oid::OID_PKCS1_SHA1WITHRSA
        || *signature == oid::OID_PKCS1_SHA256WITHRSA
        || *signature == oid::OID_SIG_ECDSA_WITH_SHA256
    {
        &SHA256
    } else if *signature == oid::OID_PKCS1_SHA384WITHRSA
        || *signature == oid::OID_SIG_ECDSA_WITH_SHA384
    {
        &SHA384
    } else if *signature == oid::OID_PKCS1_SHA512WITHRSA
        || *signature == oid::OID_SIG_ECDSA_WITH_SHA512
    {
        &SHA512
    } else {
        return None;
    };
    Some(digest(hash, certificate).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_algorithm_chooses_the_hash() {
        for (algorithm, length) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let params = rcgen::CertificateParams::new(vec!["db.internal".into()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let data = server_end_point(certificate.der());
            assert_eq!(data.map(|data| data.len()), length);
        }
    }

    #[test]
    fn what_is_no_certificate_binds_nothing() {
        assert_eq!(server_end_point(b"not a certificate"), None);
    }
}
