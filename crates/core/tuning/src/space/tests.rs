use super::*;

fn continuous(min: f64, max: f64, scaling: Scaling) -> ParameterRange {
    ParameterRange {
        name: "x".into(),
        domain: Domain::Continuous { min, max, scaling },
    }
}

fn integer(min: i64, max: i64, scaling: Scaling) -> ParameterRange {
    ParameterRange {
        name: "x".into(),
        domain: Domain::Integer { min, max, scaling },
    }
}

fn categorical(values: &[&str]) -> ParameterRange {
    ParameterRange {
        name: "x".into(),
        domain: Domain::Categorical {
            values: values.iter().map(ToString::to_string).collect(),
        },
    }
}

fn at(range: ParameterRange, share: f64) -> String {
    Space::new(&[range]).unwrap().at(&[share]).remove("x").unwrap()
}

/// Proves: SM-35
#[test]
fn ranges_that_cannot_be_searched_are_refused_and_others_are_not() {
    let refused = |range: ParameterRange| Space::new(&[range]).unwrap_err();
    assert_eq!(
        refused(continuous(2.0, 1.0, Scaling::Auto)),
        BadRange::Reversed("x".into())
    );
    assert_eq!(
        refused(continuous(0.0, 1.0, Scaling::Logarithmic)),
        BadRange::NotPositive("x".into())
    );
    assert_eq!(
        refused(integer(0, 9, Scaling::Logarithmic)),
        BadRange::NotPositive("x".into())
    );
    assert_eq!(
        refused(continuous(0.5, 1.0, Scaling::ReverseLogarithmic)),
        BadRange::NotBelowOne("x".into())
    );
    assert_eq!(
        refused(integer(1, 9, Scaling::ReverseLogarithmic)),
        BadRange::ReverseInteger("x".into())
    );
    assert_eq!(
        refused(categorical(&["a", "a"])),
        BadRange::Repeated("x".into(), "a".into())
    );
    assert_eq!(refused(categorical(&[])), BadRange::Empty("x".into()));
    let twice = [categorical(&["a"]), integer(1, 2, Scaling::Auto)];
    assert_eq!(Space::new(&twice).unwrap_err(), BadRange::SameName("x".into()));
    assert!(parse_continuous("x", "inf").is_err() && parse_continuous("x", "1e-3").is_ok());
    assert!(parse_integer("x", "1.5").is_err() && parse_integer("x", "-7").is_ok());
    for fine in [
        continuous(1.0, 1.0, Scaling::Linear),
        continuous(0.0, 0.999, Scaling::ReverseLogarithmic),
        continuous(1e-6, 1.0, Scaling::Logarithmic),
        integer(-5, 5, Scaling::Auto),
    ] {
        assert!(Space::new(std::slice::from_ref(&fine)).is_ok(), "{fine:?}");
    }
}

/// Proves: SM-35
#[test]
fn scales_put_the_middle_where_they_say() {
    assert_eq!(at(continuous(0.0, 10.0, Scaling::Linear), 0.5), "5");
    let middle: f64 = at(continuous(1e-4, 1.0, Scaling::Logarithmic), 0.5).parse().unwrap();
    assert!((middle - 0.01).abs() < 1e-9);
    let auto: f64 = at(continuous(1e-4, 1.0, Scaling::Auto), 0.5).parse().unwrap();
    assert!(
        (auto - 0.01).abs() < 1e-9,
        "a wide range of positive numbers is logarithmic"
    );
    assert_eq!(at(continuous(0.0, 1.0, Scaling::Auto), 0.5), "0.5");
    // 1 - x is logarithmic: from 1 to 0.0001, the middle is 0.01.
    let reverse: f64 = at(continuous(0.0, 0.9999, Scaling::ReverseLogarithmic), 0.5)
        .parse()
        .unwrap();
    assert!((reverse - 0.99).abs() < 1e-9, "{reverse}");
    assert_eq!(at(integer(1, 9, Scaling::Linear), 0.0), "1");
    assert_eq!(at(integer(1, 9, Scaling::Linear), 1.0), "9");
    assert_eq!(at(integer(1, 9, Scaling::Linear), 0.5), "5");
    assert_eq!(at(categorical(&["a", "b"]), 1.0), "b");
}

#[test]
fn text_has_no_exponent_and_reads_as_the_same_number() {
    let tiny = at(continuous(1e-12, 1e-9, Scaling::Logarithmic), 0.3);
    assert!(tiny.starts_with("0.00000"), "{tiny}");
    assert!((1e-12..=1e-9).contains(&tiny.parse::<f64>().unwrap()));
    assert_eq!(at(continuous(-1.0, 1.0, Scaling::Linear), 0.5), "0", "no minus zero");
}

#[test]
fn integers_get_equal_shares() {
    let space = Space::new(&[integer(0, 3, Scaling::Linear)]).unwrap();
    let mut chance = Chance::new(5, 0);
    let mut seen = [0; 4];
    for _ in 0..4000 {
        seen[space.draw(&mut chance)["x"].parse::<usize>().unwrap()] += 1;
    }
    assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
}

/// Proves: SM-35
#[test]
fn a_grid_is_every_combination_once() {
    let named = |name: &str, values: &[&str]| ParameterRange {
        name: name.into(),
        ..categorical(values)
    };
    let ranges = [
        named("a", &["1", "2", "3"]),
        named("b", &["x", "y"]),
        named("c", &["z"]),
    ];
    assert_eq!(grid_size(&ranges), Some(6));
    let space = Space::new(&ranges).unwrap();
    let all: std::collections::BTreeSet<Values> = (0..6).map(|at| space.grid(at).unwrap()).collect();
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|values| space.contains(values)));
    assert_eq!(space.grid(6), None);
    assert_eq!(grid_size(&[integer(1, 2, Scaling::Auto)]), None);
    assert_eq!(Space::new(&[integer(1, 2, Scaling::Auto)]).unwrap().grid(0), None);
}
