//! One gate after the other.

use std::fs;
use std::net::TcpListener;

use lockgate_abi::VERSION;
use lockgate_gate::{Kernel, Protected};

use crate::field::Field;

#[test]
fn a_new_gate_takes_over_without_a_gap() {
    let real = TcpListener::bind("127.0.0.87:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&[&format!("127.0.0.87:{port}")]);
    field.listen();
    let mut child = field.spawn(&format!(
        "import socket,time
end=time.time()+3
bad=0
while time.time()<end:
 try:
  s=socket.create_connection(('127.0.0.87',{port}),timeout=1);s.close()
 except OSError: pass
print('done')"
    ));
    for _ in 0..3 {
        let next = Kernel::attach(Some(&field.cgroup), &field.pins, &Protected::default()).unwrap();
        assert_eq!(
            next.protected(),
            field.kernel.protected(),
            "what was protected stays so"
        );
        field.kernel = next;
    }
    child.wait().unwrap();
    real.set_nonblocking(true).unwrap();
    assert!(
        real.accept().is_err(),
        "a client went directly while the programs were replaced"
    );
    let links = fs::read_dir(field.pins.join("links")).unwrap().count();
    assert_eq!(
        links,
        field.kernel.links(),
        "no link of an earlier gate is left"
    );
}

#[test]
fn maps_of_another_version_leave_no_gap_either() {
    let real = TcpListener::bind("127.0.0.91:0").unwrap();
    let port = real.local_addr().unwrap().port();
    let mut field = Field::new(&[&format!("127.0.0.91:{port}")]);
    let _listening = field.listen();
    let mut child = field.spawn(&format!(
        "import socket,time
end=time.time()+2
while time.time()<end:
 try:
  s=socket.create_connection(('127.0.0.91',{port}),timeout=1);s.close()
 except OSError: pass"
    ));
    let wanted = field.kernel.protected().clone();
    let maps = field.pins.join(format!("maps-v{VERSION}"));
    for _ in 0..3 {
        fs::rename(&maps, field.pins.join("maps-v0")).unwrap();
        let next = Kernel::attach(Some(&field.cgroup), &field.pins, &wanted).unwrap();
        assert!(!field.pins.join("maps-v0").exists(), "they serve nobody");
        field.kernel = next;
    }
    assert!(child.wait().unwrap().success());
    real.set_nonblocking(true).unwrap();
    assert!(real.accept().is_err(), "a client went directly");
}

#[test]
fn release_leaves_nothing_but_what_is_others() {
    let mut field = Field::new(&["127.0.0.92:5432"]);
    let (host, _listeners) = field.listen();
    fs::create_dir(field.pins.join("of-others")).unwrap();
    let next = Kernel::attach(Some(&field.cgroup), &field.pins, &Protected::default()).unwrap();
    std::mem::replace(&mut field.kernel, next)
        .release()
        .unwrap();
    let left: Vec<_> = fs::read_dir(&field.pins).unwrap().flatten().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].file_name(), "of-others");
    let code = format!(
        "socket.create_connection(('127.0.0.92',5432),timeout=2) # {}",
        host.cookie()
    );
    let refused = libc::ECONNREFUSED.to_string();
    assert_eq!(
        crate::field::outcome(&field, &code),
        refused,
        "direct again"
    );
}
