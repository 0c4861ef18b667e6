//! Programs that the operator runs as hosts of a VPC, where EC2 has instances (PL-5): each has an interface of its own, as long
//! as whoever started it is there.

use super::{NetworkError, Networks, key, name_servers, place};
use isolarium_model::Scope;
use isolarium_model::ec2::id::{AttachmentId, GroupId, InterfaceId, SubnetId, VpcId};
use isolarium_model::ec2::{Holder, NetworkInterface, Parts, SecurityGroup, Subnet, Tags, Vpc};
use isolarium_model::time::{Clock, IdSource};
use isolarium_store::{Batch, Expect, StoreError, Stored};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{MutexGuard, PoisonError};

/// What EC2 allows on one interface.
const MOST_GROUPS: usize = 5;

/// Why a program has no place in a subnet. Nothing was made, or it was given back.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No account has it.
    #[error("The subnet ID '{0}' does not exist")]
    Subnet(String),
    /// The subnet's VPC does not have it.
    #[error("The security group '{group}' does not exist in {vpc}, the VPC of the subnet")]
    Group { group: String, vpc: VpcId },
    /// More than EC2 allows.
    #[error("a host has at most {MOST_GROUPS} security groups")]
    Groups,
    /// NET-4.
    #[error("{0} has no free address")]
    Full(SubnetId),
    /// The source of ids gives none.
    #[error("an identifier could not be made")]
    Identifier,
    /// The records or the host.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl From<StoreError> for ProgramError {
    fn from(error: StoreError) -> Self {
        Self::Network(error.into())
    }
}

/// A program's place in a VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramPlace {
    /// Account and region of the VPC.
    pub scope: Scope,
    pub vpc: VpcId,
    pub interface: InterfaceId,
    pub address: Ipv4Addr,
    /// Whom the program asks for names; none where the VPC has no resolver and no servers of its own.
    pub name_servers: Vec<Ipv4Addr>,
    /// `domain-name` of the DHCP options.
    pub search: Option<String>,
}

impl Networks {
    /// Gives a program that is about to start an interface in a subnet, with these groups or, where none is named, the VPC's
    /// default group, and makes its sealed namespace (PL-5, NET-10). The interface is the account's own, as an instance's, and
    /// cannot be detached. [`Self::remove_program`] gives everything back; so does the next start of the engine.
    ///
    /// # Errors
    /// See [`ProgramError`]; nothing is left.
    pub fn place_program(
        &self,
        clock: &dyn Clock,
        ids: &dyn IdSource,
        subnet: &str,
        groups: &[String],
    ) -> Result<ProgramPlace, ProgramError> {
        let number = place::number_of(ids).ok_or(ProgramError::Identifier)?;
        let interface = InterfaceId::of(number);
        // Before the record is there, so that no look takes it for one that was left behind.
        self.programs().insert(interface);
        let placed = self
            .commit_program(clock, ids, interface, subnet, groups)
            .and_then(|(scope, vpc, address)| {
                self.attach(&scope, vpc, interface)?;
                let known = self.known(vpc).ok_or(NetworkError::Gone(vpc))?;
                Ok(ProgramPlace {
                    scope,
                    vpc,
                    interface,
                    address,
                    name_servers: match known.dns.support || !known.dns.servers.is_empty() {
                        true => name_servers(&known),
                        false => Vec::new(),
                    },
                    search: known.dns.domain_name.clone(),
                })
            });
        if placed.is_err() {
            self.programs().remove(&interface);
            // With what is known of its place, if the record was made at all.
            let left = self.program_record(interface).map_err(NetworkError::from);
            let given = left.and_then(|left| match left {
                Some(left) => self.give_back(&left.key.scope, left.record.vpc, interface),
                None => Ok(()),
            });
            if let Err(error) = given {
                let cause = crate::driver::chain(&error);
                tracing::warn!(%interface, cause, "a host's interface is not given back yet; trying again");
            }
        }
        placed
    }

    /// Gives a program's interface, address and namespace back; it reaches nothing any more. One that is gone is a success.
    ///
    /// # Errors
    /// The records' and the host's; what is left goes with the loop's next look at everything.
    pub fn remove_program(&self, program: &ProgramPlace) -> Result<(), NetworkError> {
        let given = self.give_back(&program.scope, program.vpc, program.interface);
        self.programs().remove(&program.interface);
        given
    }

    fn give_back(&self, scope: &Scope, vpc: VpcId, interface: InterfaceId) -> Result<(), NetworkError> {
        place::release(&*self.store, scope, &BTreeSet::from([interface]))?;
        // Without its record the interface's link goes too, whatever still runs in its namespace.
        match self.ensure(scope, vpc) {
            Ok(_) | Err(NetworkError::Gone(_)) => self.detach(vpc, interface),
            Err(error) => Err(error),
        }
    }

