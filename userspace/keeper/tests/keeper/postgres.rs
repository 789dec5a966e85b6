//! A PostgreSQL server of the test's own, on a free port, with TLS.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::agent::{PASSWORD, PATIENCE};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Ends when it is dropped, its data with it.
pub struct Server {
    pub address: SocketAddr,
    /// PEM of the CA that signed its certificate, which names `db.internal`.
    pub ca: String,
    /// DER.
    pub certificate: Vec<u8>,
    folder: TempDir,
    process: Child,
}

impl Server {
    /// With the roles `report` (SCRAM), `old` (MD5) and `older` (cleartext),
    /// all with [`PASSWORD`].
    pub fn start() -> Self {
        let folder = TempDir::with_prefix("lockgate-keeper-").expect("a temporary folder");
        let data = folder.path().join("data");
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0);
        if is_root {
            run(Command::new("chown").arg("postgres:").arg(folder.path()));
        }
        run(as_postgres("initdb", is_root)
            .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .args(["-U", "postgres", "-D"])
            .arg(&data)
            .stdout(Stdio::null()));
        let (ca, certificate) = identity(folder.path(), is_root);
        std::fs::write(
            data.join("pg_hba.conf"),
            "local all postgres trust\n\
             host all old 127.0.0.1/32 md5\n\
             host all older 127.0.0.1/32 password\n\
             host all all 127.0.0.1/32 scram-sha-256\n",
        )
        .expect("the folder is writable");
        let (address, process) = launch(folder.path(), is_root);
        let mut server = Self {
            address,
            ca,
            certificate,
            folder,
            process,
        };
        let start = Instant::now();
        while !server.try_sql("postgres", "select 1") {
            assert!(start.elapsed() < PATIENCE, "the server does not answer");
            std::thread::sleep(Duration::from_millis(50));
            // Somebody else has taken the port meanwhile.
            if server.process.try_wait().expect("a child").is_some() {
                (server.address, server.process) = launch(server.folder.path(), is_root);
            }
        }
        server.sql(&format!(
            "create role report login password '{PASSWORD}';
             create role older login password '{PASSWORD}';
             set password_encryption = 'md5';
             create role old login password '{PASSWORD}'"
        ));
        server.sql("create database shop");
        server
    }

    pub fn sql(&self, sql: &str) {
        self.sql_in("postgres", sql);
    }

    pub fn sql_in(&self, database: &str, sql: &str) {
        assert!(self.try_sql(database, sql), "failed: {sql}");
    }

    fn try_sql(&self, database: &str, sql: &str) -> bool {
        let status = Command::new(format!("{BIN}/psql"))
            .env("PGHOST", self.folder.path())
            .env("PGPORT", self.address.port().to_string())
            .args(["-XqU", "postgres", "-v", "ON_ERROR_STOP=1", "-d", database])
            .args(["-c", sql])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.expect("psql runs").success()
    }

    /// What the server has logged until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT: at once, and the server ends its own children.
        let _ = Command::new("kill")
            .args(["-QUIT", &self.process.id().to_string()])
            .status();
        let _ = self.process.wait();
    }
}

/// Starts the server in `folder` on a port that is free now.
fn launch(folder: &Path, is_root: bool) -> (SocketAddr, Child) {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={}", address.port()),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}/server.pem", folder.display()),
        format!("ssl_key_file={}/server.key", folder.display()),
        "log_connections=on".to_owned(),
    ];
    let process = as_postgres("postgres", is_root)
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(folder)
        .arg("-F")
        .args(settings.iter().flat_map(|setting| ["-c", setting]))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("log")).expect("a log"))
        .spawn()
        .expect("postgres starts");
    (address, process)
}

/// Writes a certificate for `db.internal` and its key; returns the CA's PEM and
/// the certificate's DER.
fn identity(folder: &Path, is_root: bool) -> (String, Vec<u8>) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let names = CertificateParams::new(vec!["db.internal".to_owned()]).expect("a name");
    let signed = names.signed_by(&key, &Issuer::from_params(&ca, &ca_key));
    let certificate = signed.expect("a certificate");
    let (pem, key_pem) = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&pem, certificate.pem()).expect("written");
    std::fs::write(&key_pem, key.serialize_pem()).expect("written");
    run(Command::new("chmod").arg("600").arg(&key_pem));
    if is_root {
        run(Command::new("chown")
            .arg("postgres:")
            .args([&pem, &key_pem]));
    }
    (ca_certificate.pem(), certificate.der().to_vec())
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &str, is_root: bool) -> Command {
    let program = format!("{BIN}/{program}");
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

fn run(command: &mut Command) {
    let status = command.status().expect("the program runs");
    assert!(status.success(), "{command:?} failed");
}
