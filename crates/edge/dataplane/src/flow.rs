//! Flows through VPCs' routers: the source of flow logs. What passed comes from conntrack's counters, what was refused from
//! the sets in which the rules record it.

mod conntrack;
mod refusals;
mod source;

pub(crate) use conntrack::forget;
pub(crate) use source::Source;
