use super::*;
use crate::deps::Deps;
use crate::fake::World;
use crate::network::step;
use crate::network::tests::{VPC, get, put, vpc_with};
use crate::network::{NoDoors, ServiceRanges};
use isolarium_model::Timestamp;
use isolarium_model::ec2::group::DEFAULT_NAME;
use std::sync::Arc;

/// A VPC with a subnet of this length and a default group, number 2, beside the one that it has.
fn world(length: u8) -> (Arc<World>, Deps) {
    let world = World::new();
    vpc_with(&world, length);
    let group = SecurityGroup {
        id: GroupId::of(2),
        vpc: VpcId::of(VPC),
        name: DEFAULT_NAME.into(),
        description: DEFAULT_NAME.into(),
        rules: Default::default(),
        created: Timestamp(0),
        tags: Tags::new(),
    };
    put(&world, &group);
    let deps = world.deps();
    (world, deps)
}

fn enter(deps: &Deps, subnet: &str, groups: &[String]) -> Result<ProgramPlace, ProgramError> {
    deps.networks.place_program(&*deps.clock, &*deps.ids, subnet, groups)
}

fn subnet() -> String {
    SubnetId::of(VPC).to_string()
}

/// What is left of programs: addresses taken, records, namespaces.
fn left(world: &World) -> [usize; 3] {
    [
        get::<Subnet>(world, SubnetId::of(VPC)).unwrap().addresses.len(),
        world.state().all::<NetworkInterface>().unwrap().len(),
        world.vpcs.state().attached.len(),
    ]
}

/// Proves: PL-5, NET-10
#[test]
fn a_program_has_an_interface_with_the_default_group_or_those_named_until_it_ends() {
    let (world, deps) = world(24);
    let named = GroupId::of(VPC);
    let first = enter(&deps, &subnet(), &[]).unwrap();
    let second = enter(&deps, &subnet(), &[named.to_string()]).unwrap();
    assert_eq!(left(&world), [2, 2, 2]);
    for (place, group) in [(&first, GroupId::of(2)), (&second, named)] {
        let record = get::<NetworkInterface>(&world, place.interface).unwrap();
        assert_eq!((&record.holder, record.status()), (&Holder::Program, "in-use"));
        assert_eq!(
            (record.primary, record.groups),
            (place.address, BTreeSet::from([group]))
        );
        assert_eq!(place.name_servers, [Ipv4Addr::new(10, 0, 0, 2)]);
    }
    // The loop leaves those alone whose operator is there.
    step(&deps).unwrap();
    assert_eq!(left(&world), [2, 2, 2]);
    deps.networks.remove_program(&first).unwrap();
    assert_eq!(left(&world), [1, 1, 1]);
    assert!(
        get::<NetworkInterface>(&world, second.interface).is_some(),
        "the other one stays"
    );
    deps.networks.remove_program(&first).unwrap();
    deps.networks.remove_program(&second).unwrap();
    assert_eq!(left(&world), [0, 0, 0]);
}

#[test]
fn what_cannot_be_placed_leaves_nothing() {
    let (world, deps) = world(28);
    let refused = |subnet: &str, groups: &[String]| enter(&deps, subnet, groups).unwrap_err().to_string();
    let absent = SubnetId::of(9).to_string();
    assert_eq!(
        refused(&absent, &[]),
        format!("The subnet ID '{absent}' does not exist")
    );
    assert_eq!(refused("none", &[]), "The subnet ID 'none' does not exist");
    let stranger = GroupId::of(9).to_string();
    assert!(refused(&subnet(), &[stranger]).contains("does not exist in"));
    assert!(refused(&subnet(), &vec![GroupId::of(2).to_string(); 6]).contains("at most 5"));
    for call in ["apply_vpc", "attach_interface"] {
        world.vpcs.state().failing.insert(call, "no memory".into());
        assert!(enter(&deps, &subnet(), &[]).is_err());
        world.vpcs.state().failing.clear();
        // Where the host cannot be told, the loop tells it.
        step(&deps).unwrap();
        assert_eq!(left(&world), [0, 0, 0], "{call}");
    }
    let all: Vec<_> = (0..11).map(|_| enter(&deps, &subnet(), &[]).unwrap()).collect();
    assert!(refused(&subnet(), &[]).contains("has no free address"));
    assert_eq!(left(&world), [11, 11, 11], "control: those that fit are there");
    for place in &all {
        deps.networks.remove_program(place).unwrap();
    }
    assert_eq!(left(&world), [0, 0, 0]);
}

/// Proves: PL-5, NET-72
#[test]
fn a_new_start_gives_back_what_programs_of_the_old_one_had() {
    let (world, deps) = world(24);
    enter(&deps, &subnet(), &[]).unwrap();
    step(&deps).unwrap();
    assert_eq!(left(&world), [1, 1, 1], "control: it is held");
    let mut again = world.deps();
    again.networks = Networks::new(
        world.store.clone(),
        world.vpcs.clone(),
        Arc::new(NoDoors),
        ServiceRanges::default(),
    );
    let kept = enter(&again, &subnet(), &[]).unwrap();
    step(&again).unwrap();
    assert_eq!(left(&world), [1, 1, 1]);
    assert!(
        get::<NetworkInterface>(&world, kept.interface).is_some(),
        "a new one is not taken for an old one"
    );
}
