//! What becomes of a client's sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use lockgate_abi::{INET, INET6, Listener};
use lockgate_gate::Listeners;

use crate::field::{EPERM, Field, accept, connect, outcome};

#[test]
fn ipv4_is_redirected_and_attributed() {
    let mut field = Field::new(&["127.0.0.77:5432"]);
    let (host, listeners) = field.listen();
    let child = field.spawn(&connect("127.0.0.77", 5432));
    let (mut stream, origin) = accept(&mut field, &host, &listeners.v4);
    let origin = origin.expect("a redirected client has an origin");
    assert_eq!((origin.family, origin.port), (INET, 5432));
    assert_eq!(origin.address[..4], [127, 0, 0, 77]);
    assert_eq!(origin.tgid, child.id(), "exec keeps the pid");
    assert!(
        origin.exec_ns > origin.start_ns && origin.start_ns > 0,
        "{origin:?}"
    );
    let now = field.kernel.processes()(child.id()).unwrap();
    assert_eq!(
        (now.start_ns, now.exec_ns),
        (origin.start_ns, origin.exec_ns)
    );
    stream.write_all(b"hi").unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(printed, format!("('127.0.0.77', 5432) {pid} hi"));
}

#[test]
fn ipv6_and_mapped_ipv4_are_redirected() {
    let mut field = Field::new(&["[::1]:5433", "127.0.0.78:5434"]);
    let (host, listeners) = field.listen();
    let v6 = listeners.v6.as_ref().expect("this host has IPv6");
    let child = field.spawn(&connect("::1", 5433));
    let (mut stream, origin) = accept(&mut field, &host, v6);
    let origin = origin.unwrap();
    assert_eq!((origin.family, origin.port), (INET6, 5433));
    stream.write_all(b"hi").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("('::1', 5433)"));

    let child = field.spawn(&connect("::ffff:127.0.0.78", 5434));
    let (mut stream, origin) = accept(&mut field, &host, &listeners.v4);
    let origin = origin.unwrap();
    assert_eq!(
        (origin.family, origin.port),
        (INET, 5434),
        "a mapped address is IPv4"
    );
    stream.write_all(b"hi").unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed.starts_with("('::ffff:127.0.0.78', 5434)"),
        "{printed}"
    );
}

