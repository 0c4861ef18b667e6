//! Real containers: what they see, how they end, what is left of them. Needs root, crun (or runc) and busybox-static.

mod common;

use common::Lab;

/// Proves: CC-3, CC-9
#[test]
fn a_container_runs_as_its_images_user_with_its_environment_and_ends_with_its_code() {
    let lab = Lab::new();
    let (status, lines) = lab
        .run("id; echo $GREETING $HOSTNAME; hostname; cat /proc/self/mountinfo; ls -la /proc/self/fd/ /; env; exit 7");
    eprintln!("{lines:#?}");
    assert_eq!((status.code, status.signal, status.out_of_memory), (7, None, false));
}
