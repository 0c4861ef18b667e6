use super::*;
use std::collections::BTreeSet;

fn over(key: &str, value: &str) -> Override {
    Override {
        origin: format!("--set {key}"),
        key: key.into(),
        value: value.into(),
    }
}

fn leaves(prefix: &str, value: &toml::Value, into: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, inner) in table {
                let path = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                leaves(&path, inner, into);
            }
        }
        _ => {
            into.insert(prefix.to_owned());
        }
    }
}

#[test]
fn every_key_of_the_structs_is_documented_and_nothing_else() {
    let mut config = Config {
        tls_listen: Some("127.0.0.1:1".parse().unwrap()),
        proxy_listen: Some("127.0.0.1:3".parse().unwrap()),
        ..Config::default()
    };
    config.serve.node = Some("/run/node".into());
    config.runtime.oci = Some("/usr/bin/crun".into());
    config.limits.training_instances = Some(1);
    config.capacity.vcpus = Some(Room::Amount(1));
    config.capacity.memory_mib = Some(Room::Amount(1));
    config.metrics.listen = Some("127.0.0.1:2".parse().unwrap());
    config.notebooks.image = Some("jupyter:1".into());
    config.notebooks.origin = Some("http://localhost".into());
    let mut found = BTreeSet::new();
    leaves("", &toml::Value::try_from(&config).unwrap(), &mut found);
    let documented: BTreeSet<String> = keys::KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(found, documented);
}

/// Proves: CC-7
#[test]
fn the_operator_says_what_an_instance_type_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("isolarium.toml");
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), &[])
    };
    let own = "[[instances]]\ntype = \"ml.m5.large\"\nvcpus = 1\nmemory_mib = 1024\n";
    let shape = |config: &Config, name: &str| {
        let shape = config.instance_table().shape(name).unwrap();
        (shape.vcpus, shape.memory_mib, shape.accelerators)
    };
    assert_eq!(
        shape(&Config::default(), "ml.m5.large"),
        (2, 8192, 0),
        "control: the public table"
    );
    assert_eq!(shape(&load(own).unwrap(), "ml.m5.large"), (1, 1024, 0));
    let twice = load(&own.repeat(2)).unwrap_err().to_string();
    assert!(twice.contains("ml.m5.large twice"), "{twice}");
    let none = load(&own.replace("vcpus = 1", "vcpus = 0")).unwrap_err().to_string();
    assert!(none.contains("1 to 4096 vcpus"), "{none}");
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(
        page == keys::reference(),
        "run `isolarium reference configuration > docs/configuration.md`"
    );
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("isolarium.toml");
    std::fs::write(&path, "account = \"123456789012\"\n\n[auth]\nunknown_key = \"root\"\n").unwrap();
    let error = Config::load(Some(&path), &[]).unwrap_err().to_string();
    assert!(error.contains("line 4") && error.contains("unknown_key"), "{error}");
}

#[test]
fn later_layers_win_over_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("isolarium.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:1000\"\n[jobs]\nstop_grace = \"3s\"\n").unwrap();
    let file_only = Config::load(Some(&path), &[]).unwrap();
    assert_eq!(file_only.listen.port(), 1000);
    assert_eq!(file_only.jobs.stop_grace, Span::seconds(3));
    let mut layers = from_environment(|name| (name == "ISOLARIUM_LISTEN").then(|| "127.0.0.1:2000".into()));
    assert_eq!(Config::load(Some(&path), &layers).unwrap().listen.port(), 2000);
    layers.push(over("listen", "127.0.0.1:3000"));
    let config = Config::load(Some(&path), &layers).unwrap();
    assert_eq!(config.listen.port(), 3000);
    assert_eq!(config.jobs.stop_grace, Span::seconds(3));
}

#[test]
fn overrides_take_toml_and_bare_words() {
    let config = Config::load(
        None,
        &[
            over("regions", "[\"eu-west-1\", \"us-east-1\"]"),
            over("uplink", "{ netns = \"/run/netns/stub\" }"),
            over("account", "000000000001"),
            over("tls.inject_ca", "true"),
            over("endpoints.ping_interval", "250ms"),
        ],
    )
    .unwrap();
    assert_eq!(config.default_region().as_str(), "eu-west-1");
    assert_eq!(config.account.as_str(), "000000000001");
    assert!(config.tls.inject_ca);
    assert_eq!(config.endpoints.ping_interval, Span::millis(250));
    assert_eq!(
        config.host_network().uplink,
        Uplink::Netns {
            path: "/run/netns/stub".into()
        }
    );
}

#[test]
fn wrong_overrides_name_their_origin() {
    for (key, value, part) in [
        ("listen", "nonsense", "--set listen"),
        ("auth.unknown_keys", "maybe", "auth.unknown_keys"),
        ("no.such", "1", "unknown key no.such"),
        ("jobs.stop_grace", "5 fortnights", "duration"),
    ] {
        let error = Config::load(None, &[over(key, value)]).unwrap_err().to_string();
        assert!(error.contains(part), "{key}: {error}");
    }
}

/// Unknown keys as root is for loopback alone.
#[test]
fn unknown_keys_as_root_need_loopback_on_every_listener() {
    let root = over("auth.unknown_keys", "root");
    assert!(
        Config::load(None, std::slice::from_ref(&root)).is_ok(),
        "control: the default listener is loopback"
    );
    for open in [over("listen", "0.0.0.0:4599"), over("tls_listen", "192.0.2.1:443")] {
        let error = Config::load(None, &[root.clone(), open]).unwrap_err();
        assert!(matches!(error, ConfigError::Contradiction(_)), "{error}");
    }
}

#[test]
fn overlapping_ranges_and_empty_regions_are_refused() {
    for bad in [
        over("network.services", "100.64.1.0/24"),
        over("regions", "[]"),
        over("invoke.timeout", "0s"),
    ] {
        assert!(
            matches!(
                Config::load(None, std::slice::from_ref(&bad)),
                Err(ConfigError::Contradiction(_))
            ),
            "{bad:?}"
        );
    }
}

#[test]
fn spans_are_read_and_written() {
    for (text, span) in [
        ("250ms", Span::millis(250)),
        ("5s", Span::seconds(5)),
        ("7", Span::seconds(7)),
        ("2m", Span::seconds(120)),
        ("1h", Span::seconds(3600)),
    ] {
        assert_eq!(text.parse::<Span>(), Ok(span));
    }
    for bad in ["", "s", "-1s", "1d", "99999999999h"] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
    assert_eq!(Span::millis(1500).to_string(), "1500ms");
    assert_eq!(Span::seconds(60).to_string(), "60s");
}