#[test]
fn without_a_lease_it_is_refused_and_never_direct() {
    let real = TcpListener::bind("127.0.0.79:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&[&format!("127.0.0.79:{port}")]);
    let code = format!("socket.create_connection(('127.0.0.79',{port}),timeout=2)");
    assert_eq!(outcome(&field, &code), EPERM, "never held");
    let (_, _listeners) = field.listen();
    assert_eq!(outcome(&field, &code), "connected");
    field.lease.hold(false);
    assert_eq!(outcome(&field, &code), EPERM, "given up");
    real.set_nonblocking(true).unwrap();
    assert!(real.accept().is_err(), "the real server saw a client");
    let refusal = field.kernel.next_refusal().expect("the gate hears of it");
    assert_eq!(
        (refusal.reason, refusal.port),
        (lockgate_abi::reason::DOWN, port)
    );
}

#[test]
fn a_namespace_without_a_listener_is_refused() {
    let mut field = Field::new(&["127.0.0.80:5432"]);
    field.listen();
    field.kernel.listen(&[]).unwrap();
    let code = "socket.create_connection(('127.0.0.80',5432),timeout=2)";
    assert_eq!(outcome(&field, code), EPERM);
}

#[test]
fn what_is_not_protected_is_not_touched() {
    let real = TcpListener::bind("127.0.0.81:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&["127.0.0.81:5432"]);
    field.listen();
    let code = format!("socket.create_connection(('127.0.0.81',{port}),timeout=2)");
    assert_eq!(outcome(&field, &code), "connected");
    assert!(real.accept().is_ok());
}

#[test]
fn who_comes_by_himself_has_no_origin() {
    let mut field = Field::new(&["127.0.0.82:5432"]);
    let (host, listeners) = field.listen();
    let _stray = TcpStream::connect(listeners.v4.local_addr().unwrap()).unwrap();
    let (_, origin) = accept(&mut field, &host, &listeners.v4);
    assert_eq!(origin, None);
}

#[test]
fn nobody_takes_a_listeners_port() {
    let mut field = Field::new(&["127.0.0.83:5432"]);
    let (host, listeners) = field.listen();
    let port = listeners.v4.local_addr().unwrap().port();
    let code = format!("s=socket.socket();s.bind(('127.0.0.1',{port}))");
    assert_eq!(outcome(&field, &code), EPERM, "while it is taken");
    drop(listeners);
    assert_eq!(outcome(&field, &code), EPERM, "while it is free");
    // By luck: on hosts that choose from all ports, a listener's is among them.
    let chosen = TcpListener::bind("127.0.0.83:0").unwrap();
    let port4 = chosen.local_addr().unwrap().port();
    drop(chosen);
    let listener = Listener { port4, port6: 0 };
    field.kernel.listen(&[(host.cookie(), listener)]).unwrap();
    let lucky = format!(
        "s=socket.socket();s.setsockopt(socket.IPPROTO_IP,51,struct.pack('HH',{port4},{port4}))
s.bind(('127.0.0.1',0))"
    );
    assert_eq!(outcome(&field, &lucky), EPERM, "by luck");
    let again = Listeners::open(&host, &field.kernel.exemptions()).unwrap();
    assert!(again.ports().unwrap().port4 > 0, "the gate itself may");
}

#[test]
fn other_kinds_of_sockets_are_refused() {
    let mut field = Field::new(&["127.0.0.84:5432"]);
    field.listen();
    for (code, what) in [
        (
            "socket.socket(socket.AF_INET,socket.SOCK_STREAM,262)",
            "MPTCP",
        ),
        ("socket.socket(socket.AF_INET,socket.SOCK_RAW,6)", "raw TCP"),
        (
            "socket.socket(socket.AF_INET,socket.SOCK_RAW,255)",
            "raw IP",
        ),
        (
            "socket.socket(socket.AF_INET,socket.SOCK_DGRAM).connect(('127.0.0.84',5432))",
            "UDP",
        ),
        (
            "socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b'x',('127.0.0.84',5432))",
            "UDP send",
        ),
    ] {
        assert_eq!(outcome(&field, code), EPERM, "{what}");
    }
    let other = "socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b'x',('127.0.0.84',5431))";
    assert_eq!(outcome(&field, other), "connected", "UDP elsewhere");
}

#[test]
fn only_the_gate_is_exempt() {
    let real = TcpListener::bind("127.0.0.85:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&[&format!("127.0.0.85:{port}")]);
    let (host, listeners) = field.listen();
    // A mark, which a container's root can set, changes nothing.
    let marked = format!(
        "s=socket.socket();s.setsockopt(socket.SOL_SOCKET,36,0x1337);s.connect(('127.0.0.85',{port}))"
    );
    assert_eq!(outcome(&field, &marked), "connected");
    assert!(
        accept(&mut field, &host, &listeners.v4).1.is_some(),
        "redirected all the same"
    );
    real.set_nonblocking(true).unwrap();
    assert!(real.accept().is_err());

    let own = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    field.kernel.exemptions().grant(&own).unwrap();
    let address: SocketAddr = format!("127.0.0.85:{port}").parse().unwrap();
    own.connect(&address.into()).unwrap();
    real.set_nonblocking(false).unwrap();
    assert!(real.accept().is_ok());
}

#[test]
fn a_socket_that_connects_again_is_recorded_again() {
    let mut field = Field::new(&["127.0.0.86:5432", "127.0.0.86:5433"]);
    let (host, listeners) = field.listen();
    let child = field.spawn(
        "import socket,ctypes
s=socket.socket();s.connect(('127.0.0.86',5432));s.recv(1)
libc=ctypes.CDLL(None);libc.connect(s.fileno(),b'\\0'*16,16)
s.connect(('127.0.0.86',5433));print(s.getpeername(),s.recv(2).decode())",
    );
    let (mut first, origin) = accept(&mut field, &host, &listeners.v4);
    assert_eq!(origin.unwrap().port, 5432);
    first.write_all(b"x").unwrap();
    let (mut second, origin) = accept(&mut field, &host, &listeners.v4);
    assert_eq!(origin.unwrap().port, 5433);
    second.write_all(b"hi").unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(printed, "('127.0.0.86', 5433) hi");
    drop(first.read(&mut [0]));
}

/// The kernel takes the unspecified address for the socket's own, or for
/// loopback.
#[test]
fn the_unspecified_address_is_no_way_around() {
    let real = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&[&format!("127.0.0.1:{port}"), &format!("[::1]:{port}")]);
    let _listening = field.listen();
    field.lease.hold(false);
    for code in [
        format!("socket.create_connection(('0.0.0.0',{port}),timeout=2)"),
        format!("socket.create_connection(('::',{port}),timeout=2)"),
        format!("socket.create_connection(('::ffff:0.0.0.0',{port}),timeout=2)"),
    ] {
        assert_eq!(outcome(&field, &code), EPERM, "{code}");
    }
    real.set_nonblocking(true).unwrap();
    assert!(real.accept().is_err(), "the real server saw a client");

    // A socket that is bound goes to the address it is bound to.
    let real = TcpListener::bind("127.0.0.89:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&[&format!("127.0.0.89:{port}")]);
    let (host, listeners) = field.listen();
    let child = field.spawn(&format!(
        "import socket
s=socket.socket();s.bind(('127.0.0.89',0));s.connect(('0.0.0.0',{port}))
print(s.getpeername(),s.recv(2).decode())"
    ));
    real.set_nonblocking(true).unwrap();
    let (mut stream, origin) = accept(&mut field, &host, &listeners.v4);
    assert_eq!(origin.unwrap().address[..4], [127, 0, 0, 89]);
    stream.write_all(b"hi").unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(printed, format!("('127.0.0.89', {port}) hi"));
    assert!(real.accept().is_err(), "the real server saw a client");
}
