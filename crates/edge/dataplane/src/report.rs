//! What sealed containers tried to reach (design section 5): cgroup eBPF programs and the maps they fill.
//!
//! The programs (`bpf/egress.bpf.c`) are attached to a container's cgroup and stay there until the cgroup is removed,
//! also when this process ends. The maps are pinned, so a restarted node finds what was recorded meanwhile. The report is
//! never the wall; still the programs refuse every destination but loopback with the errno of a missing route.

mod bpffs;
mod decode;

use aya::maps::{HashMap, Map, MapData, MapError};
use aya::programs::{CgroupSkb, CgroupSockAddr, LsmCgroup, Program};
use aya::{Btf, Ebpf, EbpfLoader};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/egress.bpf.o");

/// Version of the maps' layout, part of their pinned names: a newer engine does not read an older one's maps.
const LAYOUT: &str = "v1";

type Cgroups = HashMap<MapData, [u8; 8], [u8; 16]>;
type Attempts = HashMap<MapData, [u8; decode::ATTEMPT_KEY], [u8; decode::ATTEMPT]>;
type Peers = HashMap<MapData, [u8; 16], u8>;
type Questions = HashMap<MapData, [u8; decode::QUESTION_KEY], [u8; decode::QUESTION]>;

/// Loaded programs and their maps. Attachments live as long as their cgroup, also without this process. Share it by
/// `Arc`; every method takes `&self`.
#[derive(Debug)]
pub struct Reporter {
    programs: Vec<Attachable>,
    maps: Mutex<Maps>,
    sockets_seen: bool,
}

#[derive(Debug)]
struct Attachable {
    fd: OwnedFd,
    /// The kernel's number of the hook (`enum bpf_attach_type`).
    hook: u32,
}

#[derive(Debug)]
struct Maps {
    cgroups: Cgroups,
    attempts: Attempts,
    questions: Questions,
    peers: Peers,
}

/// The report's source is not available; isolation does not depend on it.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The kernel has no eBPF, or not what the programs need.
    #[error("blocked attempts cannot be reported: {what}")]
    Unavailable {
        /// What is missing, for the operator.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn unavailable<E: std::error::Error + Send + Sync + 'static>(what: &str) -> impl FnOnce(E) -> ReportError {
    let what = what.to_owned();
    move |source| ReportError::Unavailable {
        what,
        source: Box::new(source),
    }
}

/// A DNS question sent towards loopback's port 53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name asked for, as text without the final dot, in lower case; bytes that are no
    /// printable ASCII are written `\DDD` (decimal) as in zone files.
    pub name: String,
    /// The question's type (1 A, 28 AAAA, ...).
    pub kind: u16,
}

/// One kind of attempt, aggregated by (protocol, address, port, process name) or (question, process name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAttempt {
    /// Wall-clock nanoseconds since 1970 of the first attempt.
    pub first_unix_nanos: u64,
    /// Wall-clock nanoseconds since 1970 of the last attempt.
    pub last_unix_nanos: u64,
    /// How often.
    pub count: u64,
    /// Process id of the first attempt in the innermost pid namespace of its process.
    pub pid: u32,
    /// The process's name (comm), not necessarily what the program is called.
    pub process: String,
    /// IP protocol number (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6; 255 another raw socket). For ICMP and raw sockets the
    /// opening of the socket was refused, so there is no destination: the address is unspecified.
    pub protocol: u8,
    /// Destination; IPv4-mapped addresses are shown as IPv4.
    pub address: IpAddr,
    /// Destination port, 0 where the protocol has none.
    pub port: u16,
    /// Present for DNS questions; `address` is then the local resolver's.
    pub question: Option<Question>,
}

/// Gives freed memory back to the system. The kernel's types, which programs are fitted to when they are loaded, take some 10 MiB
/// for a moment, and glibc would keep them for as long as the process lives.
#[expect(unsafe_code, reason = "glibc's call has no safe wrapper")]
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches memory alone that the allocator has as free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

impl Reporter {
    /// Distinct kinds of attempts kept of one cgroup; see [`Self::lost`].
    pub const KINDS_MAX: usize = 512;

