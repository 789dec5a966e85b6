//! Processes that would be taken for another one, or for none.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lockgate_config::Config;
use lockgate_gate::{Attestor, Listeners, Namespace, watch_execs};
use lockgate_identity::{Origin, Workloads};

use crate::field::{Field, accept, slowness};

/// A field with somebody who attests.
struct Stage {
    field: Field,
    host: Namespace,
    listeners: Listeners,
    attestor: Arc<Attestor>,
    workloads: Workloads,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(place: &str, workloads: &str) -> Self {
        let mut field = Field::new(&[place]);
        let (host, listeners) = field.listen();
        let config: Config = toml::from_str(workloads).unwrap();
        let workloads = Workloads::load(&config.workloads, &Default::default()).unwrap();
        let attestor = Arc::new(Attestor::new());
        attestor.look_for(&workloads);
        watch_execs(&mut field.kernel, attestor.clone(), |_| {}).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            field,
            host,
            listeners,
            attestor,
            workloads,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A shell's script in the cgroup, ended when dropped.
    fn run(&self, script: &str) -> Running {
        let procs = self.field.cgroup.join("cgroup.procs");
        let script = format!("echo $$ > {}\n{script}", procs.display());
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .current_dir(self.folder.path());
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        Running(child)
    }

    /// Who the next client is, and how long it took to say so; the client goes
    /// on.
    fn next(&mut self) -> (Origin, Duration) {
        let (mut stream, origin) = accept(&mut self.field, &self.host, &self.listeners.v4);
        let client = stream.peer_addr().unwrap();
        let began = Instant::now();
        let still = self.field.kernel.processes();
        let origin = self.attestor.attest(&origin.unwrap(), client, None, still);
        let took = began.elapsed();
        stream.write_all(b"x").unwrap();
        (origin, took)
    }
}

/// A workload of root's for each path.
fn named(executables: &[&Path]) -> String {
    let one = |(at, path): (usize, &&Path)| {
        let path = path.display();
        format!("[[workload]]\nname = 'w{at}'\nuser = '0'\nexecutable = '{path}'\n")
    };
    executables.iter().enumerate().map(one).collect()
}

struct Running(Child);

impl Running {
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let out = self.0.stdout.as_mut().unwrap();
        let mut byte = [0];
        while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn path_of(origin: &Origin) -> String {
    let executable = origin.executable.as_ref().expect("the process runs");
    executable.path.display().to_string()
}

/// An executable on a file system of a process of its user's, behind an overlay,
/// by which root would be made to ask that process.
#[test]
fn a_file_system_that_never_answers_holds_nobody_up() {
    let python = fs::canonicalize("/usr/bin/python3").unwrap();
    let digest = "0".repeat(64);
    let workloads = format!(
        "{}[[workload]]\nname = 'hashed'\nuser = '65534'\nsha256 = '{digest}'\n",
        named(&[&python])
    );
    let mut stage = Stage::new("127.0.0.96:5432", &workloads);
    let server = stage.path("fuse.py");
    fs::write(&server, include_str!("support/fuse.py")).unwrap();
    let setup = stage.path("setup.sh");
    let client = stage.path("client.py");
    fs::write(
        &client,
        // What connecting reads of the file is read before the file stops.
        "import os,socket,sys,time
try: socket.create_connection(('127.0.0.1',1))
except OSError: pass
open('up-'+sys.argv[1],'w')
while not os.path.exists('go-'+sys.argv[1]): time.sleep(0.02)
socket.create_connection(('127.0.0.96',5432)).recv(1)
time.sleep(60)",
    )
    .unwrap();
    // The same file, once as what it is, once at the path of another.
    let script = format!(
        "set -e
         mount -t tmpfs tmpfs w; mkdir w/m w/upper w/work w/o
         /usr/bin/python3 fuse.py fuse w/m {python} stop > w/up &
         while ! grep -q mounted w/up; do sleep 0.02; done
         mount -t overlay overlay -o lowerdir=w/m,upperdir=w/upper,workdir=w/work,userxattr w/o
         w/o/program client.py program &
         unshare -m sh -c 'mount --bind w/o/program {python} && exec {python} client.py bound' &
         while ! [ -e up-program ] || ! [ -e up-bound ]; do sleep 0.02; done
         echo ready
         wait",
        python = python.display(),
    );
    fs::write(&setup, script).unwrap();
    fs::create_dir(stage.path("w")).unwrap();
    // As a distribution has it for everybody.
    let device = stage.path("fuse");
    let made = Command::new("mknod")
        .arg(&device)
        .args(["c", "10", "229"])
        .status();
    assert!(made.unwrap().success());
    fs::set_permissions(&device, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(stage.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();

    // They wait until the file system is gone.
    let mut asking = Vec::new();
    let mut child = stage.run(
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups unshare -U -r -m -p -f --kill-child sh setup.sh",
    );
    assert_eq!(child.line(), "ready");
    fs::write(stage.path("stop"), "").unwrap();
    for way in ["program", "bound"] {
        fs::write(stage.path(&format!("go-{way}")), "").unwrap();
        // Nothing is known from before it stopped.
        stage.attestor.look_for(&stage.workloads);
        let (origin, took) = stage.next();
        println!("{way}: {} after {took:?}", path_of(&origin));
        assert!(took < Duration::from_secs(1) * slowness(), "{took:?}");
        assert_ne!(path_of(&origin), python.to_str().unwrap(), "{way}");
        let executable = origin.executable.unwrap();
        assert_eq!(executable.sha256, None);
        // Whoever asks waits; else this would be no test.
        let mut asks = Command::new("sha256sum");
        asks.arg(format!("/proc/{}/exe", origin.tgid));
        asking.push(Running(asks.stdout(Stdio::null()).spawn().unwrap()));
        std::thread::sleep(Duration::from_millis(300));
        let still = asking.last_mut().unwrap().0.try_wait().unwrap().is_none();
        assert!(still, "{way}: it answers");
    }
    drop(child);
}

const JUST_NOW: &str = "a copy of just now";

/// How it is started (`$P` is Python, `$OWN` a copy of it), what runs then, and
/// whether that is hashed.
const WAYS: &[(&str, &str, &str, bool)] = &[
    ("itself", "exec $P client.py", "PYTHON", true),
    (
        "a symbolic link",
        "ln -s $P link; exec ./link client.py",
        "PYTHON",
        true,
    ),
    (
        "a script",
        "chmod +x client.py; exec ./client.py",
        "PYTHON",
        true,
    ),
    (
        "code on the command line",
        "exec $P -c \"$(cat client.py)\"",
        "PYTHON",
        true,
    ),
    ("an orphan", "(($P client.py &) &)", "PYTHON", true),
    (
        "the dynamic loader",
        "exec /lib64/ld-linux-x86-64.so.2 $P client.py",
        "LOADER",
        true,
    ),
    (
        "another name",
        "cp $P copy; sleep 0.1; exec bash -c \"exec -a $P ./copy client.py\"",
        "HERE/copy",
        true,
    ),
    (
        JUST_NOW,
        // A moment before it is executed, however slow the machine.
        "cp $P fresh; exec $P -c 'import os;os.chmod(\"fresh\",0o755);os.execv(\"./fresh\",[\"./fresh\",\"client.py\"])'",
        "HERE/fresh",
        false,
    ),
    (
        "one that was touched",
        "(sleep 0.2; touch copy went) & exec ./copy wait.py",
        "HERE/copy",
        false,
    ),
    (
        "one that was removed",
        "rm went; (sleep 0.2; rm copy; touch went) & exec ./copy wait.py",
        "HERE/copy",
        false,
    ),
    (
        "a name that says so",
        "cp $P 'x (deleted)'; sleep 0.1; exec './x (deleted)' client.py",
        "HERE/x (deleted)",
        true,
    ),
    (
        "memory",
        "exec $P memory.py m $P",
        "/memfd:m (deleted)",
        false,
    ),
    (
        "memory with a name",
        "exec $P memory.py $P $P",
        "/memfd:PYTHON (deleted)",
        false,
    ),
    // What it was when it was executed, and is no more.
    (
        "one that was replaced",
        "rm went; (sleep 0.2; cp $P new; mv new $OWN; touch went) & exec $OWN wait.py",
        "HERE/own",
        false,
    ),
];

/// What is not the file at a workload's path is not taken for it, and what is,
/// is, by whatever way it was started.
#[test]
fn an_executable_is_the_file_that_runs() {
    let python = fs::canonicalize("/usr/bin/python3").unwrap();
    let loader = fs::canonicalize("/lib64/ld-linux-x86-64.so.2").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    fs::copy(&python, &own).unwrap();
    let workloads = format!(
        "{}[[workload]]\nname = 'hashed'\nuser = '0'\nsha256 = '{}'\n",
        named(&[&python, &own]),
        "0".repeat(64)
    );
    let mut stage = Stage::new("127.0.0.98:5432", &workloads);
    let client =
        "#!/usr/bin/python3\nimport socket;socket.create_connection(('127.0.0.98',5432)).recv(1)";
    let wait = "import os,time\nwhile not os.path.exists('went'): time.sleep(0.01)\nexec(open('client.py').read())";
    let memory = "import os,sys\nf=os.memfd_create(sys.argv[1]);os.write(f,open(sys.argv[2],'rb').read())\nos.execve(f,[sys.argv[2],'client.py'],{})";
    for (name, text) in [
        ("client.py", client),
        ("wait.py", wait),
        ("memory.py", memory),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    for (way, script, runs, hashed) in WAYS {
        let script = format!(
            "cd {}; P={}; OWN={}\n{script}",
            folder.path().display(),
            python.display(),
            own.display()
        );
        let attempt = |stage: &mut Stage| {
            let _child = stage.run(&script);
            stage.next().0
        };
        let mut origin = attempt(&mut stage);
        // On a busy machine more than a moment can pass before it is executed.
        for _ in 0..5 {
            let executable = origin.executable.as_ref().unwrap();
            if *way != JUST_NOW || executable.sha256.is_none() {
                break;
            }
            origin = attempt(&mut stage);
        }
        let runs = runs
            .replace("PYTHON", python.to_str().unwrap())
            .replace("LOADER", loader.to_str().unwrap())
            .replace("HERE", folder.path().to_str().unwrap());
        assert_eq!(path_of(&origin), runs, "{way}");
        let sha256 = origin.executable.unwrap().sha256;
        assert_eq!(sha256.is_some(), *hashed, "{way}");
        println!("{way}: {runs}, hashed: {hashed}");
    }
}

/// Root of a user namespace may change what /proc/PID/exe shows, for itself and
/// those that it makes.
#[test]
fn what_a_process_makes_of_its_own_executable_does_not_count() {
    let python = fs::canonicalize("/usr/bin/python3").unwrap();
    let workloads = format!(
        "{}[[workload]]\nname = 'hashed'\nuser = '65534'\nsha256 = '{}'\n",
        named(&[&python]),
        "0".repeat(64)
    );
    let mut stage = Stage::new("127.0.0.103:5432", &workloads);
    let program = stage.path("mask");
    compile("mask", &program);
    let mut child = stage.run(&format!(
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups unshare -U -r ./mask {} 127.0.0.103 5432",
        python.display()
    ));
    assert_eq!(child.line(), python.display().to_string(), "so it says");
    for who in ["itself", "its child"] {
        let (origin, _) = stage.next();
        assert_eq!(path_of(&origin), program.display().to_string(), "{who}");
        assert_eq!(origin.executable.unwrap().sha256, None, "{who}");
    }
}

/// On tmpfs a file can change without another time stamp: through a mapping whose
/// pages were read before they are written.
#[test]
fn a_digest_is_of_what_runs_now() {
    let workloads = format!(
        "[[workload]]\nname = 'hashed'\nuser = '0'\nsha256 = '{}'\n",
        "0".repeat(64)
    );
    let mut stage = Stage::new("127.0.0.104:5432", &workloads);
    let _mounted = Tmpfs::new(stage.path("memory"));
    let python = fs::canonicalize("/usr/bin/python3").unwrap();
    let program = stage.path("memory/python");
    // Something behind what is run.
    let mut content = fs::read(&python).unwrap();
    content.extend([0; 4096]);
    fs::write(&program, &content).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let client = "import socket;socket.create_connection(('127.0.0.104',5432)).recv(1)";
    let change = format!(
        "import mmap
with open('{}','r+b') as f:
    m=mmap.mmap(f.fileno(),0); m[:]; m[-1]=1; m.close()",
        program.display()
    );
    let mut digests = Vec::new();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(100));
        let script = format!("exec {} -c \"{client}\"", program.display());
        let mut child = stage.run(&script);
        let (origin, _) = stage.next();
        child.0.wait().unwrap();
        let summed = Command::new("sha256sum").arg(&program).output().unwrap();
        let summed = String::from_utf8(summed.stdout).unwrap();
        let digest = origin.executable.unwrap().sha256.unwrap();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, summed[..64]);
        digests.push(digest);
        let changed = Command::new(&python).args(["-c", &change]).status();
        assert!(changed.unwrap().success());
    }
    assert_ne!(digests[0], digests[1]);
}

/// A file system in memory, until it is dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(&path)
            .status();
        assert!(mounted.unwrap().success());
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A thread that is not the first one takes that one's number by execve; what was
/// kept of its own goes.
#[test]
fn an_execve_of_any_thread_leaves_nothing_behind() {
    let mut stage = Stage::new("127.0.0.105:5432", "");
    let script = "
import os,threading
def go():
    print(threading.get_native_id(), flush=True)
    os.execv('/usr/bin/python3', ['python3', '-c', 'import socket;socket.create_connection((\"127.0.0.105\",5432)).recv(1)'])
threading.Thread(target=go).start()
";
    fs::write(stage.path("thread.py"), script).unwrap();
    let mut child = stage.run("exec /usr/bin/python3 thread.py");
    let thread: u32 = child.line().parse().unwrap();
    let (origin, _) = stage.next();
    assert_eq!(origin.tgid, child.0.id());
    assert_ne!(origin.tgid, thread);
    assert_eq!(origin.argv[1], "-c");
    assert_eq!(stage.field.kernel.processes()(thread), None);
}

/// A pid that is used again is not the process that had it.
#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let mut stage = Stage::new("127.0.0.99:5432", "");
    let script = "
import os,socket,time
first = os.fork()
if first == 0:
    os.execv('/usr/bin/python3', ['python3', '-c', 'import socket;socket.create_connection((\"127.0.0.99\",5432)).recv(1)'])
os.waitpid(first, 0)
for attempt in range(2000):
    with open('/proc/sys/kernel/ns_last_pid', 'w') as last: last.write(str(first - 1))
    again = os.fork()
    if again == 0:
        if os.getpid() == first: socket.create_connection(('127.0.0.99',5432)).recv(1)
        os._exit(0)
    os.waitpid(again, 0)
    if again == first: break
";
    fs::write(stage.path("again.py"), script).unwrap();
    let _child = stage.run("exec /usr/bin/python3 again.py");
    let (before, _) = stage.next();
    let (after, _) = stage.next();
    assert_eq!(before.tgid, after.tgid);
    assert_ne!(before.exec, after.exec);
    assert_eq!(before.argv[1], "-c");
    assert_eq!(after.argv[1], "…", "again.py, which is no full path");
}

/// Compiles `support/NAME.c` to a path. Where there is no compiler somebody has
/// done it before.
fn compile(name: &str, to: &Path) {
    if let Some(folder) = std::env::var_os("LOCKGATE_COMPILED") {
        fs::copy(Path::new(&folder).join(name), to).unwrap();
        return;
    }
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gate/support");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-w", "-o"]).arg(to);
    let compiled = compiler
        .arg(support.join(name).with_extension("c"))
        .status();
    assert!(compiled.unwrap().success());
}

