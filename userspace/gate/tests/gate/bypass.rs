//! Ways past the redirect that take a look at the kernel's maps, or at packets,
//! to be seen. What a server can be asked about is in `tests/tests/e2e/bypass`.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use lockgate_abi::reason;

use crate::field::{Field, accept, flow, outcome};

fn held(way: &str, said: &str) {
    println!("held        gate                     {way}  -- {said}");
}

/// listen(2) on a socket that was not bound takes a port that no bind hook is
/// asked about, and everybody can say from which ports it is to choose.
#[test]
fn who_waits_for_a_listeners_port_does_not_get_it() {
    let mut field = Field::new(&["127.0.0.104:5432"]);
    let (_, listeners) = field.listen();
    let port = listeners.v4.local_addr().unwrap().port();
    // As if the gate had died.
    drop(listeners);
    let wait = |port: u16| {
        format!(
            "import socket,struct
s=socket.socket();s.setsockopt(socket.IPPROTO_IP,51,struct.pack('HH',{port},{port}))
s.listen();print(s.getsockname()[1])"
        )
    };
    let free = TcpListener::bind("127.0.0.104:0").unwrap();
    let other = free.local_addr().unwrap().port();
    drop(free);
    assert_eq!(
        field.python(&wait(other)),
        other.to_string(),
        "a port that may be had"
    );
    let got = field.python(&wait(port));
    assert_ne!(got, port.to_string(), "the listener's port");
    held(
        "listen(2) without bind(2)",
        &format!("port {got}, not {port}"),
    );
}

/// A record that no accept has taken would name whoever comes next from the
/// same address.
#[test]
fn a_record_serves_nobody_but_its_connection() {
    let mut field = Field::new(&["127.0.0.105:5432"]);
    let (host, listeners) = field.listen();
    let listener = listeners.v4.local_addr().unwrap();
    let connect = |bound: &str, to: SocketAddr| {
        format!(
            "import socket,struct
s=socket.socket();s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
s.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0))
s.bind(('127.0.0.1',{bound}));s.connect(('{}',{}));print(s.getsockname()[1])",
            to.ip(),
            to.port()
        )
    };
    let protected = "127.0.0.105:5432".parse().unwrap();
    let client = |port: &str| SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let first = field.python(&connect("0", protected));
    assert!(
        field
            .kernel
            .take_origin(&flow(&host, client(&first)))
            .is_some(),
        "it stays until somebody takes it"
    );
    let second = field.python(&connect("0", protected));
    assert_eq!(field.python(&connect(&second, listener)), second);
    assert_eq!(
        field.kernel.take_origin(&flow(&host, client(&second))),
        None
    );
    held("an address whose record was left behind", "no record");
}

#[test]
fn a_socket_that_goes_elsewhere_loses_its_record() {
    let mut field = Field::new(&["127.0.0.106:5432"]);
    let (host, listeners) = field.listen();
    let listener = listeners.v4.local_addr().unwrap().port();
    let child = field.spawn(&format!(
        "import socket,ctypes
s=socket.socket();s.connect(('127.0.0.106',5432))
ctypes.CDLL(None).connect(s.fileno(),b'\\0'*16,16)
s.connect(('127.0.0.1',{listener}));print(s.getpeername()[1])"
    ));
    let (_first, origin) = accept(&mut field, &host, &listeners.v4);
    assert!(origin.is_some());
    let (_second, origin) = accept(&mut field, &host, &listeners.v4);
    assert_eq!(origin, None, "it came by itself");
    let output = child.wait_with_output().unwrap();
    let peer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(peer, listener.to_string());
    held("the listener after a redirected connection", "no record");
}

