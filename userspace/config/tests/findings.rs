//! Each mistake an operator makes has its place and its way out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lockgate_config::{Finding, Severity, load};

/// A folder with what configurations name: an empty policies folder, secrets
/// that are well kept and badly kept, PEM files that are right and wrong.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("policies")).unwrap();
        folder.write("secret", 0o600, "hunter2\n");
        folder.write("open", 0o644, "hunter2\n");
        folder.write("empty", 0o600, "\n");
        folder.write("not.pem", 0o600, "just text\n");
        folder.write(
            "broken.pem",
            0o644,
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
        );
        // Others may enter: only then the modes of files in it count.
        fs::set_permissions(folder.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, mode: u32, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Findings about a configuration in which `DIR` is this folder.
    fn find(&self, text: &str) -> Vec<Finding> {
        let text = text.replace("DIR", self.0.path().to_str().unwrap());
        self.write("lockgate.toml", 0o644, &text);
        self.load()
    }

    fn load(&self) -> Vec<Finding> {
        let users = |user: &str| (user == "ci").then_some(1000);
        match load(&self.path("lockgate.toml"), 1, users) {
            Ok(loaded) => loaded.warnings,
            Err(findings) => findings,
        }
    }

    fn say(&self, finding: &Finding) -> String {
        let prefix = format!("{}/", self.0.path().display());
        finding.to_string().replace(&prefix, "")
    }
}

const HEAD: &str = "[agent]\npolicies = 'DIR/policies'\n";
const TARGET: &str = "[[target]]\nname = 'db'\nprotocol = 'postgres'\nmatch = ['127.0.0.1:5432']\n";
const WORKLOAD: &str = "[[workload]]\nname = 'ci'\nuser = 'ci'\n";

fn expect(cases: &[(String, &str)]) {
    let folder = Folder::new();
    for (text, expected) in cases {
        let found = folder.find(text);
        let found: Vec<String> = found.iter().map(|finding| folder.say(finding)).collect();
        assert!(
            found.iter().any(|finding| finding == expected),
            "for\n{text}\nexpected\n{expected}\nbut found\n{found:#?}"
        );
    }
}

#[test]
fn mistakes_of_form() {
    expect(&[
        (
            "[agnet]\n".into(),
            "lockgate.toml:1:2: error: unknown field `agnet`, expected one of `agent`, `kernel`, `audit`, `metrics`, `mask`, `limits`, `target`, `workload`; did you mean `agent`?",
        ),
        (
            format!("{HEAD}{TARGET}mdoe = 'observe'\n"),
            "lockgate.toml:7:1: error: unknown field `mdoe`, expected one of `name`, `protocol`, `match`, `mode`, `tls`, `source`, `tags`, `credentials`; did you mean `mode`?",
        ),
        (
            format!("{HEAD}{TARGET}mode = 'enforced'\n"),
            "lockgate.toml:7:8: error: unknown variant `enforced`, expected `observe` or `enforce`; did you mean `enforce`?",
        ),
        (
            format!(
                "{HEAD}[[target]]\nname = 'db'\nprotocol = 'postgres'\nmatch = ['127.0.0.1']\n"
            ),
            "lockgate.toml:6:9: error: `127.0.0.1` has no port; write HOST:PORT, for example db.internal:5432, 10.0.3.0/24:5432, [fd00::]/64:5432 or *:5432",
        ),
        (
            format!("{HEAD}log = 'text\n"),
            "lockgate.toml:3:12: error: invalid literal string, expected `'`",
        ),
        (
            format!("{HEAD}log = 7\n"),
            "lockgate.toml:3:7: error: wanted string or table",
        ),
    ]);
}

