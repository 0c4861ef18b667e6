//! VPCs in memory, for the tests of those who use [`Vpcs`]: keeps what it was given, checks what the real one checks, and
//! fails on request.

use crate::executor::ExecutorError;
use crate::vpcs::{Destination, Door, Flow, Flows, VpcSeen, Vpcs};
use isolarium_netplan::compile::vpc::LINK_LOCAL_RESOLVER;
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::Transport;
use isolarium_netplan::intent::vpc::{CheckedVpc, Holder, Vpc};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the fake holds; tests look at it and change it.
#[derive(Debug, Default)]
pub struct State {
    /// The last intent of each VPC.
    pub vpcs: BTreeMap<VpcId, CheckedVpc>,
    /// Interfaces with a namespace of their own.
    pub attached: BTreeSet<(VpcId, InterfaceId)>,
    /// The far ends of connections, oldest first.
    pub dialed: Vec<(InterfaceId, Destination, UnixStream)>,
    /// Flows of each VPC, told from the offset of the call on.
    pub flows: BTreeMap<VpcId, Vec<Flow>>,
    /// Calls in order: the method's name and the VPC's or interface's id.
    pub calls: Vec<(&'static str, String)>,
    /// The groups of the last [`Vpcs::set_peers`].
    pub peers: BTreeSet<BTreeSet<Ipv4Addr>>,
    /// Methods that fail, with the text of the host's error; `away` is an absent process.
    pub failing: BTreeMap<&'static str, String>,
}

/// VPCs in memory.
#[derive(Debug, Default)]
pub struct FakeVpcs(Mutex<State>);

impl FakeVpcs {
    /// The state, for looking and changing.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, call: &'static str, what: &dyn ToString) -> Result<MutexGuard<'_, State>, ExecutorError> {
        let mut state = self.state();
        state.calls.push((call, what.to_string()));
        match state.failing.get(call).map(String::as_str) {
            None => Ok(state),
            Some("away") => Err(ExecutorError::Unreachable("away".into())),
            Some(text) => Err(ExecutorError::Host(text.into())),
        }
    }
}

fn known(state: &State, vpc: VpcId) -> Result<&CheckedVpc, ExecutorError> {
    state.vpcs.get(&vpc).ok_or(ExecutorError::Unknown)
}

fn endpoint_at(vpc: &CheckedVpc, address: Ipv4Addr) -> bool {
    let mut all = vpc.interfaces.values();
    all.any(|one| {
        let known = matches!(&one.holder, Holder::Endpoint(id) if vpc.interface_endpoints.contains_key(id));
        known && one.addresses().any(|own| own == address)
    })
}

impl Vpcs for FakeVpcs {
    fn set_peers(&self, groups: &BTreeSet<BTreeSet<Ipv4Addr>>) -> Result<(), ExecutorError> {
        self.begin("set_peers", &groups.len())?.peers.clone_from(groups);
        Ok(())
    }

    fn apply_vpc(&self, vpc: &Vpc) -> Result<(), ExecutorError> {
        let mut state = self.begin("apply_vpc", &vpc.id)?;
        let checked = vpc.clone().check();
        let checked = checked.map_err(|bad| ExecutorError::Host(bad.to_string()))?;
        let id = checked.id;
        let stays = |interface: &InterfaceId| checked.interfaces.get(interface).is_some_and(|one| one.is_attached());
        state.attached.retain(|(vpc, interface)| *vpc != id || stays(interface));
        state.vpcs.insert(id, checked);
        Ok(())
    }

    fn compare_vpc(&self, vpc: &Vpc) -> Result<Vec<String>, ExecutorError> {
        let state = self.begin("compare_vpc", &vpc.id)?;
        let checked = vpc.clone().check();
        let checked = checked.map_err(|bad| ExecutorError::Host(bad.to_string()))?;
        let same = *known(&state, vpc.id)? == checked;
        Ok(if same { vec![] } else { vec!["apply the intent".into()] })
    }

    fn remove_vpc(&self, vpc: VpcId) -> Result<(), ExecutorError> {
        let mut state = self.begin("remove_vpc", &vpc)?;
        state.vpcs.remove(&vpc);
        state.flows.remove(&vpc);
        state.attached.retain(|(of, _)| *of != vpc);
        Ok(())
    }

    fn list_vpcs(&self) -> Result<Vec<VpcSeen>, ExecutorError> {
        let state = self.begin("list_vpcs", &"")?;
        let interfaces = |vpc: VpcId| {
            let own = state.attached.iter().filter(move |(of, _)| *of == vpc);
            own.map(|(_, interface)| *interface).collect()
        };
        let seen = state.vpcs.keys().map(|vpc| VpcSeen {
            vpc: *vpc,
            interfaces: interfaces(*vpc),
        });
        Ok(seen.collect())
    }

    fn listen_vpc(&self, vpc: VpcId, door: Door) -> Result<OwnedFd, ExecutorError> {
        let state = self.begin("listen_vpc", &vpc)?;
        let vpc = known(&state, vpc)?;
        let transport = match door {
            Door::Resolver { address, transport }
                if vpc.dns.support && (Some(address) == vpc.resolver() || address == LINK_LOCAL_RESOLVER) =>
            {
                transport
            }
            Door::S3 { port: 80 | 443 } | Door::Credentials => Transport::Tcp,
            Door::Endpoint { address } if endpoint_at(vpc, address) => Transport::Tcp,
            Door::Resolver { .. } | Door::S3 { .. } | Door::Endpoint { .. } => {
                return Err(ExecutorError::Refused("no such door".into()));
            }
        };
        let opened = match transport {
            Transport::Tcp => TcpListener::bind("127.0.0.1:0").map(OwnedFd::from),
            Transport::Udp => UdpSocket::bind("127.0.0.1:0").map(OwnedFd::from),
        };
        opened.map_err(|error| ExecutorError::Host(error.to_string()))
    }

    fn attach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        let mut state = self.begin("attach_interface", &interface)?;
        let found = known(&state, vpc)?.interfaces.get(&interface);
        match found.ok_or(ExecutorError::Unknown)?.holder {
            Holder::Transfer(_) | Holder::Program => {}
            _ => return Err(ExecutorError::Refused(format!("{interface} has another holder"))),
        }
        state.attached.insert((vpc, interface));
        Ok(())
    }

    fn detach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        let mut state = self.begin("detach_interface", &interface)?;
        state.attached.remove(&(vpc, interface));
        Ok(())
    }

    fn dial_from(
        &self,
        vpc: VpcId,
        interface: InterfaceId,
        to: Destination,
        _timeout: Duration,
    ) -> Result<OwnedFd, ExecutorError> {
        let mut state = self.begin("dial_from", &interface)?;
        if !state.attached.contains(&(vpc, interface)) {
            return Err(ExecutorError::Unknown);
        }
        let (near, far) = UnixStream::pair().map_err(|error| ExecutorError::Host(error.to_string()))?;
        state.dialed.push((interface, to, far));
        Ok(near.into())
    }

    fn read_flows(&self, vpc: VpcId, since: u64, _timeout: Duration) -> Result<Flows, ExecutorError> {
        let state = self.begin("read_flows", &vpc)?;
        known(&state, vpc)?;
        let all = state.flows.get(&vpc).map(Vec::as_slice).unwrap_or_default();
        let at = usize::try_from(since).unwrap_or(usize::MAX);
        Ok(Flows {
            flows: all.get(at..).unwrap_or_default().to_vec(),
            next: all.len() as u64,
            lost: 0,
        })
    }
}
