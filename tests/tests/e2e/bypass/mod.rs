//! Connections that try to get past the redirect. The server's role `jane` is a
//! superuser without a password, so that nothing but lockgate stands between;
//! each way is first tried where lockgate is not, and must do its harm there.

pub mod way;

use std::io::{BufRead, BufReader};

use lockgate_tests::{Agent, Cgroup, Paused, sh};

use crate::stage;
use way::{Field, Who, say, server};

/// What every process of the host can try.
const OF_THE_HOST: &[&str] = &[
    "plain",
    "mapped",
    "bound_to_any",
    "bound_to_own_address",
    "bound_late",
    "by_a_chosen_port",
    "by_a_device DEVICE",
    "fast_open",
    "fast_open_by_sendmsg",
    "fast_open_at_the_first_write",
    "nonblocking",
    "after_another_connection_of_the_socket 5431",
    "twice_by_one_socket",
    "in_a_thread",
    "by_an_orphan",
    "by_a_socket_of_another",
    "through_exec",
    "by_a_ring",
    "by_a_ring_that_polls",
    "by_a_ring_that_makes_the_socket",
    "multipath",
    "multipath_after_fallback",
    "smc",
    "sctp",
];

#[test]
fn no_process_of_the_host_gets_past() {
    let mut field = Field::new();
    field.try_all(&Who::Nobody, OF_THE_HOST);
    let address6 = field.postgres().address6().to_owned();
    for way in ["plain", "bound_to_any", "bound_to_own_address", "fast_open"] {
        field.try_all(&Who::Nobody, &[&format!("{way} @{address6}")]);
    }
    field.finish();
}

/// Every right over a user namespace is none over the network that it did not
/// make.
#[test]
fn root_of_a_user_namespace_gets_no_further() {
    let mut field = Field::new();
    let ways = ["plain", "marked", "fast_open", "by_a_ring", "multipath"];
    field.try_all(&Who::RootOfUserNamespace, &ways);
    field.finish();
}

/// As a container has it: a network namespace with its own way to the server,
/// and the rights that container engines leave its root.
#[test]
fn root_of_a_container_gets_no_further() {
    let mut field = Field::with_container();
    let ways = [
        "plain",
        "mapped",
        "marked",
        "fast_open",
        "by_a_ring",
        "multipath",
    ];
    field.try_all(&Who::RootOfContainer, &ways);
    field.finish();
}

/// What begins towards the server is looked at again when it leaves: after the
/// namespace has rewritten where it goes.
#[test]
fn an_address_that_a_namespace_rewrites_is_seen() {
    let mut field = Field::with_container();
    // What root of a container with CAP_NET_ADMIN can do.
    sh(&format!(
        "ip netns exec {} nft 'table ip way {{
            chain output {{
                type nat hook output priority -100
                ip daddr 192.0.2.99 tcp dport 5432 dnat to 192.0.2.2:5432
            }}
        }}'",
        field.container()
    ))
    .unwrap();
    field.try_all(&Who::RootOfContainer, &["plain @192.0.2.99"]);
    field.finish();
}

#[test]
fn datagrams_do_not_arrive() {
    let mut field = Field::new();
    let ways = [
        "datagram",
        "datagram_connected",
        "datagram_mapped",
        "datagram_lite",
        "datagram_lite_connected",
    ];
    field.try_all(&Who::Nobody, &ways);
    field.finish();
}