#[test]
fn mistakes_about_targets() {
    let credential = |workload: &str| {
        format!(
            "credentials = [{{ workload = '{workload}', user = 'x', password = {{ file = 'DIR/secret' }} }}]\n"
        )
    };
    expect(&[
        (
            HEAD.into(),
            "lockgate.toml: warning: there is no [[target]], so nothing is protected; add one",
        ),
        (
            format!("{HEAD}{TARGET}"),
            "lockgate.toml:4:8: warning: nobody can log in at target `db`; add [[target.credentials]] for each workload",
        ),
        (
            format!("{HEAD}{TARGET}{TARGET}"),
            "lockgate.toml:8:8: error: target `db` is there twice, first at line 4; give it another name",
        ),
        (
            format!("{HEAD}[[target]]\nname = 'a/b'\nprotocol = 'tcp'\nmatch = ['127.0.0.1:1']\n"),
            "lockgate.toml:4:8: error: `a/b` is no name for a target; use letters, digits, `-`, `_` and `.`, and do not begin with `-` or `.`",
        ),
        (
            format!("{HEAD}[[target]]\nname = 'db'\nprotocol = 'tcp'\nmatch = []\n"),
            "lockgate.toml:6:9: error: target `db` matches nothing; write match = [\"HOST:PORT\"]",
        ),
        (
            format!(
                "{HEAD}{TARGET}[[target]]\nname = 'other'\nprotocol = 'tcp'\nmatch = ['127.0.0.2:1', '127.0.0.1:5432']\n"
            ),
            "lockgate.toml:10:25: error: 127.0.0.1:5432 belongs to target `db` already; an address has one target: remove one",
        ),
        (
            format!(
                "{HEAD}{TARGET}[[target]]\nname = 'other'\nprotocol = 'tcp'\nmatch = ['localhost:5432']\n"
            ),
            "lockgate.toml:10:10: warning: `localhost` is 127.0.0.1 now, which belongs to target `db` too; a name wins over an address, and the earlier target over the later one; say which you mean",
        ),
        (
            format!(
                "{HEAD}[[target]]\nname = 'db'\nprotocol = 'tcp'\nmatch = ['127.0.0.2:1', '127.0.0.1:1', '127.0.0.1:1']\n"
            ),
            "lockgate.toml:6:40: warning: 127.0.0.1:1 is there twice; remove one",
        ),
        (
            format!(
                "{HEAD}[[target]]\nname = 'db'\nprotocol = 'postgres'\nmatch = ['*:5432']\n{}{WORKLOAD}",
                credential("ci")
            ),
            "lockgate.toml:6:9: error: credentials of target `db` would go to any server whatever; list its servers, or set tls.upstream = \"verify-full\"",
        ),
        (
            format!("{HEAD}{TARGET}tags = [{{ columns = 'ssn', tag = 'pii' }}]\n"),
            "lockgate.toml:7:21: error: `ssn` names no column; write schema.table.column or database.schema.table.column",
        ),
        (
            format!("{HEAD}{TARGET}tags = [{{ columns = 'a.b.c', tag = 'pii', mask = 'hide' }}]\n"),
            "lockgate.toml:7:50: error: unknown variant `hide`, expected one of `null`, `redact`, `keep_first`, `keep_last`, `hash`, `truncate`, `bucket`",
        ),
        (
            format!(
                "{HEAD}{TARGET}tags = [{{ columns = 'a.b.c', tag = 'pii', mask = {{ bucket = 1 }} }}]\n"
            ),
            "lockgate.toml:7:50: error: a bucket of 1 hides nothing; write { bucket = 1000 }, for example",
        ),
        (
            format!("{HEAD}{TARGET}tags = [{{ columns = 'a.b.c', tag = 'pii', mask = 'hash' }}]\n"),
            "lockgate.toml:7:50: error: the mask hash has no key; write key = { file = \"/etc/lockgate/secrets/mask\" } below [mask]; `openssl rand -hex 32` makes one",
        ),
        (
            format!(
                "{HEAD}{TARGET}mode = 'observe'\ntags = [{{ columns = 'a.b.c', tag = 'pii' }}]\n"
            ),
            "lockgate.toml:7:8: warning: target `db` is only observed: its tagged columns are seen by all; set mode = \"enforce\" to protect them",
        ),
        (
            format!(
                "{HEAD}[[target]]\nname = 'r'\nprotocol = 'tcp'\nmatch = ['127.0.0.1:1']\n{}{WORKLOAD}",
                credential("ci")
            ),
            "lockgate.toml:5:12: error: target `r` is opaque: credentials and tags mean nothing there; remove them, or set protocol = \"postgres\"",
        ),
    ]);
}

