//! From what records want to what runs: level-triggered loops over jobs, endpoints and notebook instances (style rule 7).
//!
//! A step reads its record, looks at the host, does what is missing and says when to look again. First launch, retry
//! and recovery after a crash are the same path. Nothing here parses a request or holds a privilege: containers go
//! through the traits of `isolarium_runtime`, data and logs through [`transfer::Transfer`].

pub mod asynchronous;
pub mod capture;
pub mod cut;
pub mod driver;
pub mod fleets;
pub mod held;
pub mod http;
pub mod many_models;
pub mod metrics;
pub mod network;
pub mod scheduler;
pub mod settings;
pub mod transfer;
pub mod workdir;

mod checkpoints;
mod collect;
mod container;
mod deps;
mod endpoint;
mod gc;
mod job;
mod logs;
mod notebook;
mod ping;
mod pipes;
mod stage;
mod transform;
mod tuning;
mod volume;

#[cfg(test)]
mod fake;

pub use container::UnknownInstanceType;
pub use cut::{Cut, Cuts};
pub use deps::Deps;
pub use driver::Driver;
pub use fleets::{Fleets, Guard, PickError};
pub use scheduler::Scheduler;
pub use settings::ReconcileSettings;
pub use transfer::{Actor, Image, Layer, NewVolumeKey, ObjectEntry, Transfer, TransferError};
pub use workdir::WorkDir;
