//! How a new fleet takes the place of the one that serves: step by step (SM-24), or after it where there is no room for
//! both (AU-28). As values; the endpoint's loop brings instances up and down by what is said here.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All of the traffic, in the unit of [`Shift::shares`].
pub const WHOLE: u32 = 10_000;

/// How the pending fleet of an update takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Takeover {
    /// The fleet that served has been taken down to make room (AU-28). Until the new one is healthy nothing serves.
    InPlace,
    /// Traffic moves from one fleet to the other.
    Shift(Shift),
}

/// Traffic that moves in steps, with time to look at each (SM-24).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// What the new fleet gets of the traffic at each step, in ten-thousandths: rising, the last one is [`WHOLE`].
    shares: Vec<u32>,
    /// Seconds that each step is kept, the last one included.
    wait: u64,
    /// Further seconds before the old fleet is terminated.
    termination: u64,
    /// Seconds that the deployment may take; then it is rolled back.
    limit: Option<u64>,
    /// Instances come and go with their traffic; else both fleets are whole all the time.
    rolling: bool,
    /// The step that is on: its instances start, or it has its traffic.
    step: usize,
    /// Since when it has its traffic; `None` while its instances start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
}

/// What is to be done about a shift now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing before this time.
    Waits(Timestamp),
    /// The next step has begun.
    Moved,
    /// The new fleet has taken over; the old one may go.
    Over,
}

impl Shift {
    /// All traffic at once, then the waits.
    pub fn at_once(wait: u64, termination: u64) -> Self {
        Self::by(vec![WHOLE], wait, termination)
    }

    /// A canary of `first` ten-thousandths, then the rest.
    pub fn canary(first: u32, wait: u64, termination: u64) -> Self {
        Self::by(vec![first.min(WHOLE), WHOLE], wait, termination)
    }

    /// Steps of `step` ten-thousandths, at least one.
    pub fn linear(step: u32, wait: u64, termination: u64) -> Self {
        let step = step.clamp(1, WHOLE);
        let steps = WHOLE.div_ceil(step);
        let shares = (1..=steps).map(|number| step.saturating_mul(number).min(WHOLE));
        Self::by(shares.collect(), wait, termination)
    }

    /// As many equal steps as given, each with instances of its own.
    pub fn rolling(steps: u32, wait: u64) -> Self {
        let steps = steps.clamp(1, WHOLE);
        let share = |number: u32| {
            let share = u64::from(WHOLE) * u64::from(number) / u64::from(steps);
            u32::try_from(share).unwrap_or(WHOLE)
        };
        Self {
            rolling: true,
            ..Self::by((1..=steps).map(share).collect(), wait, 0)
        }
    }

    fn by(mut shares: Vec<u32>, wait: u64, termination: u64) -> Self {
        shares.dedup();
        Self {
            shares,
            wait,
            termination,
            limit: None,
            rolling: false,
            step: 0,
            since: None,
        }
    }

    /// The same with a time limit in seconds.
    pub fn within(self, limit: Option<u64>) -> Self {
        Self { limit, ..self }
    }

    /// Seconds that all waits take together.
    pub fn waits(&self) -> u64 {
        let steps = u64::try_from(self.shares.len()).unwrap_or(u64::MAX);
        self.wait.saturating_mul(steps).saturating_add(self.termination)
    }

    /// Whether nothing distinguishes it from a takeover without steps and waits.
    pub fn is_plain(&self) -> bool {
        self.shares.len() == 1 && !self.rolling && self.waits() == 0 && self.limit.is_none()
    }

    /// What the new fleet gets of the traffic now, in ten-thousandths.
    pub fn share(&self) -> u32 {
        match (self.since, self.step.checked_sub(1)) {
            (Some(_), _) => self.at(self.step),
            (None, Some(before)) => self.at(before),
            (None, None) => 0,
        }
    }

