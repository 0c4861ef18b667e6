//! Client and server over a real socket with a host that keeps state and fails on request.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use isolarium_model::sagemaker::network::{Sight, SightSource};
use isolarium_model::{Sha256Digest, Timestamp, WorkloadId};
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::Vpc;
use isolarium_netplan::intent::{HostNetwork, ListenerSpec, Reach, Transport, WorkloadNetwork};
use isolarium_node::{Network, NodeClient, NodeHost, NodeServer};
use isolarium_runtime::executor::*;
use isolarium_runtime::fake::FakeVpcs;
use isolarium_runtime::vpcs::{Destination, Door, Flows, VpcSeen, Vpcs};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct FakeHost {
    vpcs: FakeVpcs,
    running: Mutex<BTreeMap<WorkloadId, String>>,
    layers: Mutex<Vec<Vec<u8>>>,
    refuse_seal: bool,
}

impl Executor for FakeHost {
    fn launch(&self, spec: &LaunchSpec) -> Result<(), ExecutorError> {
        if self.refuse_seal {
            return Err(ExecutorError::Seal("a sysctl did not take".into()));
        }
        self.running
            .lock()
            .unwrap()
            .insert(spec.workload.clone(), spec.owner_arn.clone());
        Ok(())
    }
    fn release(&self, _workload: &WorkloadId) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        let running = self.running.lock().unwrap();
        Ok(running
            .iter()
            .map(|(workload, owner_arn)| Observed {
                workload: workload.clone(),
                owner_arn: owner_arn.clone(),
                state: WorkloadState::Running { started: Timestamp(1) },
            })
            .collect())
    }
    fn observe_one(&self, workload: &WorkloadId) -> Result<Observed, ExecutorError> {
        self.observe()?
            .into_iter()
            .find(|seen| seen.workload == *workload)
            .ok_or(ExecutorError::Unknown)
    }
    fn terminate(&self, workload: &WorkloadId, _kill: bool) -> Result<(), ExecutorError> {
        self.running
            .lock()
            .unwrap()
            .remove(workload)
            .map(|_| ())
            .ok_or(ExecutorError::Unknown)
    }
    fn remove(&self, _workload: &WorkloadId) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn changed(&self, timeout: Duration) -> Result<(), ExecutorError> {
        std::thread::sleep(timeout);
        Ok(())
    }
    fn read_log(&self, _workload: &WorkloadId, offset: u64, _max: usize) -> Result<LogChunk, ExecutorError> {
        Ok(LogChunk {
            lines: vec![LogLine {
                time: Timestamp(5),
                text: "a line".into(),
            }],
            next: offset + 7,
            complete: true,
        })
    }
    fn prepare(&self, _workload: &WorkloadId) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn make_volume(&self, _: &WorkloadId, _: &VolumeSpec, key: &VolumeKey) -> Result<(), ExecutorError> {
        self.layers.lock().unwrap().push(key.expose().to_vec());
        Ok(())
    }
    fn open_volume(&self, _: &WorkloadId) -> Result<OwnedFd, ExecutorError> {
        Err(ExecutorError::Unknown)
    }
    fn close_volume(&self, _: &WorkloadId) -> Result<(), ExecutorError> {
        Ok(())
    }
}

impl Archives for FakeHost {
    fn unpack_layer(&self, blob: OwnedFd, _diff_id: &Sha256Digest) -> Result<(), ExecutorError> {
        let mut bytes = Vec::new();
        std::fs::File::from(blob).read_to_end(&mut bytes).unwrap();
        self.layers.lock().unwrap().push(bytes);
        Ok(())
    }
    fn unpack_archive(
        &self,
        _archive: OwnedFd,
        _workload: &WorkloadId,
        _scratch: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        Err(ExecutorError::Refused(format!("not within {limit:?}")))
    }
    fn unpack_model(
        &self,
        _archive: OwnedFd,
        _workload: &WorkloadId,
        scratch: &str,
        folder: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        Err(ExecutorError::Refused(format!(
            "{scratch} {folder} not within {limit:?}"
        )))
    }
    fn remove_model(&self, _workload: &WorkloadId, scratch: &str, folder: &str) -> Result<(), ExecutorError> {
        Err(ExecutorError::Refused(format!("{scratch} {folder}")))
    }
    fn pack(&self, _w: &WorkloadId, _s: &str, _f: PackFormat, out: OwnedFd) -> Result<Packed, ExecutorError> {
        std::fs::File::from(out).write_all(b"packed").unwrap();
        Ok(Packed { entries: 1, bytes: 6 })
    }
    fn read_file(&self, _w: &WorkloadId, _s: &str, path: &str, _max: usize) -> Result<Option<Vec<u8>>, ExecutorError> {
        Ok((path == "failure").then(|| b"out of data \xff".to_vec()))
    }
}

