//! Builds the eBPF programs. They need `core` built from source for
//! `bpfel-unknown-none`, so a compiler that comes with that source: a rustup
//! nightly with rust-src where there is one, else Debian's rustc-web.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Builds `ebpf/programs` and returns the object's path. Cargo decides whether
/// anything has changed.
pub fn build(root: &Path) -> Result<PathBuf> {
    let target = root.join("target/ebpf");
    let linker = linker()?;
    let compiler = Compiler::find()?;
    let flags = format!(
        "-Clinker={} -Clink-arg=--btf --cfg=bpf_target_arch=\"x86_64\" -Cdebuginfo=2",
        linker.display()
    );
    let mut command = compiler.cargo();
    command
        .current_dir(root.join("ebpf/programs"))
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["-Z", "build-std=core", "--target", "bpfel-unknown-none"])
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", flags);
    let status = command
        .status()
        .context("cargo for the eBPF programs cannot be started")?;
    if !status.success() {
        bail!("the eBPF programs do not build");
    }
    let built = target.join("bpfel-unknown-none/release/lockgate");
    let object = target.join("lockgate.bpf.o");
    // Only when it differs, so that what embeds it is not built again.
    let fresh = std::fs::read(&built)?;
    if std::fs::read(&object).ok().as_ref() != Some(&fresh) {
        std::fs::write(&object, fresh)?;
    }
    Ok(object)
}

/// Where the source of `core` comes from.
pub enum Compiler {
    Nightly,
    Debian,
}

impl Compiler {
    /// Finds one; an error says what to do.
    pub fn find() -> Result<Self> {
        let sysroot = Command::new("rustc")
            .args(["+nightly", "--print", "sysroot"])
            .output();
        if let Ok(output) = sysroot
            && output.status.success()
        {
            let sysroot = PathBuf::from(String::from_utf8(output.stdout)?.trim());
            if sysroot.join("lib/rustlib/src/rust/library/core").exists() {
                return Ok(Self::Nightly);
            }
        }
        if Path::new("/usr/lib/rustlib/src/rust/library/core").exists() {
            return Ok(Self::Debian);
        }
        bail!("no compiler with the source of `core` was found; run `cargo xtask setup`")
    }

    fn cargo(&self) -> Command {
        let mut command;
        match self {
            Self::Nightly => {
                command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
            }
            Self::Debian => {
                command = Command::new("/usr/bin/cargo");
                command
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    // Without rustup's shims, which would pick another compiler.
                    .env(
                        "PATH",
                        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    );
            }
        }
        // What the cargo that runs us has set is meant for its own build.
        for name in [
            "CARGO",
            "RUSTUP_TOOLCHAIN",
            "RUSTC_WRAPPER",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            command.env_remove(name);
        }
        command
    }
}

/// Finds bpf-linker on the PATH or where `cargo install` puts it.
pub fn linker() -> Result<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
        .context("bpf-linker was not found; run `cargo xtask setup`")
}
