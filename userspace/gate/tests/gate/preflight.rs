//! What `lockgate doctor` says of a kernel, and what that kernel does.

use std::fs;

use lockgate_gate::preflight::{State, checks};

use crate::field::Field;

#[test]
fn doctor_names_what_this_kernel_lacks() {
    let field = Field::new(&["127.0.0.110:5432"]);
    let links = fs::read_dir(field.pins.join("links")).unwrap().flatten();
    let mut names = links.map(|link| link.file_name().to_string_lossy().into_owned());
    let tells = names.any(|name| name.starts_with("lockgate_prepare-"));
    let checks = checks();
    let broken: Vec<_> = checks
        .iter()
        .filter(|check| check.state == State::Broken)
        .collect();
    assert!(broken.is_empty(), "the programs run here: {broken:?}");
    let kernel = checks.iter().find(|check| check.name == "kernel").unwrap();
    let expected = if tells { State::Good } else { State::Open };
    assert_eq!(kernel.state, expected, "{kernel:?}");
    assert_eq!(kernel.found.contains("execve"), !tells, "{kernel:?}");
    println!("{}", kernel.found);
}