impl Dial for FakeHost {
    fn dial(&self, _workload: &WorkloadId, _port: u16, _timeout: Duration) -> Result<OwnedFd, ExecutorError> {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        far.write_all(b"from inside").unwrap();
        Ok(near.into())
    }
}

impl EgressReport for FakeHost {
    fn attempts(&self, _workload: &WorkloadId) -> Result<Vec<BlockedAttempt>, ExecutorError> {
        Ok(Vec::new())
    }

    fn sight(&self, workload: &WorkloadId) -> Result<Sight, ExecutorError> {
        Ok(Sight {
            source: SightSource::Ebpf,
            raw_sockets: workload.as_str().ends_with('7'),
            left_out: 1489,
        })
    }
}

impl Network for FakeHost {
    fn ensure_network(&self, _network: &HostNetwork) -> Result<(), ExecutorError> {
        Err(ExecutorError::Host("nft is missing; install nftables".into()))
    }
    fn listen(&self, listener: &ListenerSpec) -> Result<OwnedFd, ExecutorError> {
        std::net::TcpListener::bind((listener.address, listener.port))
            .map(Into::into)
            .map_err(|error| ExecutorError::Host(error.to_string()))
    }
}

impl Vpcs for FakeHost {
    fn set_peers(
        &self,
        _: &std::collections::BTreeSet<std::collections::BTreeSet<std::net::Ipv4Addr>>,
    ) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn apply_vpc(&self, vpc: &Vpc) -> Result<(), ExecutorError> {
        self.vpcs.apply_vpc(vpc)
    }
    fn compare_vpc(&self, vpc: &Vpc) -> Result<Vec<String>, ExecutorError> {
        self.vpcs.compare_vpc(vpc)
    }
    fn remove_vpc(&self, vpc: VpcId) -> Result<(), ExecutorError> {
        self.vpcs.remove_vpc(vpc)
    }
    fn list_vpcs(&self) -> Result<Vec<VpcSeen>, ExecutorError> {
        self.vpcs.list_vpcs()
    }
    fn listen_vpc(&self, vpc: VpcId, door: Door) -> Result<OwnedFd, ExecutorError> {
        self.vpcs.listen_vpc(vpc, door)
    }
    fn attach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        self.vpcs.attach_interface(vpc, interface)
    }
    fn detach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        self.vpcs.detach_interface(vpc, interface)
    }
    fn dial_from(
        &self,
        vpc: VpcId,
        interface: InterfaceId,
        to: Destination,
        timeout: Duration,
    ) -> Result<OwnedFd, ExecutorError> {
        self.vpcs.dial_from(vpc, interface, to, timeout)
    }
    fn read_flows(&self, vpc: VpcId, since: u64, timeout: Duration) -> Result<Flows, ExecutorError> {
        self.vpcs.read_flows(vpc, since, timeout)
    }
}

impl NodeHost for FakeHost {
    fn write_credentials(&self, _text: &str) -> Result<(), ExecutorError> {
        Ok(())
    }
}

fn pair(host: FakeHost) -> (NodeClient, Arc<FakeHost>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("node.sock");
    let host = Arc::new(host);
    let uid = rustix::process::getuid().as_raw();
    let server = NodeServer::bind(&socket, uid, Arc::clone(&host) as Arc<dyn NodeHost>).unwrap();
    std::thread::spawn(move || server.run());
    (NodeClient::new(&socket), host, dir)
}

fn workload() -> WorkloadId {
    "w-0123456789abcdef0".parse().unwrap()
}

