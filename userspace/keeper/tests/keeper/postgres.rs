//! The PostgreSQL server that keeper logs in to.

use std::net::SocketAddr;

use lockgate_tests::{Postgres, PostgresConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::agent::PASSWORD;

/// A server with TLS and a database `shop` without tables.
pub struct Server {
    pub address: SocketAddr,
    /// PEM of the CA that signed its certificate, which names `db.internal`.
    pub ca: String,
    /// DER.
    pub certificate: Vec<u8>,
    postgres: Postgres,
}

impl Server {
    /// With the roles `report` (SCRAM), `old` (MD5) and `older` (cleartext),
    /// all with [`PASSWORD`].
    pub fn start() -> Self {
        let config = PostgresConfig {
            hba: "host all old all md5\n\
                  host all older all password\n\
                  host all all all scram-sha-256\n"
                .into(),
            settings: "log_connections = on".into(),
            tls_name: Some("db.internal".into()),
            shop: "",
        };
        let postgres = Postgres::start(&config).expect("a server");
        let certificate = CertificateDer::from_pem_file(postgres.data().join("server.crt"));
        let server = Self {
            address: SocketAddr::new(postgres.address().parse().expect("an address"), 5432),
            ca: std::fs::read_to_string(postgres.ca()).expect("a CA"),
            certificate: certificate.expect("a certificate").to_vec(),
            postgres,
        };
        server.sql(&format!(
            "create role report login password '{PASSWORD}';
             create role older login password '{PASSWORD}';
             set password_encryption = 'md5';
             create role old login password '{PASSWORD}'"
        ));
        server
    }

    pub fn sql(&self, sql: &str) {
        self.sql_in("postgres", sql);
    }

    pub fn sql_in(&self, database: &str, sql: &str) {
        self.postgres.admin(database, sql).expect("it works");
    }

    /// What the server has logged until now.
    pub fn log(&self) -> String {
        self.postgres.log()
    }
}
