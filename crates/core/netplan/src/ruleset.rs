//! nftables tables as values, written and read in the JSON of `nft -j`.
//!
//! Versions of `nft` print the same rule differently, so a rule is recognised by its comment, which carries a digest of
//! the expressions it was made from; sets are compared element by element, chains by hook, priority and policy.

pub mod change;
pub mod expr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub sets: BTreeMap<String, Set>,
    /// Time-outs that rules give to connections, by name: seconds after its last packet at which an established TCP
    /// connection over IPv4 is forgotten. A changed time-out needs another name.
    #[serde(default)]
    pub timeouts: BTreeMap<String, u32>,
    /// In the order of creation; a chain that is jumped to comes before the chain that jumps.
    pub chains: Vec<Chain>,
}

/// A named set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// nft's name of the element type (`ipv4_addr`), parts of a concatenation joined by ` . `.
    pub kind: String,
    /// What elements lead to, if this is a map: `verdict` or an element type.
    #[serde(default)]
    pub data: Option<String>,
    /// Elements are prefixes or ranges that may not overlap.
    pub interval: bool,
    /// Elements as nft writes them: `10.0.0.0/8`, `192.0.2.1`, `10.0.0.1 . tcp . 80-90`, `10.0.0.1 : goto chain`.
    pub elements: BTreeSet<String>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

/// Where a base chain is hooked in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: String,
    /// `prerouting`, `input`, `forward`, `output` or `postrouting`.
    pub hook: String,
    pub priority: i32,
    /// What happens to packets that no rule decided.
    pub policy: Policy,
}

/// A base chain's last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    Accept,
    Drop,
}

/// A rule: the expressions of `nft -j`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What it is for, at most 90 characters; stands in its comment.
    pub why: String,
    pub expr: Vec<Value>,
}

impl Rule {
    /// The comment that marks the rule in the kernel: its purpose and a digest of its expressions.
    pub fn mark(&self) -> String {
        let text = Value::Array(self.expr.clone()).to_string();
        format!("{} #{:016x}", self.why, fnv1a(text.as_bytes()))
    }

    /// Whether it names one of the table's time-outs.
    pub fn gives_timeout(&self) -> bool {
        self.expr.iter().any(|one| one.get("ct timeout").is_some())
    }
}

/// FNV-1a, 64 bits. It tells versions of a rule apart; nobody can gain anything by a collision, because whoever can write
/// rules needs none.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A table as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSeen {
    pub sets: BTreeMap<String, BTreeSet<String>>,
    pub chains: BTreeMap<String, ChainSeen>,
    /// See [`Table::timeouts`].
    #[serde(default)]
    pub timeouts: BTreeMap<String, u32>,
    /// Objects that plans never make (flow tables, quotas, ...).
    pub foreign: BTreeSet<String>,
}

/// A chain as read back: its base and the marks of its rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSeen {
    pub base: Option<Base>,
    pub marks: Vec<String>,
}

