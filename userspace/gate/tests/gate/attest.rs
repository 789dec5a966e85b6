//! Who is behind a connection.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockgate_config::Config;
use lockgate_gate::{Attestor, watch_execs};
use lockgate_identity::Workloads;

use crate::field::{EPERM, Field, accept, outcome};

#[test]
fn a_child_inherits_its_parents_image_and_exec_makes_a_new_one() {
    let mut field = Field::new(&["127.0.0.88:5432"]);
    let (host, listeners) = field.listen();
    let child = field.spawn(
        "import socket,os
if os.fork()==0:
 socket.create_connection(('127.0.0.88',5432)).recv(1); os._exit(0)
os.wait()
if os.fork()==0:
 os.execv('/usr/bin/python3',['python3','-c','import socket;socket.create_connection((\"127.0.0.88\",5432)).recv(1)'])
os.wait()",
    );
    let (mut forked, origin) = accept(&mut field, &host, &listeners.v4);
    let parent = field.kernel.processes()(child.id()).unwrap();
    let origin = origin.unwrap();
    assert_ne!(origin.tgid, child.id());
    assert_eq!(origin.exec_ns, parent.exec_ns, "fork keeps the image");
    assert!(origin.start_ns > parent.start_ns);
    forked.write_all(b"x").unwrap();
    let (mut execed, origin) = accept(&mut field, &host, &listeners.v4);
    assert!(
        origin.unwrap().exec_ns > parent.exec_ns,
        "exec makes another"
    );
    execed.write_all(b"x").unwrap();
    child.wait_with_output().unwrap();
}

fn attestor(field: &mut Field, workloads: &str) -> Arc<Attestor> {
    let config: Config = toml::from_str(workloads).unwrap();
    let workloads = Workloads::load(&config.workloads, &Default::default()).unwrap();
    let attestor = Arc::new(Attestor::new());
    attestor.look_for(&workloads);
    watch_execs(&mut field.kernel, attestor.clone(), |_| {}).unwrap();
    attestor
}

#[test]
fn a_process_that_has_gone_is_attested() {
    let mut field = Field::new(&["127.0.0.93:5432"]);
    let (host, listeners) = field.listen();
    let attestor = attestor(&mut field, "");
    // Once itself, once a child that has not called execve.
    for (code, forked) in [
        ("", false),
        ("if os.fork(): os.wait(); os._exit(0)\n", true),
    ] {
        let code = format!(
            "import socket,os,time\ntime.sleep(0.2)\n{code}s=socket.create_connection(('127.0.0.93',5432));os._exit(0)"
        );
        let child = field.spawn(&code);
        let pid = child.id();
        child.wait_with_output().unwrap();
        let (stream, origin) = accept(&mut field, &host, &listeners.v4);
        let origin = attestor.attest(
            &origin.unwrap(),
            stream.peer_addr().unwrap(),
            None,
            field.kernel.processes(),
        );
        let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
        assert!(!Path::new("/proc").join(origin.tgid.to_string()).exists());
        assert_eq!(origin.tgid != pid, forked);
        assert_eq!(origin.executable.unwrap().path, python);
        // What it said of itself has gone with it.
        assert!(origin.argv.is_empty());
        assert_eq!(
            origin.ancestors.iter().any(|above| above.tgid == pid),
            forked
        );
    }
    assert_eq!(field.kernel.lost_execs(), 0);
}

/// In a mount namespace of his own everybody can put any file at any path.
#[test]
fn a_path_is_believed_only_where_root_has_put_the_file() {
    let mut field = Field::new(&["127.0.0.94:5432"]);
    let (host, listeners) = field.listen();
    let attestor = attestor(
        &mut field,
        "[[workload]]\nname='w'\nuser='0'\nexecutable='/usr/bin/sleep'",
    );
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("python");
    std::fs::copy("/usr/bin/python3", &python).unwrap();
    let code = "import socket;socket.create_connection(('127.0.0.94',5432)).recv(1)";
    let bound = format!(
        "mount --bind {} /usr/bin/sleep && exec /usr/bin/sleep -c \"$CODE\"",
        python.display()
    );
    // Runs the file of somebody else's mount namespace, from the host's.
    let through = format!(
        "unshare -U -r -m sh -c 'mount --bind {} /usr/bin/sleep && echo && exec /usr/bin/python3 -c \"import time;time.sleep(30)\"' > {pipe} &
         read line < {pipe}; /proc/$!/root/usr/bin/sleep -c \"$CODE\"; kill $!",
        python.display(),
        pipe = folder.path().join("pipe").display(),
    );
    Command::new("mkfifo")
        .arg(folder.path().join("pipe"))
        .status()
        .unwrap();
    for (script, seen) in [
        (format!("unshare -m sh -c '{bound}'"), "/usr/bin/sleep"),
        (
            format!("unshare -U -r -m sh -c '{bound}'"),
            "(elsewhere)/usr/bin/sleep",
        ),
        (through, "(elsewhere)/usr/bin/sleep"),
    ] {
        let procs = field.cgroup.join("cgroup.procs");
        let mut child = Command::new("sh")
            .args(["-c", &format!("echo $$ > {}; {script}", procs.display())])
            .env("CODE", code)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (mut stream, origin) = accept(&mut field, &host, &listeners.v4);
        let client = stream.peer_addr().unwrap();
        let still = field.kernel.processes();
        let origin = attestor.attest(&origin.unwrap(), client, None, still);
        stream.write_all(b"x").unwrap();
        child.wait().unwrap();
        let path = origin.executable.as_ref().map(|own| own.path.as_path());
        assert_eq!(path, Some(Path::new(seen)), "{script}: {origin:?}");
    }
}

#[test]
fn what_is_lost_is_counted() {
    let mut field = Field::new(&["127.0.0.95:5432"]);
    let code = "for i in range(8000):
 try: socket.create_connection(('127.0.0.95',5432))
 except PermissionError: pass
raise PermissionError(1,'')";
    assert_eq!(outcome(&field, code), EPERM);
    let mut told = 0;
    let until = Instant::now() + Duration::from_secs(10);
    while field.kernel.next_refusal().is_some() && Instant::now() < until {
        told += 1;
    }
    assert!(told > 0 && field.kernel.lost_refusals() > 0);
    assert_eq!(told + field.kernel.lost_refusals(), 8000);
}