/// A raw socket for another protocol takes a header of TCP as well, whole or
/// in fragments.
#[test]
fn handshakes_by_hand_do_not_leave() {
    let real = TcpListener::bind("127.0.0.107:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&[&format!("127.0.0.107:{port}")]);
    field.listen();
    for (way, fragments) in [
        ("a raw socket for ICMP", false),
        ("the same in fragments", true),
    ] {
        let program = SYN
            .replace("PORT", &port.to_string())
            .replace("FRAGMENTS", if fragments { "True" } else { "False" });
        let direct = answers(port, || {
            let run = Command::new("/usr/bin/python3")
                .args(["-c", &program])
                .status();
            assert!(run.unwrap().success());
        });
        assert!(direct, "{way}: leads nowhere past lockgate either");
        let through = answers(port, || {
            field.python(&format!(
                "try:\n {}\nexcept OSError as e: print(e)",
                program.replace('\n', "\n ")
            ));
        });
        assert!(!through, "{way}: the server answered");
        let refusal = field.kernel.next_refusal().expect("the gate hears of it");
        assert_eq!(refusal.reason, reason::PACKET);
        held(way, "the server has seen nothing");
    }
    let code = "socket.socket(socket.AF_INET6,socket.SOCK_RAW,58).sendto(b'x'*8,('::1',0))";
    assert_eq!(
        outcome(&field, code),
        "connected",
        "other raw packets leave"
    );
}

/// More headers before TCP's than are read.
#[test]
fn handshakes_behind_many_headers_do_not_leave() {
    let real = TcpListener::bind("[::1]:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&[&format!("[::1]:{port}")]);
    field.listen();
    for headers in [0, 8, 9] {
        let program = SYN6
            .replace("PORT", &port.to_string())
            .replace("HEADERS", &headers.to_string());
        let direct = answers(port, || {
            let run = Command::new("/usr/bin/python3")
                .args(["-c", &program])
                .status();
            assert!(run.unwrap().success());
        });
        assert!(direct, "{headers}: leads nowhere past lockgate either");
        let through = answers(port, || {
            field.python(&format!(
                "try:\n {}\nexcept OSError as e: print(e)",
                program.replace('\n', "\n ")
            ));
        });
        assert!(!through, "{headers} headers: the server answered");
        let refusal = field.kernel.next_refusal().expect("the gate hears of it");
        assert_eq!(refusal.reason, reason::PACKET);
        let way = format!("a raw socket for IPv6, {headers} headers before TCP's");
        held(&way, "the server has seen nothing");
    }
}

/// Sends a SYN for ::1, behind HEADERS headers of options.
const SYN6: &str = "import socket,struct
def sum16(b):
 n=sum(struct.unpack('!%dH'%(len(b)//2),b))
 while n>>16:n=(n&65535)+(n>>16)
 return ~n&65535
one=socket.inet_pton(socket.AF_INET6,'::1')
tcp=struct.pack('!HHIIBBHHH',40999,PORT,1,0,0x50,2,1024,0,0)
tcp=tcp[:16]+struct.pack('!H',sum16(one+one+struct.pack('!IHBB',20,0,0,6)+tcp))+tcp[18:]
part,first=tcp,6
for _ in range(HEADERS):
 part,first=bytes([first,0,1,4,0,0,0,0])+part,60
s=socket.socket(socket.AF_INET6,socket.SOCK_RAW,socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6,36,1)
s.sendto(struct.pack('!IHBB',6<<28,len(part),first,64)+one+one+part,('::1',0))";

/// Sends a SYN for 127.0.0.107, made by hand.
const SYN: &str = "import socket,struct
def sum16(b):
 n=sum(struct.unpack('!%dH'%(len(b)//2),b))
 while n>>16:n=(n&65535)+(n>>16)
 return ~n&65535
src,dst=socket.inet_aton('127.0.0.1'),socket.inet_aton('127.0.0.107')
tcp=struct.pack('!HHIIBBHHH',40999,PORT,1,0,0x50,2,1024,0,0)
pseudo=src+dst+struct.pack('!BBH',0,6,20)
tcp=tcp[:16]+struct.pack('!H',sum16(pseudo+tcp))+tcp[18:]
s=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_ICMP)
s.setsockopt(socket.IPPROTO_IP,socket.IP_HDRINCL,1)
def send(part,frag):
 ip=struct.pack('!BBHHHBBH',0x45,0,20+len(part),7,frag,64,6,0)+src+dst
 s.sendto(ip+part,('127.0.0.107',0))
if FRAGMENTS:
 send(tcp[:8],0x2000)
 send(tcp[8:],1)
else:
 send(tcp,0)";

/// Whether a server on `port` answers a SYN while `send` runs.
fn answers(port: u16, send: impl FnOnce()) -> bool {
    let watch = format!(
        "import socket,struct,sys,select,time
s=socket.socket(socket.AF_PACKET,socket.SOCK_DGRAM,socket.htons(3))
s.settimeout(0.2);print('up',flush=True)
end=seen=None
while not seen and (end is None or time.time()<end):
 if end is None and select.select([sys.stdin],[],[],0)[0]:end=time.time()+1
 try:p=s.recv(2000)
 except TimeoutError:continue
 t,kind=(p[40:],p[6]) if p[0]>>4==6 else (p[(p[0]&15)*4:],p[9])
 seen=kind==6 and len(t)>=14 and t[:4]==struct.pack('!HH',{port},40999) and t[13]&18==18
print(bool(seen))"
    );
    let mut watcher = Command::new("/usr/bin/python3")
        .args(["-c", &watch])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watcher.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    send();
    // It looks for a second longer: on loopback an answer is there at once.
    drop(watcher.stdin.take());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    watcher.wait().unwrap();
    rest.trim() == "True"
}
