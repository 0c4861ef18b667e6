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