    /// Since when the present step has its traffic; `None` while its instances start.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    fn at(&self, step: usize) -> u32 {
        self.shares.get(step).copied().unwrap_or(WHOLE)
    }

    /// How many of a variant's `all` instances the new fleet is to have now. Counted by batches, not by shares: these are
    /// rounded.
    pub fn fresh(&self, all: usize) -> usize {
        if self.rolling {
            all.saturating_mul(self.step.saturating_add(1))
                .div_ceil(self.steps())
                .min(all)
        } else {
            all
        }
    }

    /// How many of a variant's `all` instances the old fleet keeps: those of a step go once it is over. As many as its
    /// traffic asks for, but both fleets together never have more than a batch beyond `all`.
    pub fn old(&self, all: usize) -> usize {
        if !self.rolling {
            return all;
        }
        let left = self.steps().saturating_sub(self.step);
        let batch = all.div_ceil(self.steps());
        let room = all.saturating_add(batch).saturating_sub(self.fresh(all));
        all.saturating_mul(left).div_ceil(self.steps()).min(room)
    }

    /// At least one.
    fn steps(&self) -> usize {
        self.shares.len().max(1)
    }

    /// The time after which a deployment that began at `started` is rolled back.
    pub fn deadline(&self, started: Timestamp) -> Option<Timestamp> {
        Some(started.after(Duration::from_secs(self.limit?)))
    }

    /// Goes on as far as it can now. Every instance that [`Self::fresh`] asks for is healthy.
    pub fn go_on(&mut self, now: Timestamp) -> Progress {
        let Some(since) = self.since else {
            self.since = Some(now);
            return Progress::Moved;
        };
        let last = self.step.saturating_add(1) >= self.shares.len();
        let more = if last { self.termination } else { 0 };
        let due = since.after(Duration::from_secs(self.wait.saturating_add(more)));
        if now < due {
            return Progress::Waits(due);
        }
        if last {
            return Progress::Over;
        }
        self.step = self.step.saturating_add(1);
        self.since = None;
        Progress::Moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shift does from second to second until it is over: the share, and both fleets' instances of `all`.
    fn told(mut shift: Shift, all: usize) -> Vec<(i64, u32, usize, usize)> {
        let mut told = Vec::new();
        for second in 0.. {
            let now = Timestamp(second * 1000);
            while shift.go_on(now) == Progress::Moved {}
            told.push((second, shift.share(), shift.old(all), shift.fresh(all)));
            if shift.go_on(now) == Progress::Over {
                return told;
            }
        }
        told
    }

    /// Proves: SM-24
    #[test]
    fn traffic_moves_by_the_steps_that_were_asked_for_and_waits_after_each() {
        assert_eq!(
            told(Shift::canary(1000, 2, 1), 4),
            [
                (0, 1000, 4, 4),
                (1, 1000, 4, 4),
                (2, 10_000, 4, 4),
                (3, 10_000, 4, 4),
                (4, 10_000, 4, 4),
                (5, 10_000, 4, 4)
            ]
        );
        let shares = |shift| {
            told(shift, 4)
                .into_iter()
                .map(|(_, share, ..)| share)
                .collect::<Vec<_>>()
        };
        assert_eq!(shares(Shift::linear(3000, 1, 0)), [3000, 6000, 9000, 10_000, 10_000]);
        assert_eq!(shares(Shift::at_once(1, 1)), [10_000, 10_000, 10_000]);
    }

    /// Proves: SM-24
    #[test]
    fn a_rolling_update_brings_instances_and_lets_them_go_with_their_traffic() {
        assert_eq!(
            told(Shift::rolling(2, 1), 3),
            [(0, 5000, 3, 2), (1, 10_000, 2, 3), (2, 10_000, 2, 3)],
            "those of a step stay until it has been looked at"
        );
        assert_eq!(told(Shift::rolling(1, 0), 1), [(0, 10_000, 1, 1)]);
        assert_eq!(
            told(Shift::rolling(3, 1), 3),
            [(0, 3333, 3, 1), (1, 6666, 2, 2), (2, 10_000, 1, 3), (3, 10_000, 1, 3)],
            "shares that are rounded keep no instance"
        );
        assert_eq!(
            told(Shift::rolling(3, 1), 5),
            [(0, 3333, 5, 2), (1, 6666, 3, 4), (2, 10_000, 2, 5), (3, 10_000, 2, 5)]
        );
        for (steps, all) in (1..=20).flat_map(|steps| (1..=40_usize).map(move |all| (steps, all))) {
            let batch = all.div_ceil(usize::try_from(steps).unwrap());
            for (second, _, old, fresh) in told(Shift::rolling(steps, 1), all) {
                let is_right = old >= 1 && fresh >= 1 && (all..=all + batch).contains(&(old + fresh));
                assert!(is_right, "{steps} steps of {all} at {second}: {old} and {fresh}");
            }
        }
    }

    #[test]
    fn before_its_first_instances_are_healthy_a_shift_has_no_traffic() {
        let mut shift = Shift::canary(1000, 5, 0);
        assert_eq!((shift.share(), shift.since()), (0, None));
        assert_eq!(shift.go_on(Timestamp(7)), Progress::Moved);
        assert_eq!((shift.share(), shift.since()), (1000, Some(Timestamp(7))));
        assert_eq!(shift.go_on(Timestamp(8)), Progress::Waits(Timestamp(5007)));
        assert_eq!(shift.go_on(Timestamp(5007)), Progress::Moved);
        assert_eq!(shift.share(), 1000, "until the next step's instances are there");
    }

    #[test]
    fn only_a_takeover_without_steps_waits_and_limits_is_plain() {
        assert!(Shift::at_once(0, 0).is_plain());
        assert!(!Shift::at_once(1, 0).is_plain());
        assert!(!Shift::at_once(0, 0).within(Some(600)).is_plain());
        assert!(!Shift::rolling(1, 0).is_plain());
        assert_eq!(Shift::linear(2500, 60, 30).waits(), 270);
        assert_eq!(
            Shift::at_once(0, 0).within(Some(600)).deadline(Timestamp(5)),
            Some(Timestamp(600_005))
        );
    }
}
