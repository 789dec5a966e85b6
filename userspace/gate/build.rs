//! Takes in the eBPF object, which another compiler builds.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=LOCKGATE_EBPF_OBJECT");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let object = std::env::var_os("LOCKGATE_EBPF_OBJECT")
        .map(PathBuf::from)
        .unwrap_or_else(|| root.join("target/ebpf/lockgate.bpf.o"));
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        println!(
            "cargo::error={} is missing; run `cargo xtask ebpf`, which builds it",
            object.display()
        );
        return;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap()).join("lockgate.bpf.o");
    std::fs::copy(&object, out).unwrap();
}
