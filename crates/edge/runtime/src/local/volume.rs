//! Storage volumes that are encrypted at rest: an image file of the volume's size, on it a file system whose two
//! directories the kernel encrypts under a key that this process is given and keeps nowhere else.
//!
//! `DIR/volumes/<workload>.img` is mounted at `DIR/volumes/<workload>`; `scratch` there takes the place of the workload's
//! own, `service` is where the service keeps plain copies. The folder is root's alone: no name in it is anybody else's.

use super::LocalRuntime;
use super::place::{DISK_IDS, Place, absent_is_fine, host, make_folder};
use crate::executor::{ExecutorError, VolumeKey, VolumeSpec};
use crate::sys::crypt::{self, KeyName};
use isolarium_model::WorkloadId;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Directories of a volume: the container's scratch directories, and the service's copies.
pub(crate) const SCRATCH: &str = "scratch";
pub(crate) const SERVICE: &str = "service";
const BOTH: [&str; 2] = [SCRATCH, SERVICE];

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What makes the file system.
const MAKER: &str = "mkfs.ext4";
/// Where it is looked for: the operator's environment is not believed about programs that root runs.
const PROGRAMS: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// What making a volume consists of, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Image,
    Format,
    Device,
    Mount,
    Key,
    Encrypt,
    Finish,
}

/// Sees every step before it is done, and may object.
pub(crate) type Before<'a> = dyn FnMut(Step) -> io::Result<()> + 'a;

/// Whose copies a volume takes beside the container's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    pub uid: u32,
    pub gid: u32,
}

impl LocalRuntime {
    /// See [`crate::Executor::make_volume`].
    ///
    /// # Errors
    /// `Host` with what the operator should do; nothing is left then.
    pub fn make_volume(
        &self,
        workload: &WorkloadId,
        volume: &VolumeSpec,
        key: &VolumeKey,
    ) -> Result<(), ExecutorError> {
        let _turn = self.busy.turn(workload.as_str());
        self.launch_settled(workload)
            .map_err(host(format!("waiting for an earlier launch of {workload}")))?;
        self.make_work(workload)?;
        let service = Service {
            uid: self.config.service_uid,
            gid: self.config.service_gid,
        };
        make(&self.place, workload, volume, key, service, &mut |_| Ok(()))
    }

    /// See [`crate::Executor::open_volume`].
    ///
    /// # Errors
    /// `Unknown` when the workload has no volume, `Host` when it is closed.
    pub fn open_volume(&self, workload: &WorkloadId) -> Result<OwnedFd, ExecutorError> {
        if !self.place.image(workload).exists() {
            return Err(ExecutorError::Unknown);
        }
        open(&self.place, workload, SERVICE).map_err(|error| closed(workload, &error))
    }

    /// See [`crate::Executor::close_volume`].
    ///
    /// # Errors
    /// `Host` when the kernel does not let go of it.
    pub fn close_volume(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let _turn = self.busy.turn(workload.as_str());
        close(&self.place, workload).map_err(host(format!("closing the volume of {workload}")))
    }

    /// Closes every volume: no key stays in the kernel.
    ///
    /// # Errors
    /// `Host` for one that could not be closed; the others were.
    pub fn close_volumes(&self) -> Result<(), ExecutorError> {
        let listing = || host("reading the list of volumes");
        let mut done = Ok(());
        for entry in fs::read_dir(self.place.volumes()).map_err(listing())? {
            let name = entry.map_err(listing())?.file_name();
            if let Some(workload) = name.to_str().and_then(|name| name.parse().ok()) {
                done = done.and(self.close_volume(&workload));
            }
        }
        done
    }
}

/// The error of whoever wants a volume whose key is not there any more.
pub(super) fn closed(workload: &WorkloadId, error: &io::Error) -> ExecutorError {
    ExecutorError::Host(format!(
        "the encrypted volume of {workload} is closed ({error}); its key went with the machine's or the engine's end"
    ))
}

/// Opens a directory of a volume that is mounted and whose key is there.
pub(crate) fn open(place: &Place, workload: &WorkloadId, name: &str) -> io::Result<OwnedFd> {
    let opened = rustix::fs::open(place.volume(workload).join(name), FOLDER, Mode::empty())?;
    crypt::encrypted_under(opened.as_fd())?;
    // Without the key no file can be made, whatever the directory's mode.
    let file = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(&opened, ".", file, Mode::RUSR)?;
    Ok(opened)
}

