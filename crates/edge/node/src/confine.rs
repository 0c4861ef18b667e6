//! How the other half loses its privileges: its own view of the data directory, its own user, no way back.
//!
//! Called once, first thing in the child, while it has a single thread.

use isolarium_runtime::local::leave_volumes;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use std::ffi::CStr;
use std::io;
use std::path::{Path, PathBuf};

/// The user `serve` runs as when the machine has no user `isolarium`.
pub const FALLBACK_UID: u32 = 64_900;

/// Where the data directory appears in the service's mount namespace.
const VIEW: &str = "/mnt";

/// Why the service could not be confined. It must not go on with its privileges then.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine the service process: {step}")]
pub struct ConfineError {
    step: &'static str,
    #[source]
    source: io::Error,
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |error| ConfineError {
        step,
        source: error.into(),
    }
}

/// Name of the service user unless the operator chose another.
pub const SERVICE_USER: &str = "isolarium";

/// The configured service user cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadServiceUser {
    #[error("serve.user names {0:?}, which /etc/passwd does not have; make the user or leave the key out")]
    Missing(String),
    #[error("serve.user names {0:?}, whose uid or gid is 0; the service must have no privilege")]
    Root(String),
}

/// Uid and gid of the service user: those of `name` in the passwd file. Where [`SERVICE_USER`] does not exist it is
/// [`FALLBACK_UID`].
///
/// # Errors
/// When another name does not exist, or it is root's.
pub fn service_user(passwd: &str, name: &str) -> Result<(u32, u32), BadServiceUser> {
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let known = fields.next()?;
        let ids = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (known == name).then_some(ids)
    });
    match found {
        Some((0, _) | (_, 0)) => Err(BadServiceUser::Root(name.into())),
        Some(ids) => Ok(ids),
        None if name == SERVICE_USER => Ok((FALLBACK_UID, FALLBACK_UID)),
        None => Err(BadServiceUser::Missing(name.into())),
    }
}

/// Gives the calling process a private mount namespace in which the data directory is reachable by a path that needs
/// no search permission on its parents, then becomes the service user for good. Returns the directory's new path.
///
/// # Errors
/// The step that failed. Some privileges may be gone already; end the process.
pub fn become_service(data_dir: &Path, uid: u32, gid: u32) -> Result<PathBuf, ConfineError> {
    unshare_mounts().map_err(at("a mount namespace of its own (CLONE_NEWNS)"))?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(at("making mounts private"))?;
    leave_volumes(&[]).map_err(at("letting go of encrypted volumes"))?;
    // Opened in the new namespace (a bind from the old one is refused) and before the view may cover its path.
    let dir = rustix::fs::open(
        data_dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(at("opening the data directory"))?;
    // A tmpfs over an existing directory: nothing is made on the host's own file system.
    let no_data: Option<&CStr> = None;
    mount("tmpfs", VIEW, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, no_data)
        .map_err(at("a tmpfs for the view"))?;
    let view = Path::new(VIEW).join("data");
    std::fs::create_dir(&view).map_err(at("the view's directory"))?;
    mount_bind(
        format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir)),
        &view,
    )
    .map_err(at("binding the data directory"))?;
    // Records, keys and objects are the service's alone, whatever the starter's umask was.
    rustix::process::umask(Mode::from(0o077));
    give_up_terminal().map_err(at("giving up the terminal"))?;
    become_user(uid, gid).map_err(at("becoming the service user"))?;
    Ok(view)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Detaches the process from the terminal of whoever started the engine. Its standard streams may lead there, and
/// whoever holds a controlling terminal can type into it (TIOCSTI): into a root shell.
#[expect(unsafe_code, reason = "this request has no safe wrapper")]
fn give_up_terminal() -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = match rustix::fs::open("/dev/tty", flags, Mode::empty()) {
        Ok(terminal) => terminal,
        // There is none.
        Err(rustix::io::Errno::NXIO | rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // SAFETY: the descriptor is open and the request takes no argument.
    check(unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&terminal), libc::TIOCNOTTY) })
}

#[expect(unsafe_code, reason = "unshare has no safe wrapper")]
fn unshare_mounts() -> io::Result<()> {
    // SAFETY: takes flags alone; the process has one thread (see the module's contract).
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
}

#[expect(unsafe_code, reason = "the process-wide set*id calls have no safe wrapper")]
fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: plain calls with plain numbers; a null list of length 0 clears the groups.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        // setresuid made the process undumpable, which also hides /proc/self/fd from itself; the object store links
        // files by that path. Core files stay off, so no secret reaches the disk.
        check(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_user_is_the_packaged_one_or_the_fallback() {
        let with = "root:x:0:0::/root:/bin/sh\nisolarium:x:990:991::/nonexistent:/usr/sbin/nologin\n";
        let fallback = Ok((FALLBACK_UID, FALLBACK_UID));
        assert_eq!(service_user(with, SERVICE_USER), Ok((990, 991)));
        assert_eq!(service_user("root:x:0:0::/root:/bin/sh\n", SERVICE_USER), fallback);
        assert_eq!(service_user("isolarium:x:many\n", SERVICE_USER), fallback);
    }

    #[test]
    fn a_configured_service_user_exists_and_has_no_privilege() {
        let passwd = "root:x:0:0::/root:/bin/sh\ngroup:x:7:0::/:/bin/sh\nml:x:1001:1002::/home/ml:/bin/sh\n";
        assert_eq!(service_user(passwd, "ml"), Ok((1001, 1002)));
        assert_eq!(
            service_user(passwd, "nobody"),
            Err(BadServiceUser::Missing("nobody".into()))
        );
        for name in ["root", "group"] {
            assert_eq!(service_user(passwd, name), Err(BadServiceUser::Root(name.into())));
        }
    }
}
