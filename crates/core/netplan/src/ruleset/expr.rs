//! The nft expressions that plans use, one function each, in the JSON that `nft -j` reads.

use serde_json::{Value, json};

fn equal(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

/// The packet came in by an interface of this name; a final `*` matches any rest.
pub fn comes_from(link: &str) -> Value {
    equal(json!({"meta": {"key": "iifname"}}), json!(link))
}

/// The packet goes out by an interface of this name; a final `*` matches any rest.
pub fn goes_to(link: &str) -> Value {
    equal(json!({"meta": {"key": "oifname"}}), json!(link))
}

/// Destination is this address or network.
pub fn to_address(address: ipnet::Ipv4Net) -> Value {
    let right = if address.prefix_len() == 32 {
        json!(address.addr().to_string())
    } else {
        json!({"prefix": {"addr": address.network().to_string(), "len": address.prefix_len()}})
    };
    equal(json!({"payload": {"protocol": "ip", "field": "daddr"}}), right)
}

/// Source is this address.
pub fn from_address(address: std::net::Ipv4Addr) -> Value {
    equal(
        json!({"payload": {"protocol": "ip", "field": "saddr"}}),
        json!(address.to_string()),
    )
}

/// Destination is in a named set of the same table.
pub fn to_set(set: &str) -> Value {
    equal(
        json!({"payload": {"protocol": "ip", "field": "daddr"}}),
        json!(format!("@{set}")),
    )
}

/// Transport (`tcp` or `udp`) and destination port.
pub fn to_port(transport: &str, port: u16) -> Value {
    equal(
        json!({"payload": {"protocol": transport, "field": "dport"}}),
        json!(port),
    )
}

/// The packet's transport protocol.
pub fn transport(name: &str) -> Value {
    equal(json!({"meta": {"key": "l4proto"}}), json!(name))
}

/// IPv4 or IPv6 (`ipv4`, `ipv6`).
pub fn family(name: &str) -> Value {
    equal(json!({"meta": {"key": "nfproto"}}), json!(name))
}

/// The connection is in one of these conntrack states.
pub fn in_state(states: &[&str]) -> Value {
    json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}})
}

/// No route to the packet's source leads out of the interface it came in by: the source is forged.
pub fn forged_source() -> Value {
    equal(
        json!({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}),
        json!(false),
    )
}

/// The packet does not have this mark.
pub fn unmarked(mark: u32) -> Value {
    json!({"match": {"op": "!=", "left": {"meta": {"key": "mark"}}, "right": mark}})
}

/// Counts packets and bytes.
pub fn counter() -> Value {
    json!({"counter": null})
}

/// Lets the packet pass this chain.
pub fn accept() -> Value {
    json!({"accept": null})
}

/// Loses the packet silently.
pub fn drop() -> Value {
    json!({"drop": null})
}

/// Answers with a TCP reset; needs [`transport`]`("tcp")` before it.
pub fn reset() -> Value {
    json!({"reject": {"type": "tcp reset"}})
}

/// Answers "administratively prohibited"; needs [`family`]`("ipv4")` before it.
pub fn prohibit() -> Value {
    json!({"reject": {"type": "icmp", "expr": "admin-prohibited"}})
}

/// Replaces the source by the outgoing interface's address.
pub fn masquerade() -> Value {
    json!({"masquerade": null})
}

/// Continues in another chain and does not come back.
pub fn goto(chain: &str) -> Value {
    json!({"goto": {"target": chain}})
}

fn header(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

/// A property of a packet that sets and maps are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Source,
    Destination,
    InLink,
    OutLink,
    Transport,
    /// Destination port of any transport that has one.
    Port,
    /// The first two bytes behind the IP header: a source port, or type and code of ICMP.
    IcmpTypeAndCode,
}

impl Key {
    fn json(self) -> Value {
        match self {
            Self::Source => header("ip", "saddr"),
            Self::Destination => header("ip", "daddr"),
            Self::InLink => json!({"meta": {"key": "iifname"}}),
            Self::OutLink => json!({"meta": {"key": "oifname"}}),
            Self::Transport => json!({"meta": {"key": "l4proto"}}),
            Self::Port => header("th", "dport"),
            Self::IcmpTypeAndCode => header("th", "sport"),
        }
    }
}

/// One property, or several joined.
pub fn key(keys: &[Key]) -> Value {
    match keys {
        [one] => one.json(),
        many => json!({"concat": many.iter().map(|key| key.json()).collect::<Vec<_>>()}),
    }
}

