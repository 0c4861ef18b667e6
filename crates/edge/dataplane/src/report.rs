//! What sealed containers tried to reach (design section 5): cgroup eBPF programs and the maps they fill.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Loaded programs and their maps. Attachments live as long as their cgroup, also without this process.
#[derive(Debug)]
pub struct Reporter {}

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

/// A DNS question sent towards loopback's port 53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name asked for, as text without the final dot, at most 253 characters.
    pub name: String,
    /// The question's type (1 A, 28 AAAA, ...).
    pub kind: u16,
}

/// One kind of attempt, aggregated by (protocol, address, port, process name, question).
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
    /// IP protocol number (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6, 255 raw).
    pub protocol: u8,
    /// Destination; IPv4-mapped addresses are shown as IPv4.
    pub address: IpAddr,
    /// Destination port, 0 where the protocol has none.
    pub port: u16,
    /// Present for DNS questions; `address` is then the local resolver's.
    pub question: Option<Question>,
}

impl Reporter {
    /// Mounts a bpffs on `pin_dir` unless it is one, opens or creates the maps there and loads the programs once.
    ///
    /// # Errors
    /// [`ReportError::Unavailable`]; the engine then runs without the report.
    pub fn open(pin_dir: &Path) -> Result<Self, ReportError> {
        let _ = pin_dir;
        Err(ReportError::Unavailable {
            what: "eBPF".into(),
            source: Box::new(io::Error::from(io::ErrorKind::Unsupported)),
        })
    }

    /// Attaches to a cgroup v2 directory before its first process starts. Repeating it changes nothing.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn attach(&self, cgroup_dir: BorrowedFd<'_>) -> io::Result<()> {
        let _ = cgroup_dir;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Attempts of one cgroup (its id is its directory's inode number), oldest first. Kept after the cgroup's end.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn attempts(&self, cgroup_id: u64) -> io::Result<Vec<RawAttempt>> {
        let _ = cgroup_id;
        Ok(Vec::new())
    }

    /// Attempts that found no room any more: those of one cgroup beyond the limit of distinct kinds.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn lost(&self, cgroup_id: u64) -> io::Result<u64> {
        let _ = cgroup_id;
        Ok(0)
    }

    /// Drops what is kept of one cgroup.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn forget(&self, cgroup_id: u64) -> io::Result<()> {
        let _ = cgroup_id;
        Ok(())
    }
}
