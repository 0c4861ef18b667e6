use super::*;

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:102::/var/cache/nginx:/bin/false\nbig:x:70000:0::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnginx:x:102:\nvideo:x:44:nginx,other\ndata:x:200:nginx\n";

fn numbers(user: &str) -> (u32, u32, Vec<u32>) {
    let user = resolve(user, PASSWD, GROUP).unwrap();
    (user.uid, user.gid, user.additional_gids)
}

/// Proves: CC-3
#[test]
fn the_images_user_is_kept_and_defaults_to_root() {
    assert_eq!(numbers(""), (0, 0, vec![]));
    assert_eq!(numbers("nginx"), (101, 102, vec![44, 200]));
    assert_eq!(numbers("101"), (101, 102, vec![44, 200]));
    assert_eq!(numbers("nginx:data"), (101, 200, vec![]));
    assert_eq!(numbers("1000"), (1000, 0, vec![]));
    assert_eq!(numbers("1000:1001"), (1000, 1001, vec![]));
    assert_eq!(
        resolve("nginx", PASSWD, GROUP).unwrap().home.as_deref(),
        Some("/var/cache/nginx")
    );
}

#[test]
fn unknown_names_and_ids_outside_the_range_are_refused() {
    assert_eq!(resolve("who", PASSWD, GROUP), Err(BadUser::NoUser("who".into())));
    assert_eq!(resolve("nginx:who", PASSWD, GROUP), Err(BadUser::NoGroup("who".into())));
    assert_eq!(resolve("big", PASSWD, GROUP), Err(BadUser::Range(70_000)));
    assert_eq!(resolve("0:65536", PASSWD, GROUP), Err(BadUser::Range(65_536)));
}

#[test]
fn the_images_files_cannot_name_anything_outside_it() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), "secret:x:1:1::/:\n").unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("etc/passwd")).unwrap();
    let open = || OwnedFd::from(std::fs::File::open(root.path()).unwrap());
    assert_eq!(image_file(&open(), "etc/passwd"), "");
    // Control: a link that stays inside is followed, so the refusal above was about leaving.
    std::fs::write(root.path().join("real"), "inside:x:1:1::/:\n").unwrap();
    std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("/real", root.path().join("etc/passwd")).unwrap();
    assert_eq!(image_file(&open(), "etc/passwd"), "inside:x:1:1::/:\n");
}
