//! One namespace with a route-netlink socket opened in it.

use super::netlink::Socket;
use super::netns;
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

    /// Runs `work` inside the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> io::Result<R> {
        if self.resident == Some(thread::current().id()) {
            return Ok(work());
        }
        netns::within(self.netns(), work)
    }
}
