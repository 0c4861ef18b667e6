//! The hostile program of `probe/probe.c` in real containers of the real node: what it cannot do, one test for each
//! attempt, and for each the container in which exactly the wall that stops it is missing. Needs root, an OCI runtime,
//! nft, gcc and a kernel; without them the tests fail, they do not skip.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod exfiltration;
mod network;
mod sides;
mod stand;
mod walls;
