//! VPCs in a lab: applied by the real host, their interfaces held by namespaces that tests look into.

use super::wire::Packet;
use super::{Capture, Lab};
use anyhow::{Context, Result, ensure};
use isolarium_dataplane::kernel::netns;
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::{CheckedVpc, Door, Holder, Vpc};
use isolarium_netplan::intent::{Reach, Transport, WorkloadNetwork};
use isolarium_netplan::plan::LinkName;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto};
use std::collections::BTreeMap;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

/// One VPC of a lab with the namespaces of its interfaces.
pub struct VpcLab<'a> {
    lab: &'a Lab,
    vpc: CheckedVpc,
    held: BTreeMap<InterfaceId, OwnedFd>,
}

/// A namespace that sends packets made by hand and sees every frame. What it did not send itself, its kernel never
/// answers.
pub struct Tap {
    netns: OwnedFd,
    raw: OwnedFd,
    capture: Capture,
}

/// Runs a program inside a namespace.
///
/// # Errors
/// When it cannot be run or fails.
pub fn run_in(at: BorrowedFd<'_>, program: &str, args: &[&str]) -> Result<String> {
    let output = netns::within(at, || Command::new(program).args(args).stdin(Stdio::null()).output())??;
    ensure!(output.status.success(), "{program} {args:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Tap {
    /// A tap in a namespace that holds an interface.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub fn on(at: BorrowedFd<'_>) -> Result<Self> {
        let rules = "table inet q { chain q { type filter hook prerouting priority -400; policy drop; }; }";
        run_in(at, "nft", &[rules])?;
        Self::beside(at)
    }

    /// A tap on the far end of a link, in a namespace with other duties: only what comes by the link is silenced.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub fn behind(at: BorrowedFd<'_>, link: &LinkName) -> Result<Self> {
        let rules = format!(
            "table netdev q_{link} {{ chain q {{ type filter hook ingress device \"{link}\" priority 0; policy drop; }}; }}"
        );
        run_in(at, "nft", &[&rules])?;
        Self::beside(at)
    }

    fn beside(at: BorrowedFd<'_>) -> Result<Self> {
        let raw = netns::within(at, || {
            rustix::net::socket_with(
                AddressFamily::INET,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(ipproto::RAW),
            )
        })??;
        Ok(Self {
            netns: at.try_clone_to_owned()?,
            raw,
            capture: Capture::start(at)?,
        })
    }

    /// The namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Sends a packet by the namespace's routes. One that has no way is as good as dropped.
    pub fn send(&self, packet: &Packet) {
        self.send_bytes(packet, &packet.bytes());
    }

    /// Sends other bytes to where a packet goes.
    pub fn send_bytes(&self, packet: &Packet, bytes: &[u8]) {
        let to = SocketAddrV4::new(packet.destination, 0);
        let _no_route_is_a_loss = sendto(&self.raw, bytes, SendFlags::empty(), &to);
    }

    /// Probes and answers that came since the last call; those sent from here are left out.
    ///
    /// # Errors
    /// When frames were lost.
    pub fn seen(&self) -> Result<Vec<Packet>> {
        let frames = self.capture.raw()?;
        // Far ends of links have this hardware address, near ends have another.
        let arrived = frames.iter().filter(|frame| frame.get(1) == Some(&0x6a));
        Ok(arrived.filter_map(|frame| Packet::parse(frame.get(14..)?)).collect())
    }
}

impl<'a> VpcLab<'a> {
    /// Applies a VPC and attaches every interface that a namespace can hold.
    ///
    /// # Errors
    /// When the host refuses something.
    pub fn new(lab: &'a Lab, vpc: Vpc) -> Result<Self> {
        let mut this = Self {
            lab,
            vpc: vpc.check()?,
            held: BTreeMap::new(),
        };
        this.lab.host().apply_vpc(this.vpc.clone())?;
        this.attach_all()?;
        Ok(this)
    }

