use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{Cluster, Namespace, sh};

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Lines of pg_hba.conf for TCP.
    pub hba: String,
    /// Further lines of postgresql.conf.
    pub settings: String,
    /// Offer TLS with a certificate for this name, by a CA of the test's.
    pub tls_name: Option<String>,
    /// What the database `shop` is made of.
    pub shop: &'static str,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            hba: "host all all all scram-sha-256\n".into(),
            settings: String::new(),
            tls_name: None,
            shop: SHOP,
        }
    }
}

/// A real PostgreSQL in a namespace, with the database `shop` and roles whose
/// password is `s3cret-` and their name. Superuser access goes past the network
/// by a unix socket: tests ask the server itself what happened.
#[derive(Debug)]
pub struct Postgres {
    // Ended before the namespace that it is in.
    cluster: Cluster,
    namespace: Namespace,
}

impl Deref for Postgres {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

const SHOP: &str = "
create table orders(id int primary key, item text not null, qty int not null default 1);
insert into orders select g, 'item ' || g, g from generate_series(1, 10) g;
create table customers(id int primary key, name text not null, ssn text not null);
insert into customers values (1, 'Ann', '123-45-6789'), (2, 'Bob', '987-65-4321');
create view customer_names as select id, name from customers;
create function price(int) returns int language sql as 'select $1 * 10';
create function wipe() returns int language plpgsql as 'begin delete from orders; return 1; end';
create role report_ro login password 's3cret-report_ro';
create role app_rw login password 's3cret-app_rw';
create role owner login password 's3cret-owner';
grant all on all tables in schema public to report_ro, app_rw, owner;
grant create on schema public to owner;
";

impl Postgres {
    /// Starts one in a namespace of its own.
    pub fn start(config: &PostgresConfig) -> Result<Self> {
        Self::start_in(Namespace::new()?, config)
    }

    /// Starts one in `namespace`, on port 5432 of its addresses.
    pub fn start_in(namespace: Namespace, config: &PostgresConfig) -> Result<Self> {
        let cluster = Cluster::make(Some(namespace.name().to_owned()))?;
        let tls = match &config.tls_name {
            None => "",
            Some(name) => {
                make_certificates(cluster.dir(), name)?;
                "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n"
            }
        };
        let settings = format!(
            "listen_addresses = '*'\nport = 5432\n{tls}{}\n",
            config.settings
        );
        cluster.configure(&config.hba, &settings)?;
        cluster.resume()?;
        cluster.admin("postgres", "create database shop")?;
        cluster.admin("shop", config.shop)?;
        Ok(Self { cluster, namespace })
    }

    /// Address of the server.
    pub fn address(&self) -> &str {
        &self.namespace.address
    }

    /// The same in IPv6.
    pub fn address6(&self) -> &str {
        &self.namespace.address6
    }

    /// Where it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The CA that signed its certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir().join("ca.crt")
    }

    /// How many rows a table of `shop` has.
    pub fn count(&self, table: &str) -> Result<u64> {
        Ok(self
            .admin("shop", &format!("select count(*) from {table}"))?
            .parse()?)
    }
}

fn make_certificates(dir: &Path, name: &str) -> Result<()> {
    let at = dir.display();
    sh(&format!(
        "cd {at}
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=test CA' -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt 2>/dev/null
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN={name}' -keyout data/server.key -out server.csr 2>/dev/null
         printf 'subjectAltName=DNS:{name}\\nbasicConstraints=CA:FALSE\\n' > ext
         openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out data/server.crt 2>/dev/null
         chown postgres data/server.key data/server.crt; chmod 600 data/server.key"
    ))
    .map(drop)
}