/// Makes a workload's volume, or opens the lasting one that it has. One that is open already is left as it is.
///
/// # Errors
/// `Host`; nothing is left of a volume that could not be made, and a lasting one is closed again.
pub(crate) fn make(
    place: &Place,
    workload: &WorkloadId,
    volume: &VolumeSpec,
    key: &VolumeKey,
    service: Service,
    before: &mut Before<'_>,
) -> Result<(), ExecutorError> {
    let image = place.image(workload);
    let there = image.exists();
    if there && BOTH.iter().all(|name| open(place, workload, name).is_ok()) {
        return Ok(());
    }
    let failed = || host(format!("removing what is left of the volume of {workload}"));
    close(place, workload).map_err(failed())?;
    let kept = there && volume.lasting;
    if !kept {
        remove(place, workload).map_err(failed())?;
    }
    let made = build(place, workload, volume, key, service, kept, before);
    if made.is_err() {
        let undone = close(place, workload).and_then(|()| if kept { Ok(()) } else { remove(place, workload) });
        if let Err(error) = undone {
            tracing::warn!(%workload, %error, "cleaning up after a volume that could not be made; remove tries again");
        }
    }
    made
}

fn build(
    place: &Place,
    workload: &WorkloadId,
    volume: &VolumeSpec,
    key: &VolumeKey,
    service: Service,
    kept: bool,
    before: &mut Before<'_>,
) -> Result<(), ExecutorError> {
    let image = place.image(workload);
    let fresh = place.unfinished_image(workload);
    let backing = if kept { &image } else { &fresh };
    if !kept {
        before(Step::Image)
            .and_then(|()| make_image(&fresh, volume.image_bytes()))
            .map_err(host(format!("cannot make {}; is the disk full?", fresh.display())))?;
        before(Step::Format).map_err(host("formatting a volume"))?;
        format(&fresh, volume)?;
    }
    let device = before(Step::Device).and_then(|()| {
        let file = rustix::fs::open(
            backing,
            OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        crypt::attach_loop(file.as_fd())
    });
    let (device, path) = device.map_err(host(
        "no loop device for an encrypted volume; the kernel needs CONFIG_BLK_DEV_LOOP and /dev/loop-control (modprobe loop)",
    ))?;
    before(Step::Mount)
        .and_then(|()| mount_at(&path, &place.volume(workload), service))
        .map_err(host("mounting an encrypted volume (ext4)"))?;
    // The mount has it now: with the mount it goes.
    drop(device);
    let top = rustix::fs::open(place.volume(workload), FOLDER, Mode::empty())
        .map_err(|error| host("opening an encrypted volume")(error))?;
    let name = before(Step::Key)
        .and_then(|()| crypt::add_key(top.as_fd(), key.expose()))
        .map_err(host(
            "the kernel does not take the key of an encrypted volume; it needs CONFIG_FS_ENCRYPTION",
        ))?;
    before(Step::Encrypt)
        .and_then(|()| encrypt(&top, &name, service, kept))
        .map_err(host(format!("encrypting the volume of {workload}")))?;
    let finish = || {
        for directory in BOTH {
            open(place, workload, directory)?;
        }
        if kept {
            return Ok(());
        }
        rustix::fs::syncfs(&top)?;
        fs::rename(&fresh, &image)?;
        File::open(place.volumes())?.sync_all()
    };
    before(Step::Finish)
        .and_then(|()| finish())
        .map_err(host(format!("looking at the new volume of {workload}")))
}

fn make_image(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    // Without bytes: the disk holds what is written to it.
    file.set_len(bytes)
}

/// Where [`MAKER`] is; `None` when it is not installed.
pub(super) fn maker() -> Option<PathBuf> {
    let all = PROGRAMS.iter().map(|folder| Path::new(folder).join(MAKER));
    all.into_iter().find(|path| path.is_file())
}

fn format(image: &Path, volume: &VolumeSpec) -> Result<(), ExecutorError> {
    let maker = maker().ok_or_else(|| {
        ExecutorError::Host(format!(
            "{MAKER} is not installed, so no encrypted volume can be made; install e2fsprogs"
        ))
    })?;
    // A volume that does not outlive its host needs no journal.
    let features = if volume.lasting {
        "encrypt"
    } else {
        "encrypt,^has_journal"
    };
    let reserved = if volume.lasting { "0" } else { "50" };
    let done = Command::new(&maker)
        .env_clear()
        .current_dir("/")
        .args(["-q", "-F", "-b", "4096", "-O", features, "-m", reserved])
        // An image is zeros from the start: nothing is left for later, and the mount starts no thread that writes them.
        .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"])
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .map_err(host(format!("starting {}", maker.display())))?;
    if done.status.success() {
        return Ok(());
    }
    Err(ExecutorError::Host(format!(
        "{} ended with {}: {}",
        maker.display(),
        done.status,
        String::from_utf8_lossy(&done.stderr).trim()
    )))
}

fn mount_at(device: &str, point: &Path, service: Service) -> io::Result<()> {
    make_folder(point, 0o700)?;
    // The reserve is the platform's, for copies and archives beside the container's files: the archive process is the
    // first of the ids on disk, the service has its group. No container runs with either.
    let data = format!(
        "noinit_itable,errors=remount-ro,resuid={DISK_IDS},resgid={}",
        service.gid
    );
    let data = CString::new(data)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount(device, point, "ext4", flags, Some(data.as_c_str()))?)
}

