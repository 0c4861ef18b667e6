//! Network labs: an internet that is only a namespace, workloads attached to a real platform network, and a look at every
//! frame. Everything ends with the guard, also after a panic: namespaces live by descriptors alone, and what was mounted
//! is unmounted.
//!
//! A lab needs root and says so; it never skips.

mod capture;
mod internet;
mod machine;
pub mod probe;
pub mod topology;
pub mod vpc;
pub mod wire;

pub use capture::{Capture, Frame};
pub use internet::{Internet, Stub};
pub use machine::Machine;

use isolarium_dataplane::{Host, HostOptions, SealedNetns};
use isolarium_netplan::intent::{HostNetwork, Reach, Uplink, WorkloadNetwork};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A platform network with its own internet. Drop tears it down.
pub struct Lab {
    host: Host,
    network: HostNetwork,
    internet: Internet,
    dir: tempfile::TempDir,
}

/// The default addresses, with this uplink.
pub fn default_network(uplink: Uplink) -> HostNetwork {
    let net = |text: &str| text.parse().unwrap_or_else(|_| unreachable!("a literal network"));
    HostNetwork {
        uplink,
        platform: net("100.64.0.0/16"),
        services: net("198.18.0.0/17"),
        s3_prefix_list: net("198.18.128.0/20"),
        uplink_links: net("169.254.64.0/18"),
        elastic_ips: net("198.19.0.0/16"),
        nat_idle: HostNetwork::NAT_IDLE,
    }
}

impl Lab {
    /// Builds the internet and the platform network with its uplink there.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses something.
    pub fn new() -> anyhow::Result<Self> {
        Self::around(Internet::new()?)
    }

    /// A platform network with this internet.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn around(internet: Internet) -> anyhow::Result<Self> {
        Self::adjusted(internet, |_| {})
    }

    /// A platform network with this internet and these settings instead of the default ones.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn adjusted(internet: Internet, adjust: impl FnOnce(&mut HostNetwork)) -> anyhow::Result<Self> {
        let uplink = Uplink::Netns { path: internet.path() };
        Self::build(internet, None, uplink, adjust)
    }

    /// A platform network whose uplink goes through `host`, a namespace that plays the machine and is connected to the
    /// internet by the caller.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn through_host(internet: Internet, host: &Path) -> anyhow::Result<Self> {
        Self::build(internet, Some(host), Uplink::Host, |_| {})
    }

    fn build(
        internet: Internet,
        host: Option<&Path>,
        uplink: Uplink,
        adjust: impl FnOnce(&mut HostNetwork),
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let options = HostOptions {
            run_dir: dir.path().join("run"),
            host_netns: host.map(Path::to_path_buf),
        };
        std::fs::create_dir(&options.run_dir)?;
        let mut network = default_network(uplink);
        adjust(&mut network);
        let lab = Self {
            host: Host::new(options),
            network,
            internet,
            dir,
        };
        // The lab exists already, so a failure here tears down what was made.
        lab.host.ensure(&lab.network)?;
        Ok(lab)
    }

    /// The platform network.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The intent the platform network was made from.
    pub fn network(&self) -> &HostNetwork {
        &self.network
    }

    /// The internet.
    pub fn internet(&self) -> &Internet {
        &self.internet
    }

    /// A second owner of the same platform network, as after a restart of the engine.
    pub fn restarted(&self) -> Host {
        Host::new(HostOptions {
            run_dir: self.dir.path().join("run"),
            host_netns: None,
        })
    }

    /// Where the host keeps its namespaces.
    pub fn run_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("run")
    }

    /// The platform namespace.
    ///
    /// # Errors
    /// When it is gone.
    pub fn platform(&self) -> anyhow::Result<OwnedFd> {
        Ok(isolarium_dataplane::kernel::netns::open(
            &self.dir.path().join("run/netns/platform"),
        )?)
    }

    /// Seals a workload's namespace.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn workload(&self, reach: Reach) -> anyhow::Result<SealedNetns> {
        Ok(self.host.seal(&WorkloadNetwork {
            workload: workload_id(),
            reach,
        })?)
    }

    /// Seals a workload of the platform network with this address.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn connected(&self, address: Ipv4Addr) -> anyhow::Result<SealedNetns> {
        self.workload(Reach::ServiceNetwork { address })
    }
}

fn workload_id() -> isolarium_model::WorkloadId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = (u64::from(std::process::id()) << 20) + NEXT.fetch_add(1, Ordering::Relaxed);
    format!("w-{number:017x}")
        .parse()
        .unwrap_or_else(|_| unreachable!("17 hexadecimal digits"))
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.host.teardown() {
            assert!(std::thread::panicking(), "the lab could not be torn down: {error:?}");
        }
    }
}