/// The hooks see nothing of a connection that stands when they come.
#[test]
fn what_was_open_before_is_ended_and_what_lockgate_dialled_is_not() {
    let postgres = server();
    let mut agent = Agent::prepare(&stage::config(&postgres, "")).unwrap();
    let report = agent.cgroup.unit("report.service").unwrap();
    // Where this agent's programs do not reach, so that a session goes on.
    let beyond = Cgroup::new().unwrap();
    let elsewhere = beyond.at("elsewhere").unwrap();
    let begin = |workload, address: &str, row: &str| {
        let program = format!(
            "c = psycopg.connect(dsn, autocommit=True)
print('open'); sys.stdin.readline()
try: c.execute(\"insert into harm values ('{row}')\"); print('written')
except psycopg.Error as e: print(e)"
        );
        let dsn = format!("host={address} dbname=shop user=jane");
        let mut session = Paused::start(workload, &program, &dsn).unwrap();
        assert_eq!(session.line().unwrap(), "open");
        session
    };
    let direct = begin(&elsewhere, postgres.address(), "direct");
    let v4 = begin(&report, postgres.address(), "v4");
    let v6 = begin(&report, postgres.address6(), "v6");
    agent.launch().unwrap();
    assert_eq!(agent.status().unwrap()["gate"]["ended"], 2);
    for (mut session, row, rows) in [(direct, "direct", "1"), (v4, "v4", "0"), (v6, "v6", "0")] {
        session.go_on().unwrap();
        let said = session.rest().unwrap().join(" ");
        let sql = format!("select count(*) from harm where way = '{row}'");
        assert_eq!(postgres.admin("shop", &sql).unwrap(), rows, "{row}: {said}");
        if rows == "0" {
            let said = said.replace('\n', " ");
            say("held", "open before", row, &said);
        }
    }
    // A gate that comes back leaves its own alone.
    let program = "c = psycopg.connect(dsn, autocommit=True)
print('open'); sys.stdin.readline(); print(c.execute('select 7').fetchone()[0])";
    let dsn = format!("host={} dbname=shop user=jane", postgres.address());
    let mut session = Paused::start(&report, program, &dsn).unwrap();
    assert_eq!(session.line().unwrap(), "open");
    let before = agent.pid("gate").unwrap();
    agent.kill("gate").unwrap();
    agent
        .wait_until("back", |status| {
            status["gate"]["lease_held"] == true && status["gate"]["pid"] != before
        })
        .unwrap();
    session.go_on().unwrap();
    assert_eq!(session.rest().unwrap(), ["7"]);
    assert_eq!(agent.status().unwrap()["gate"]["ended"], 0);
}

/// What is sent by AF_PACKET passes no hook of cgroups: who has CAP_NET_RAW in a
/// network that leads to the server reaches it.
#[test]
fn packets_made_by_hand_are_open_to_who_has_cap_net_raw() {
    let mut field = Field::with_container();
    field.is_open(&Who::RootOfContainer, "by_packets cable 192.0.2.77");
    field.try_all(&Who::Nobody, &["plain"]);
    field.finish();
}

#[test]
fn unix_sockets_of_a_local_server_are_open() {
    let field = Field::new();
    let socket = field.postgres().socket();
    let dsn = format!("host={} dbname=shop user=jane", socket.display());
    let insert = "insert into harm values ('unix')";
    let output = field.stage().report.psql(&dsn, &[insert]).unwrap();
    assert!(output.ok(), "{output:?}");
    assert_eq!(field.postgres().count("harm").unwrap(), 1);
    say("OPEN", "report", "the server's unix socket", "written");
}

/// Who was connected is who is asked about, whoever uses the connection.
#[test]
fn a_connection_stays_its_connectors() {
    let field = Field::new();
    let stage = field.stage();
    let gives = r#"
import array, os, socket, sys
s = socket.create_connection((sys.argv[1], 5432)); s.setblocking(True)
way = socket.socket(socket.AF_UNIX); way.connect(sys.argv[2])
way.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])
way.recv(1)
"#;
    let takes = r#"
import os, psycopg, socket, struct, sys
own = socket.socket(socket.AF_UNIX); own.bind(sys.argv[2]); own.listen()
print('ready', flush=True)
way, _ = own.accept()
fd, = struct.unpack('i', way.recvmsg(1, 64)[1][0][2])
s = socket.socket(fileno=fd); s.settimeout(10)
body = struct.pack('!I', 196608) + b'user\0jane\0database\0shop\0\0'
s.sendall(struct.pack('!I', len(body) + 4) + body)
got = b''
while b'Z\0\0\0\x05' not in got: got += s.recv(65536)
sql = b"insert into orders values (77, 'passed')\0"
s.sendall(b'Q' + struct.pack('!I', len(sql) + 4) + sql)
print(s.recv(65536)); way.send(b'x')
"#;
    let path = field.dir().join("way");
    let path = path.to_str().unwrap();
    let address = field.postgres().address();
    let mut taker = stage.report.command(lockgate_tests::python());
    let mut taker = taker
        .args(["-uc", takes, address, path])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(taker.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let given = stage.app.python(gives, &[address, path]).unwrap();
    assert!(given.ok(), "{given:?}");
    taker.wait().unwrap();
    let said = lines.next().unwrap().unwrap();
    let sql = "select count(*) from orders where id = 77";
    assert_eq!(field.postgres().admin("shop", sql).unwrap(), "1", "{said}");
    let events = stage.agent.events(&["--verb", "insert"], 1).unwrap();
    assert_eq!(events[0]["workload"], "app", "{events:?}");
    say(
        "OPEN",
        "report",
        "a connection of another workload",
        "written, as `app`",
    );
}

/// A target is what it lists; `*` lists every address, those with a scope, too.
#[test]
fn another_address_of_the_server_is_open_unless_the_port_is_protected() {
    let way = |field: &Field| {
        let namespace = field.postgres().namespace();
        let addresses = sh(&format!(
            "ip -n {} -6 -o addr show scope link",
            namespace.name()
        ))
        .unwrap();
        let address = addresses.split_whitespace().nth(3).unwrap();
        let address = address.split('/').next().unwrap();
        format!("plain @{address}%{}", namespace.host_link())
    };
    let mut field = Field::new();
    let open = way(&field);
    field.is_open(&Who::Nobody, &open);
    let mut field = Field::with_targets(
        "[[target]]\nname = \"rest\"\nprotocol = \"tcp\"\nmatch = [\"*:5432\"]\n",
    );
    let closed = way(&field);
    field.try_all(&Who::Nobody, &[&closed]);
    field.finish();
}
