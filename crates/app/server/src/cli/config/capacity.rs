//! How much of the machine instances may hold.

use super::Span;
use isolarium_reconcile::scheduler::queue::Capacity;
use serde::{Deserialize, Serialize};
use std::io;

/// What is held in reserve for jobs and endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CapacitySettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<Room>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<Room>,
    pub account_percent: u64,
    pub endpoint_wait: Span,
}

impl Default for CapacitySettings {
    fn default() -> Self {
        Self {
            vcpus: None,
            memory_mib: None,
            account_percent: 100,
            endpoint_wait: Span::seconds(300),
        }
    }
}

/// A number, or `"host"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Room {
    Amount(u64),
    Word(RoomWord),
}

/// A capacity that is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomWord {
    /// What the machine has.
    Host,
}

impl CapacitySettings {
    /// The capacity, with what this machine has where it counts.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of_host(&self) -> io::Result<Capacity> {
        let vcpus = match self.vcpus {
            Some(Room::Word(RoomWord::Host)) => {
                let threads = std::thread::available_parallelism()?;
                Some(u64::try_from(threads.get()).unwrap_or(u64::MAX))
            }
            Some(Room::Amount(amount)) => Some(amount),
            None => None,
        };
        let memory_mib = match self.memory_mib {
            Some(Room::Word(RoomWord::Host)) => Some(memory_mib(&std::fs::read_to_string("/proc/meminfo")?)?),
            Some(Room::Amount(amount)) => Some(amount),
            None => None,
        };
        Ok(Capacity {
            vcpus,
            memory_mib,
            accelerators: 0,
            account_percent: self.account_percent,
        })
    }
}

/// `MemTotal` of `/proc/meminfo`, in MiB.
fn memory_mib(text: &str) -> io::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib / 1024)
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_or_a_number_is_the_capacity_and_nothing_is_no_limit() {
        let capacity = |text: &str| {
            let settings: CapacitySettings = toml::from_str(text).unwrap();
            let found = settings.of_host().unwrap();
            (found.vcpus, found.memory_mib)
        };
        assert_eq!(capacity(""), (None, None));
        assert_eq!(capacity("vcpus = 8\nmemory_mib = 1024"), (Some(8), Some(1024)));
        let (vcpus, memory_mib) = capacity("vcpus = \"host\"\nmemory_mib = \"host\"");
        assert!(vcpus > Some(0) && memory_mib > Some(0));
        assert!(toml::from_str::<CapacitySettings>("vcpus = \"all\"").is_err());
        assert_eq!(memory_mib_of("MemTotal:        4096 kB\nMemFree: 1 kB\n"), Some(4));
        assert_eq!(memory_mib_of("MemFree: 1 kB\n"), None);
    }

    fn memory_mib_of(text: &str) -> Option<u64> {
        memory_mib(text).ok()
    }
}
