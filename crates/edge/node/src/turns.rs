//! How threads take turns on a processor.

use std::io;
use std::time::Duration;

/// The kernel's `struct sched_attr`, first version.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of an ordinary thread: the length of its turn, nanoseconds.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// `size_of::<Attributes>()`, as the kernel wants to be told.
const SIZE: u32 = 48;
/// The calling thread.
const SELF: libc::c_long = 0;
/// No flags.
const NONE: libc::c_long = 0;

/// Asks for turns of about this length for the calling thread; zero: the length that the kernel gives every thread. A thread with short turns gets no larger share of the
/// processor, but when it wakes it need not wait for the end of the turn of a thread with longer ones (Linux 6.12 and
/// later; older kernels take no notice). The kernel keeps lengths between 0.1 and 100 ms.
///
/// # Errors
/// What the operating system said. The thread goes on as before.
pub fn ask(turn: Duration) -> io::Result<()> {
    let mut attributes = Attributes {
        size: SIZE,
        policy: 0,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: 0,
        deadline: 0,
        period: 0,
    };
    get(&mut attributes)?;
    attributes.runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
    set(&attributes)
}

#[expect(unsafe_code, reason = "sched_getattr has no wrapper")]
fn get(attributes: &mut Attributes) -> io::Result<()> {
    // SAFETY: the kernel writes at most `SIZE` bytes, which the struct has.
    check(unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            SELF,
            &raw mut *attributes,
            libc::c_long::from(SIZE),
            NONE,
        )
    })
}

#[expect(unsafe_code, reason = "sched_setattr has no wrapper")]
fn set(attributes: &Attributes) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the struct says that it has.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, SELF, &raw const *attributes, NONE) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread of its own: the one that runs the test stays as it is.
    #[test]
    fn a_thread_keeps_its_policy_and_niceness_and_is_given_the_turn_it_asks_for() {
        assert_eq!(size_of::<Attributes>(), usize::try_from(SIZE).unwrap());
        let read = || {
            let mut now = Attributes {
                size: SIZE,
                policy: 9,
                flags: 0,
                nice: 9,
                priority: 9,
                runtime: 0,
                deadline: 0,
                period: 0,
            };
            get(&mut now).unwrap();
            now
        };
        let (before, after) = std::thread::spawn(move || {
            let before = read();
            ask(Duration::from_micros(300)).unwrap();
            let after = read();
            ask(Duration::ZERO).unwrap();
            assert_eq!(read().runtime, before.runtime);
            (before, after)
        })
        .join()
        .unwrap();
        assert_eq!((after.policy, after.nice), (before.policy, before.nice));
        // Kernels that know no turns of ordinary threads tell 0.
        assert!(after.runtime == 300_000 || (before.runtime == 0 && after.runtime == 0));
    }
}