/// The listing of `nft -j` is not of the expected shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ruleset listing of nft cannot be read: {0}")]
pub struct BadListing(pub &'static str);

impl Table {
    /// What the kernel shows of this table once it holds it.
    pub fn seen(&self) -> TableSeen {
        let chain = |chain: &Chain| {
            let marks = chain.rules.iter().map(Rule::mark).collect();
            (
                chain.name.clone(),
                ChainSeen {
                    base: chain.base.clone(),
                    marks,
                },
            )
        };
        TableSeen {
            sets: self
                .sets
                .iter()
                .map(|(name, set)| (name.clone(), set.elements.clone()))
                .collect(),
            chains: self.chains.iter().map(chain).collect(),
            timeouts: self.timeouts.clone(),
            foreign: BTreeSet::new(),
        }
    }

    /// Commands of one transaction that replaces (or makes) the table: packets meet the old one or the new one, never
    /// none (style rule 6). Time-outs, and the rules that name them, are left out: `nft` 1.0.6 cannot make a time-out from
    /// JSON. They follow ([`Self::timeout_commands`]), and decide about no packet.
    pub fn replace_commands(&self, name: &str) -> Vec<Value> {
        let table = json!({"table": {"family": "inet", "name": name}});
        let mut commands = vec![json!({"add": table}), json!({"delete": table}), json!({"add": table})];
        // nft resolves the chains that a verdict map names when it reads the map, so chains come between sets and maps.
        let is_map = |set: &Set| set.data.is_some();
        let some = |maps: bool| {
            let chosen = self.sets.iter().filter(move |(_, set)| is_map(set) == maps);
            chosen.map(|(set_name, set)| add_set(name, set_name, set))
        };
        commands.extend(some(false));
        commands.extend(self.chains.iter().map(|chain| add_chain(name, chain)));
        commands.extend(some(true));
        for chain in &self.chains {
            let rules = chain.rules.iter().filter(|rule| !rule.gives_timeout());
            commands.extend(add_rules(name, &chain.name, rules));
        }
        commands
    }

    /// Commands that complete a table of [`Self::replace_commands`] once its time-outs stand. Empty without time-outs.
    pub fn timeout_commands(&self, name: &str) -> Vec<Value> {
        let with = self
            .chains
            .iter()
            .filter(|chain| chain.rules.iter().any(Rule::gives_timeout));
        let whole = with.flat_map(|chain| {
            let flush = json!({"flush": {"chain": {"family": "inet", "table": name, "name": chain.name}}});
            std::iter::once(flush).chain(add_rules(name, &chain.name, &chain.rules))
        });
        whole.collect()
    }
}

fn add_set(table: &str, name: &str, set: &Set) -> Value {
    let parts: Vec<&str> = set.kind.split(" . ").collect();
    let kind = match parts.as_slice() {
        [one] => json!(one),
        many => json!(many),
    };
    let mut body = json!({"family": "inet", "table": table, "name": name, "type": kind});
    if let Some(fields) = body.as_object_mut() {
        if set.interval {
            fields.insert("flags".into(), json!(["interval"]));
        }
        if let Some(data) = &set.data {
            fields.insert("map".into(), json!(data));
        }
        if !set.elements.is_empty() {
            fields.insert(
                "elem".into(),
                set.elements.iter().map(|text| element_json(text)).collect(),
            );
        }
    }
    let noun = if set.data.is_some() { "map" } else { "set" };
    json!({"add": {noun: body}})
}

fn add_chain(table: &str, chain: &Chain) -> Value {
    let mut body = json!({"family": "inet", "table": table, "name": chain.name});
    if let (Some(base), Some(fields)) = (&chain.base, body.as_object_mut()) {
        fields.insert("type".into(), json!(base.kind));
        fields.insert("hook".into(), json!(base.hook));
        fields.insert("prio".into(), json!(base.priority));
        fields.insert("policy".into(), json!(base.policy));
    }
    json!({"add": {"chain": body}})
}

fn add_rules<'a>(table: &str, chain: &str, rules: impl IntoIterator<Item = &'a Rule>) -> Vec<Value> {
    let add = |rule: &Rule| {
        json!({"add": {"rule": {
            "family": "inet", "table": table, "chain": chain, "comment": rule.mark(), "expr": rule.expr,
        }}})
    };
    rules.into_iter().map(add).collect()
}

fn elements_command(verb: &str, table: &str, set: &str, elements: &BTreeSet<String>) -> Value {
    let elem: Vec<Value> = elements.iter().map(|text| element_json(text)).collect();
    json!({verb: {"element": {"family": "inet", "table": table, "name": set, "elem": elem}}})
}

/// Command that deletes a table.
pub fn delete_command(name: &str) -> Value {
    json!({"delete": {"table": {"family": "inet", "name": name}}})
}

/// Wraps commands as one input of `nft -j -f -`.
pub fn transaction(commands: Vec<Value>) -> Value {
    json!({ "nftables": commands })
}

fn element_json(text: &str) -> Value {
    if let Some((key, data)) = text.split_once(" : ") {
        let data = match data.split_once(' ') {
            Some((verdict, chain)) => json!({verdict: {"target": chain}}),
            None => part_json(data),
        };
        return json!([element_json(key), data]);
    }
    if text.contains(" . ") {
        let parts: Vec<Value> = text.split(" . ").map(part_json).collect();
        return json!({"concat": parts});
    }
    part_json(text)
}

/// A number where a number is meant, else text.
fn plain_json(text: &str) -> Value {
    text.parse::<u16>().map_or_else(|_| json!(text), |number| json!(number))
}

fn part_json(text: &str) -> Value {
    if let Some((from, to)) = text.split_once('-') {
        return json!({"range": [plain_json(from), plain_json(to)]});
    }
    match text
        .split_once('/')
        .and_then(|(addr, len)| Some((addr, len.parse::<u8>().ok()?)))
    {
        Some((addr, len)) => json!({"prefix": {"addr": addr, "len": len}}),
        None => plain_json(text),
    }
}

