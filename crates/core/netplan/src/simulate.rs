//! A kernel in miniature, for tests: takes packets through the routes and the ruleset of a compiled VPC.

use crate::compile::vpc::{Edge, TABLE, compile_interface, compile_vpc};
use crate::id::InterfaceId;
use crate::intent::vpc::{CheckedVpc, Holder};
use crate::plan::{LinkName, NamespacePlan, Place, PolicyRule, Route, RouteKind};
use crate::reach::{Arrival, Flow, Origin, Traffic};
use crate::ruleset::{Policy, Table};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The edge that tests use.
pub(crate) fn edge() -> Edge {
    Edge {
        place: Place::Uplink,
        near: Ipv4Addr::new(169, 254, 64, 5),
        far: Ipv4Addr::new(169, 254, 64, 6),
        services: vec!["198.18.0.0/17".parse().unwrap(), "198.18.128.0/20".parse().unwrap()],
        nat_idle: crate::intent::HostNetwork::NAT_IDLE,
    }
}

pub(crate) struct Router {
    vpc: CheckedVpc,
    plan: NamespacePlan,
    links: BTreeMap<LinkName, InterfaceId>,
    way: RefCell<Vec<String>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub iif: Option<String>,
    pub oif: Option<String>,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub traffic: Traffic,
    mark: u64,
    established: bool,
    reply: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Accept,
    Drop,
    Back,
}

/// Where routing leads.
enum Leads {
    Here,
    Out(LinkName),
    Nowhere,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Address(Ipv4Addr),
    Number(u16),
    Text(String),
}

impl Router {
    pub fn new(vpc: &CheckedVpc) -> Self {
        let mut plan = compile_vpc(vpc, Some(&edge()))
            .places
            .remove(&Place::Vpc(vpc.id))
            .unwrap();
        let mut links = BTreeMap::new();
        for id in vpc.interfaces.keys() {
            let Some(attached) = compile_interface(vpc, *id) else {
                continue;
            };
            let side = &attached.places[&Place::Vpc(vpc.id)];
            let inside = &attached.places[&Place::Interface(*id)];
            assert!(
                inside.routes.iter().any(|route| route.destination.prefix_len() == 0),
                "a way to the router"
            );
            links.extend(side.links.keys().map(|name| (name.clone(), *id)));
            plan.links.extend(side.links.clone());
            plan.routes.extend(side.routes.clone());
        }
        Self {
            vpc: vpc.clone(),
            plan,
            links,
            way: RefCell::default(),
        }
    }

    /// The rules that the last flow met.
    pub fn way(&self) -> Vec<String> {
        self.way.borrow().clone()
    }

    pub fn table(&self) -> &Table {
        &self.plan.tables[TABLE]
    }

    /// Loses a rule, if there is one of this name.
    pub fn forget(&mut self, chain: &str, why: &str) -> bool {
        let table = self.plan.tables.get_mut(TABLE).unwrap();
        let chain = table.chains.iter_mut().find(|one| one.name == chain).unwrap();
        let before = chain.rules.len();
        chain.rules.retain(|rule| rule.why != why);
        chain.rules.len() < before
    }

    fn lookup(&self, source: Ipv4Addr, to: Ipv4Addr) -> Leads {
        if self.plan.links[&LinkName::lo()].addresses.contains(&to) {
            return Leads::Here;
        }
        let mut rules: Vec<&PolicyRule> = self.plan.rules.iter().collect();
        rules.sort_by_key(|rule| rule.priority);
        for rule in rules
            .into_iter()
            .filter(|rule| rule.from.is_none_or(|from| from.contains(&source)))
        {
            let table = self.plan.routes.iter().filter(|route| route.table == rule.table);
            let hit: Option<&Route> = table
                .filter(|route| route.destination.contains(&to))
                .max_by_key(|route| route.destination.prefix_len());
            match hit.map(|route| (route.kind, route.link.clone())) {
                Some((RouteKind::Unicast, link)) => return Leads::Out(link.unwrap()),
                Some((RouteKind::Local, _)) => return Leads::Here,
                Some((RouteKind::Unreachable | RouteKind::Blackhole, _)) => return Leads::Nowhere,
                None => {}
            }
        }
        Leads::Nowhere
    }

    /// Takes a packet through all base chains of a hook and kind. `false`: dropped.
    fn hook(&self, hook: &str, kind: &str, packet: &mut Packet) -> bool {
        let table = self.table();
        let bases = table
            .chains
            .iter()
            .filter_map(|chain| Some((chain, chain.base.as_ref()?)));
        for (chain, base) in bases.filter(|(_, base)| base.hook == hook && base.kind == kind) {
            let done = self.chain(&chain.name, packet);
            if done == Done::Drop || (done == Done::Back && base.policy == Policy::Drop) {
                return false;
            }
        }
        true
    }

