//! A namespace that plays the machine the engine runs on.

use super::Internet;
use super::vpc::run_in;
use anyhow::Result;
use isolarium_dataplane::kernel::netns;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A machine with one link, `wan0`, by which it has an address of the internet stub's world and its default route. The other
/// end is `wan1` in the internet.
pub struct Machine {
    netns: OwnedFd,
}

impl Machine {
    /// Its own address.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

    /// A machine that is connected.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses something.
    pub fn new(internet: &Internet) -> Result<Self> {
        let this = Self {
            netns: netns::within_fresh(|fd| fd)?,
        };
        let script = format!(
            "ip link set lo up && ip link add wan0 type veth peer name wan1 && exec 9<{far} && \
             ip link set wan1 netns /proc/self/fd/9 && ip addr add {address}/32 dev wan0 && ip link set wan0 up && \
             nsenter --net={far} sh -c 'ip link set wan1 up && ip route add {address}/32 dev wan1' && \
             ip route add default dev wan0",
            far = internet.path(),
            address = Self::ADDRESS,
        );
        run_in(this.netns(), "sh", &["-c", &script])?;
        Ok(this)
    }

    /// Its namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The path of its namespace, while this lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd()).into()
    }
}
