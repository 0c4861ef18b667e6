//! A volume's key on its way to the privileged half: in a file that is memory alone, passed as a descriptor, and overwritten
//! by whoever read it. It is in no message, so in no trace of one.

use isolarium_runtime::executor::VolumeKey;
use rustix::fs::MemfdFlags;
use std::io;
use std::os::fd::OwnedFd;

/// A key as a file.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn write(key: &VolumeKey) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("volume-key", MemfdFlags::CLOEXEC)?;
    if rustix::io::pwrite(&memory, key.expose(), 0)? == key.expose().len() {
        Ok(memory)
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// The key of a file that [`write`] made, which holds none afterwards.
///
/// # Errors
/// `InvalidData` for a file that holds anything else; what the kernel answers.
pub(crate) fn read(file: &OwnedFd) -> io::Result<VolumeKey> {
    let mut bytes = [0_u8; 32];
    let whole = rustix::fs::fstat(file)?.st_size == 32 && rustix::io::pread(file, &mut bytes, 0)? == bytes.len();
    let key = VolumeKey::new(bytes);
    bytes.fill(0);
    std::hint::black_box(&bytes);
    erase(file)?;
    if whole {
        Ok(key)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Overwrites a file of [`write`].
///
/// # Errors
/// What the kernel answers.
pub(crate) fn erase(file: &OwnedFd) -> io::Result<()> {
    rustix::io::pwrite(file, &[0; 32], 0)?;
    Ok(rustix::fs::ftruncate(file, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: CC-36
    #[test]
    fn a_key_arrives_once_and_is_nowhere_afterwards() {
        let file = write(&VolumeKey::new([7; 32])).unwrap();
        assert_eq!(read(&file).unwrap().expose(), &[7; 32]);
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 0);
        assert_eq!(
            read(&file).unwrap_err().kind(),
            io::ErrorKind::InvalidData,
            "there was one"
        );
        assert_eq!(format!("{:?}", VolumeKey::new([7; 32])), "[secret]");
    }
}
