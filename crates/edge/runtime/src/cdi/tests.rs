use super::*;

/// As a GPU driver's tool writes it, shortened.
const TWO_GPUS: &str = r#"{
  "cdiVersion": "0.5.0",
  "kind": "nvidia.com/gpu",
  "devices": [
    {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
    {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1", "hostPath": "/dev/other1", "permissions": "rw"}]}},
    {"name": "GPU-1f", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1"}]}},
    {"name": "GPU-2a", "containerEdits": {"deviceNodes": [{"path": "/dev/first", "hostPath": "/dev/nvidia0"}, {"path": "/dev/more"}]}},
    {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1"}]}}
  ],
  "containerEdits": {
    "env": ["NVIDIA_VISIBLE_DEVICES=void"],
    "deviceNodes": [{"path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255}],
    "mounts": [{"hostPath": "/usr/lib/libcuda.so.1", "containerPath": "/usr/lib/libcuda.so.1", "options": ["ro", "nosuid", "bind"]}],
    "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-ctk", "args": ["nvidia-ctk", "hook"], "timeout": 5}],
    "additionalGids": [44, 0]
  }
}"#;

fn spec(text: &str) -> CdiSpec {
    CdiSpec::parse(text.as_bytes()).unwrap()
}

fn look(path: &str) -> Option<NodeNumbers> {
    let minor = match path {
        "/dev/nvidia0" => 0,
        "/dev/other1" => 1,
        _ => return None,
    };
    Some(NodeNumbers {
        kind: 'c',
        major: 195,
        minor,
    })
}

fn give(devices: &CdiDevices, names: &[String], document: &mut Value) -> Result<(), CdiError> {
    let edits = devices.edits(names)?;
    edits.iter().try_for_each(|edits| edits.apply(document, &look))
}

fn document() -> Value {
    json!({
        "process": {"env": ["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=all"], "user": {"uid": 0, "additionalGids": []}},
        "linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}]}},
        "mounts": [],
    })
}

#[test]
fn devices_change_the_document_as_their_file_says() {
    let devices = CdiDevices::new([vec![spec(TWO_GPUS)]]);
    let mut changed = document();
    let names: Vec<String> = ["nvidia.com/gpu=0", "nvidia.com/gpu=1"].map(String::from).into();
    give(&devices, &names, &mut changed).unwrap();
    assert_eq!(
        changed["process"]["env"],
        json!(["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=void"])
    );
    assert_eq!(
        changed["process"]["user"]["additionalGids"],
        json!([44]),
        "never the group of root"
    );
    let node = |path: &str, minor: i64| json!({"path": path, "type": "c", "major": 195, "minor": minor});
    assert_eq!(
        changed["linux"]["devices"],
        json!([
            node("/dev/nvidiactl", 255),
            node("/dev/nvidia0", 0),
            node("/dev/nvidia1", 1)
        ]),
        "what both share is there once"
    );
    let rule =
        |minor: i64, access: &str| json!({"allow": true, "type": "c", "major": 195, "minor": minor, "access": access});
    assert_eq!(
        changed["linux"]["resources"]["devices"],
        json!([{"allow": false, "access": "rwm"}, rule(255, "rwm"), rule(0, "rwm"), rule(1, "rw")])
    );
    let library = "/usr/lib/libcuda.so.1";
    assert_eq!(
        changed["mounts"],
        json!([{"destination": library, "source": library, "type": "bind", "options": ["ro", "nosuid", "bind"]}])
    );
    assert_eq!(
        changed["hooks"]["createContainer"],
        json!([{"path": "/usr/bin/nvidia-ctk", "args": ["nvidia-ctk", "hook"], "env": [], "timeout": 5}])
    );
}

#[test]
fn single_devices_are_counted_once_and_all_is_none() {
    let devices = CdiDevices::new([vec![spec(TWO_GPUS)]]);
    assert_eq!(
        devices.single("nvidia.com/gpu"),
        ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    );
    assert_eq!(devices.single("nvidia.com"), Vec::<String>::new());
    assert_eq!(devices.single("amd.com/gpu"), Vec::<String>::new());
}

#[test]
fn the_later_folder_wins_and_one_folder_may_not_contradict_itself() {
    let other = TWO_GPUS.replace("/dev/nvidia0", "/dev/other1");
    let later = CdiDevices::new([vec![spec(TWO_GPUS)], vec![spec(&other)]]);
    let first = vec!["nvidia.com/gpu=0".to_string()];
    let mut changed = document();
    give(&later, &first, &mut changed).unwrap();
    assert_eq!(changed["linux"]["devices"][1]["path"], "/dev/other1");
    let twice = CdiDevices::new([vec![spec(TWO_GPUS), spec(&other)]]);
    let refused = give(&twice, &first, &mut document()).unwrap_err();
    assert_eq!(refused, CdiError::Twice("nvidia.com/gpu=0".into()));
    assert_eq!(twice.single("nvidia.com/gpu"), Vec::<String>::new());
}

#[test]
fn what_is_unclear_is_not_believed() {
    let parse = |text: &str| CdiSpec::parse(text.as_bytes());
    assert!(parse(TWO_GPUS).is_ok(), "control");
    for (from, to) in [
        ("\"0.5.0\"", "\"2.0.0\""),
        ("\"0.5.0\"", "\"x\""),
        ("nvidia.com/gpu", "gpu"),
        ("nvidia.com/gpu", "nvidia.com/g/u"),
        ("\"name\": \"1\"", "\"name\": \"0\""),
        ("\"name\": \"1\"", "\"name\": \"../1\""),
        ("/dev/other1", "/dev/../sda"),
        ("/dev/other1", "dev/other1"),
        ("createContainer", "sometime"),
        ("\"kind\"", "\"sort\""),
    ] {
        let text = TWO_GPUS.replace(from, to);
        assert_ne!(text, TWO_GPUS, "{from}");
        assert!(parse(&text).is_err(), "{from} -> {to}");
    }
    let devices = CdiDevices::new([vec![spec(TWO_GPUS)]]);
    let given = |name: &str| give(&devices, &[name.to_string()], &mut document());
    assert_eq!(
        given("nvidia.com/gpu=7"),
        Err(CdiError::Unknown("nvidia.com/gpu=7".into()))
    );
    assert_eq!(
        given("nvidia.com/gpu=all"),
        Err(CdiError::Missing("/dev/nvidia1".into()))
    );
}
