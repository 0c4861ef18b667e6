use super::*;
use std::io::{Read, Write};

const ALL: [Step; 7] = [
    Step::Image,
    Step::Format,
    Step::Device,
    Step::Mount,
    Step::Key,
    Step::Encrypt,
    Step::Finish,
];

struct Lab {
    folder: tempfile::TempDir,
    place: Place,
    workload: WorkloadId,
}

fn spec(lasting: bool) -> VolumeSpec {
    VolumeSpec {
        bytes: 64 << 20,
        lasting,
    }
}

fn key(fill: u8) -> VolumeKey {
    VolumeKey::new([fill; 32])
}

impl Lab {
    fn new(number: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path());
        make_folder(&place.volumes(), 0o700).unwrap();
        let workload = format!("w-{:08x}{number:09x}", std::process::id()).parse().unwrap();
        Self {
            folder,
            place,
            workload,
        }
    }

    fn make(&self, spec: &VolumeSpec, key: &VolumeKey, before: &mut Before<'_>) -> Result<(), ExecutorError> {
        let service = Service { uid: 0, gid: 0 };
        make(&self.place, &self.workload, spec, key, service, before)
    }

    fn scratch(&self) -> PathBuf {
        self.place.volume(&self.workload).join(SCRATCH)
    }

    /// Mounts and loop devices that lead here.
    fn kernel_knows(&self) -> Vec<String> {
        let own = self.folder.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut known: Vec<String> = mounts
            .lines()
            .filter(|line| line.contains(own))
            .map(Into::into)
            .collect();
        for entry in fs::read_dir("/sys/block").unwrap() {
            let backing = entry.unwrap().path().join("loop/backing_file");
            known.extend(fs::read_to_string(backing).ok().filter(|file| file.contains(own)));
        }
        known
    }

    /// The kernel lets go of a device a moment after its last user.
    fn wait_until_forgotten(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !self.kernel_knows().is_empty() {
            assert!(std::time::Instant::now() < deadline, "{:?}", self.kernel_knows());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn entries(&self) -> usize {
        fs::read_dir(self.place.volumes()).unwrap().count()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _closed = close(&self.place, &self.workload);
    }
}

fn holds(file: &Path, marker: &[u8]) -> bool {
    let mut bytes = Vec::new();
    File::open(file).unwrap().read_to_end(&mut bytes).unwrap();
    bytes.windows(marker.len()).any(|window| window == marker)
}

/// The control is a file beside the encrypted directories, on the same file system.
///
/// Proves: CC-36
#[test]
fn what_is_written_is_not_on_the_image_and_a_closed_volume_has_no_key() {
    let lab = Lab::new(1);
    lab.make(&spec(false), &key(1), &mut |_| Ok(())).unwrap();
    let text = b"a secret that nobody finds";
    fs::write(lab.scratch().join("name-of-a-secret"), text.repeat(1000)).unwrap();
    fs::write(lab.place.volume(&lab.workload).join("control"), b"in the clear").unwrap();
    let scratch = File::open(lab.scratch()).unwrap();
    rustix::fs::syncfs(&scratch).unwrap();
    let image = lab.place.image(&lab.workload);
    assert!(holds(&image, b"in the clear"), "control: the image is read as it lies");
    assert!(!holds(&image, text));
    assert!(!holds(&image, b"name-of-a-secret"));
    let (_, name) = (drop(scratch), encrypted_name(&lab));
    // Again: nothing changes, whatever key is brought.
    lab.make(&spec(false), &key(2), &mut |_| Ok(())).unwrap();
    assert_eq!(encrypted_name(&lab), name);
    close(&lab.place, &lab.workload).unwrap();
    lab.wait_until_forgotten();
    assert!(open(&lab.place, &lab.workload, SCRATCH).is_err());
    remove(&lab.place, &lab.workload).unwrap();
    assert_eq!(lab.entries(), 0);
}

fn encrypted_name(lab: &Lab) -> KeyName {
    crypt::encrypted_under(File::open(lab.scratch()).unwrap().as_fd()).unwrap()
}

/// Somebody who still has a file open keeps the file system, but the key is gone.
///
/// Proves: CC-36
#[test]
fn a_volume_that_is_held_open_loses_its_key_all_the_same() {
    let lab = Lab::new(2);
    lab.make(&spec(false), &key(1), &mut |_| Ok(())).unwrap();
    let held = File::open(lab.scratch()).unwrap();
    rustix::fs::openat(&held, ".", OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR).unwrap();
    close(&lab.place, &lab.workload).unwrap();
    let made = rustix::fs::openat(&held, "new", OFlags::CREATE | OFlags::RDWR, Mode::RUSR);
    assert_eq!(made.unwrap_err(), rustix::io::Errno::NOKEY);
    drop(held);
    lab.wait_until_forgotten();
}

/// Every step fails in turn, of a fresh volume and of a lasting one that is opened again. The last round, without a failure,
/// is the control.
///
/// Proves: CC-36
#[test]
fn a_volume_that_cannot_be_made_leaves_nothing() {
    let lab = Lab::new(3);
    for lasting in [false, true] {
        for bad in ALL {
            let refused = lab.make(&spec(lasting), &key(1), &mut |step| {
                if step == bad {
                    Err(io::Error::other("no"))
                } else {
                    Ok(())
                }
            });
            assert!(refused.is_err(), "{bad:?}");
            assert_eq!(lab.entries(), 0, "{bad:?}");
            lab.wait_until_forgotten();
        }
    }
    lab.make(&spec(true), &key(1), &mut |_| Ok(())).unwrap();
    fs::write(lab.scratch().join("kept"), "words").unwrap();
    close(&lab.place, &lab.workload).unwrap();
    for bad in ALL.into_iter().skip(2) {
        let refused = lab.make(&spec(true), &key(1), &mut |step| {
            if step == bad {
                Err(io::Error::other("no"))
            } else {
                Ok(())
            }
        });
        assert!(refused.is_err(), "{bad:?}");
        assert_eq!(lab.entries(), 1, "the image stays");
        lab.wait_until_forgotten();
    }
    assert!(lab.make(&spec(true), &key(2), &mut |_| Ok(())).is_err(), "another key");
    lab.wait_until_forgotten();
    lab.make(&spec(true), &key(1), &mut |_| Ok(())).unwrap();
    assert_eq!(fs::read_to_string(lab.scratch().join("kept")).unwrap(), "words");
}

/// A left-over that is half made, as a crash leaves it, is replaced.
///
/// Proves: CC-36
#[test]
fn what_a_crash_left_half_made_is_replaced() {
    let lab = Lab::new(4);
    make_image(&lab.place.unfinished_image(&lab.workload), 1 << 20).unwrap();
    make_folder(&lab.place.volume(&lab.workload), 0o700).unwrap();
    lab.make(&spec(false), &key(1), &mut |_| Ok(())).unwrap();
    let name = encrypted_name(&lab);
    // Closed, as after the machine's end: a volume that does not last is made anew, and is empty.
    fs::write(lab.scratch().join("old"), "").unwrap();
    close(&lab.place, &lab.workload).unwrap();
    lab.make(&spec(false), &key(2), &mut |_| Ok(())).unwrap();
    assert_ne!(encrypted_name(&lab), name);
    assert!(!lab.scratch().join("old").exists());
}

/// Its size is a limit, and beside it there is room for the platform.
///
/// Proves: CC-36
#[test]
fn a_container_cannot_fill_what_is_kept_for_the_platform() {
    let lab = Lab::new(5);
    lab.make(&spec(false), &key(1), &mut |_| Ok(())).unwrap();
    let room = rustix::fs::statvfs(lab.scratch()).unwrap();
    let free = |blocks: u64| blocks * room.f_frsize;
    assert!(free(room.f_bavail) <= spec(false).bytes);
    assert!(free(room.f_bavail) > spec(false).bytes / 10 * 8);
    assert!(free(room.f_bfree) > spec(false).bytes);
    let mut file = File::create(lab.scratch().join("root's")).unwrap();
    file.write_all(&[1; 4096]).unwrap();
}

#[test]
fn mounts_of_volumes_are_known_by_their_last_two_names() {
    let workload: WorkloadId = "w-0123456789abcdef0".parse().unwrap();
    for (point, found) in [
        ("/data/volumes/w-0123456789abcdef0", true),
        ("/with\\040space/volumes/w-0123456789abcdef0", true),
        ("/data/volumes/w-0123456789abcdef0/scratch", false),
        ("/data/work/w-0123456789abcdef0", false),
        ("/data/volumes", false),
        ("/", false),
    ] {
        assert_eq!(volume_at(point), found.then(|| workload.clone()), "{point}");
    }
}
