//! What the real host takes from its own configuration instead of from a message. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use isolarium_netplan::intent::{HostNetwork, ListenerSpec, Transport, Uplink};
use isolarium_node::{LocalHost, Network};
use isolarium_runtime::executor::ExecutorError;
use isolarium_runtime::local::{LocalConfig, OciChoice, Walls};
use std::os::unix::fs::symlink;
use std::path::Path;

fn configured() -> HostNetwork {
    HostNetwork {
        uplink: Uplink::None,
        platform: "100.90.0.0/24".parse().unwrap(),
        services: "198.18.0.0/17".parse().unwrap(),
        s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
        uplink_links: "169.254.64.0/18".parse().unwrap(),
        elastic_ips: "198.19.0.0/16".parse().unwrap(),
        nat_idle: HostNetwork::NAT_IDLE,
    }
}

fn open(data_dir: &Path) -> Result<LocalHost, ExecutorError> {
    let config = LocalConfig {
        cdi_folders: Vec::new(),
        accelerators: "nvidia.com/gpu".into(),
        data_dir: data_dir.into(),
        service_uid: 64_900,
        service_gid: 64_900,
        oci: OciChoice::Auto,
        self_exe: std::env::current_exe().unwrap(),
        archive_timeout: std::time::Duration::from_secs(600),
        walls: Walls::default(),
    };
    LocalHost::open(config, (0, 0), configured())
}

/// A service that was taken over asks for the host's own namespace, or another workload's, as the uplink, or for other
/// ranges. The configured network, asked for by the same call, is the control.
///
/// Proves: ISO-17
#[test]
fn only_the_configured_network_is_made_whatever_the_service_asks() {
    let dir = tempfile::tempdir().unwrap();
    let host = open(dir.path()).unwrap();
    let listener = ListenerSpec {
        address: "169.254.170.2".parse().unwrap(),
        port: 80,
        transport: Transport::Tcp,
    };
    let other = |change: &dyn Fn(&mut HostNetwork)| {
        let mut network = configured();
        change(&mut network);
        network
    };
    for asked in [
        other(&|network| {
            network.uplink = Uplink::Netns {
                path: "/proc/1/ns/net".into(),
            }
        }),
        other(&|network| network.uplink = Uplink::Host),
        other(&|network| network.platform = "100.91.0.0/24".parse().unwrap()),
        other(&|network| network.services = "192.0.2.0/24".parse().unwrap()),
    ] {
        let refused = host.ensure_network(&asked).unwrap_err().to_string();
        assert!(refused.contains("not the one configured"), "{refused}");
        assert!(host.listen(&listener).is_err(), "nothing was made");
    }
    host.ensure_network(&configured()).unwrap();
    drop(host.listen(&listener).unwrap());
    host.teardown().unwrap();
}

/// The service may make entries in `run`. One under a name that this process keeps things by is not used; without it the
/// same directory opens.
///
/// Proves: ISO-17
#[test]
fn a_planted_directory_is_not_used_for_what_the_privileged_half_keeps() {
    for name in ["netns", "bpf", "host", "shims", "slots"] {
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs");
        std::fs::create_dir_all(dir.path().join("run")).unwrap();
        std::fs::create_dir(&theirs).unwrap();
        let planted = dir.path().join("run").join(name);
        symlink(&theirs, &planted).unwrap();
        assert!(open(dir.path()).is_err(), "{name}");
        std::fs::remove_file(&planted).unwrap();
        open(dir.path()).unwrap().teardown().unwrap();
    }
}
