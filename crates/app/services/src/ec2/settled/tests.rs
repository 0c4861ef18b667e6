//! A caller who may do everything, but for what an explicit Deny names, on a store that fails or changes at the wrong moment.

use super::*;
use crate::ecr::fixture::{Fixture, refusal, root};
use crate::{Caller, Ctx, Dispatch};
use isolarium_model::ec2::{RouteTable, SecurityGroup};
use isolarium_model::{Principal, Record};
use isolarium_wire::{ApiError, Document};
use serde_json::{Value, json};
use std::sync::Mutex;

const ACCOUNT: &str = "123456789012";

type Meanwhile<'a> = Box<dyn FnOnce() -> Result<(), StoreError> + Send + 'a>;

/// A store to which something happens right after the next query of a kind.
struct Between<'a> {
    store: &'a dyn StateStore,
    kind: &'static str,
    next: Mutex<Option<Meanwhile<'a>>>,
}

impl StateStore for Between<'_> {
    fn get_raw(&self, kind: &'static str, key: &Key) -> Result<Option<(Revision, Vec<u8>)>, StoreError> {
        self.store.get_raw(kind, key)
    }

    fn query_raw(&self, kind: &'static str, query: &Query) -> Result<RawPage, StoreError> {
        let page = self.store.query_raw(kind, query)?;
        let next = (kind == self.kind).then(|| self.next.lock().unwrap().take()).flatten();
        next.map_or(Ok(()), |happens| happens())?;
        Ok(page)
    }

    fn all_raw(&self, kind: &'static str, statuses: &[&str]) -> Result<Vec<(Key, Revision, Vec<u8>)>, StoreError> {
        self.store.all_raw(kind, statuses)
    }

    fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.store.counts()
    }

    fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.store.commit(batch)
    }

    fn subscribe(&self, listener: Listener) {
        self.store.subscribe(listener);
    }

    fn recent(&self) -> &Recent {
        self.store.recent()
    }
}

fn called(ctx: &Ctx<'_>, service: &str, operation: &str, input: Value) -> Result<Value, ApiError> {
    let input: Document = serde_json::from_value(input).unwrap();
    let answer = Dispatch::default().call(service, operation, input, ctx);
    answer
        .expect("a served operation")
        .map(|document| serde_json::to_value(document).unwrap())
}

fn as_root(lab: &Fixture, service: &str, operation: &str, input: Value) -> Value {
    called(&lab.ctx(&root(ACCOUNT)), service, operation, input).unwrap()
}

/// Somebody who may do everything that `deny` does not name.
fn somebody(lab: &Fixture, deny: Value) -> Caller {
    let made = as_root(lab, "iam", "CreateUser", json!({"UserName": "ada"}));
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"}, deny
    ]});
    let input = json!({"UserName": "ada", "PolicyName": "p", "PolicyDocument": policy.to_string()});
    as_root(lab, "iam", "PutUserPolicy", input);
    let principal = Principal::User {
        account: ACCOUNT.parse().unwrap(),
        path: "/".into(),
        name: "ada".into(),
        id: made["User"]["UserId"].as_str().unwrap().into(),
    };
    Caller {
        principal,
        ..root(ACCOUNT)
    }
}

fn text(value: &Value, path: &str) -> String {
    value.pointer(path).unwrap().as_str().unwrap().to_owned()
}