    /// Applies another intent to the same VPC. Interfaces that are new are attached, those that are gone are let go.
    ///
    /// # Errors
    /// When the host refuses something.
    pub fn change(&mut self, vpc: Vpc) -> Result<()> {
        let vpc = vpc.check()?;
        let stays = |id: &InterfaceId| {
            let now = vpc.interfaces.get(id).filter(|one| one.is_attached());
            let before = self.vpc.interfaces.get(id);
            now.zip(before)
                .is_some_and(|(now, before)| (now.primary, &now.holder) == (before.primary, &before.holder))
        };
        let gone: Vec<InterfaceId> = self.held.keys().copied().filter(|id| !stays(id)).collect();
        for id in gone {
            self.held.remove(&id);
            self.lab.host().detach_interface(vpc.id, id)?;
        }
        self.vpc = vpc;
        self.lab.host().apply_vpc(self.vpc.clone())?;
        self.attach_all()
    }

    /// Edits the intent and applies it.
    ///
    /// # Errors
    /// When the host refuses something.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Vpc)) -> Result<()> {
        let mut vpc = (*self.vpc).clone();
        edit(&mut vpc);
        self.change(vpc)
    }

    fn attach_all(&mut self) -> Result<()> {
        for (id, interface) in &self.vpc.interfaces {
            if self.held.contains_key(id) {
                continue;
            }
            let (host, vpc) = (self.lab.host(), self.vpc.id);
            let fd = match &interface.holder {
                Holder::Container(workload) => {
                    let reach = Reach::Vpc { vpc, interface: *id };
                    let network = WorkloadNetwork {
                        workload: workload.clone(),
                        reach,
                    };
                    host.seal(&network).with_context(|| id.to_string())?.into()
                }
                Holder::Transfer(_) | Holder::Program => {
                    host.attach_interface(vpc, *id).with_context(|| id.to_string())?;
                    netns::open(&host.interface_path(vpc, *id))?
                }
                Holder::Nobody | Holder::Isolated(_) | Holder::Nat(_) | Holder::Endpoint(_) => continue,
            };
            self.held.insert(*id, fd);
        }
        Ok(())
    }

    /// The intent that stands.
    pub fn vpc(&self) -> &CheckedVpc {
        &self.vpc
    }

    /// Its id.
    pub fn id(&self) -> VpcId {
        self.vpc.id
    }

    /// The namespace that holds an interface.
    ///
    /// # Panics
    /// When none does.
    #[expect(clippy::expect_used, reason = "a test that asks for the wrong one fails")]
    pub fn at(&self, id: InterfaceId) -> BorrowedFd<'_> {
        self.held.get(&id).expect("an attached interface").as_fd()
    }

    /// All attached interfaces with their namespaces.
    pub fn held(&self) -> &BTreeMap<InterfaceId, OwnedFd> {
        &self.held
    }

    /// The router's namespace.
    ///
    /// # Errors
    /// When it is gone.
    pub fn router(&self) -> Result<OwnedFd> {
        Ok(netns::open(
            &self.lab.run_dir().join("netns").join(self.vpc.id.to_string()),
        )?)
    }

    /// Opens a listening door.
    ///
    /// # Errors
    /// When the VPC has none.
    pub fn listener(&self, door: Door) -> Result<TcpListener> {
        Ok(self.lab.host().open_door(self.vpc.id, door)?.into())
    }

    /// Opens the resolver's door for datagrams.
    ///
    /// # Errors
    /// When the VPC has none.
    pub fn datagrams(&self, address: std::net::Ipv4Addr) -> Result<UdpSocket> {
        let door = Door::Resolver {
            address,
            transport: Transport::Udp,
        };
        Ok(self.lab.host().open_door(self.vpc.id, door)?.into())
    }
}

impl Drop for VpcLab<'_> {
    fn drop(&mut self) {
        self.held.clear();
        if let Err(error) = self.lab.host().remove_vpc(self.vpc.id) {
            assert!(std::thread::panicking(), "the VPC could not be removed: {error:?}");
        }
    }
}