    /// Programs whose operator went while nobody of the engine was there to see it.
    pub(super) fn release_ended_programs(&self, scope: &Scope, parts: &Parts) -> Result<(), StoreError> {
        let ended = |(id, one): &(&InterfaceId, &NetworkInterface)| {
            one.holder == Holder::Program && !self.programs().contains(id)
        };
        let ended: BTreeSet<InterfaceId> = parts.interfaces.iter().filter(ended).map(|(id, _)| *id).collect();
        if ended.is_empty() {
            return Ok(());
        }
        tracing::info!(vpc = %parts.vpc.id, count = ended.len(), "hosts of the operator's have ended; their interfaces are given back");
        place::release(&*self.store, scope, &ended)
    }

    fn programs(&self) -> MutexGuard<'_, BTreeSet<InterfaceId>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn program_record(&self, interface: InterfaceId) -> Result<Option<Stored<NetworkInterface>>, StoreError> {
        let all = self.store.all::<NetworkInterface>()?;
        Ok(all.into_iter().find(|stored| stored.record.id == interface))
    }

    /// The interface, its address and the mark of the VPC's change, in one commit.
    fn commit_program(
        &self,
        clock: &dyn Clock,
        ids: &dyn IdSource,
        interface: InterfaceId,
        subnet: &str,
        groups: &[String],
    ) -> Result<(Scope, VpcId, Ipv4Addr), ProgramError> {
        if groups.len() > MOST_GROUPS {
            return Err(ProgramError::Groups);
        }
        let attachment = AttachmentId::of(place::number_of(ids).ok_or(ProgramError::Identifier)?);
        let chance = place::number_of(ids).ok_or(ProgramError::Identifier)?;
        let chance = u64::try_from(chance & u128::from(u64::MAX)).unwrap_or(0);
        let unknown = || ProgramError::Subnet(subnet.to_owned());
        let id: SubnetId = subnet.parse().map_err(|_| unknown())?;
        loop {
            let all = self.store.all::<Subnet>()?;
            let mut found = all
                .into_iter()
                .find(|stored| stored.record.id == id)
                .ok_or_else(unknown)?;
            let (scope, vpc) = (found.key.scope.clone(), found.record.vpc);
            let vpc_key = key(&scope, vpc);
            let mut of = self.store.get::<Vpc>(&vpc_key)?.ok_or_else(unknown)?;
            let groups = self.groups_of(&scope, vpc, groups)?;
            let taken = found.record.take(interface, None, chance);
            let address = taken.map_err(|_| ProgramError::Full(id))?;
            let now = clock.now();
            let record = NetworkInterface {
                id: interface,
                vpc,
                subnet: id,
                zone: found.record.zone.clone(),
                primary: address,
                secondary: BTreeSet::new(),
                groups,
                description: "Host of isolarium vpc exec".into(),
                source_dest_check: true,
                requester: None,
                holder: Holder::Program,
                attachment: Some(place::attachment(attachment, now)),
                created: now,
                tags: Tags::new(),
            };
            of.record.generation = of.record.generation.saturating_add(1);
            let batch = Batch::default()
                .put(&key(&scope, interface), Expect::Absent, &record)?
                .put(&found.key, Expect::At(found.revision), &found.record)?
                .put(&vpc_key, Expect::At(of.revision), &of.record)?;
            match self.store.commit(batch) {
                Ok(_) => return Ok((scope, vpc, address)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The groups named, all of the VPC, or its default one.
    fn groups_of(&self, scope: &Scope, vpc: VpcId, named: &[String]) -> Result<BTreeSet<GroupId>, ProgramError> {
        let all: Vec<SecurityGroup> = self
            .store
            .parts::<SecurityGroup>(scope, &[vpc.to_string()])?
            .into_iter()
            .map(|stored| stored.record)
            .collect();
        if named.is_empty() {
            let own = all.iter().find(|group| group.is_default()).map(|group| group.id);
            let missing = || ProgramError::Group {
                group: "default".into(),
                vpc,
            };
            return own.map(|own| BTreeSet::from([own])).ok_or_else(missing);
        }
        let known = |name: &String| {
            let id = name.parse::<GroupId>().ok();
            let id = id.filter(|id| all.iter().any(|group| group.id == *id));
            id.ok_or_else(|| ProgramError::Group {
                group: name.clone(),
                vpc,
            })
        };
        named.iter().map(known).collect()
    }
}

#[cfg(test)]
mod tests;
