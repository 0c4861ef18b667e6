//! What a hyperparameter tuning job tries next, and when it has seen enough (SM-35, SM-36).
//!
//! Pure: ranges, a seed and what was tried so far go in, values come out. The same arguments always give the same values, so
//! that a tuning job which is taken up again after a crash goes on as it would have.

mod chance;
mod converge;
mod gauss;
mod hyperband;
mod kernel;
mod linear;
mod median;
mod search;
mod space;

pub use converge::has_converged;
pub use hyperband::{Hyperband, Verdict};
pub use median::is_worse_than_median;
pub use search::{Observed, Score, Search};
pub use space::{BadRange, Space, grid_size, parse_continuous, parse_integer};