fn element_text(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.into();
    }
    // A map's key and what it leads to.
    if let Some([key, data]) = value.as_array().map(Vec::as_slice) {
        let verdict = ["goto", "jump"]
            .into_iter()
            .find_map(|verb| Some(format!("{verb} {}", data.get(verb)?.get("target")?.as_str()?)));
        return format!(
            "{} : {}",
            element_text(key),
            verdict.unwrap_or_else(|| element_text(data))
        );
    }
    if let Some(parts) = value.get("concat").and_then(Value::as_array) {
        return parts.iter().map(element_text).collect::<Vec<_>>().join(" . ");
    }
    if let Some(prefix) = value.get("prefix")
        && let (Some(addr), Some(len)) = (prefix.get("addr").and_then(Value::as_str), prefix.get("len"))
    {
        return format!("{addr}/{len}");
    }
    if let Some([from, to]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return format!("{}-{}", element_text(from), element_text(to));
    }
    // An element with counters or time-outs: {"elem": {"val": ...}}.
    value
        .get("elem")
        .and_then(|elem| elem.get("val"))
        .map_or_else(|| value.to_string(), element_text)
}

/// Reads the output of `nft -j list ruleset` (or `list table`): tables of family `inet` by name, and a description of
/// every table of another family.
///
/// # Errors
/// When the listing is not the JSON of `nft`.
pub fn read_listing(listing: &Value) -> Result<(BTreeMap<String, TableSeen>, BTreeSet<String>), BadListing> {
    let objects = listing
        .get("nftables")
        .and_then(Value::as_array)
        .ok_or(BadListing("no list `nftables`"))?;
    let mut tables: BTreeMap<String, TableSeen> = BTreeMap::new();
    let mut foreign = BTreeSet::new();
    for object in objects {
        let (kind, body) = object
            .as_object()
            .and_then(|fields| fields.iter().next())
            .ok_or(BadListing("an object without a kind"))?;
        if kind == "metainfo" {
            continue;
        }
        let text = |field: &'static str| body.get(field).and_then(Value::as_str);
        let name = text("name");
        let family = text("family").ok_or(BadListing("an object without a family"))?;
        if family != "inet" {
            if kind == "table" {
                foreign.insert(format!("nftables table {family} {}", name.unwrap_or("?")));
            }
            continue;
        }
        if kind == "table" {
            tables
                .entry(name.ok_or(BadListing("a table without a name"))?.into())
                .or_default();
            continue;
        }
        let table = text("table").ok_or(BadListing("an object without a table"))?;
        let table = tables.entry(table.into()).or_default();
        match kind.as_str() {
            "chain" => {
                let chain = table
                    .chains
                    .entry(name.ok_or(BadListing("a chain without a name"))?.into())
                    .or_default();
                chain.base = base_of(body)?;
            }
            "rule" => {
                let chain = text("chain").ok_or(BadListing("a rule without a chain"))?;
                let mark = text("comment").unwrap_or("a rule without a mark");
                table.chains.entry(chain.into()).or_default().marks.push(mark.into());
            }
            "set" | "map" => {
                // What packets recorded is no plan's business: a rule that stands brought the set with it.
                let flags = body.get("flags").and_then(Value::as_array);
                if flags.is_some_and(|flags| flags.iter().any(|flag| flag == "dynamic")) {
                    continue;
                }
                let elements = body
                    .get("elem")
                    .and_then(Value::as_array)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let elements = elements.iter().map(element_text).collect();
                table
                    .sets
                    .insert(name.ok_or(BadListing("a set without a name"))?.into(), elements);
            }
            "ct timeout" if text("protocol") == Some("tcp") && text("l3proto") == Some("ip") => {
                // What is not told has the kernel's own value, which no plan asks for.
                let told = body.get("policy").and_then(|policy| policy.get("established"));
                let seconds = told.and_then(Value::as_u64).and_then(|told| u32::try_from(told).ok());
                table.timeouts.insert(
                    name.ok_or(BadListing("a time-out without a name"))?.into(),
                    seconds.unwrap_or_default(),
                );
            }
            other => {
                table.foreign.insert(format!("{other} {}", name.unwrap_or("?")));
            }
        }
    }
    Ok((tables, foreign))
}

fn base_of(body: &Value) -> Result<Option<Base>, BadListing> {
    let Some(hook) = body.get("hook").and_then(Value::as_str) else {
        return Ok(None);
    };
    let priority = body
        .get("prio")
        .and_then(Value::as_i64)
        .and_then(|prio| i32::try_from(prio).ok());
    let policy = match body.get("policy").and_then(Value::as_str) {
        Some("drop") => Policy::Drop,
        Some("accept") => Policy::Accept,
        _ => return Err(BadListing("a base chain without a policy")),
    };
    Ok(Some(Base {
        kind: body
            .get("type")
            .and_then(Value::as_str)
            .ok_or(BadListing("a base chain without a type"))?
            .into(),
        hook: hook.into(),
        priority: priority.ok_or(BadListing("a base chain without a priority"))?,
        policy,
    }))
}

#[cfg(test)]
mod tests;
