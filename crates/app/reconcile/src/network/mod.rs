//! VPCs from records to the host's kernel: level-triggered, like everything here (style rule 7).

mod doors;

pub use doors::{Doors, NoDoors};