#[test]
fn mistakes_about_tls() {
    expect(&[
        (
            format!("{HEAD}{TARGET}tls = {{ upstream = 'verify-full' }}\n"),
            "lockgate.toml:7:7: error: target `db` verifies its servers but names no CA; set tls.ca to the PEM file of the CA; for public ones, /etc/ssl/certs/ca-certificates.crt",
        ),
        (
            format!("{HEAD}{TARGET}tls = {{ ca = 'DIR/broken.pem' }}\n"),
            "lockgate.toml:7:7: error: target `db` names a CA but verifies nothing; set tls.upstream = \"verify-full\"",
        ),
        (
            format!("{HEAD}{TARGET}tls = {{ upstream = 'verify-ca', ca = 'DIR/not.pem' }}\n"),
            "lockgate.toml:7:38: error: not.pem holds no PEM certificate; it begins with -----BEGIN CERTIFICATE-----; `openssl x509 -inform der` converts",
        ),
        (
            format!("{HEAD}{TARGET}tls = {{ upstream = 'verify-ca', ca = 'DIR/none.pem' }}\n"),
            "lockgate.toml:7:38: error: none.pem cannot be read: No such file or directory (os error 2); name a PEM file with certificates",
        ),
        (
            format!("{HEAD}{TARGET}tls = {{ upstream = 'verify-ca', ca = 'ca.pem' }}\n"),
            "lockgate.toml:7:38: error: `ca.pem` is not a full path; begin it with /",
        ),
        (
            format!("{HEAD}{TARGET}tls = {{ certificate = '/etc/hostname' }}\n"),
            "lockgate.toml:7:7: error: `tls.certificate` and `tls.key` go together; set both, or none for a certificate of the host CA",
        ),
        (
            format!(
                "{HEAD}{TARGET}[target.tls]\ncertificate = 'DIR/not.pem'\nkey = 'DIR/not.pem'\n"
            ),
            "lockgate.toml:9:7: error: not.pem holds no PEM key; it has a line -----BEGIN PRIVATE KEY-----, without a passphrase",
        ),
        (
            format!(
                "{HEAD}{TARGET}tls = {{ upstream = 'verify-full', server_name = 'db:5432' }}\n"
            ),
            "lockgate.toml:7:49: error: `db:5432` is no name that a certificate could carry; write a DNS name or an address, without a port",
        ),
    ]);
    let folder = Folder::new();
    let text = format!("{HEAD}{TARGET}tls = {{ upstream = 'verify-ca', ca = 'DIR/broken.pem' }}\n");
    let found = folder.find(&text);
    let broken = found.iter().map(|finding| folder.say(finding));
    let broken: Vec<String> = broken
        .filter(|finding| finding.contains("broken.pem"))
        .collect();
    assert!(
        broken[0]
            .starts_with("lockgate.toml:7:38: error: broken.pem is broken after 0 certificates: "),
        "{broken:?}"
    );
}

#[test]
fn mistakes_about_credentials() {
    let with = |line: &str| format!("{HEAD}{TARGET}credentials = [{line}]\n{WORKLOAD}");
    let password = |file: &str| {
        with(&format!(
            "{{ workload = 'ci', user = 'x', password = {{ file = '{file}' }} }}"
        ))
    };
    expect(&[
        (
            with("{ workload = 'cj', user = 'x' }"),
            "lockgate.toml:7:29: error: there is no workload `cj`; did you mean `ci`?",
        ),
        (
            with("{ workload = 'something-else', user = 'x' }"),
            "lockgate.toml:7:29: error: there is no workload `something-else`; add a [[workload]] of this name",
        ),
        (
            with("{ workload = 'ci', user = 'x' }, { workload = 'ci', user = 'y' }"),
            "lockgate.toml:7:62: error: workload `ci` has two credentials at target `db`; keep one",
        ),
        (
            with("{ workload = 'ci', user = '' }"),
            "lockgate.toml:7:42: error: workload `ci` logs in as nobody; name a role of the server",
        ),
        (
            password("DIR/open"),
            "lockgate.toml:7:67: error: open can be read by others than its owner; run `chmod 600 open`",
        ),
        (
            password("DIR/empty"),
            "lockgate.toml:7:67: error: empty is empty; write the secret into it",
        ),
        (
            password("DIR/none"),
            "lockgate.toml:7:67: error: none cannot be read: No such file or directory (os error 2); make the file, or name another",
        ),
        (
            password("DIR/policies"),
            "lockgate.toml:7:67: error: policies is not a file; name a file that holds the secret and nothing else",
        ),
    ]);
}