    fn chain(&self, name: &str, packet: &mut Packet) -> Done {
        let chain = self.table().chains.iter().find(|chain| chain.name == name);
        let chain = chain.unwrap_or_else(|| panic!("no chain {name}"));
        'rules: for rule in &chain.rules {
            for (at, expr) in rule.expr.iter().enumerate() {
                if at + 1 == rule.expr.len() {
                    self.way.borrow_mut().push(format!("{name}: {}", rule.why));
                }
                let (kind, body) = expr.as_object().unwrap().iter().next().unwrap();
                let target = |body: &Value| body["target"].as_str().unwrap().to_owned();
                match kind.as_str() {
                    "match" => {
                        if !self.matches(body, packet) {
                            continue 'rules;
                        }
                    }
                    "counter" | "meter" | "ct timeout" => {}
                    "mangle" => packet.mark = body["value"].as_u64().unwrap(),
                    "accept" => return Done::Accept,
                    "drop" => return Done::Drop,
                    "return" => return Done::Back,
                    "jump" => match self.chain(&target(body), packet) {
                        Done::Back => {}
                        done => return done,
                    },
                    "goto" => return self.chain(&target(body), packet),
                    "vmap" => {
                        let Some(verdict) = self.look_up(&body["key"], &body["data"], packet) else {
                            continue 'rules;
                        };
                        let (verb, chain) = verdict.split_once(' ').unwrap();
                        let done = self.chain(chain, packet);
                        if verb == "goto" || done != Done::Back {
                            return done;
                        }
                    }
                    "snat" | "dnat" => {
                        let address = match &body["addr"] {
                            Value::String(text) => text.parse().unwrap(),
                            map => match self.look_up(&map["map"]["key"], &map["map"]["data"], packet) {
                                Some(found) => found.parse().unwrap(),
                                None => continue 'rules,
                            },
                        };
                        if kind == "snat" {
                            packet.source = address;
                        } else {
                            packet.destination = address;
                        }
                        return Done::Accept;
                    }
                    other => panic!("the miniature kernel does not know {other}"),
                }
            }
        }
        Done::Back
    }

    fn cells(key: &Value, packet: &Packet) -> Option<Vec<Cell>> {
        if let Some(parts) = key.get("concat").and_then(Value::as_array) {
            return parts.iter().map(|part| Self::cells(part, packet)?.pop()).collect();
        }
        let (transport, first, second) = match packet.traffic {
            Traffic::Tcp { from, to } => ("tcp", from, to),
            Traffic::Udp { from, to } => ("udp", from, to),
            // A checksum stands where a destination port would.
            Traffic::Icmp { kind, code } => ("icmp", u16::from_be_bytes([kind, code]), 80),
        };
        let text = |text: &Option<String>| text.clone().map(Cell::Text);
        let cell = match (key.get("meta"), key.get("payload"), key.get("ct")) {
            (Some(meta), ..) => match meta["key"].as_str().unwrap() {
                "iifname" => text(&packet.iif)?,
                "oifname" => text(&packet.oif)?,
                "l4proto" => Cell::Text(transport.into()),
                "nfproto" => Cell::Text("ipv4".into()),
                "mark" => Cell::Number(u16::try_from(packet.mark).unwrap()),
                other => panic!("meta {other}"),
            },
            (_, Some(payload), _) => match (
                payload["protocol"].as_str().unwrap(),
                payload["field"].as_str().unwrap(),
            ) {
                ("ip", "saddr") => Cell::Address(packet.source),
                ("ip", "daddr") => Cell::Address(packet.destination),
                ("th", "sport") => Cell::Number(first),
                ("th", "dport") => Cell::Number(second),
                (protocol, "dport") if protocol == transport => Cell::Number(second),
                ("tcp" | "udp", "dport") => return None,
                other => panic!("payload {other:?}"),
            },
            (.., Some(ct)) => match ct["key"].as_str().unwrap() {
                "state" => Cell::Text(if packet.established { "established" } else { "new" }.into()),
                "direction" => Cell::Text(if packet.reply { "reply" } else { "original" }.into()),
                other => panic!("ct {other}"),
            },
            _ => panic!("key {key}"),
        };
        Some(vec![cell])
    }

    fn matches(&self, body: &Value, packet: &Packet) -> bool {
        let Some(cells) = Self::cells(&body["left"], packet) else {
            return false;
        };
        let right = &body["right"];
        let set = right.as_str().and_then(|text| text.strip_prefix('@'));
        let hit = match set {
            Some(set) => self.find(set, &cells).is_some(),
            None => value_holds(right, &cells[0]),
        };
        hit != (body["op"] == "!=")
    }

    fn look_up(&self, key: &Value, data: &Value, packet: &Packet) -> Option<String> {
        let cells = Self::cells(key, packet)?;
        let found = self.find(data.as_str().unwrap().strip_prefix('@').unwrap(), &cells)?;
        Some(found.split_once(" : ").unwrap().1.to_owned())
    }

    fn find(&self, set: &str, cells: &[Cell]) -> Option<&String> {
        let set = self.table().sets.get(set).unwrap_or_else(|| panic!("no set {set}"));
        assert_eq!(set.kind.split(" . ").count(), cells.len(), "the key fits the set");
        let holds = |element: &&String| {
            let key = element.split_once(" : ").map_or(element.as_str(), |(key, _)| key);
            key.split(" . ").zip(cells).all(|(part, cell)| part_holds(part, cell))
        };
        set.elements.iter().find(holds)
    }

    /// The router's work on one packet: where it comes out, and as what. `None`: nowhere.
    fn forward(&self, mut packet: Packet, undo: impl Fn(&mut Packet)) -> Option<(Packet, Packet, Option<LinkName>)> {
        if !self.hook("prerouting", "filter", &mut packet) {
            return None;
        }
        if packet.established {
            undo(&mut packet);
        } else {
            self.hook("prerouting", "nat", &mut packet);
        }
        let seen = packet.clone();
        match self.lookup(packet.source, packet.destination) {
            Leads::Nowhere => None,
            Leads::Here => self
                .hook("input", "filter", &mut packet)
                .then_some((seen, packet, None)),
            Leads::Out(link) => {
                packet.oif = Some(link.to_string());
                if !self.hook("forward", "filter", &mut packet) {
                    return None;
                }
                if !packet.established {
                    self.hook("postrouting", "nat", &mut packet);
                }
                Some((seen, packet, Some(link)))
            }
        }
    }

    /// Sends the flow's first packet and, where it arrives, the answer. `None`: one of them was lost.
    pub fn send(&self, flow: &Flow) -> Option<Arrival> {
        self.way.borrow_mut().clear();
        let (iif, source) = match flow.from {
            Origin::Internet(source) => (LinkName::uplink(), source),
            Origin::Interface { id, source } => {
                let link = self.links.iter().find(|(_, held)| **held == id)?.0;
                (link.clone(), source)
            }
        };
        let sent = Packet {
            iif: Some(iif.to_string()),
            oif: None,
            source,
            destination: flow.to,
            traffic: flow.traffic,
            mark: 0,
            established: false,
            reply: false,
        };
        let (seen, out, link) = self.forward(sent.clone(), |_| {})?;
        let arrival = match &link {
            None => self.served(out.destination),
            Some(link) if *link == LinkName::uplink() => Arrival::Internet { seen_as: out.source },
            Some(link) => Arrival::Interface(self.links[link]),
        };
        let Some(traffic) = flow.traffic.reply() else {
            return Some(arrival);
        };
        let answer = Packet {
            iif: link.as_ref().map(ToString::to_string),
            oif: None,
            source: out.destination,
            destination: out.source,
            traffic,
            mark: 0,
            established: true,
            reply: true,
        };
        let back = if link.is_none() {
            let mut answer = answer;
            let Leads::Out(to) = self.lookup(answer.source, answer.destination) else {
                return None;
            };
            answer.oif = Some(to.to_string());
            self.hook("output", "filter", &mut answer).then_some(to)
        } else {
            // Source translation is undone on the way in, destination translation on the way out.
            self.forward(answer, |packet| packet.destination = seen.source)?.2
        };
        (back == Some(iif)).then_some(arrival)
    }

    fn served(&self, address: Ipv4Addr) -> Arrival {
        let endpoint =
            self.vpc.interfaces.iter().find(|(_, one)| {
                matches!(one.holder, Holder::Endpoint(_)) && one.addresses().any(|own| own == address)
            });
        if let Some((id, _)) = endpoint {
            return Arrival::Interface(*id);
        }
        if address == Ipv4Addr::new(169, 254, 170, 2) {
            return Arrival::Credentials;
        }
        if self.plan.links[&LinkName::lo()].addresses.contains(&address) {
            return Arrival::Resolver;
        }
        let mut endpoints = self.vpc.s3_endpoints.iter();
        let lists = |list| self.vpc.prefix_lists.get(list).into_iter().flatten();
        let (id, _) = endpoints
            .find(|(_, one)| lists(&one.prefix_list).any(|block| block.contains(&address)))
            .unwrap();
        Arrival::S3Endpoint(*id)
    }
}

