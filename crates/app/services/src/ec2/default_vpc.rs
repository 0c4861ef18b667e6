//! What a new VPC has (NET-5), and the default VPC (NET-6).

use super::error;
use super::noun::fresh;
use super::settings::Ec2Settings;
use ipnet::Ipv4Net;
use isolarium_model::ec2::group::{DEFAULT_NAME, Rule};
use isolarium_model::ec2::id::DhcpOptionsId;
use isolarium_model::ec2::route_table::Associated;
use isolarium_model::ec2::subnet::LaunchNames;
use isolarium_model::ec2::vpc::{Block, Tenancy};
use isolarium_model::ec2::{
    AccountAttributes, DhcpOptions, InternetGateway, NetworkAcl, Resource, RouteTable, RouteTarget, SecurityGroup,
    Subnet, Tags, Vpc, dhcp, key,
};
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Scope, Timestamp};
use isolarium_store::state::{Batch, Expect, Query, StateStore, StoreError, Stored};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Block of default VPCs.
const BLOCK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 31, 0, 0), 16);

/// What making a VPC needs besides the request.
pub(super) struct Maker<'a> {
    pub(super) ids: &'a dyn IdSource,
    pub(super) now: Timestamp,
    pub(super) scope: &'a Scope,
    pub(super) settings: &'a Ec2Settings,
}

/// A VPC with what it has from its first moment on (NET-5).
pub(super) struct NewVpc {
    pub(super) vpc: Vpc,
    pub(super) table: RouteTable,
    pub(super) acl: NetworkAcl,
    pub(super) group: SecurityGroup,
}

impl Maker<'_> {
    /// A VPC with its main route table, default security group and default network ACL.
    pub(super) fn vpc(&self, block: Ipv4Net, tenancy: Tenancy, dhcp: DhcpOptionsId) -> Result<NewVpc, ApiError> {
        let vpc = Vpc {
            id: fresh(self.ids)?,
            blocks: vec![Block {
                id: fresh(self.ids)?,
                block,
            }],
            tenancy,
            dns_support: true,
            dns_hostnames: false,
            address_usage_metrics: false,
            dhcp_options: Some(dhcp),
            is_default: false,
            generation: 1,
            created: self.now,
            tags: Tags::new(),
        };
        let group = fresh(self.ids)?;
        Ok(NewVpc {
            table: RouteTable {
                id: fresh(self.ids)?,
                vpc: vpc.id,
                routes: BTreeMap::new(),
                associations: BTreeMap::from([(fresh(self.ids)?, Associated::Main)]),
                created: self.now,
                tags: Tags::new(),
            },
            acl: NetworkAcl {
                id: fresh(self.ids)?,
                vpc: vpc.id,
                is_default: true,
                ingress: NetworkAcl::allow_all(),
                egress: NetworkAcl::allow_all(),
                associations: BTreeMap::new(),
                created: self.now,
                tags: Tags::new(),
            },
            group: SecurityGroup {
                id: group,
                vpc: vpc.id,
                name: DEFAULT_NAME.into(),
                description: "default VPC security group".into(),
                rules: BTreeMap::from([
                    (fresh(self.ids)?, Rule::everything_from(group)),
                    (fresh(self.ids)?, Rule::everything_out()),
                ]),
                created: self.now,
                tags: Tags::new(),
            },
            vpc,
        })
    }

    /// The region's set of DHCP options for new VPCs; it is made with the first of them, or anew where it was deleted.
    pub(super) fn dhcp_options(
        &self,
        store: &dyn StateStore,
        attributes: &mut AccountAttributes,
        batch: Batch,
    ) -> Result<(Batch, DhcpOptionsId), ApiError> {
        if let Some(id) = attributes.dhcp_options {
            let found = store.get::<DhcpOptions>(&key(self.scope, id)).map_err(error::stored)?;
            if let Some(found) = found {
                // Written back, so that it is not deleted meanwhile.
                return Ok((super::change::put(batch, &found)?, id));
            }
        }
        let region = self.scope.region.as_str();
        let domain = match region {
            "us-east-1" => "ec2.internal".to_owned(),
            region => format!("{region}.compute.internal"),
        };
        let options = DhcpOptions {
            id: fresh(self.ids)?,
            configurations: BTreeMap::from([
                ("domain-name".into(), vec![domain]),
                ("domain-name-servers".into(), vec![dhcp::AMAZON_PROVIDED.into()]),
            ]),
            created: self.now,
            tags: Tags::new(),
        };
        attributes.dhcp_options = Some(options.id);
        Ok((self.add(batch, &options)?, options.id))
    }

    /// Adds a record that must be new.
    pub(super) fn add<R: Resource>(&self, batch: Batch, record: &R) -> Result<Batch, ApiError> {
        let key = key(self.scope, record.id_text());
        batch.put(&key, Expect::Absent, record).map_err(error::stored)
    }

    /// Adds a new VPC with everything it has.
    pub(super) fn add_vpc(&self, batch: Batch, new: &NewVpc) -> Result<Batch, ApiError> {
        let batch = self.add(batch, &new.vpc)?;
        let batch = self.add(batch, &new.table)?;
        let batch = self.add(batch, &new.acl)?;
        self.add(batch, &new.group)
    }

    /// The default VPC: a subnet per zone, an internet gateway and the default route (NET-6).
    pub(super) fn default_vpc(
        &self,
        store: &dyn StateStore,
        attributes: &mut AccountAttributes,
        batch: Batch,
    ) -> Result<(Batch, Vpc), ApiError> {
        let (batch, dhcp) = self.dhcp_options(store, attributes, batch)?;
        let mut new = self.vpc(BLOCK, Tenancy::Default, dhcp)?;
        new.vpc.is_default = true;
        new.vpc.dns_hostnames = true;
        let gateway = InternetGateway {
            id: fresh(self.ids)?,
            attached: Some(new.vpc.id),
            created: self.now,
            tags: Tags::new(),
        };
        let everywhere = Ipv4Net::default();
        let out = RouteTarget::InternetGateway(gateway.id);
        new.table.routes.insert(everywhere, out);
        let mut batch = self.add(batch, &gateway)?;
        let zones = self.settings.zones(&self.scope.region);
        for (zone, block) in zones.into_iter().zip(BLOCK.subnets(20).into_iter().flatten()) {
            let subnet = Subnet {
                id: fresh(self.ids)?,
                vpc: new.vpc.id,
                block,
                zone,
                addresses: BTreeMap::new(),
                map_public_ip: true,
                launch_names: LaunchNames::default(),
                is_default: true,
                created: self.now,
                tags: Tags::new(),
            };
            new.acl.associations.insert(fresh(self.ids)?, subnet.id);
            batch = self.add(batch, &subnet)?;
        }
        Ok((self.add_vpc(batch, &new)?, new.vpc))
    }
}