fn spec() -> LaunchSpec {
    LaunchSpec {
        workload: workload(),
        owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/j".into(),
        hostname: "algo-1".into(),
        network: WorkloadNetwork {
            workload: workload(),
            reach: Reach::Nothing,
        },
        layers: vec![format!("sha256:{}", "b".repeat(64)).parse().unwrap()],
        process: ProcessSpec {
            argv: vec!["train".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
        },
        hosts: Vec::new(),
        resolvers: Vec::new(),
        search: None,
        mounts: Vec::new(),
        held: false,
        beside: None,
        tunnel: None,
        encrypted: false,
        devices: Vec::new(),
        limits: Limits {
            cpu_millis: 100,
            memory_bytes: 64 << 20,
            pids: 64,
            shm_bytes: 0,
            overlay_bytes: 1 << 20,
        },
    }
}

#[test]
fn calls_and_descriptors_cross_the_socket_in_both_directions() {
    let (client, host, _dir) = pair(FakeHost::default());
    client.launch(&spec()).unwrap();
    assert_eq!(client.observe().unwrap().len(), 1);
    assert_eq!(client.observe_one(&workload()).unwrap().owner_arn, spec().owner_arn);
    assert_eq!(client.read_log(&workload(), 3, 100).unwrap().next, 10);

    let sight = client.sight(&workload()).unwrap();
    assert_eq!(
        (sight.source, sight.raw_sockets, sight.left_out),
        (SightSource::Ebpf, false, 1489)
    );

    let mut blob = tempfile::tempfile().unwrap();
    blob.write_all(b"layer").unwrap();
    std::io::Seek::rewind(&mut blob).unwrap();
    client.unpack_layer(blob.into(), &spec().layers[0]).unwrap();
    assert_eq!(*host.layers.lock().unwrap(), [b"layer".to_vec()]);

    let mut dialled = std::fs::File::from(client.dial(&workload(), 8080, Duration::from_secs(1)).unwrap());
    let mut text = [0; 11];
    dialled.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"from inside");

    let mut out = tempfile::tempfile().unwrap();
    let packed = client
        .pack(
            &workload(),
            "model",
            PackFormat::TarGz,
            out.as_fd().try_clone_to_owned().unwrap(),
        )
        .unwrap();
    assert_eq!(packed.entries, 1);
    std::io::Seek::rewind(&mut out).unwrap();
    let mut read = String::new();
    out.read_to_string(&mut read).unwrap();
    assert_eq!(read, "packed");
    assert_eq!(
        client
            .read_file(&workload(), "output", "failure", 1024)
            .unwrap()
            .unwrap(),
        b"out of data \xff"
    );
    assert_eq!(client.read_file(&workload(), "output", "nothing", 1024).unwrap(), None);
}

/// Proves: CC-36
#[test]
fn the_key_of_a_volume_arrives_and_a_volume_of_no_size_is_refused() {
    let (client, host, _dir) = pair(FakeHost::default());
    let spec = |bytes| VolumeSpec { bytes, lasting: false };
    let key = VolumeKey::new([9; 32]);
    assert!(client.make_volume(&workload(), &spec(1), &key).is_err());
    assert!(client.make_volume(&workload(), &spec(u64::MAX), &key).is_err());
    assert!(host.layers.lock().unwrap().is_empty(), "nothing reached the host");
    client.make_volume(&workload(), &spec(1 << 30), &key).unwrap();
    assert_eq!(*host.layers.lock().unwrap(), [vec![9; 32]]);
    assert!(matches!(client.open_volume(&workload()), Err(ExecutorError::Unknown)));
    client.close_volume(&workload()).unwrap();
}

/// Proves: NET-73
#[test]
fn a_seal_that_fails_reaches_the_asker_as_such() {
    let (client, host, _dir) = pair(FakeHost {
        refuse_seal: true,
        ..FakeHost::default()
    });
    assert!(matches!(client.launch(&spec()), Err(ExecutorError::Seal(text)) if text.contains("sysctl")));
    assert!(host.running.lock().unwrap().is_empty());
    let (client, host, _dir) = pair(FakeHost::default());
    client.launch(&spec()).unwrap();
    assert_eq!(host.running.lock().unwrap().len(), 1, "control");
}

#[test]
fn errors_keep_their_kind_across_the_socket() {
    let (client, _host, _dir) = pair(FakeHost::default());
    assert!(matches!(client.observe_one(&workload()), Err(ExecutorError::Unknown)));
    let archive = tempfile::tempfile().unwrap();
    let Err(ExecutorError::Refused(why)) =
        client.unpack_archive(archive.into(), &workload(), "model", Some(Duration::from_secs(60)))
    else {
        panic!("the refusal keeps its kind");
    };
    assert_eq!(why, "not within Some(60s)", "the limit travels too");
    let refusal = |folder: &str| {
        let archive = tempfile::tempfile().unwrap().into();
        let unpacked = client.unpack_model(archive, &workload(), "models", folder, None);
        let removed = client.remove_model(&workload(), "models", folder);
        match (unpacked, removed) {
            (Err(ExecutorError::Refused(first)), Err(ExecutorError::Refused(second)))
            | (Err(ExecutorError::Host(first)), Err(ExecutorError::Host(second))) => (first, second),
            other => panic!("both are refused: {other:?}"),
        }
    };
    let control = ("models 0a not within None".to_string(), "models 0a".to_string());
    assert_eq!(refusal("0a"), control);
    for folder in ["..", "a/b", ""] {
        let (first, second) = refusal(folder);
        assert!(
            first.contains("not a plain name") && second.contains("not a plain name"),
            "{folder}: {first}"
        );
    }
    let listener = ListenerSpec {
        address: "127.0.0.1".parse().unwrap(),
        port: 0,
        transport: Transport::Tcp,
    };
    client.listen(&listener).unwrap();
    let mut bad = spec();
    bad.mounts = vec![Mount::Input {
        source: "../../etc".into(),
        target: "/opt/ml/input".into(),
    }];
    assert!(matches!(client.launch(&bad), Err(ExecutorError::Host(text)) if text.contains("refused")));
    assert!(client.observe().unwrap().is_empty(), "a refused spec starts nothing");
    client.launch(&spec()).unwrap();
    assert_eq!(
        client.observe().unwrap().len(),
        1,
        "control: the same spec without the path starts"
    );
}