fn part_holds(part: &str, cell: &Cell) -> bool {
    match cell {
        Cell::Text(text) => part
            .strip_suffix('*')
            .map_or(part == text, |prefix| text.starts_with(prefix)),
        Cell::Number(number) => {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            (from.parse::<u16>().unwrap()..=to.parse().unwrap()).contains(number)
        }
        Cell::Address(address) => match part.split_once('-') {
            Some((from, to)) => (from.parse::<Ipv4Addr>().unwrap()..=to.parse().unwrap()).contains(address),
            None if part.contains('/') => part.parse::<Ipv4Net>().unwrap().contains(address),
            None => part.parse::<Ipv4Addr>().unwrap() == *address,
        },
    }
}

fn value_holds(value: &Value, cell: &Cell) -> bool {
    if let Some(all) = value
        .get("set")
        .or(value.is_array().then_some(value))
        .and_then(Value::as_array)
    {
        return all.iter().any(|one| value_holds(one, cell));
    }
    if let Some([from, to]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return part_holds(&format!("{from}-{to}"), cell);
    }
    if let Some(prefix) = value.get("prefix") {
        return part_holds(&format!("{}/{}", prefix["addr"].as_str().unwrap(), prefix["len"]), cell);
    }
    value
        .as_str()
        .map_or_else(|| part_holds(&value.to_string(), cell), |text| part_holds(text, cell))
}
