use super::*;
use isolarium_netplan::intent::{Reach, WorkloadNetwork};
use isolarium_runtime::executor::{Limits, ProcessSpec};

fn good() -> LaunchSpec {
    let workload: isolarium_model::WorkloadId = "w-0123456789abcdef0".parse().unwrap();
    LaunchSpec {
        workload: workload.clone(),
        owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/j".into(),
        hostname: "algo-1".into(),
        network: WorkloadNetwork {
            workload,
            reach: Reach::Nothing,
        },
        layers: vec![format!("sha256:{}", "a".repeat(64)).parse().unwrap()],
        process: ProcessSpec {
            argv: vec!["train".into()],
            env: vec![("A".into(), "b".into())],
            cwd: "/".into(),
            user: String::new(),
        },
        hosts: Vec::new(),
        resolvers: Vec::new(),
        search: None,
        mounts: vec![Mount::Input {
            source: "input/data/train".into(),
            target: "/opt/ml/input/data/train".into(),
        }],
        held: false,
        beside: None,
        tunnel: None,
        encrypted: false,
        devices: Vec::new(),
        limits: Limits {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            pids: 100,
            shm_bytes: 1 << 20,
            overlay_bytes: 1 << 30,
        },
    }
}

/// Every path and name that could lead the privileged half astray is refused; the untouched spec is the control.
#[test]
fn a_launch_spec_that_leaves_its_directories_is_refused() {
    assert_eq!(launch(&good()), Ok(()), "control");
    for source in ["", "/etc", "../x", "a/../b", "a//b", "./a", "a/."] {
        let mut spec = good();
        spec.mounts = vec![Mount::Input {
            source: source.into(),
            target: "/opt/ml/x".into(),
        }];
        assert_eq!(launch(&spec), Err(BadRequest::Source(source.into())));
    }
    for target in ["", "opt", "/", "/a/../b", "/a//b", "/a\n"] {
        let mut spec = good();
        spec.mounts = vec![Mount::Scratch {
            name: "model".into(),
            target: target.into(),
            read_only: false,
        }];
        assert_eq!(launch(&spec), Err(BadRequest::Target(target.into())));
    }
    for name in ["", ".", "..", "a/b"] {
        let mut spec = good();
        spec.mounts = vec![Mount::Scratch {
            name: name.into(),
            target: "/opt/ml/model".into(),
            read_only: false,
        }];
        assert_eq!(launch(&spec), Err(BadRequest::Name("scratch directory")));
    }
}

#[test]
fn a_launch_spec_names_its_own_network_and_sane_limits() {
    let mut spec = good();
    spec.network.workload = "w-fffffffffffffffff".parse().unwrap();
    assert_eq!(launch(&spec), Err(BadRequest::Network));
    let mut spec = good();
    spec.limits.memory_bytes = 0;
    assert!(matches!(
        launch(&spec),
        Err(BadRequest::Limit {
            what: "memory_bytes",
            ..
        })
    ));
    let mut spec = good();
    spec.process.env = vec![("A=B".into(), "c".into())];
    assert_eq!(launch(&spec), Err(BadRequest::Name("environment name")));
    let mut spec = good();
    spec.process.argv = vec!["a\0b".into()];
    assert_eq!(launch(&spec), Err(BadRequest::Text("argument")));
}

/// The file goes to whoever started the engine: the first text is the control.
///
/// Proves: ISO-17
#[test]
fn a_credentials_file_with_anything_but_accounts_keys_is_refused() {
    let secret = "abcdefghijABCDEFGHIJ0123456789/+=/+=abcd";
    let good = format!("[default]\naws_access_key_id = AKIA0123456789ABCDEF\naws_secret_access_key = {secret}\n");
    credentials(&good).unwrap();
    let other = good.replace("default", "210987654321");
    credentials(&format!("{good}{other}")).unwrap();
    for bad in [
        String::new(),
        format!("{good}credential_process = /tmp/evil\n"),
        format!("[default]\ncredential_process = /tmp/evil\n{good}"),
        good.replace("default", "other"),
        good.replace(secret, "$(touch /tmp/evil)abcdef"),
        good.replace(secret, &format!("{secret}\ncredential_process = /tmp/evil")),
        good.replace("AKIA0123456789ABCDEF", "AKIA0123456789ABCDEF;id"),
        good.replace("AKIA0123456789ABCDEF", ""),
        other.clone(),
        format!("{other}{good}"),
        format!("{good}{good}"),
        format!("{good}{other}{other}"),
        format!("{good}{}", other.replace("210987654321", "profile x")),
        format!("{good}{other}credential_process = /tmp/evil\n"),
        format!("{good}[210987654321]\ncredential_process = /tmp/evil\nregion = nowhere\n"),
        format!("{good}[210987654321]\n"),
        format!("{good}\n"),
    ] {
        assert_eq!(credentials(&bad), Err(BadRequest::Credentials), "{bad}");
    }
}

/// The two good specs are the control.
///
/// Proves: CC-10
#[test]
fn a_container_is_started_beside_another_one_only_in_that_ones_network() {
    let first: isolarium_model::WorkloadId = "w-00000000000000001".parse().unwrap();
    assert_eq!(launch(&good()), Ok(()));
    let mut beside = good();
    beside.beside = Some(first.clone());
    assert_eq!(
        launch(&beside),
        Err(BadRequest::Network),
        "its own network is not that one's"
    );
    beside.network.workload = first.clone();
    assert_eq!(launch(&beside), Ok(()));
    let mut foreign = good();
    foreign.network.workload = first;
    assert_eq!(launch(&foreign), Err(BadRequest::Network));
    let mut itself = good();
    itself.beside = Some(itself.workload.clone());
    assert_eq!(launch(&itself), Err(BadRequest::Beside));
}