/// Makes the default VPC of an account in a region where the operator wants one, once: a deleted one does not come back
/// (NET-6).
///
/// # Errors
/// When the store fails.
pub fn ensure(
    store: &dyn StateStore,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    settings: &Ec2Settings,
    scope: &Scope,
) -> Result<(), ApiError> {
    loop {
        let mut found = attributes(store, scope)?;
        if found.record.default_vpc_made {
            return Ok(());
        }
        found.record.default_vpc_made = true;
        let vpcs = store.query::<Vpc>(&Query::all(scope)).map_err(error::stored)?.rows;
        let maker = Maker {
            ids,
            now: clock.now(),
            scope,
            settings,
        };
        let mut batch = Batch::default();
        if !vpcs.iter().any(|vpc| vpc.record.is_default) {
            (batch, _) = maker.default_vpc(store, &mut found.record, batch)?;
        }
        match store.commit(put_attributes(batch, found)?) {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => return Err(error::stored(other)),
        }
    }
}

/// The record of the account in the region; revision 0 where there is none yet.
pub(super) fn attributes(store: &dyn StateStore, scope: &Scope) -> Result<Stored<AccountAttributes>, ApiError> {
    let key = AccountAttributes::key(scope);
    let found = store.get(&key).map_err(error::stored)?;
    Ok(found.unwrap_or(Stored {
        key,
        revision: 0,
        record: AccountAttributes::default(),
    }))
}

/// Adds the record of the account, at the revision read, with its generation one higher.
pub(super) fn put_attributes(batch: Batch, mut found: Stored<AccountAttributes>) -> Result<Batch, ApiError> {
    found.record.generation = found.record.generation.saturating_add(1);
    let expect = match found.revision {
        0 => Expect::Absent,
        revision => Expect::At(revision),
    };
    batch.put(&found.key, expect, &found.record).map_err(error::stored)
}