/// The properties are in a named set of the same table.
pub fn within(keys: &[Key], set: &str) -> Value {
    equal(key(keys), json!(format!("@{set}")))
}

/// The properties are not in a named set of the same table.
pub fn outside(keys: &[Key], set: &str) -> Value {
    json!({"match": {"op": "!=", "left": key(keys), "right": format!("@{set}")}})
}

/// Follows the verdict that a named map has for the properties; goes on when it has none.
pub fn dispatch(keys: &[Key], map: &str) -> Value {
    json!({"vmap": {"key": key(keys), "data": format!("@{map}")}})
}

/// The property is this, or lies in a range or network; see [`number_range`] and [`network`].
pub fn is(what: Key, value: Value) -> Value {
    equal(what.json(), value)
}

/// A range of numbers for [`is`].
pub fn number_range(from: u16, to: u16) -> Value {
    if from == to {
        json!(from)
    } else {
        json!({"range": [from, to]})
    }
}

/// A network for [`is`].
pub fn network(block: ipnet::Ipv4Net) -> Value {
    if block.prefix_len() == 32 {
        json!(block.addr().to_string())
    } else {
        json!({"prefix": {"addr": block.network().to_string(), "len": block.prefix_len()}})
    }
}

/// One of several values for [`is`].
pub fn any_of(values: &[&str]) -> Value {
    json!({"set": values})
}

/// The packet travels from the one who answered to the one who began.
pub fn is_reply() -> Value {
    equal(json!({"ct": {"key": "direction"}}), json!("reply"))
}

/// Counts the packet under its properties in a dynamic set of at most `size` elements, which the rule brings with it. (The
/// JSON of nft 1.0.6 cannot declare such a set; the older form `meter` makes the same one.)
///
/// An element goes `seconds` after its last packet.
pub fn record(keys: &[Key], set: &str, size: u32, seconds: u32) -> Value {
    let key = json!({"elem": {"val": key(keys), "timeout": seconds}});
    json!({"meter": {"name": set, "key": key, "size": size, "stmt": {"counter": null}}})
}

/// Continues in another chain and comes back when that decides nothing.
pub fn jump(chain: &str) -> Value {
    json!({"jump": {"target": chain}})
}

/// Goes back to the chain that jumped here.
pub fn back() -> Value {
    json!({"return": null})
}

/// Gives the connection one of the table's time-outs, when it begins.
pub fn timeout(name: &str) -> Value {
    json!({ "ct timeout": name })
}

fn reset_flag() -> Value {
    json!({"&": [header("tcp", "flags"), "rst"]})
}

/// A TCP segment that ends the connection at once.
pub fn is_reset() -> Value {
    equal(reset_flag(), json!("rst"))
}

/// A TCP segment that may be answered by a reset: a reset may not.
pub fn is_no_reset() -> Value {
    json!({"match": {"op": "!=", "left": reset_flag(), "right": "rst"}})
}

/// Replaces the source by this address, with ports of a range.
pub fn source_nat(address: std::net::Ipv4Addr, ports: Option<(u16, u16)>) -> Value {
    let mut body = json!({"family": "ip", "addr": address.to_string()});
    if let (Some((from, to)), Some(fields)) = (ports, body.as_object_mut()) {
        fields.insert("port".into(), number_range(from, to));
    }
    json!({ "snat": body })
}

/// Replaces the source by what a map has for it.
pub fn source_nat_by(map: &str) -> Value {
    json!({"snat": {"family": "ip", "addr": {"map": {"key": Key::Source.json(), "data": format!("@{map}")}}}})
}

/// Replaces the destination by what a map has for it.
pub fn destination_nat_by(map: &str) -> Value {
    json!({"dnat": {"family": "ip", "addr": {"map": {"key": Key::Destination.json(), "data": format!("@{map}")}}}})
}

/// The packet did not come in by an interface of this name.
pub fn not_from(link: &str) -> Value {
    json!({"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": link}})
}

/// The packet carries this mark.
pub fn marked(mark: u32) -> Value {
    equal(json!({"meta": {"key": "mark"}}), json!(mark))
}

/// Marks the packet.
pub fn set_mark(mark: u32) -> Value {
    json!({"mangle": {"key": {"meta": {"key": "mark"}}, "value": mark}})
}
