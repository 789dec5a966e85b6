use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Namespace, Output, run, sh};

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Lines of pg_hba.conf for TCP.
    pub hba: String,
    /// Further lines of postgresql.conf.
    pub settings: String,
    /// Offer TLS with a certificate for this name, by a CA of the test's.
    pub tls_name: Option<String>,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            hba: "host all all all scram-sha-256\n".into(),
            settings: String::new(),
            tls_name: None,
        }
    }
}

/// A real PostgreSQL in a namespace, with the database `shop` and roles whose
/// password is `s3cret-` and their name. Superuser access goes past the network
/// by a unix socket: tests ask the server itself what happened.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    namespace: Namespace,
}

/// Where Debian has the newest server.
pub(crate) fn bin() -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .context("no PostgreSQL here; run `cargo xtask setup`")?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    found.sort();
    found
        .pop()
        .context("no PostgreSQL here; run `cargo xtask setup`")
}

/// A cluster that was initialised once and is copied for each server.
fn template() -> Result<&'static Path> {
    static TEMPLATE: OnceLock<Result<TempDir, String>> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let make = || {
            let dir = tempfile::Builder::new().prefix(&format!("lockgate-pg-template-{}-", std::process::id())).tempdir()?;
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
            let (at, bin) = (dir.path().display(), bin()?);
            sh(&format!(
                "mkdir {at}/data; chown postgres {at}/data
                 runuser -u postgres -- {}/initdb -D {at}/data -A trust -U postgres -E UTF8 --no-locale -N >/dev/null",
                bin.display()
            ))?;
            Ok::<_, anyhow::Error>(dir)
        };
        make().map_err(|error| format!("{error:#}"))
    });
    match made {
        Ok(dir) => Ok(dir.path()),
        Err(error) => bail!("{error}"),
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
        let dir = tempfile::Builder::new().prefix("lockgate-pg-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let at = dir.path().display();
        sh(&format!(
            "cp -a {}/data {at}/data; mkdir {at}/socket; chown postgres {at}/socket",
            template()?.display()
        ))?;
        let data = dir.path().join("data");
        fs::write(
            data.join("pg_hba.conf"),
            format!("local all all trust\n{}", config.hba),
        )?;
        let tls = match &config.tls_name {
            None => "",
            Some(name) => {
                make_certificates(dir.path(), name)?;
                "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n"
            }
        };
        let mut settings = fs::read_to_string(data.join("postgresql.conf"))?;
        settings.push_str(&format!(
            "\nlisten_addresses = '*'\nport = 5432\nunix_socket_directories = '{at}/socket'\nfsync = off\nmax_connections = 200\n{tls}{}\n",
            config.settings
        ));
        fs::write(data.join("postgresql.conf"), settings)?;
        let server = Self { dir, namespace };
        server.control("start")?;
        server.admin("postgres", "create database shop")?;
        server.admin("shop", SHOP)?;
        Ok(server)
    }

    fn control(&self, what: &str) -> Result<()> {
        let at = self.dir.path().display();
        let started = sh(&format!(
            "ip netns exec {} runuser -u postgres -- {}/pg_ctl -D {at}/data -l {at}/socket/log -w -t 30 -m fast {what} >/dev/null",
            self.namespace.name(),
            bin()?.display()
        ));
        started.with_context(|| self.log()).map(drop)
    }

    /// Stops it; [`Postgres::resume`] starts it again.
    pub fn stop(&self) -> Result<()> {
        self.control("stop")
    }

    /// Starts it again.
    pub fn resume(&self) -> Result<()> {
        self.control("start")
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

    /// The folder of its socket, which is its own user's.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The CA that signed its certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Runs SQL as the superuser, past the network; what it returns, unaligned.
    pub fn admin(&self, database: &str, sql: &str) -> Result<String> {
        let output = self.admin_output(database, sql)?;
        if !output.ok() {
            bail!("`{sql}` failed: {}", output.stderr);
        }
        Ok(output.stdout.trim().to_owned())
    }

    fn admin_output(&self, database: &str, sql: &str) -> Result<Output> {
        run(Command::new("psql")
            .args([
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                database,
                "-h",
            ])
            .arg(self.dir.path().join("socket"))
            .args(["-c", sql]))
    }

    /// How many rows a table of `shop` has.
    pub fn count(&self, table: &str) -> Result<u64> {
        Ok(self
            .admin("shop", &format!("select count(*) from {table}"))?
            .parse()?)
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("socket/log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let at = self.dir.path().display();
        if let Ok(bin) = bin() {
            // It may be stopped already.
            let _ = sh(&format!(
                "runuser -u postgres -- {}/pg_ctl -D {at}/data -w -m immediate stop >/dev/null 2>&1 || true",
                bin.display()
            ));
        }
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
