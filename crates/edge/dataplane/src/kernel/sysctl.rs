//! Settings below `/proc/sys`, as the calling thread's namespace shows them.

use std::io;

/// Reads a setting; fields are separated by one tab, as the kernel prints them.
pub(crate) fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/sys/{path}")).map(|text| text.trim_end().to_owned())
}

pub(crate) fn write(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{path}"), value)
}
