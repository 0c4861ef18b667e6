//! How much of something each client holds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what each client holds, up to the same bound. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Shares {
    each: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One part held by one client, given back when dropped.
pub struct Share {
    of: Shares,
    client: IpAddr,
}

impl Shares {
    /// At most `each` for every client.
    pub fn of(each: usize) -> Self {
        Self {
            each,
            held: Arc::default(),
        }
    }

    /// One more for a client, unless it has its share.
    pub fn take(&self, client: IpAddr) -> Option<Share> {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = all.entry(client).or_default();
        if *held >= self.each {
            return None;
        }
        *held += 1;
        Some(Share {
            of: self.clone(),
            client,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = all.get_mut(&self.client) {
            *held -= 1;
            if *held == 0 {
                all.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_with_its_share_gets_no_more_and_its_neighbour_does() {
        let shares = Shares::of(2);
        let (greedy, other): (IpAddr, IpAddr) = ("10.0.0.4".parse().unwrap(), "10.0.0.5".parse().unwrap());
        let first = shares.take(greedy);
        let second = shares.take(greedy);
        assert!(first.is_some() && second.is_some() && shares.take(greedy).is_none());
        assert!(shares.take(other).is_some(), "the neighbour has its own");
        drop(first);
        assert!(shares.take(greedy).is_some(), "what was given back can be taken again");
        drop(second);
        assert!(
            shares.held.lock().unwrap().is_empty(),
            "nothing is kept of clients that hold nothing"
        );
    }
}
