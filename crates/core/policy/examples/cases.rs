//! Prints generated cases with the engine's answers, one JSON object a line: the input of `tests/authz/compare.py`, which asks
//! other evaluators.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for tests that prints its result"
)]

#[path = "../tests/engine/mod.rs"]
mod engine;

use isolarium_testkit::authz::generate::{Chance, FAMILIES, case};
use serde_json::json;

fn main() {
    let mut chance = Chance::new(1);
    for family in FAMILIES {
        for _ in 0..300 {
            let case = case(family, &mut chance);
            assert!(engine::readable(&case));
            println!("{}", json!({"case": case, "engine": engine::answer(&case)}));
        }
    }
}