#[test]
fn mistakes_about_the_agent() {
    expect(&[
        (
            format!("{HEAD}[[workload]]\nname = 'x'\nuser = 'nobody-here'\n"),
            "lockgate.toml:5:8: error: there is no user `nobody-here` on this host; name one, or give its number",
        ),
        (
            "[agent]\npolicies = '/nowhere'\n".into(),
            "lockgate.toml:2:12: error: the policies folder /nowhere cannot be read: No such file or directory (os error 2); `lockgate init` makes one",
        ),
        (
            format!("{HEAD}state_dir = '/var/lib'\n"),
            "lockgate.toml:3:13: error: /var/lib is not a folder for one program; lockgate changes its owner and its mode; name one of its own, such as /var/lib/lockgate",
        ),
        (
            format!("{HEAD}state_dir = '/var/lib/lockgate'\nrun_dir = '/var/lib/lockgate/run'\n"),
            "lockgate.toml:4:11: error: `state_dir` and `run_dir` lie in each other; keep them apart: one is keeper's alone, the other is open to all",
        ),
        (
            format!("{HEAD}proxy_user = 'x'\nkeeper_user = 'x'\n"),
            "lockgate.toml:4:15: error: `proxy_user` and `keeper_user` are the same; who reads hostile bytes must not hold secrets: name two users",
        ),
        (
            format!("{HEAD}[audit]\nsegment_mib = 0\n"),
            "lockgate.toml:4:15: error: `segment_mib` is 0; set 1 or more",
        ),
        (
            format!("{HEAD}[audit]\nclickhouse = {{ url = 'https://c:8443' }}\n"),
            "lockgate.toml:4:22: error: `https://c:8443` is not an http:// address; write http://HOST:8123; for HTTPS, put a TLS proxy in front of ClickHouse",
        ),
        (
            format!("{HEAD}[audit]\nclickhouse = {{ url = 'http://c:8123', database = 'a-b' }}\n"),
            "lockgate.toml:4:50: error: `a-b` is no name for a database; use letters, digits and _",
        ),
        (
            format!("{HEAD}[limits]\nstartup_s = 0\n"),
            "lockgate.toml:4:13: error: `startup_s` is 0; set a number from 1 to 3600",
        ),
        (
            format!("{HEAD}[limits]\nstatement_bytes = 8192\nmessage_bytes = 4096\n"),
            "lockgate.toml:5:17: error: `message_bytes` is below `statement_bytes`; a statement travels in one message: raise it",
        ),
        (
            format!("{HEAD}[kernel]\nnamespaces = ['/run/netns/not-there']\n"),
            "lockgate.toml:4:15: warning: there is no network namespace /run/netns/not-there; `ip netns list` shows those with a name; `lockgate run` does not start without it",
        ),
    ]);
}

#[test]
fn what_decides_must_not_be_in_other_hands() {
    let folder = Folder::new();
    let text = format!("{HEAD}{TARGET}");
    folder.find(&text);
    folder.write("policies/a.cedar", 0o666, "");
    let open = |name: &str| fs::Permissions::from_mode(if name.is_empty() { 0o777 } else { 0o664 });
    fs::set_permissions(folder.path("lockgate.toml"), open("file")).unwrap();
    fs::set_permissions(folder.path("policies"), open("")).unwrap();
    let errors: Vec<String> = folder
        .load()
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| folder.say(finding))
        .collect();
    assert_eq!(
        errors,
        [
            "lockgate.toml: error: lockgate.toml can be changed by others than its owner; run `chmod go-w lockgate.toml`",
            "lockgate.toml:2:12: error: policies can be changed by others than its owner; run `chmod go-w policies`",
            "lockgate.toml:2:12: error: policies/a.cedar can be changed by others than its owner; run `chmod go-w policies/a.cedar`",
        ]
    );
}

#[test]
fn a_closed_folder_keeps_a_secret_too() {
    let folder = Folder::new();
    let closed = folder.path("closed");
    fs::create_dir(&closed).unwrap();
    folder.write("closed/secret", 0o644, "hunter2\n");
    let text = format!(
        "{HEAD}{TARGET}credentials = [{{ workload = 'ci', user = 'x', password = {{ file = 'DIR/closed/secret' }} }}]\n{WORKLOAD}"
    );
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(folder.find(&text).len(), 1);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(folder.find(&text), []);
}

#[test]
fn secrets_are_read_and_never_quoted() {
    use secrecy::ExposeSecret;

    let folder = Folder::new();
    let text = format!(
        "{HEAD}{TARGET}credentials = [{{ workload = 'ci', user = 'x', password = {{ file = 'DIR/secret' }} }}]\n{WORKLOAD}"
    );
    assert_eq!(folder.find(&text), []);
    let loaded = load(Path::new(&folder.path("lockgate.toml")), 7, |_| Some(1)).unwrap();
    assert_eq!(loaded.bundle.epoch, 7);
    let password = &loaded.secrets.passwords["db"]["ci"];
    assert_eq!(password.expose_secret(), "hunter2");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let said: String = folder
        .find(&text.replace("DIR/secret", "DIR/open"))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        said.contains("open can be read") && !said.contains("hunter2"),
        "{said}"
    );

    // As the key of hashes, it is too short to be one.
    let key = format!("{HEAD}[mask]\nkey = {{ file = 'DIR/secret' }}\n{TARGET}{WORKLOAD}");
    let said: String = folder.find(&key).iter().map(ToString::to_string).collect();
    assert!(
        said.contains("fewer than 32 characters") && !said.contains("hunter2"),
        "{said}"
    );
}
