//! Loop devices and the kernel's encryption of directories (fscrypt). Sizes and numbers are those of the kernel's
//! interface, the same on every architecture that the product runs on.

use super::check;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `LOOP_CTL_GET_FREE`, `LOOP_CONFIGURE`.
const GET_FREE: libc::Ioctl = 0x4C82;
const CONFIGURE: libc::Ioctl = 0x4C0A;
/// `FS_IOC_SET_ENCRYPTION_POLICY`, `FS_IOC_GET_ENCRYPTION_POLICY_EX`, `FS_IOC_ADD_ENCRYPTION_KEY`,
/// `FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS`.
const SET_POLICY: libc::Ioctl = 0x800C_6613;
const GET_POLICY: libc::Ioctl = 0xC009_6616;
const ADD_KEY: libc::Ioctl = 0xC050_6617;
const REMOVE_KEY: libc::Ioctl = 0xC040_6619;

/// `FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER`, `FSCRYPT_MODE_AES_256_XTS`, `FSCRYPT_MODE_AES_256_CTS`,
/// `FSCRYPT_POLICY_FLAGS_PAD_32`, `FSCRYPT_POLICY_V2`.
const BY_IDENTIFIER: u32 = 2;
const CONTENTS: u8 = 1;
const NAMES: u8 = 4;
const PADDED: u8 = 3;
const SECOND_VERSION: u8 = 2;

/// Which key opens a directory: what the kernel derives from the key, and tells nothing of it.
pub type KeyName = [u8; 16];

/// Another process took the device between the two calls that take one.
const TRIES: usize = 64;

#[expect(unsafe_code, reason = "these requests have no safe wrapper")]
fn request(on: BorrowedFd<'_>, number: libc::Ioctl, argument: &mut [u8]) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and every caller's argument has the size that the request reads and writes.
    check(unsafe { libc::ioctl(on.as_raw_fd(), number, argument.as_mut_ptr()) })
}

/// The device of `file` as a block device, and its path. It is free again when the last that has it open or mounted has
/// let go of it.
///
/// # Errors
/// What the kernel answers; `NotFound` without loop devices.
pub fn attach_loop(file: BorrowedFd<'_>) -> io::Result<(OwnedFd, String)> {
    let control = rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for _ in 0..TRIES {
        let number = request(control.as_fd(), GET_FREE, &mut [])?;
        let path = format!("/dev/loop{number}");
        let device = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        match request(device.as_fd(), CONFIGURE, &mut loop_config(file)?) {
            Ok(_) => return Ok((device, path)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// `struct loop_config`: the file, blocks of 4096 bytes, and `LO_FLAGS_AUTOCLEAR` in its `struct loop_info64`.
fn loop_config(file: BorrowedFd<'_>) -> io::Result<[u8; 304]> {
    const FLAGS: usize = 8 + 52;
    let number = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let mut config = [0; 304];
    put(&mut config, 0, &number.to_ne_bytes())?;
    put(&mut config, 4, &4096_u32.to_ne_bytes())?;
    put(&mut config, FLAGS, &4_u32.to_ne_bytes())?;
    Ok(config)
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) -> io::Result<()> {
    let place = into.get_mut(at..at + bytes.len());
    place
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?
        .copy_from_slice(bytes);
    Ok(())
}

/// Gives a key to the file system of `directory`; it is kept in the kernel's memory until [`remove_key`] or the last mount
/// goes.
///
/// # Errors
/// What the kernel answers: `EOPNOTSUPP` or `ENOTTY` without encryption in kernel or file system.
pub fn add_key(directory: BorrowedFd<'_>, key: &[u8; 32]) -> io::Result<KeyName> {
    let mut argument = [0_u8; 80 + 32];
    put(&mut argument, 0, &BY_IDENTIFIER.to_ne_bytes())?;
    put(&mut argument, 40, &32_u32.to_ne_bytes())?;
    put(&mut argument, 80, key)?;
    let added = request(directory, ADD_KEY, &mut argument);
    let name = name_at(&argument, 8);
    forget(&mut argument);
    added?;
    name
}

/// Overwrites what must not stay in memory.
pub fn forget(secret: &mut [u8]) {
    secret.fill(0);
    // Or the compiler would leave out a write that nobody reads.
    std::hint::black_box(secret);
}

fn name_at(bytes: &[u8], at: usize) -> io::Result<KeyName> {
    let name = bytes.get(at..at + 16).and_then(|name| name.try_into().ok());
    name.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Takes a key from the file system of `directory`: what is still open of its files goes on, everything else is closed.
///
/// # Errors
/// What the kernel answers; `ENOKEY` when it has no such key.
pub fn remove_key(directory: BorrowedFd<'_>, name: &KeyName) -> io::Result<()> {
    let mut argument = [0_u8; 64];
    put(&mut argument, 0, &BY_IDENTIFIER.to_ne_bytes())?;
    put(&mut argument, 8, name)?;
    request(directory, REMOVE_KEY, &mut argument).map(drop)
}

/// Has everything that will ever be in an empty directory encrypted: contents by AES-256-XTS, names by AES-256-CTS.
///
/// # Errors
/// What the kernel answers.
pub fn encrypt_directory(directory: BorrowedFd<'_>, name: &KeyName) -> io::Result<()> {
    let mut policy = [0_u8; 24];
    put(&mut policy, 0, &[SECOND_VERSION, CONTENTS, NAMES, PADDED])?;
    put(&mut policy, 8, name)?;
    request(directory, SET_POLICY, &mut policy).map(drop)
}

/// Which key a directory is encrypted under.
///
/// # Errors
/// `ENODATA` when it is not encrypted; `InvalidData` when it is in another way than [`encrypt_directory`]'s.
pub fn encrypted_under(directory: BorrowedFd<'_>) -> io::Result<KeyName> {
    let mut argument = [0_u8; 8 + 24];
    put(&mut argument, 0, &24_u64.to_ne_bytes())?;
    request(directory, GET_POLICY, &mut argument)?;
    if argument.get(8..12) != Some(&[SECOND_VERSION, CONTENTS, NAMES, PADDED]) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    name_at(&argument, 16)
}
