//! The engine against the naive evaluator, on generated cases and on those that were once in dispute.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a case that cannot be read fails its test"
)]

mod engine;

use engine::{answer, readable};
use isolarium_testkit::authz::generate::{Chance, FAMILIES, case};
use isolarium_testkit::authz::{Case, naive, shrink::shrink};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Cases of each family.
const EACH: usize = 600;
/// Any other number is as good; this one is fixed so that a failure comes again.
const SEED: u64 = 20_121_017;

/// The naive evaluator does not say which of several explicit denies it saw.
fn same(ours: &str, naive: &str) -> bool {
    ours == naive || (naive == "explicit" && ours.starts_with("explicit"))
}

fn disagree(case: &Case) -> bool {
    readable(case) && !same(&answer(case), &naive::decide(case))
}

/// Proves: IAM-4, IAM-5, IAM-6, IAM-9, IAM-12, IAM-13, IAM-14, IAM-15, IAM-20, IAM-21, IAM-22, IAM-23, IAM-24, IAM-30, IAM-31,
/// IAM-33
#[test]
fn two_evaluators_agree_on_generated_cases() {
    let mut chance = Chance::new(SEED);
    let mut counts: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    let (mut disputes, mut total) = (Vec::new(), 0);
    for family in FAMILIES {
        for _ in 0..EACH {
            let case = case(family, &mut chance);
            assert!(readable(&case), "the generator writes good documents: {case:?}");
            if disagree(&case) {
                let small = shrink(&case, &disagree);
                disputes.push(format!(
                    "{family}: engine {}, naive {}: {}",
                    answer(&small),
                    naive::decide(&small),
                    serde_json::to_string(&small).unwrap()
                ));
            }
            *counts.entry(family).or_default().entry(answer(&case)).or_default() += 1;
            total += 1;
        }
    }
    for (family, answers) in &counts {
        println!("{family}: {answers:?}");
        let allowed = answers.get("allow").copied().unwrap_or(0);
        assert!(allowed >= EACH / 20, "{family} hardly ever allows: {answers:?}");
        assert!(EACH - allowed >= EACH / 20, "{family} hardly ever denies: {answers:?}");
    }
    println!("{total} cases, {} disputes", disputes.len());
    assert!(total >= 5_000);
    assert!(
        disputes.is_empty(),
        "{} disputes, the first:\n{}",
        disputes.len(),
        disputes.iter().take(12).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// A question that evaluators have answered in different ways, and how AWS's documentation settles it.
#[derive(Deserialize)]
struct Adjudicated {
    id: String,
    /// Where it is settled, and what is settled there.
    source: String,
    /// Cases and their answers: each row has an allow and a denial, so that neither comes about by itself.
    cases: Vec<Settled>,
}

#[derive(Deserialize)]
struct Settled {
    expect: String,
    case: Case,
}

/// Proves: IAM-5, IAM-6, IAM-8, IAM-13, IAM-14, IAM-22
#[test]
fn adjudicated_questions_stay_settled() {
    let rows: Vec<Adjudicated> = serde_json::from_str(include_str!("cases/adjudicated.json")).unwrap();
    let table = include_str!("../../../../docs/authorization.md");
    for row in &rows {
        assert!(row.source.contains("http") || row.source.contains("IAM-"), "{}", row.id);
        assert!(
            table.contains(&format!("| {} |", row.id)),
            "{} is not in docs/authorization.md",
            row.id
        );
        let allows = row.cases.iter().filter(|settled| settled.expect == "allow").count();
        assert!(
            allows > 0 && allows < row.cases.len(),
            "{} needs an allow and a denial",
            row.id
        );
        for Settled { expect, case } in &row.cases {
            assert!(readable(case), "{}", row.id);
            assert_eq!(&answer(case), expect, "{}: {case:?}", row.id);
            assert!(
                same(expect, &naive::decide(case)),
                "{} by the naive evaluator: {}",
                row.id,
                naive::decide(case)
            );
        }
    }
}