    /// Mounts a bpffs on `pin_dir` unless it is one, opens or creates the maps there and loads the programs once (some
    /// 10 ms). The directory must be in a mount namespace that outlives the process, else a restarted node begins a new
    /// report.
    ///
    /// # Errors
    /// [`ReportError::Unavailable`]; the engine then runs without the report.
    pub fn open(pin_dir: &Path) -> Result<Self, ReportError> {
        bpffs::ensure(pin_dir).map_err(unavailable(
            "no bpf file system can be mounted (root and CONFIG_BPF_SYSCALL)",
        ))?;
        let btf = Btf::from_sys_fs();
        let btf = btf.map_err(unavailable(
            "/sys/kernel/btf/vmlinux cannot be read (CONFIG_DEBUG_INFO_BTF)",
        ))?;
        let pinned = |name: &str| pin_dir.join(format!("{name}_{LAYOUT}"));
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .map_pin_path("cgroups", pinned("cgroups"))
            .map_pin_path("attempts", pinned("attempts"))
            .map_pin_path("questions", pinned("questions"))
            .map_pin_path("peers", pinned("peers"))
            .load(OBJECT)
            .map_err(unavailable(
                "the kernel refuses the maps (root and Linux 5.18 or newer)",
            ))?;
        let mut programs = Vec::new();
        for (name, hook) in HOOKS {
            let fd =
                load(&mut ebpf, name).map_err(unavailable("the kernel refuses a program (Linux 5.18 or newer)"))?;
            programs.push(Attachable { fd, hook });
        }
        let sockets_seen = match load_lsm(&mut ebpf, &btf) {
            Ok(fd) => {
                programs.push(Attachable { fd, hook: LSM_CGROUP });
                true
            }
            Err(error) => {
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "attempts to open raw and ICMP sockets are not reported: they need the BPF LSM (lsm=...,bpf)"
                );
                false
            }
        };
        let maps = Maps {
            cgroups: map(&mut ebpf, "cgroups")?,
            attempts: map(&mut ebpf, "attempts")?,
            questions: map(&mut ebpf, "questions")?,
            peers: map(&mut ebpf, "peers")?,
        };
        drop((ebpf, btf));
        give_back();
        Ok(Self {
            programs,
            maps: Mutex::new(maps),
            sockets_seen,
        })
    }

    /// Whether attempts to open raw and ICMP sockets are seen too.
    pub fn sees_raw_sockets(&self) -> bool {
        self.sockets_seen
    }

    /// Attaches to a cgroup v2 directory before its first process starts. From then on every destination but loopback and
    /// `peers` is recorded and refused for its processes, and stays refused until the cgroup is removed. Repeating it
    /// changes nothing.
    ///
    /// # Errors
    /// Those of the kernel. Nothing is recorded then, and what was attached already refuses every destination.
    pub fn attach(&self, cgroup_dir: BorrowedFd<'_>, peers: &BTreeSet<Ipv4Addr>) -> io::Result<()> {
        const DENY: u32 = 1;
        const PEERS: u32 = 2;
        let id = cgroup_id(cgroup_dir)?;
        let key = id.to_ne_bytes();
        let mut maps = self.maps();
        match maps.cgroups.get(&key, 0) {
            Ok(_) => return Ok(()),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        for peer in peers {
            maps.peers.insert(peer_key(id, *peer), 1, 0).map_err(io::Error::other)?;
        }
        let deny = if peers.is_empty() { DENY } else { DENY | PEERS };
        let mut state = [0; 16];
        for (place, byte) in state.iter_mut().skip(12).zip(deny.to_ne_bytes()) {
            *place = byte;
        }
        maps.cgroups.insert(key, state, 0).map_err(io::Error::other)?;
        for program in &self.programs {
            if let Err(error) = attach_program(cgroup_dir, program) {
                maps.cgroups.remove(&key).map_err(io::Error::other)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Attempts of one cgroup (its id is its directory's inode number, see [`cgroup_id`]), oldest first. Kept after the
    /// cgroup's end until [`Self::forget`].
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn attempts(&self, cgroup_id: u64) -> io::Result<Vec<RawAttempt>> {
        let boot = boot_time()?;
        let maps = self.maps();
        let mut all = Vec::new();
        // Entries may come and go while the map is walked; one that went is none of a living report.
        for key in maps.attempts.keys() {
            let key = key.map_err(io::Error::other)?;
            if decode::cgroup_of(&key) != cgroup_id {
                continue;
            }
            if let Ok(value) = maps.attempts.get(&key, 0) {
                all.push(decode::attempt(&key, &value, boot));
            }
        }
        for key in maps.questions.keys() {
            let key = key.map_err(io::Error::other)?;
            if decode::cgroup_of(&key) != cgroup_id {
                continue;
            }
            if let Ok(value) = maps.questions.get(&key, 0) {
                all.push(decode::question(&key, &value, boot));
            }
        }
        all.sort_by_key(|attempt| attempt.first_unix_nanos);
        Ok(all)
    }

    /// Attempts that were refused but found no room: of kinds beyond the first [`Self::KINDS_MAX`] of their cgroup. `None`
    /// when the cgroup was never watched.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn lost(&self, cgroup_id: u64) -> io::Result<Option<u64>> {
        match self.maps().cgroups.get(&cgroup_id.to_ne_bytes(), 0) {
            Ok([a, b, c, d, e, f, g, h, ..]) => Ok(Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Drops what is kept of one cgroup. Call it when the cgroup is gone: one that is still there stays refused, and
    /// is recorded no more.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn forget(&self, cgroup_id: u64) -> io::Result<()> {
        let mut maps = self.maps();
        let gone = |outcome: Result<(), MapError>| match outcome {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            // A cgroup that was never watched; the loader library reports this call's ENOENT as it comes.
            Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        };
        gone(maps.cgroups.remove(&cgroup_id.to_ne_bytes()))?;
        // Collected first: removing while walking makes the walk start over.
        let attempts: Vec<_> = maps
            .attempts
            .keys()
            .filter_map(Result::ok)
            .filter(|key| decode::cgroup_of(key) == cgroup_id)
            .collect();
        for key in attempts {
            gone(maps.attempts.remove(&key))?;
        }
        let questions: Vec<_> = maps
            .questions
            .keys()
            .filter_map(Result::ok)
            .filter(|key| decode::cgroup_of(key) == cgroup_id)
            .collect();
        for key in questions {
            gone(maps.questions.remove(&key))?;
        }
        let peers: Vec<_> = maps
            .peers
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.starts_with(&cgroup_id.to_ne_bytes()))
            .collect();
        for key in peers {
            gone(maps.peers.remove(&key))?;
        }
        Ok(())
    }

    /// Drops what is kept of all cgroups but these: what a kill between a cgroup's end and [`Self::forget`] left.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn retain(&self, cgroups: &std::collections::HashSet<u64>) -> io::Result<()> {
        let gone: Vec<u64> = {
            let maps = self.maps();
            let watched = maps.cgroups.keys().filter_map(Result::ok).map(u64::from_ne_bytes);
            let tried = maps
                .attempts
                .keys()
                .filter_map(Result::ok)
                .map(|key| decode::cgroup_of(&key));
            let asked = maps
                .questions
                .keys()
                .filter_map(Result::ok)
                .map(|key| decode::cgroup_of(&key));
            let befriended = maps.peers.keys().filter_map(Result::ok).filter_map(|key| {
                let (cgroup, _) = key.split_first_chunk()?;
                Some(u64::from_ne_bytes(*cgroup))
            });
            let all: std::collections::HashSet<u64> = watched.chain(tried).chain(asked).chain(befriended).collect();
            all.difference(cgroups).copied().collect()
        };
        gone.into_iter().try_for_each(|cgroup| self.forget(cgroup))
    }

    /// Unmounts the bpffs that [`Self::open`] mounted on `pin_dir`; what was recorded goes with the last attachment.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn teardown(pin_dir: &Path) -> io::Result<()> {
        bpffs::remove(pin_dir)
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        // Each use is a series of whole system calls; a panic between two leaves no broken value behind.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id by which the kernel's programs know a cgroup v2 directory.
///
/// # Errors
/// Those of the kernel.
pub fn cgroup_id(cgroup_dir: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::fstat(cgroup_dir)?.st_ino)
}

/// `struct peer_key` of the programs.
fn peer_key(cgroup_id: u64, peer: Ipv4Addr) -> [u8; 16] {
    let mut key = [0; 16];
    let bytes = cgroup_id.to_ne_bytes().into_iter().chain(peer.octets());
    for (place, byte) in key.iter_mut().zip(bytes) {
        *place = byte;
    }
    key
}

/// Programs by name and the kernel's number of their hook.
const HOOKS: [(&str, u32); 5] = [
    ("egress", 1),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
];
const LSM_CGROUP: u32 = 43;

#[derive(Debug, thiserror::Error)]
#[error("program {name}")]
struct NotLoaded {
    name: &'static str,
    #[source]
    source: Option<aya::programs::ProgramError>,
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, NotLoaded> {
    let failed = |source| NotLoaded {
        name,
        source: Some(source),
    };
    let program = ebpf.program_mut(name).ok_or(NotLoaded { name, source: None })?;
    match program {
        Program::CgroupSkb(_) => {
            let skb: &mut CgroupSkb = program.try_into().map_err(failed)?;
            skb.load().map_err(failed)?;
        }
        _ => {
            let address: &mut CgroupSockAddr = program.try_into().map_err(failed)?;
            address.load().map_err(failed)?;
        }
    }
    keep(program, name)
}

fn load_lsm(ebpf: &mut Ebpf, btf: &Btf) -> Result<OwnedFd, NotLoaded> {
    let name = "socket_create";
    let failed = |source| NotLoaded {
        name,
        source: Some(source),
    };
    let program = ebpf.program_mut(name).ok_or(NotLoaded { name, source: None })?;
    let lsm: &mut LsmCgroup = program.try_into().map_err(failed)?;
    lsm.load(name, btf).map_err(failed)?;
    keep(program, name)
}

fn keep(program: &Program, name: &'static str) -> Result<OwnedFd, NotLoaded> {
    let fd = program.fd().map_err(|source| NotLoaded {
        name,
        source: Some(source),
    })?;
    fd.as_fd().try_clone_to_owned().map_err(|error| NotLoaded {
        name,
        source: Some(aya::programs::ProgramError::IOError(error)),
    })
}

fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, ReportError> {
    let what = "the compiled programs do not fit this engine; reinstall it";
    let missing = || MapError::InvalidName { name: name.into() };
    let map = ebpf.take_map(name).ok_or_else(missing).map_err(unavailable(what))?;
    T::try_from(map).map_err(unavailable(what))
}

/// `bpf(BPF_PROG_ATTACH)`: unlike a link, such an attachment belongs to the cgroup and needs nobody to hold it.
#[expect(
    unsafe_code,
    reason = "the loader library attaches by links only, which end with the process"
)]
fn attach_program(cgroup_dir: BorrowedFd<'_>, program: &Attachable) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    /// The part of `union bpf_attr` that this command reads.
    #[repr(C)]
    struct Attach {
        target_fd: i32,
        attach_bpf_fd: i32,
        attach_type: u32,
        attach_flags: u32,
        replace_bpf_fd: u32,
    }
    let request = Attach {
        target_fd: cgroup_dir.as_raw_fd(),
        attach_bpf_fd: program.fd.as_raw_fd(),
        attach_type: program.hook,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    // SAFETY: the pointer is to a live structure of the given size, laid out as the kernel's; both descriptors are open.
    let code = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const request, size_of::<Attach>()) };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Wall-clock nanoseconds since 1970 at which the kernel's boot clock was zero.
#[expect(unsafe_code, reason = "the boot clock has no safe wrapper in the libraries used")]
fn boot_time() -> io::Result<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live structure of the right type.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let up = Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    );
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(u64::try_from(wall.saturating_sub(up).as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
