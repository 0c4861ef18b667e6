//! Settings below `/proc/sys`, as the calling thread's namespace shows them.

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest value of a setting, bytes.
const LONGEST: usize = 256;

/// Namespaces that are set up through one view.
const SERVED: u32 = 32;

/// The view for the next namespaces, and for how many.
static VIEW: Mutex<Option<(Arc<OwnedFd>, u32)>> = Mutex::new(None);

/// Reads a setting; fields are separated by one tab, as the kernel prints them.
pub(crate) fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/sys/{path}")).map(|text| text.trim_end().to_owned())
}

pub(crate) fn write(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{path}"), value)
}

/// A mount of proc that nobody else sees. In the machine's own one, settings of all namespaces have the same names in the same
/// directories, so that finding one there takes the kernel longer with each namespace. Through this one a thread sees the
/// settings of its own namespace all the same, and only of few namespaces anything was ever looked for.
fn view() -> io::Result<Arc<OwnedFd>> {
    let mut kept = VIEW.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((view, left @ 1..)) = kept.as_mut() {
        *left -= 1;
        return Ok(Arc::clone(view));
    }
    let proc = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&proc)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let view = Arc::new(fsmount(&proc, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?);
    *kept = Some((Arc::clone(&view), SERVED - 1));
    Ok(view)
}

/// The settings of one fresh namespace, while it is set up by a thread inside it.
#[derive(Debug)]
pub(crate) struct Fresh(Option<Arc<OwnedFd>>);

impl Fresh {
    /// Kernels that give no view have the common one.
    pub(crate) fn new() -> Self {
        let view =
            view().inspect_err(|error| tracing::debug!(%error, "no proc of its own: namespaces are made slower"));
        Self(view.ok())
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let (at, path) = match &self.0 {
            Some(view) => (&**view, format!("sys/{path}")),
            None => {
                return File::options()
                    .read(true)
                    .write(flags.contains(OFlags::RDWR))
                    .open(format!("/proc/sys/{path}"));
            }
        };
        Ok(rustix::fs::openat(at, path, flags | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// As [`write`].
    pub(crate) fn write(&self, path: &str, value: &str) -> io::Result<()> {
        self.open(path, OFlags::RDWR)?.write_all_at(value.as_bytes(), 0)
    }

    /// As [`read`].
    pub(crate) fn read(&self, path: &str) -> io::Result<String> {
        let mut text = [0; LONGEST];
        let length = self.open(path, OFlags::RDONLY)?.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        Ok(text.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netns;

    /// Proves: NET-73.
    #[test]
    fn a_view_shows_each_thread_its_own_namespace() {
        let path = "net/ipv4/ip_unprivileged_port_start";
        let host = read(path).unwrap();
        let in_one = |value: &'static str| {
            netns::within_fresh(move |_| {
                let fresh = Fresh::new();
                assert!(fresh.0.is_some(), "this kernel has views");
                fresh.write(path, value).unwrap();
                (fresh.read(path).unwrap(), read(path).unwrap())
            })
            .unwrap()
        };
        // More than one view serves.
        for _ in 0..SERVED {
            assert_eq!(in_one("0"), ("0".into(), "0".into()));
            assert_eq!(in_one("77"), ("77".into(), "77".into()));
        }
        assert_eq!(read(path).unwrap(), host);
        assert!(Fresh::new().write("net/ipv4/no_such_setting", "1").is_err());
    }
}