#[test]
fn a_node_that_is_away_is_reported_with_what_to_do() {
    let client = NodeClient::new(std::path::Path::new("/nonexistent/node.sock"));
    let Err(ExecutorError::Unreachable(text)) = client.observe() else {
        panic!("no node, no answer")
    };
    assert!(text.contains("isolarium"), "{text}");
}

/// A VPC with an entry in a network ACL crosses as it is: the numbers of entries are no keys of JSON.
#[test]
fn vpcs_and_their_answers_cross_the_socket() {
    let (client, host, _dir) = pair(FakeHost::default());
    let id = |text: &str| format!("{text}-0123456789abcdef0");
    let json = serde_json::json!({
        "id": id("vpc"), "blocks": ["10.0.0.0/16"],
        "dns": {"support": true, "hostnames": false, "domain_name": null, "servers": []},
        "subnets": {(id("subnet")): {"block": "10.0.0.0/24", "zone": "us-east-1a", "route_table": id("rtb"), "acl": id("acl")}},
        "acls": {(id("acl")): {
            "ingress": [[100, {"allow": true, "traffic": {"protocol": "all"}, "peer": "0.0.0.0/0"}]],
            "egress": [[7, {"allow": true, "traffic": {"protocol": "tcp", "ports": [80, 443]}, "peer": "0.0.0.0/0"}]]}},
        "groups": {(id("sg")): {"ingress": [], "egress": []}},
        "prefix_lists": {}, "route_tables": {(id("rtb")): {"routes": {}}}, "internet_gateway": null, "nat_gateways": {},
        "interfaces": {(id("eni")): {
            "subnet": id("subnet"), "primary": "10.0.0.10", "secondary": [], "groups": [id("sg")],
            "source_dest_check": true, "public": null, "holder": "program"}},
        "s3_endpoints": {},
    });
    let vpc: Vpc = serde_json::from_value(json).unwrap();
    client.apply_vpc(&vpc).unwrap();
    assert_eq!(*host.vpcs.state().vpcs[&vpc.id], vpc);
    let interface = *vpc.interfaces.keys().next().unwrap();
    client.attach_interface(vpc.id, interface).unwrap();
    let seen = client.list_vpcs().unwrap();
    assert_eq!((seen[0].vpc, seen[0].interfaces.contains(&interface)), (vpc.id, true));
    let to = Destination {
        transport: Transport::Tcp,
        address: "198.18.128.1".parse().unwrap(),
        port: 80,
    };
    let mut dialed = std::fs::File::from(client.dial_from(vpc.id, interface, to, Duration::from_secs(1)).unwrap());
    dialed.write_all(b"x").unwrap();
    assert_eq!(host.vpcs.state().dialed[0].1, to);
    let address = vpc.resolver().unwrap();
    for transport in [Transport::Tcp, Transport::Udp] {
        client
            .listen_vpc(vpc.id, Door::Resolver { address, transport })
            .unwrap();
    }
    let closed = client.listen_vpc(vpc.id, Door::S3 { port: 22 });
    assert!(matches!(closed, Err(ExecutorError::Refused(_))));
    assert_eq!(client.read_flows(vpc.id, 0, Duration::ZERO).unwrap(), Flows::default());
    client.detach_interface(vpc.id, interface).unwrap();
    assert!(matches!(
        client.dial_from(vpc.id, interface, to, Duration::from_secs(1)),
        Err(ExecutorError::Unknown)
    ));
    client.remove_vpc(vpc.id).unwrap();
    assert!(client.list_vpcs().unwrap().is_empty());
    let broken = Vpc {
        blocks: Vec::new(),
        ..vpc
    };
    assert!(matches!(client.apply_vpc(&broken), Err(ExecutorError::Host(_))));
}
