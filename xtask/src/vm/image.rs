//! The guest's file system: one that the kernel unpacks into memory, so that no
//! driver is needed. Debian's kernels for clouds have none for folders of the
//! host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lockgate_tests::{root, run as output, sh};

use crate::step;
use crate::vm::debian::Kernel;

/// Whose programs the tests run, of this machine.
const PACKAGES: &[&str] = &[
    "bash",
    "coreutils",
    "dash",
    "grep",
    "iproute2",
    "mount",
    "sed",
    "util-linux",
];
const FOLDERS: &[&str] = &["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/"];
const PYTHON: &str = "/usr/bin/python3";

/// Which modules the tests reach, besides what they depend on: the kernel loads
/// them when they are asked for, as on every host.
const MODULES: &[&str] = &[
    "kernel/net/ipv4/inet_diag.ko",
    "kernel/net/ipv4/tcp_diag.ko",
    "kernel/fs/fuse/fuse.ko",
    "kernel/fs/overlayfs/overlay.ko",
];

/// Writes `folder/initrd` with the tests as `/tests`.
pub fn build(folder: &Path, kernel: &Kernel, busybox: &Path, tests: &Path) -> Result<PathBuf> {
    let image = Image {
        root: folder.join("root"),
    };
    let _ = fs::remove_dir_all(&image.root);
    image.skeleton(busybox)?;
    image.programs(tests)?;
    image.modules(kernel, busybox)?;
    let initrd = folder.join("initrd");
    sh(&format!(
        "cd {} && find . | {} cpio -o -H newc > {} 2>/dev/null",
        image.root.display(),
        busybox.display(),
        initrd.display()
    ))?;
    fs::remove_dir_all(&image.root)?;
    Ok(initrd)
}

struct Image {
    root: PathBuf,
}

impl Image {
    fn skeleton(&self, busybox: &Path) -> Result<()> {
        for folder in ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var"] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        for folder in ["bin", "lib", "lib64", "sbin"] {
            fs::create_dir_all(self.root.join("usr").join(folder))?;
            symlink(format!("usr/{folder}"), self.root.join(folder))?;
        }
        fs::copy(busybox, self.root.join("usr/bin/busybox"))?;
        symlink("../bin/busybox", self.root.join("usr/sbin/modprobe"))?;
        for (path, text) in [
            ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            (
                "etc/passwd",
                "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
            ),
            ("init", include_str!("init.sh")),
        ] {
            fs::write(self.root.join(path), text)?;
        }
        let executable = fs::Permissions::from_mode(0o755);
        Ok(fs::set_permissions(self.root.join("init"), executable)?)
    }

    fn programs(&self, tests: &Path) -> Result<()> {
        let listed = output(Command::new("dpkg").arg("-L").args(PACKAGES))?;
        let is_program = |path: &&str| FOLDERS.iter().any(|folder| path.starts_with(folder));
        let programs = listed.stdout.lines().filter(is_program);
        let mut programs: Vec<PathBuf> = programs.map(PathBuf::from).collect();
        if !listed.ok() || programs.is_empty() {
            bail!("dpkg -L: {}", listed.all().trim());
        }
        let python = fs::canonicalize(PYTHON)?;
        let library = Path::new("/usr/lib").join(python.file_name().context("it has a name")?);
        self.take(&library)?;
        let extensions = fs::read_dir(library.join("lib-dynload"))?;
        let mut linked: Vec<PathBuf> = extensions.flatten().map(|it| it.path()).collect();
        programs.push(PYTHON.into());
        for program in &programs {
            self.take(program)?;
        }
        fs::copy(tests, self.root.join("tests"))?;
        linked.push(tests.to_owned());
        linked.extend(programs);
        for library in libraries(&linked)? {
            self.take(&library)?;
        }
        // No compiler is in there, and a gate that is emulated looks at processes
        // later than one that is not.
        let support = root().join("userspace/gate/tests/gate/support");
        let compiled = self.root.join("compiled");
        fs::create_dir(&compiled)?;
        for entry in fs::read_dir(support)? {
            let source = entry?.path();
            if source.extension().is_some_and(|it| it == "c") {
                let name = source.file_stem().context("it has a name")?;
                let mut compiler = Command::new("cc");
                compiler.args(["-static", "-O1", "-w", "-DMILLISECONDS=100", "-o"]);
                step::quiet(compiler.arg(compiled.join(name)).arg(&source))?;
            }
        }
        Ok(())
    }

    /// Copies what is at a path of this machine to the same path, and where a
    /// link leads to.
    fn take(&self, path: &Path) -> Result<()> {
        let name = path.file_name().context("it has a name")?;
        let folder = path.parent().context("it has a folder")?;
        let folder = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(name);
        let to = self.root.join(path.strip_prefix("/")?);
        let metadata = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        if metadata.is_dir() {
            // A library to link with, which is most of Python's bytes.
            if name.to_string_lossy().starts_with("config-") {
                return Ok(());
            }
            for entry in fs::read_dir(&path)? {
                self.take(&entry?.path())?;
            }
            return Ok(());
        }
        if fs::symlink_metadata(&to).is_ok() {
            return Ok(());
        }
        fs::create_dir_all(to.parent().context("it has a folder")?)?;
        if metadata.is_symlink() {
            let target = fs::read_link(&path)?;
            symlink(&target, &to)?;
            let target = folder.join(target);
            return if target.exists() {
                self.take(&target)
            } else {
                Ok(())
            };
        }
        fs::copy(&path, &to)?;
        // Python compares the time of a source with what it has compiled.
        let copy = fs::File::options().append(true).open(&to)?;
        Ok(copy.set_modified(metadata.modified()?)?)
    }

    fn modules(&self, kernel: &Kernel, busybox: &Path) -> Result<()> {
        let version = kernel.modules.file_name().context("it has a name")?;
        let to = self.root.join("usr/lib/modules").join(version);
        let builtin = fs::read_to_string(kernel.modules.join("modules.builtin"))?;
        for name in MODULES {
            if builtin.lines().any(|line| line == *name) {
                continue;
            }
            let to = to.join(name);
            fs::create_dir_all(to.parent().context("it has a folder")?)?;
            let plain = kernel.modules.join(name);
            if plain.exists() {
                fs::copy(plain, to)?;
            } else {
                // What loads them does not read what is compressed.
                let packed = kernel.modules.join(format!("{name}.xz"));
                sh(&format!("xz -dc {} > {}", packed.display(), to.display()))?;
            }
        }
        let mut depmod = Command::new(busybox);
        depmod.arg("depmod").arg("-b").arg(&self.root).arg(version);
        step::quiet(&mut depmod)
    }
}

/// Everything that the dynamic loader would load for any of these.
fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    // It fails where one is a script.
    let told = output(Command::new("ldd").args(programs))?;
    let words = told.stdout.split_whitespace();
    let paths = words.filter(|word| word.starts_with('/') && !word.ends_with(':'));
    let found: BTreeSet<PathBuf> = paths.map(PathBuf::from).collect();
    if found.is_empty() {
        bail!("ldd: {}", told.all().trim());
    }
    Ok(found)
}
