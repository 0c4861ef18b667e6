//! One namespace with a route-netlink socket opened in it.

use super::netlink::Socket;
use super::{netns, sysctl};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

/// A namespace that can be asked and changed from any thread.
#[derive(Debug)]
pub struct Handle {
    netns: OwnedFd,
    socket: Mutex<Socket>,
    /// For nftables and conntrack; opened when it is first needed.
    netfilter: OnceLock<Mutex<Socket>>,
    /// The thread that lives in this namespace, if the handle was made by it.
    resident: Option<ThreadId>,
    /// The settings as that thread sees them.
    settings: OnceLock<sysctl::Fresh>,
}

impl Handle {
    /// A handle on an existing namespace.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn open(netns: OwnedFd) -> io::Result<Self> {
        let socket = netns::within(netns.as_fd(), Socket::open)??;
        Ok(Self {
            netns,
            socket: Mutex::new(socket),
            netfilter: OnceLock::new(),
            resident: None,
            settings: OnceLock::new(),
        })
    }

    /// A handle made by a thread that is inside the namespace and stays there: nothing has to be entered.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn resident(netns: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            netns,
            socket: Mutex::new(Socket::open()?),
            netfilter: OnceLock::new(),
            resident: Some(thread::current().id()),
            settings: OnceLock::new(),
        })
    }

    /// The namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Gives up the socket and keeps the namespace.
    pub fn into_netns(self) -> OwnedFd {
        self.netns
    }

    /// The socket. A request and its answers are one turn, so it is held for that long.
    pub fn socket(&self) -> MutexGuard<'_, Socket> {
        // A panic between request and answer leaves answers behind; the socket's sequence numbers tell them apart.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The netfilter socket, held as [`Self::socket`].
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn netfilter(&self) -> io::Result<MutexGuard<'_, Socket>> {
        let socket = match self.netfilter.get() {
            Some(socket) => socket,
            None => {
                let opened = self.run(Socket::open_netfilter)??;
                self.netfilter.get_or_init(|| Mutex::new(opened))
            }
        };
        Ok(socket.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the calling thread made this handle in a fresh namespace, and lives there.
    pub(crate) fn is_resident(&self) -> bool {
        self.resident == Some(thread::current().id())
    }

    /// For the thread that lives here, and for no other: what it shows is the calling thread's.
    fn settings(&self) -> Option<&sysctl::Fresh> {
        self.is_resident()
            .then(|| self.settings.get_or_init(sysctl::Fresh::new))
    }

    /// Writes a setting below `/proc/sys`. To be called within [`Self::run`].
    ///
    /// # Errors
    /// When there is no such setting, or it does not take the value.
    pub(crate) fn set(&self, path: &str, value: &str) -> io::Result<()> {
        match self.settings() {
            Some(fresh) => fresh.write(path, value),
            None => sysctl::write(path, value),
        }
    }

    /// Reads a setting, as [`sysctl::read`]. To be called within [`Self::run`].
    ///
    /// # Errors
    /// When there is no such setting.
    pub(crate) fn setting(&self, path: &str) -> io::Result<String> {
        match self.settings() {
            Some(fresh) => fresh.read(path),
            None => sysctl::read(path),
        }
    }

    /// Runs `work` inside the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> io::Result<R> {
        if self.is_resident() {
            return Ok(work());
        }
        netns::within(self.netns(), work)
    }
}
