//! The network compiler: what workloads and VPCs should reach (intent) to what the kernel must hold (plan), and from
//! what it holds to the steps that change it (diff).

pub mod intent;
