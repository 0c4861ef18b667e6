//! Compiled policies by the content of their text (IAM-26): a changed text has another address, so nothing here is ever
//! stale.

use crate::document::{Compiled, DocumentKind};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The address of a text as one kind of document: SHA-256 over both. Texts come from users, and a weaker hash would let
/// one of them put a policy in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address([u8; 32]);

impl Address {
    /// The address of this text as a document of this kind.
    pub fn of(text: &str, kind: DocumentKind) -> Self {
        let kind: &[u8] = match kind {
            DocumentKind::Identity => b"identity\0",
            DocumentKind::Resource => b"resource\0",
            DocumentKind::Trust => b"trust\0",
            DocumentKind::Endpoint => b"endpoint\0",
        };
        Self(Sha256::new().chain_update(kind).chain_update(text).finalize().into())
    }
}

/// Keeps compiled texts up to a number of bytes of source text. What was not asked for lately goes first.
///
/// A value without locks: [`Self::get`] needs `&self`, so that readers can share one.
#[derive(Debug)]
pub struct CompiledCache {
    most_bytes: usize,
    held_bytes: usize,
    entries: HashMap<Address, Entry>,
    /// Every address once, the next to go in front.
    queue: VecDeque<Address>,
}

#[derive(Debug)]
struct Entry {
    policy: Arc<Compiled>,
    bytes: usize,
    /// Since its last turn at the front of the queue.
    used: AtomicBool,
}

impl CompiledCache {
    /// An empty cache for so many bytes of source text.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            held_bytes: 0,
            entries: HashMap::new(),
            queue: VecDeque::new(),
        }
    }

    /// The compiled form, if it is kept.
    pub fn get(&self, address: &Address) -> Option<Arc<Compiled>> {
        let entry = self.entries.get(address)?;
        entry.used.store(true, Ordering::Relaxed);
        Some(entry.policy.clone())
    }

    /// Keeps the compiled form of a text. One that is longer than the whole cache is not kept.
    pub fn put(&mut self, address: Address, text: &str, policy: Arc<Compiled>) {
        if text.len() > self.most_bytes || self.entries.contains_key(&address) {
            return;
        }
        while self.held_bytes + text.len() > self.most_bytes {
            let Some(oldest) = self.queue.pop_front() else { break };
            let used = self
                .entries
                .get(&oldest)
                .map(|entry| entry.used.swap(false, Ordering::Relaxed));
            if used == Some(true) {
                self.queue.push_back(oldest);
            } else if let Some(gone) = self.entries.remove(&oldest) {
                self.held_bytes -= gone.bytes;
            }
        }
        self.held_bytes += text.len();
        self.queue.push_back(address);
        self.entries.insert(
            address,
            Entry {
                policy,
                bytes: text.len(),
                used: AtomicBool::new(false),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl CompiledCache {
        /// As its holder uses it.
        fn read(&mut self, text: &str, kind: DocumentKind) -> Arc<Compiled> {
            let address = Address::of(text, kind);
            self.get(&address).unwrap_or_else(|| {
                let fresh = Arc::new(Compiled::new(text, kind));
                self.put(address, text, fresh.clone());
                fresh
            })
        }
    }

    fn text(action: &str) -> String {
        format!(r#"{{"Statement":{{"Effect":"Allow","Principal":"*","Action":"s3:{action}","Resource":"*"}}}}"#)
    }

    /// Proves: IAM-26
    #[test]
    fn a_text_is_read_once_and_a_changed_text_anew() {
        let mut cache = CompiledCache::new(10_000);
        let first = cache.read(&text("Aa"), DocumentKind::Resource);
        assert!(Arc::ptr_eq(&first, &cache.read(&text("Aa"), DocumentKind::Resource)));
        assert!(!Arc::ptr_eq(&first, &cache.read(&text("Ab"), DocumentKind::Resource)));
        let as_identity = cache.read(&text("Aa"), DocumentKind::Identity);
        assert!(
            first.malformed().is_none() && as_identity.malformed().is_some(),
            "the kind is part of the address"
        );
    }

    #[test]
    fn what_was_asked_for_lately_stays() {
        let size = text("A0").len();
        let mut cache = CompiledCache::new(3 * size);
        let address = |nth: usize| Address::of(&text(&format!("A{nth}")), DocumentKind::Resource);
        for nth in 0..3 {
            cache.read(&text(&format!("A{nth}")), DocumentKind::Resource);
        }
        assert!(cache.get(&address(0)).is_some());
        cache.read(&text("A3"), DocumentKind::Resource);
        let kept: Vec<bool> = (0..4).map(|nth| cache.get(&address(nth)).is_some()).collect();
        assert_eq!(kept, [true, false, true, true]);
        cache.read(&" ".repeat(4 * size), DocumentKind::Resource);
        assert_eq!(
            (cache.held_bytes, cache.queue.len(), cache.entries.len()),
            (3 * size, 3, 3)
        );
    }
}
