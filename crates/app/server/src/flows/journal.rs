//! What was read of a VPC's traffic and is not in every flow log yet.

use isolarium_model::Timestamp;
use isolarium_netplan::flowlog::{FlowRecord, Interval, merge};
use isolarium_netplan::id::{FlowLogId, InterfaceId, SubnetId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Records of one minute that are kept at most; more are lost, and the flow logs say so.
const MOST: usize = 100_000;
/// Records of all minutes that are kept at most: whoever runs in a VPC chooses how many flows it begins, and its owner
/// whether they can be delivered.
const MOST_WAITING: usize = 200_000;
/// Minutes that are kept for flow logs which cannot deliver.
const BACKLOG: i64 = 60;

/// One VPC's journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// Where to read on.
    pub next: u64,
    /// When it was last read.
    pub read: Option<Timestamp>,
    /// By the beginning of the minute, Unix milliseconds.
    minutes: BTreeMap<i64, Minute>,
    /// Until when each flow log has delivered.
    delivered: BTreeMap<FlowLogId, Timestamp>,
}

/// The traffic of one minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Minute {
    records: Vec<FlowRecord>,
    lost: bool,
    /// Interfaces that were there, with their subnets.
    interfaces: BTreeMap<InterfaceId, SubnetId>,
    /// Records after they were joined last: they are joined again when there are twice as many.
    #[serde(default)]
    joined: usize,
}

/// What one flow log has to tell of one interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    pub interval: Interval,
    pub records: Vec<FlowRecord>,
    pub lost: bool,
    pub interfaces: BTreeMap<InterfaceId, SubnetId>,
}

