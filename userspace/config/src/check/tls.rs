use std::fs;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret;

use super::Check;
use crate::guarded::{Complaint, read_secret};
use crate::{Host, Protocol, Target, UpstreamTls};

impl Check<'_> {
    pub(super) fn tls(&mut self, target: &Target, at: &str) {
        let tls = &target.tls;
        if target.protocol == Protocol::Tcp && *tls != Default::default() {
            let message = format!(
                "target `{}` is opaque: its TLS is between client and server",
                target.name
            );
            self.error(&["target", at, "tls"], message, "remove `tls`");
            return;
        }
        if tls.upstream == UpstreamTls::Disable && (tls.ca.is_some() || tls.server_name.is_some()) {
            let message = format!("target `{}` names a CA but verifies nothing", target.name);
            let fix = "set tls.upstream = \"verify-full\"";
            self.error(&["target", at, "tls"], message, fix);
        }
        if tls.upstream != UpstreamTls::Disable && tls.ca.is_none() {
            let message = format!(
                "target `{}` verifies its servers but names no CA",
                target.name
            );
            let fix = "set tls.ca to the PEM file of the CA; for public ones, /etc/ssl/certs/ca-certificates.crt";
            self.error(&["target", at, "tls"], message, fix);
        }
        if let Some(name) = &tls.server_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            let message = format!("`{name}` is no name that a certificate could carry");
            let fix = "write a DNS name or an address, without a port";
            self.error(&["target", at, "tls", "server_name"], message, fix);
        }
        self.name_to_verify(target, at);
        self.certificates(target, at);
    }

    fn name_to_verify(&mut self, target: &Target, at: &str) {
        let tls = &target.tls;
        let named = |host: &Host| matches!(host, Host::Name(_));
        let all_named = target.places.iter().all(|place| named(&place.host));
        if tls.upstream == UpstreamTls::VerifyFull && tls.server_name.is_none() && !all_named {
            let message = format!(
                "the servers of target `{}` must have certificates for their addresses",
                target.name
            );
            let fix = "set tls.server_name where they have names";
            self.warning(&["target", at, "tls"], message, fix);
        }
    }

    fn certificates(&mut self, target: &Target, at: &str) {
        let tls = &target.tls;
        if tls.certificate.is_some() != tls.key.is_some() {
            let message = "`tls.certificate` and `tls.key` go together".to_owned();
            let fix = "set both, or none for a certificate of the host CA";
            self.error(&["target", at, "tls"], message, fix);
        }
        for (key, path) in [("ca", &tls.ca), ("certificate", &tls.certificate)] {
            let Some(path) = path else { continue };
            let place = ["target", at, "tls", key];
            if !self.absolute(&place, path) {
                continue;
            }
            match read_certificates(path) {
                Ok(pem) => {
                    self.bundle.certificates.insert(path.clone(), pem);
                }
                Err(complaint) => self.complain(&place, complaint),
            }
        }
        let Some(path) = &tls.key else { return };
        let place = ["target", at, "tls", "key"];
        if !self.absolute(&place, path) {
            return;
        }
        match read_secret(path) {
            Ok(key) if PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes()).is_ok() => {
                self.secrets.keys.insert(target.name.clone(), key);
            }
            Ok(_) => {
                let message = format!("{} holds no PEM key", path.display());
                let fix = "it has a line -----BEGIN PRIVATE KEY-----, without a passphrase";
                self.error(&place, message, fix);
            }
            Err(complaint) => self.complain(&place, complaint),
        }
    }
}

/// The text of a PEM file with at least one certificate and nothing broken.
fn read_certificates(path: &Path) -> Result<String, Complaint> {
    let shown = path.display();
    let pem = fs::read_to_string(path).map_err(|why| {
        Complaint::new(
            format!("{shown} cannot be read: {why}"),
            "name a PEM file with certificates",
        )
    })?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        if let Err(why) = certificate {
            return Err(Complaint::new(
                format!("{shown} is broken after {count} certificates: {why}"),
                "export it anew, in PEM form",
            ));
        }
        count += 1;
    }
    match count {
        0 => Err(Complaint::new(
            format!("{shown} holds no PEM certificate"),
            "it begins with -----BEGIN CERTIFICATE-----; `openssl x509 -inform der` converts",
        )),
        _ => Ok(pem),
    }
}
