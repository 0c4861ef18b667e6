//! The smallest transaction from one state of a table to another.

use super::{Chain, ChainSeen, Rule, Set, Table, TableSeen, add_chain, add_rules, add_set, elements_command};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// One part of a change of a table; all parts travel in one transaction, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// See [`Table::timeouts`].
    AddTimeout {
        name: String,
        seconds: u32,
    },
    /// After the last rule that names it.
    DeleteTimeout {
        name: String,
    },
    AddSet {
        name: String,
        set: Set,
    },
    /// An ordinary chain, still empty.
    AddChain {
        name: String,
    },
    /// The chain's rules become these.
    SetRules {
        chain: String,
        rules: Vec<Rule>,
    },
    DeleteElements {
        set: String,
        elements: BTreeSet<String>,
    },
    AddElements {
        set: String,
        elements: BTreeSet<String>,
    },
    DeleteChain {
        name: String,
    },
    DeleteSet {
        name: String,
    },
}

impl Change {
    /// Number of elements and rules that the kernel has to take in or give up.
    pub fn size(&self) -> usize {
        match self {
            Self::AddSet { set, .. } => 1 + set.elements.len(),
            Self::SetRules { rules, .. } => 1 + rules.len(),
            Self::DeleteElements { elements, .. } | Self::AddElements { elements, .. } => elements.len(),
            Self::AddTimeout { .. }
            | Self::DeleteTimeout { .. }
            | Self::AddChain { .. }
            | Self::DeleteChain { .. }
            | Self::DeleteSet { .. } => 1,
        }
    }
}

impl Table {
    /// The changes from what is held to this table. `None` when it must be replaced as a whole: base chains differ, or
    /// there are objects that no plan makes.
    pub fn changes_from(&self, held: &TableSeen) -> Option<Vec<Change>> {
        let bases = |chains: &mut dyn Iterator<Item = (String, ChainSeen)>| {
            chains
                .filter_map(|(name, chain)| Some((name, chain.base?)))
                .collect::<Vec<_>>()
        };
        let want = self.seen();
        let alike = bases(&mut want.chains.clone().into_iter()) == bases(&mut held.chains.clone().into_iter());
        let same = |(name, seconds): (&String, &u32)| self.timeouts.get(name).is_none_or(|want| want == seconds);
        if !alike || !held.foreign.is_empty() || !held.timeouts.iter().all(same) {
            return None;
        }
        let mut changes = Vec::new();
        let new = self
            .timeouts
            .iter()
            .filter(|(name, _)| !held.timeouts.contains_key(*name));
        changes.extend(new.map(|(name, seconds)| Change::AddTimeout {
            name: name.clone(),
            seconds: *seconds,
        }));
        let added = self
            .chains
            .iter()
            .filter(|chain| !held.chains.contains_key(&chain.name));
        changes.extend(added.map(|chain| Change::AddChain {
            name: chain.name.clone(),
        }));
        // Behind the chains, which verdict maps name.
        let new = self.sets.iter().filter(|(name, _)| !held.sets.contains_key(*name));
        changes.extend(new.map(|(name, set)| Change::AddSet {
            name: name.clone(),
            set: set.clone(),
        }));
        for chain in &self.chains {
            let marks: Vec<String> = chain.rules.iter().map(Rule::mark).collect();
            let before = held
                .chains
                .get(&chain.name)
                .map(|chain| chain.marks.as_slice())
                .unwrap_or_default();
            if before != marks {
                changes.push(Change::SetRules {
                    chain: chain.name.clone(),
                    rules: chain.rules.clone(),
                });
            }
        }
        let gone: Vec<&String> = held
            .chains
            .keys()
            .filter(|name| !want.chains.contains_key(*name))
            .collect();
        for name in &gone {
            changes.push(Change::SetRules {
                chain: (*name).clone(),
                rules: Vec::new(),
            });
        }
        // Elements of interval sets may not overlap, so the old ones go first; nobody sees the moment in between.
        for (name, elements) in &want.sets {
            let stale: BTreeSet<String> = held
                .sets
                .get(name)
                .map(|held| held.difference(elements).cloned().collect())
                .unwrap_or_default();
            if !stale.is_empty() {
                changes.push(Change::DeleteElements {
                    set: name.clone(),
                    elements: stale,
                });
            }
        }
        for (name, elements) in &want.sets {
            let missing = held
                .sets
                .get(name)
                .map(|held| elements.difference(held).cloned().collect());
            let missing: BTreeSet<String> = missing.unwrap_or_default();
            if !missing.is_empty() {
                changes.push(Change::AddElements {
                    set: name.clone(),
                    elements: missing,
                });
            }
        }
        let dead = held.sets.iter().filter(|(name, _)| !want.sets.contains_key(*name));
        // A verdict map that goes holds on to chains until it is gone: sets first.
        changes.extend(dead.map(|(name, _)| Change::DeleteSet { name: name.clone() }));
        changes.extend(gone.into_iter().map(|name| Change::DeleteChain { name: name.clone() }));
        let unused = held.timeouts.keys().filter(|name| !self.timeouts.contains_key(*name));
        changes.extend(unused.map(|name| Change::DeleteTimeout { name: name.clone() }));
        Some(changes)
    }
}

/// The commands of `nft -j` for changes of a table; time-outs are none of them, see [`Table::replace_commands`].
pub fn commands<'a>(table: &str, changes: impl IntoIterator<Item = &'a Change>) -> Vec<Value> {
    let chain = |name: &str| json!({"chain": {"family": "inet", "table": table, "name": name}});
    let mut all = Vec::new();
    for change in changes {
        match change {
            Change::AddTimeout { .. } | Change::DeleteTimeout { .. } => {}
            Change::AddSet { name, set } => all.push(add_set(table, name, set)),
            Change::AddChain { name } => {
                let chain = Chain {
                    name: name.clone(),
                    base: None,
                    rules: Vec::new(),
                };
                all.push(add_chain(table, &chain));
            }
            Change::SetRules { chain: name, rules } => {
                all.push(json!({"flush": chain(name)}));
                all.extend(add_rules(table, name, rules));
            }
            Change::DeleteElements { set, elements } => all.push(elements_command("delete", table, set, elements)),
            Change::AddElements { set, elements } => all.push(elements_command("add", table, set, elements)),
            Change::DeleteChain { name } => all.push(json!({"delete": chain(name)})),
            Change::DeleteSet { name } => {
                all.push(json!({"delete": {"set": {"family": "inet", "table": table, "name": name}}}));
            }
        }
    }
    all
}
