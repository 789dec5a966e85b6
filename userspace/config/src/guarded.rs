use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

/// Largest secret in bytes; a key with its chain is a few thousand.
const LIMIT: u64 = 64 * 1024;

/// What is wrong with a file, and what to do about it.
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) fix: String,
}

impl Complaint {
    pub(crate) fn new(message: String, fix: impl Into<String>) -> Self {
        Self {
            message,
            fix: fix.into(),
        }
    }

    fn unreadable(path: &Path, why: &std::io::Error) -> Self {
        Self::new(
            format!("{} cannot be read: {why}", path.display()),
            "make the file, or name another",
        )
    }
}

/// Reads a secret. Others than its owner must not be able to: by its own mode,
/// or because they cannot enter its folder. One line break at the end is
/// dropped.
pub(crate) fn read_secret(path: &Path) -> Result<SecretString, Complaint> {
    let unreadable = |why| Complaint::unreadable(path, &why);
    // Looked at and read by one descriptor: it is the same file.
    let mut file = File::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(Complaint::new(
            format!("{} is not a file", path.display()),
            "name a file that holds the secret and nothing else",
        ));
    }
    if meta.mode() & 0o077 != 0 && !folder_is_closed(path) {
        return Err(Complaint::new(
            format!("{} can be read by others than its owner", path.display()),
            format!("run `chmod 600 {}`", path.display()),
        ));
    }
    let mut text = Zeroizing::new(String::new());
    let read = file.by_ref().take(LIMIT + 1).read_to_string(&mut text);
    let length = read.map_err(unreadable)?;
    if length as u64 > LIMIT {
        return Err(Complaint::new(
            format!("{} is over {LIMIT} bytes", path.display()),
            "name a file that holds the secret and nothing else",
        ));
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(Complaint::new(
            format!("{} is empty", path.display()),
            "write the secret into it",
        ));
    }
    Ok(SecretString::from(secret.to_owned()))
}

/// Whether only its owner can enter the folder of a file.
fn folder_is_closed(path: &Path) -> bool {
    let folder = path.parent().and_then(|parent| parent.metadata().ok());
    folder.is_some_and(|meta| meta.mode() & 0o077 == 0)
}

/// What decides must not be in the hands of those it decides about: a file or
/// folder that others than root and this user can change.
pub(crate) fn writable_by_others(path: &Path) -> Option<Complaint> {
    let meta = path.metadata().ok()?;
    let shown = path.display();
    if meta.mode() & 0o022 != 0 {
        let sticky_folder = meta.is_dir() && meta.mode() & 0o1000 != 0;
        return (!sticky_folder).then(|| {
            Complaint::new(
                format!("{shown} can be changed by others than its owner"),
                format!("run `chmod go-w {shown}`"),
            )
        });
    }
    let owner = meta.uid();
    let trusted = owner == 0 || Some(owner) == own_uid();
    (!trusted).then(|| {
        Complaint::new(
            format!("{shown} belongs to uid {owner}, who could change what is decided"),
            format!("run `chown root: {shown}`"),
        )
    })
}

fn own_uid() -> Option<u32> {
    let meta = Path::new("/proc/self").metadata().ok()?;
    Some(meta.uid())
}
