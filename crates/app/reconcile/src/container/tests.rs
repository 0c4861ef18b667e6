use super::*;
use crate::fake::{IMAGE, World};
use crate::transfer::{Actor, Transfer};
use isolarium_model::sagemaker::Attachment;
use std::sync::Arc;

fn image(world: &Arc<World>) -> Image {
    let actor = Actor {
        via: None,
        copies: None,
        kms_key: None,
        scope: crate::fake::scope(),
        role_arn: "arn:aws:iam::123456789012:role/r".parse().unwrap(),
        owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:model/m".parse().unwrap(),
    };
    world.resolve_image(&actor, IMAGE).unwrap()
}

fn placement(isolated: bool) -> Placement {
    let attachment = if isolated {
        Attachment::Isolated
    } else {
        Attachment::ServiceNetwork {
            address: Ipv4Addr::new(100, 64, 0, 9),
            credentials_token: "cd".repeat(16),
        }
    };
    Placement {
        workload: "w-0123456789abcdef0".parse().unwrap(),
        attachment,
    }
}

fn env_of(isolated: bool, requested: &[(&str, &str)], platform: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_string(), (*value).to_string()))
            .collect()
    };
    let world = World::new();
    let settings = ReconcileSettings::default();
    let requested = own(requested).into_iter().collect();
    let process = process(
        vec![],
        &image(&world),
        &requested,
        own(platform),
        &placement(isolated),
        &settings,
    );
    // Later entries win.
    process.env.into_iter().collect()
}

/// Proves: CC-13
#[test]
fn the_training_command_follows_entry_point_and_arguments() {
    let image = image(&World::new());
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    let (entry, arguments) = (words("/bin/run now"), words("--fast yes"));
    assert_eq!(
        training_command(&image, None, None),
        words("python3 /app/main.py train")
    );
    assert_eq!(training_command(&image, Some(&entry), None), words("/bin/run now"));
    assert_eq!(
        training_command(&image, None, Some(&arguments)),
        words("python3 /app/main.py --fast yes")
    );
    assert_eq!(
        training_command(&image, Some(&entry), Some(&arguments)),
        words("/bin/run now --fast yes")
    );
}

/// Proves: CC-8, CC-14, CC-48, CC-80
#[test]
fn a_request_sets_variables_but_not_the_platforms_own() {
    let requested = [
        ("MODE", "x"),
        ("AWS_REGION", "mars"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/mine"),
    ];
    let env = env_of(false, &requested, &[("AWS_REGION", "us-east-1")]);
    assert_eq!(env.get("MODE").map(String::as_str), Some("x"));
    assert_eq!(env.get("AWS_REGION").map(String::as_str), Some("us-east-1"));
    assert_eq!(
        env.get("PATH").map(String::as_str),
        Some("/usr/bin"),
        "the image's own path stays"
    );
    let uri = env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").cloned();
    assert_eq!(uri, placement(false).credentials_path());
}

/// Proves: CC-84
#[test]
fn an_isolated_container_gets_no_credentials_from_image_or_platform() {
    let requested = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://x"), ("MODE", "x")];
    let sealed = env_of(true, &requested, &[]);
    let open = env_of(false, &requested, &[]);
    assert!(open.contains_key("AWS_ACCESS_KEY_ID"), "control: the image carries one");
    for name in CREDENTIALS.iter().chain(&CREDENTIAL_SOURCES) {
        assert!(!sealed.contains_key(*name), "{name}");
    }
    assert_eq!(sealed.get("MODE").map(String::as_str), Some("x"));
}
