use super::*;
use crate::intent::vpc::Holder;
use crate::topology::{self, Tape};

fn open_to(peer: &str, traffic: Match) -> GroupRule {
    let peer = Peer::Block(peer.parse().unwrap());
    GroupRule { traffic, peer }
}

fn tcp(from: u16, to: u16) -> Match {
    Match::Tcp {
        ports: (from, to).try_into().unwrap(),
    }
}

fn all() -> GroupRule {
    open_to("0.0.0.0/0", Match::All)
}

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 1);

/// A server in groups 0 and 1 with these rules of ingress, and egress of group 0; a client in group 2, which tracks.
fn vpc(ingress: [&[GroupRule]; 2], egress: &[GroupRule]) -> CheckedVpc {
    let mut vpc = (*topology::vpc(&mut Tape::new(&[]))).clone();
    let like = vpc.interfaces.values().next().unwrap().clone();
    let group = |n: u128| GroupId::of(n);
    let rules = |all: &[GroupRule]| all.iter().cloned().collect::<BTreeSet<_>>();
    let narrow = [open_to("10.0.0.0/8", Match::All)];
    for (n, ingress, egress) in [
        (0, rules(ingress[0]), rules(egress)),
        (1, rules(ingress[1]), BTreeSet::new()),
        (2, rules(&narrow), rules(&narrow)),
    ] {
        let made = crate::intent::vpc::SecurityGroup { ingress, egress };
        vpc.groups.insert(group(n), made);
    }
    let one = |at: Ipv4Addr, groups: &[u128], public| Interface {
        primary: at,
        secondary: BTreeSet::new(),
        groups: groups.iter().copied().map(group).collect(),
        source_dest_check: true,
        public,
        holder: Holder::Program,
        ..like.clone()
    };
    vpc.nat_gateways.clear();
    vpc.route_tables.values_mut().for_each(|table| table.routes.clear());
    vpc.interfaces = BTreeMap::from([
        (InterfaceId::of(1), one(SERVER, &[0, 1], Some(PUBLIC))),
        (InterfaceId::of(2), one(CLIENT, &[2], None)),
    ]);
    vpc.check().unwrap()
}

fn connection(protocol: u8, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Connection {
    let path = |(source, source_port), (destination, destination_port)| Path {
        source,
        destination,
        source_port,
        destination_port,
    };
    Connection {
        protocol,
        path: path(from, to),
        answers: path(to, from),
    }
}

fn cut(before: &CheckedVpc, after: &CheckedVpc, one: &Connection) -> bool {
    Withdrawal::between(before, after).is_some_and(|withdrawal| withdrawal.cuts(one))
}

fn web() -> Connection {
    connection(TCP, (CLIENT, 40000), (SERVER, 443))
}

/// Proves: NET-16
#[test]
fn an_open_flow_ends_with_its_rule_and_a_narrow_one_does_not() {
    let open = open_to("0.0.0.0/0", tcp(443, 443));
    let narrow = open_to("10.0.0.0/8", tcp(443, 443));
    let closed = vpc([&[], &[]], &[all()]);
    let had = |rule: &GroupRule, egress: &[GroupRule]| vpc([std::slice::from_ref(rule), &[]], egress);
    assert!(cut(&had(&open, &[all()]), &closed, &web()));
    assert!(
        !cut(&had(&narrow, &[all()]), &closed, &web()),
        "tracked: it came by a narrow rule"
    );
    let answers = [open_to("0.0.0.0/0", tcp(1024, 65535))];
    assert!(
        !cut(&had(&open, &answers), &vpc([&[], &[]], &answers), &web()),
        "tracked: answers are not free"
    );
    assert!(!cut(&had(&open, &[all()]), &had(&open, &[all()]), &web()));
    assert!(
        !cut(&had(&open, &[all()]), &had(&narrow, &[all()]), &web()),
        "the new rules admit it too"
    );
    let elsewhere = open_to("10.9.0.0/16", tcp(443, 443));
    assert!(cut(&had(&open, &[all()]), &had(&elsewhere, &[all()]), &web()));
    // The rule that lets the answers out is needed as much.
    assert!(cut(&had(&open, &[all()]), &had(&open, &[]), &web()));
    assert!(!cut(&had(&open, &[all()]), &had(&open, &answers), &web()));
    let udp = connection(UDP, (CLIENT, 40000), (SERVER, 443));
    assert!(!cut(&had(&open, &[all()]), &closed, &udp), "the rule was about TCP");
}

/// Proves: NET-16
#[test]
fn several_groups_of_an_interface_are_one_union() {
    let open = [open_to("0.0.0.0/0", tcp(443, 443))];
    let both = vpc([&open, &open], &[all()]);
    let one = vpc([&[], &open], &[all()]);
    let none = vpc([&[], &[]], &[all()]);
    assert!(!cut(&both, &one, &web()), "the other group still admits it");
    assert!(cut(&one, &none, &web()), "ingress is of one group, egress of the other");
    // The group goes from the interface, not the rule from the group.
    let mut left = (*one).clone();
    left.interfaces.get_mut(&InterfaceId::of(1)).unwrap().groups = BTreeSet::from([GroupId::of(0)]);
    assert!(cut(&one, &left.check().unwrap(), &web()));
    // Admitted by a group's members now.
    let members = [GroupRule {
        traffic: tcp(443, 443),
        peer: Peer::Group(GroupId::of(2)),
    }];
    assert!(!cut(&one, &vpc([&[], &members], &[all()]), &web()));
}

/// Proves: NET-16
#[test]
fn flows_that_are_always_tracked_or_never_filtered_are_left_alone() {
    let before = vpc([&[all()], &[]], &[all()]);
    let after = vpc([&[], &[]], &[]);
    let out = |to: Ipv4Addr| connection(TCP, (SERVER, 40000), (to, 53));
    let translated = |to: Ipv4Addr| {
        let mut one = out(Ipv4Addr::new(8, 8, 8, 8));
        one.answers.destination = to;
        one
    };
    assert!(cut(&before, &after, &out(CLIENT)), "control: it begins a flow as well");
    assert!(
        cut(&before, &after, &translated(PUBLIC)),
        "control: by the internet gateway"
    );
    assert!(
        !cut(&before, &after, &translated(Ipv4Addr::new(192, 0, 3, 200))),
        "by a NAT gateway"
    );
    assert!(!cut(&before, &after, &out(before.resolver().unwrap())));
    assert!(!cut(&before, &after, &out(Ipv4Addr::new(169, 254, 170, 2))));
    let ping = connection(1, (CLIENT, 0), (SERVER, 0));
    assert!(!cut(&before, &after, &ping), "ICMP is tracked");
    // From outside, by the public address.
    let mut inward = connection(TCP, (Ipv4Addr::new(203, 0, 113, 5), 40000), (PUBLIC, 443));
    inward.answers.source = SERVER;
    assert!(cut(&before, &after, &inward));
    assert!(
        !cut(
            &before,
            &after,
            &connection(TCP, (CLIENT, 1), (Ipv4Addr::new(10, 0, 0, 12), 443))
        ),
        "not its flow"
    );
    assert!(Withdrawal::between(&before, &before).is_none());
}