/// Proves: IAM-58
#[test]
fn a_store_that_fails_lets_nobody_past_a_deny() {
    let lab = Fixture::new();
    let vpc = text(
        &as_root(&lab, "ec2", "CreateVpc", json!({"CidrBlock": "10.0.0.0/16"})),
        "/Vpc/VpcId",
    );
    let mut associations = Vec::new();
    let mut tables = Vec::new();
    for n in 0..2 {
        let block = format!("10.0.{n}.0/24");
        let subnet = as_root(&lab, "ec2", "CreateSubnet", json!({"VpcId": vpc, "CidrBlock": block}));
        let table = as_root(&lab, "ec2", "CreateRouteTable", json!({"VpcId": vpc}));
        tables.push(text(&table, "/RouteTable/RouteTableId"));
        let input = json!({"RouteTableId": tables[n], "SubnetId": text(&subnet, "/Subnet/SubnetId")});
        let made = as_root(&lab, "ec2", "AssociateRouteTable", input);
        associations.push(text(&made, "/AssociationId"));
    }
    let denied = format!("arn:aws:ec2:us-east-1:{ACCOUNT}:route-table/{}", tables[0]);
    let caller = somebody(&lab, json!({"Effect": "Deny", "Action": "ec2:*", "Resource": denied}));
    let ask = |association: &str, fails: bool| {
        let between = Between {
            store: &lab.store,
            kind: RouteTable::KIND,
            next: Mutex::new(fails.then(|| -> Meanwhile<'_> { Box::new(|| Err(StoreError::DiskFull)) })),
        };
        let ctx = Ctx {
            store: &between,
            ..lab.ctx(&caller)
        };
        called(
            &ctx,
            "ec2",
            "DisassociateRouteTable",
            json!({"AssociationId": association}),
        )
    };
    // The read fails once, and would succeed for the handler.
    let (code, _) = refusal(ask(&associations[0], true));
    assert_eq!(code, "InternalFailure");
    let (code, _) = refusal(ask(&associations[0], false));
    assert_eq!(code, "UnauthorizedOperation");
    ask(&associations[1], false).expect("control: the other table is not denied");
}

/// Proves: IAM-58
#[test]
fn what_leads_elsewhere_after_the_question_is_asked_about_anew() {
    let lab = Fixture::new();
    as_root(&lab, "ec2", "CreateDefaultVpc", json!({}));
    let vpcs = as_root(&lab, "ec2", "DescribeVpcs", json!({}));
    let vpc = text(&vpcs, "/Vpcs/0/VpcId");
    let deny = json!({"Effect": "Deny", "Action": "ec2:DeleteSecurityGroup", "Resource": "*",
        "Condition": {"StringEquals": {"ec2:ResourceTag/keep": "yes"}}});
    let caller = somebody(&lab, deny);
    let make = |keep: &str| {
        let tags = json!([{"ResourceType": "security-group", "Tags": [{"Key": "keep", "Value": keep}]}]);
        let input = json!({"VpcId": vpc, "GroupName": "web", "Description": "d", "TagSpecifications": tags});
        text(&as_root(&lab, "ec2", "CreateSecurityGroup", input), "/GroupId")
    };
    let delete = |meanwhile: Option<Meanwhile<'_>>| {
        let between = Between {
            store: &lab.store,
            kind: SecurityGroup::KIND,
            next: Mutex::new(meanwhile),
        };
        let ctx = Ctx {
            store: &between,
            ..lab.ctx(&caller)
        };
        called(&ctx, "ec2", "DeleteSecurityGroup", json!({"GroupName": "web"}))
    };
    let there = || {
        let filters = json!([{"Name": "group-name", "Values": ["web"]}]);
        let seen = as_root(&lab, "ec2", "DescribeSecurityGroups", json!({"Filters": filters}));
        seen["SecurityGroups"].as_array().map_or(0, Vec::len)
    };
    // Nothing has the name when IAM is asked; a group that a Deny protects has it when the handler looks.
    let (code, _) = refusal(delete(Some(Box::new(|| {
        make("yes");
        Ok(())
    }))));
    assert_eq!((code.as_str(), there()), ("UnauthorizedOperation", 1));
    let (code, _) = refusal(delete(None));
    assert_eq!((code.as_str(), there()), ("UnauthorizedOperation", 1), "without a race");
    let input = json!({"GroupName": "web"});
    as_root(&lab, "ec2", "DeleteSecurityGroup", input.clone());
    // The same race with a group that nobody protects ends in its deletion, after a second question.
    delete(Some(Box::new(|| {
        make("no");
        Ok(())
    })))
    .expect("control");
    assert_eq!(there(), 0);
    // One group is replaced by another of the same name between the question and the handler.
    make("no");
    let (code, _) = refusal(delete(Some(Box::new(|| {
        as_root(&lab, "ec2", "DeleteSecurityGroup", input);
        make("yes");
        Ok(())
    }))));
    assert_eq!((code.as_str(), there()), ("UnauthorizedOperation", 1));
}
