use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// Largest content that [`from_memfd`] reads: 256 MiB.
const LIMIT: u64 = 256 << 20;

/// Puts `content` into a memfd that nobody can change any more.
pub fn to_memfd(name: &str, content: &[u8]) -> std::io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(content)?;
    file.rewind()?;
    fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file.into())
}

/// Reads a memfd made by [`to_memfd`]; one that is not sealed could change
/// while it is read and is refused.
pub fn from_memfd(fd: OwnedFd) -> std::io::Result<Vec<u8>> {
    let sealed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    if !fcntl_get_seals(&fd)?.contains(sealed) {
        return Err(std::io::Error::other(
            "the descriptor is not a sealed memfd",
        ));
    }
    let mut file = File::from(fd);
    let length = file.metadata()?.len();
    if length > LIMIT {
        return Err(std::io::Error::other(format!(
            "{length} bytes are over the limit of {LIMIT}"
        )));
    }
    let mut content = Vec::with_capacity(length as usize);
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_and_cannot_be_changed() {
        let fd = to_memfd("test", b"policy").unwrap();
        let mut file = File::from(fd.try_clone().unwrap());
        assert!(file.write_all(b"x").is_err());
        assert_eq!(from_memfd(fd).unwrap(), b"policy");
    }

    #[test]
    fn an_unsealed_file_is_refused() {
        let file = tempfile_unsealed();
        assert!(from_memfd(file).is_err());
    }

    fn tempfile_unsealed() -> OwnedFd {
        memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap()
    }
}
