//! The file systems of a program, in a mount namespace of its own: they go with it.

use super::{FileOf, Program, Trouble, doing};
use crate::sys::{NO_DATA, open_in_root, proc_path};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What a host's root may do in a folder: everything about its network, its files and its processes, nothing about the machine.
const KEPT: [CapabilitySet; 13] = [
    CapabilitySet::CHOWN,
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::FOWNER,
    CapabilitySet::FSETID,
    CapabilitySet::KILL,
    CapabilitySet::SETGID,
    CapabilitySet::SETUID,
    CapabilitySet::SETPCAP,
    CapabilitySet::NET_BIND_SERVICE,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::NET_RAW,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::AUDIT_WRITE,
];

/// Devices of a host in a folder.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// No mount of ours reaches the host, and none of the host's that comes later reaches us.
fn apart() -> Result<(), Trouble> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(doing("separating the mounts from the host's"))?;
    crate::local::leave_volumes(&[]).map_err(doing("letting go of encrypted volumes"))
}

/// The directory of the engine's sockets turns into an empty one, from which files are laid over others.
fn hide(hidden: &Path) -> Result<(), Trouble> {
    mount("none", hidden, "tmpfs", PLAIN, Some(c"mode=755")).map_err(doing(format!("hiding {}", hidden.display())))
}

/// The caller's own file system, with the files that tell where names are looked up replaced.
pub(super) fn own(program: &Program) -> Result<(), Trouble> {
    apart()?;
    hide(&program.hidden)?;
    for (number, file) in program.files.iter().enumerate() {
        if !file.path.exists() {
            if file.needed {
                let missing = io::Error::new(io::ErrorKind::NotFound, "make an empty one");
                return Err(doing(format!("{} is not there to be replaced", file.path.display()))(
                    missing,
                ));
            }
            continue;
        }
        let source = program.hidden.join(number.to_string());
        write(&source, &file.text).map_err(doing("writing files of the host"))?;
        mount_bind(&source, &file.path).map_err(doing(format!("replacing {}", file.path.display())))?;
    }
    // A cache of names that the host keeps would answer with what the host knows.
    for cache in ["/run/nscd", "/var/run/nscd"] {
        if Path::new(cache).is_dir() {
            mount("none", cache, "tmpfs", PLAIN, NO_DATA).map_err(doing(format!("hiding {cache}")))?;
        }
    }
    system("/proc", "/sys")?;
    // Where the caller stands is found anew: below what is hidden now, it would still be what it was.
    let there = std::env::current_dir().and_then(std::env::set_current_dir);
    there
        .or_else(|_| std::env::set_current_dir("/"))
        .map_err(doing("entering the working directory"))
}

/// Processes of the namespace, and devices of the network namespace.
fn system(proc: &str, sys: &str) -> Result<(), Trouble> {
    mount("proc", proc, "proc", PLAIN | MountFlags::NOEXEC, NO_DATA).map_err(doing("mounting /proc"))?;
    let read_only = PLAIN | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("sysfs", sys, "sysfs", read_only, NO_DATA).map_err(doing("mounting /sys"))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// A folder as the root, below an area in memory that takes what is written.
pub(super) fn folder(program: &Program, folder: &Path) -> Result<(), Trouble> {
    // By descriptor: the path may hold what the options of a mount mean something else by.
    let opened = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let opened = opened.map_err(doing(format!("opening {}", folder.display())))?;
    apart()?;
    hide(&program.hidden)?;
    let at = |name: &str| program.hidden.join(name);
    for name in ["up", "work", "root"] {
        fs::create_dir(at(name)).map_err(doing("making a writable area"))?;
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).map_err(doing("making a writable area"))?;
    }
    let (up, work) = (descriptor(&at("up"))?, descriptor(&at("work"))?);
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        proc_path(&opened),
        proc_path(&up),
        proc_path(&work)
    );
    let layers = CString::new(layers).map_err(doing("naming the layers"))?;
    let root = at("root");
    mount("overlay", &root, "overlay", MountFlags::NODEV, Some(layers.as_c_str()))
        .map_err(doing(format!("mounting an area to write over {}", folder.display())))?;
    std::env::set_current_dir(&root).map_err(doing("entering the root folder"))?;
    for point in ["proc", "sys", "dev"] {
        // A link here is the folder's maker's, and would lead out.
        let made = Path::new(point);
        match fs::symlink_metadata(made) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                let wrong = io::Error::from(io::ErrorKind::NotADirectory);
                return Err(doing(format!("/{point} of the root folder"))(wrong));
            }
            Err(_) => fs::create_dir(made).map_err(doing(format!("making /{point}")))?,
        }
    }
    system("proc", "sys")?;
    devices().map_err(doing("making /dev"))?;
    for file in &program.files {
        place(file).map_err(doing(format!("writing {}", file.path.display())))?;
    }
    for kept in ["proc/sys", "proc/sysrq-trigger", "proc/irq", "proc/bus"] {
        if Path::new(kept).exists() {
            let read_only = PLAIN | MountFlags::NOEXEC | MountFlags::RDONLY | MountFlags::BIND;
            mount_bind(kept, kept)
                .and_then(|()| mount_remount(kept, read_only, ""))
                .map_err(doing(format!("protecting /{kept}")))?;
        }
    }
    rustix::process::pivot_root(".", ".").map_err(doing("changing the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(doing("leaving the caller's file system"))?;
    std::env::set_current_dir("/").map_err(doing("entering the root folder"))?;
    keep_little().map_err(doing("giving capabilities up"))
}

fn descriptor(path: &Path) -> Result<std::os::fd::OwnedFd, Trouble> {
    let opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(doing("opening the writable area"))
}

fn devices() -> io::Result<()> {
    mount(
        "none",
        "dev",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"mode=755,size=64k"),
    )?;
    for name in DEVICES {
        let point = format!("dev/{name}");
        fs::File::create(&point)?;
        mount_bind(format!("/dev/{name}"), &point)?;
    }
    for name in ["pts", "shm"] {
        fs::create_dir(format!("dev/{name}"))?;
    }
    let terminals = Some(c"newinstance,ptmxmode=0666,mode=0620");
    mount(
        "devpts",
        "dev/pts",
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        terminals,
    )?;
    mount("none", "dev/shm", "tmpfs", PLAIN, Some(c"mode=1777,size=64m"))?;
    for (name, to) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(to, format!("dev/{name}"))?;
    }
    Ok(())
}

/// Puts a file below the current directory; links on the way cannot lead out, and one in its place is replaced.
fn place(file: &FileOf) -> io::Result<()> {
    let inside = |path: &Path| {
        path.strip_prefix("/")
            .map(Path::to_path_buf)
            .unwrap_or_else(|_| path.to_path_buf())
    };
    let path = inside(&file.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let root = rustix::fs::openat(
        CWD,
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut folder = open_in_root(&root, ".", directory)?;
    let mut so_far = PathBuf::new();
    for part in parent.components() {
        so_far.push(part);
        match rustix::fs::mkdirat(&folder, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        folder = open_in_root(&root, &so_far, directory)?;
    }
    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o644))?;
    fs::File::from(opened).write_all(&file.text)
}

/// What the program starts with, and whatever it starts: no right over the machine, and no way to get one.
fn keep_little() -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        if !KEPT.contains(&capability) {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    // What the caller hands on would come back with the program, whatever is bounded.
    rustix::thread::clear_ambient_capability_set()?;
    let own = capabilities(None)?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { inheritable, ..own })?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