/// Ten thousand, each gone after two milliseconds.
#[test]
fn a_storm_of_processes_is_told_apart() {
    const EACH: usize = 8;
    let count: usize = match std::env::var("LOCKGATE_STORM_PROCESSES") {
        Ok(count) => count.parse().unwrap(),
        Err(_) => 2000,
    };
    let folder = tempfile::tempdir().unwrap();
    let programs: Vec<PathBuf> = (0..EACH)
        .map(|at| folder.path().join(format!("brief-{at}")))
        .collect();
    let brief = folder.path().join("brief");
    compile("brief", &brief);
    for program in &programs {
        fs::copy(&brief, program).unwrap();
    }
    let paths: Vec<&Path> = programs.iter().map(PathBuf::as_path).collect();
    let mut stage = Stage::new("127.0.0.97:5432", &named(&paths));
    let storm = format!(
        "exec /usr/bin/python3 -c \"
import os
running = 0
for number in range({count}):
    if running == 8:
        os.wait(); running -= 1
    program = '{folder}/brief-%d' % (number % {EACH})
    os.posix_spawn(program, [program, '127.0.0.97', '5432', str(number)], {{}})
    running += 1
while running: os.wait(); running -= 1
print('done')
\"",
        folder = folder.path().display(),
    );
    let mut child = stage.run(&storm);
    // As the gate does it: who accepts does not wait for who attests.
    let (send, accepted) = mpsc::channel();
    let attestor = stage.attestor.clone();
    let still = stage.field.kernel.processes();
    let attesting = std::thread::spawn(move || {
        let (mut wrong, mut unknown) = (0, 0usize);
        for (record, client, said) in accepted {
            let origin: Origin = attestor.attest(&record, client, None, &still);
            let (pid, number): (u32, usize) = said;
            let expected = &programs[number % EACH];
            let found = origin
                .executable
                .as_ref()
                .map(|executable| &executable.path);
            wrong += u32::from(origin.tgid != pid || found.is_some_and(|found| found != expected));
            unknown += usize::from(found.is_none());
        }
        (wrong, unknown)
    });
    let began = Instant::now();
    for _ in 0..count {
        let (mut stream, record) = accept(&mut stage.field, &stage.host, &stage.listeners.v4);
        let mut said = [0; 8];
        stream.read_exact(&mut said).unwrap();
        let word = |at: usize| u32::from_ne_bytes(said[at..at + 4].try_into().unwrap());
        let client = stream.peer_addr().unwrap();
        send.send((record.unwrap(), client, (word(0), word(4) as usize)))
            .unwrap();
    }
    drop(send);
    let (wrong, unknown) = attesting.join().unwrap();
    println!(
        "{count} processes in {:?}: {wrong} taken for another, {unknown} for none, {} executions lost",
        began.elapsed(),
        stage.field.kernel.lost_execs()
    );
    assert_eq!(child.line(), "done");
    assert_eq!(wrong, 0);
    // The tests beside this one have attestors of their own, which look at all
    // of these processes, too, and go first as well. `cargo xtask soak` has one.
    let alone = count >= 10_000;
    assert!(unknown <= if alone { 0 } else { count / 50 }, "{unknown}");
}