/// A length of time in milliseconds, at least 1.
fn millis(length: std::time::Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn floor(time: Timestamp, length: i64) -> i64 {
    time.0.div_euclid(length).saturating_mul(length)
}

impl Journal {
    /// Adds what was read at `now`: `minute` is the length of a minute.
    pub fn add(
        &mut self,
        now: Timestamp,
        minute: std::time::Duration,
        records: Vec<FlowRecord>,
        lost: bool,
        interfaces: &BTreeMap<InterfaceId, SubnetId>,
    ) {
        let minute = millis(minute);
        // What belongs to a minute that has been told already goes to the first one that has not.
        let earliest = floor(self.read.unwrap_or(now), minute);
        let current = floor(now, minute);
        for at in [earliest, current] {
            let place = self.minutes.entry(at).or_default();
            place.interfaces.extend(interfaces);
            place.lost |= lost;
        }
        let mut room = MOST_WAITING.saturating_sub(self.waiting());
        for record in records {
            let at = floor(record.last, minute).clamp(earliest, current);
            let place = self.minutes.entry(at).or_default();
            place.interfaces.insert(record.interface, record.subnet);
            if place.records.len() < MOST && room > 0 {
                place.records.push(record);
                room -= 1;
            } else {
                place.lost = true;
            }
        }
        for place in self.minutes.values_mut() {
            if place.records.len() > MOST / 4 && place.records.len() / 2 >= place.joined {
                place.records = merge(std::mem::take(&mut place.records));
                place.joined = place.records.len();
            }
        }
        self.read = Some(now);
    }

    /// Records that wait for a flow log.
    fn waiting(&self) -> usize {
        self.minutes.values().map(|minute| minute.records.len()).sum()
    }

    /// The intervals of a flow log that are over and not delivered, oldest first. `length` is its aggregation interval.
    pub fn due(&self, flow_log: FlowLogId, created: Timestamp, length: std::time::Duration) -> Vec<Due> {
        let length = millis(length);
        let Some(read) = self.read else { return Vec::new() };
        let begin = self.delivered.get(&flow_log).copied().unwrap_or(created);
        let oldest = self.minutes.keys().next().copied().unwrap_or(read.0);
        let mut from = floor(Timestamp(begin.0.max(oldest)), length);
        let mut all = Vec::new();
        while from.saturating_add(length) <= read.0 {
            let until = from.saturating_add(length);
            let minutes = || self.minutes.range(from..until).map(|(_, minute)| minute);
            let begun = |record: &&FlowRecord| record.last >= created;
            let records = merge(minutes().flat_map(|minute| minute.records.iter().filter(begun).cloned()));
            all.push(Due {
                interval: Interval {
                    from: Timestamp(from),
                    until: Timestamp(until),
                },
                records,
                lost: minutes().any(|minute| minute.lost),
                interfaces: minutes().flat_map(|minute| minute.interfaces.clone()).collect(),
            });
            from = until;
        }
        all
    }

    /// A flow log has delivered until then.
    pub fn deliver(&mut self, flow_log: FlowLogId, until: Timestamp) {
        self.delivered.insert(flow_log, until);
    }

    /// Forgets what every flow log has, and what is too old. `flow_logs` are those that exist.
    pub fn forget(&mut self, flow_logs: &[FlowLogId], minute: std::time::Duration) {
        self.delivered.retain(|id, _| flow_logs.contains(id));
        if let Some(keep) = self.keeps_from(flow_logs, minute) {
            let minute = millis(minute);
            self.minutes.retain(|at, _| at.saturating_add(minute) > keep);
        }
    }

    /// Whether [`Self::forget`] would change anything.
    pub fn has_to_forget(&self, flow_logs: &[FlowLogId], minute: std::time::Duration) -> bool {
        let gone = self.delivered.keys().any(|id| !flow_logs.contains(id));
        let keep = self.keeps_from(flow_logs, minute);
        let first = self.minutes.keys().next();
        let over = keep
            .zip(first)
            .is_some_and(|(keep, at)| at.saturating_add(millis(minute)) <= keep);
        gone || over
    }

    /// Minutes that end later are kept.
    fn keeps_from(&self, flow_logs: &[FlowLogId], minute: std::time::Duration) -> Option<i64> {
        let minute = millis(minute);
        let read = self.read?;
        let current = floor(read, minute);
        let waits = |id: &FlowLogId| self.delivered.get(id).map_or(0, |until| until.0);
        let told = flow_logs.iter().map(waits).min().unwrap_or(current);
        let oldest = current.saturating_sub(minute.saturating_mul(BACKLOG));
        Some(told.max(oldest).min(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolarium_netplan::flowlog::Counts;
    use isolarium_netplan::reach::Direction;
    use proptest::prelude::*;
    use std::time::Duration;

    const MINUTE: Duration = Duration::from_secs(60);

    fn record(n: u128, last: i64, packets: u64) -> FlowRecord {
        FlowRecord {
            interface: InterfaceId::of(n),
            subnet: SubnetId::of(1),
            direction: Direction::Egress,
            accepted: true,
            source: "10.0.0.5".parse().unwrap(),
            destination: "10.0.0.6".parse().unwrap(),
            packet_source: "10.0.0.5".parse().unwrap(),
            packet_destination: "10.0.0.6".parse().unwrap(),
            source_port: 1,
            destination_port: 2,
            protocol: 6,
            counts: Counts {
                packets,
                bytes: packets,
            },
            tcp_flags: None,
            first: Timestamp(last),
            last: Timestamp(last),
            path: None,
        }
    }

    fn log(n: u128) -> FlowLogId {
        FlowLogId::of(n)
    }

    fn interfaces() -> BTreeMap<InterfaceId, SubnetId> {
        [(InterfaceId::of(1), SubnetId::of(1))].into()
    }

    /// Proves: NET-56
    #[test]
    fn an_interval_is_due_once_when_it_was_read_to_its_end() {
        let mut journal = Journal::default();
        let created = Timestamp(0);
        journal.add(
            Timestamp(10_000),
            MINUTE,
            vec![record(1, 9_000, 3)],
            false,
            &interfaces(),
        );
        assert_eq!(journal.due(log(1), created, MINUTE), [], "the minute goes on");
        journal.add(
            Timestamp(61_000),
            MINUTE,
            vec![record(1, 59_999, 4), record(1, 60_500, 5)],
            false,
            &interfaces(),
        );
        let due = journal.due(log(1), created, MINUTE);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].interval.from.0, due[0].interval.until.0), (0, 60_000));
        assert_eq!(due[0].records[0].counts.packets, 7, "both reads");
        journal.deliver(log(1), due[0].interval.until);
        journal.forget(&[log(1)], MINUTE);
        assert_eq!(journal.due(log(1), created, MINUTE), []);
        journal.add(Timestamp(125_000), MINUTE, Vec::new(), false, &interfaces());
        assert_eq!(journal.due(log(1), created, MINUTE)[0].records[0].counts.packets, 5);
    }

    #[test]
    fn a_long_interval_joins_its_minutes_and_a_short_one_beside_it_does_not_wait() {
        let mut journal = Journal::default();
        for minute in 0..11 {
            let now = minute * 60_000 + 30_000;
            journal.add(
                Timestamp(now),
                MINUTE,
                vec![record(1, now, 1)],
                minute == 3,
                &interfaces(),
            );
            for due in journal.due(log(1), Timestamp(0), MINUTE) {
                journal.deliver(log(1), due.interval.until);
            }
            journal.forget(&[log(1), log(2)], MINUTE);
        }
        let due = journal.due(log(2), Timestamp(0), MINUTE * 10);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].records[0].counts.packets, due[0].lost), (10, true));
        assert_eq!(journal.due(log(1), Timestamp(0), MINUTE), [], "all told");
    }

    #[test]
    fn a_flow_log_tells_nothing_of_before_it_was_made() {
        let mut journal = Journal::default();
        journal.add(
            Timestamp(50_000),
            MINUTE,
            vec![record(1, 20_000, 1), record(2, 40_000, 1)],
            false,
            &interfaces(),
        );
        journal.add(Timestamp(60_000), MINUTE, Vec::new(), false, &interfaces());
        let due = journal.due(log(1), Timestamp(30_000), MINUTE);
        let told: Vec<InterfaceId> = due[0].records.iter().map(|one| one.interface).collect();
        assert_eq!(told, [InterfaceId::of(2)]);
    }

    #[test]
    fn a_flow_log_that_cannot_deliver_holds_an_hour_back() {
        let mut journal = Journal::default();
        for minute in 0..200 {
            journal.add(
                Timestamp(minute * 60_000),
                MINUTE,
                vec![record(1, minute * 60_000, 1)],
                false,
                &interfaces(),
            );
            journal.forget(&[log(1)], MINUTE);
        }
        assert!(journal.minutes.len() <= 62, "{}", journal.minutes.len());
        assert!(journal.due(log(1), Timestamp(0), MINUTE).len() >= 59);
    }

    /// A container that begins as many flows as it can, in a VPC whose flow log cannot deliver.
    #[test]
    fn a_whole_journal_has_a_bound_and_says_what_it_lost() {
        let mut journal = Journal::default();
        for minute in 0..3i64 {
            let now = minute * 60_000 + 30_000;
            let flows = (0..90_000u32).map(|n| FlowRecord {
                destination: std::net::Ipv4Addr::from(n),
                ..record(1, now, 1)
            });
            journal.add(Timestamp(now), MINUTE, flows.collect(), false, &interfaces());
            journal.forget(&[log(1)], MINUTE);
        }
        assert_eq!(journal.waiting(), MOST_WAITING);
        journal.add(Timestamp(180_000), MINUTE, Vec::new(), false, &interfaces());
        let lost: Vec<bool> = journal
            .due(log(1), Timestamp(0), MINUTE)
            .iter()
            .map(|due| due.lost)
            .collect();
        assert_eq!(
            lost,
            [false, false, true],
            "what found no room is told as lost, and nothing else"
        );
        journal.deliver(log(1), Timestamp(60_000));
        journal.forget(&[log(1)], MINUTE);
        assert_eq!(
            journal.waiting(),
            MOST_WAITING - 90_000,
            "control: what is delivered makes room"
        );
    }

    proptest! {
        /// However reading and delivering alternate, and however often the journal comes back from disk, every packet is
        /// told exactly once.
        #[test]
        fn every_packet_is_told_once(steps in proptest::collection::vec((1i64..90_000, 0u64..5, any::<bool>()), 1..30)) {
            let mut journal = Journal::default();
            let (mut now, mut sent, mut told) = (0, 0, 0);
            let deliver = |journal: &mut Journal| {
                let mut told = 0;
                for due in journal.due(log(1), Timestamp(0), MINUTE) {
                    told += due.records.iter().map(|one| one.counts.packets).sum::<u64>();
                    journal.deliver(log(1), due.interval.until);
                }
                journal.forget(&[log(1)], MINUTE);
                told
            };
            for (later, packets, delivers) in steps {
                now += later;
                sent += packets;
                let records = if packets == 0 { Vec::new() } else { vec![record(1, now - later / 2, packets)] };
                journal.add(Timestamp(now), MINUTE, records, false, &interfaces());
                journal = serde_json::from_str(&serde_json::to_string(&journal).unwrap()).unwrap();
                if delivers {
                    told += deliver(&mut journal);
                }
            }
            journal.add(Timestamp(now + 60_000), MINUTE, Vec::new(), false, &interfaces());
            told += deliver(&mut journal);
            prop_assert_eq!(sent, told);
        }
    }
}