/// Has both directories encrypted under `name`, and believes the kernel alone.
fn encrypt(top: &OwnedFd, name: &KeyName, service: Service, kept: bool) -> io::Result<()> {
    for directory in BOTH {
        if !kept {
            rustix::fs::mkdirat(top, directory, Mode::from(0o700))?;
        }
        let opened = rustix::fs::openat(top, directory, FOLDER, Mode::empty())?;
        if !kept {
            crypt::encrypt_directory(opened.as_fd(), name)?;
            if directory == SERVICE {
                fchown(&opened, Some(service.uid), Some(service.gid))?;
            }
        }
        if crypt::encrypted_under(opened.as_fd())? != *name {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is encrypted under another key",
            ));
        }
    }
    Ok(())
}

/// Takes a workload's volume out of the kernel, with its key; the image stays. Repeatable.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn close(place: &Place, workload: &WorkloadId) -> io::Result<()> {
    let point = place.volume(workload);
    while is_mounted(place, &point)? {
        if let Ok(top) = rustix::fs::open(&point, FOLDER, Mode::empty()) {
            take_key(&top)?;
        }
        // Whoever has it open still holds the file system, but not the key.
        match unmount(&point, UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) => unmount(&point, UnmountFlags::DETACH)?,
            other => other?,
        }
    }
    absent_is_fine(fs::remove_dir(&point))
}

fn take_key(top: &OwnedFd) -> io::Result<()> {
    for directory in BOTH {
        let Ok(opened) = rustix::fs::openat(top, directory, FOLDER, Mode::empty()) else {
            continue;
        };
        let Ok(name) = crypt::encrypted_under(opened.as_fd()) else {
            continue;
        };
        drop(opened);
        match crypt::remove_key(top.as_fd(), &name) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOKEY) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether another file system begins at `point`.
fn is_mounted(place: &Place, point: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(point) {
        Ok(found) => Ok(found.dev() != fs::metadata(place.volumes())?.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a closed volume's image.
///
/// # Errors
/// What the file system answers.
pub(crate) fn remove(place: &Place, workload: &WorkloadId) -> io::Result<()> {
    absent_is_fine(fs::remove_file(place.unfinished_image(workload)))?;
    absent_is_fine(fs::remove_file(place.image(workload)))
}

/// What an encrypted volume takes, tried once in `folder`; nothing stays.
///
/// # Errors
/// What is missing, and what to do.
pub(super) fn probe(folder: &Path) -> Result<(), ExecutorError> {
    let place = Place::new(folder);
    let trying = || host("trying an encrypted volume");
    make_folder(&place.volumes(), 0o700).map_err(trying())?;
    let workload: WorkloadId = format!("w-{:017x}", std::process::id())
        .parse()
        .map_err(host("trying an encrypted volume"))?;
    let spec = VolumeSpec {
        bytes: 64 << 20,
        lasting: false,
    };
    let mut key = [0_u8; 32];
    getrandom::fill(&mut key).map_err(host("trying an encrypted volume"))?;
    let service = Service { uid: 0, gid: 0 };
    let made = make(&place, &workload, &spec, &VolumeKey::new(key), service, &mut |_| Ok(()));
    let left = close(&place, &workload).and_then(|()| remove(&place, &workload));
    made.and(left.map_err(trying()))
}

/// In a mount namespace of its own, lets go of the volumes of all workloads but `kept`: a copy of a mount would hold a volume
/// when its workload is long gone.
///
/// # Errors
/// What the kernel answers.
pub fn leave_volumes(kept: &[&WorkloadId]) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        if volume_at(point).is_some_and(|workload| !kept.contains(&&workload)) {
            match unmount(point, UnmountFlags::DETACH) {
                // It went along with one that it lay on, or is out of sight.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// The workload whose volume is mounted at a path. Paths with spaces are written otherwise there: they are read as they are
/// needed here, by their last two names.
fn volume_at(point: &str) -> Option<WorkloadId> {
    let (folder, name) = point.rsplit_once('/')?;
    let last = folder.rsplit('/').next()?;
    (last == super::place::VOLUMES).then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests;
