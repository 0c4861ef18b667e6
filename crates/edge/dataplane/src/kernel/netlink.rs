//! Route netlink: requests in batches, dumps, attributes. Only what the data plane needs.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const HEADER: usize = 16;
/// The kernel never sends more than 32 KiB in one message of a dump.
const RECEIVE: usize = 64 << 10;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const SOL_NETLINK: i32 = 270;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// Flags of requests that make something: it must not exist yet.
pub const CREATE_NEW: u16 = 0x400 | 0x200;
/// Flags of requests that make something or overwrite what is there.
pub const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;

/// One request: a message type, its fixed header and attributes.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Begins a request. `fixed` is the type's own header (`ifinfomsg`, `rtmsg`, ...).
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        put(&mut bytes, 4, &kind.to_ne_bytes());
        put(&mut bytes, 6, &(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        pad(&mut bytes);
        Self { bytes }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, payload: &[u8]) -> Self {
        attribute(&mut self.bytes, kind, |bytes| bytes.extend_from_slice(payload));
        self
    }

    /// Adds an attribute that holds others, or a header and others.
    #[must_use]
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> Self {
        attribute(&mut self.bytes, kind, fill);
        self
    }

    fn finish(mut self, sequence: u32, more_flags: u16) -> Vec<u8> {
        let flags = u16::from_ne_bytes([byte(&self.bytes, 6), byte(&self.bytes, 7)]) | more_flags;
        put(&mut self.bytes, 6, &flags.to_ne_bytes());
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        put(&mut self.bytes, 0, &length.to_ne_bytes());
        put(&mut self.bytes, 8, &sequence.to_ne_bytes());
        self.bytes
    }
}

/// Appends an attribute to a buffer.
pub fn attribute(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    fill(bytes);
    // Attributes are far below 64 KiB: names, addresses, a few numbers.
    let length = u16::try_from(bytes.len() - start).unwrap_or(u16::MAX);
    put(bytes, start, &length.to_ne_bytes());
    put(bytes, start + 2, &kind.to_ne_bytes());
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// A received message.
#[derive(Debug, Clone)]
pub struct Message {
    /// `RTM_NEWLINK` and so on.
    pub kind: u16,
    body: Vec<u8>,
}

impl Message {
    /// The first `N` bytes: the type's own header. Absent bytes are zero.
    pub fn fixed<const N: usize>(&self) -> [u8; N] {
        std::array::from_fn(|at| byte(&self.body, at))
    }

    /// The attributes behind a header of `fixed` bytes, in order.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.body.get(fixed.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// Walks over attributes.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of a kind.
    pub fn find(self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self;
        Iterator::find(&mut rest, |(kind, _)| *kind == wanted).map(|(_, payload)| payload)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes([*self.0.first()?, *self.0.get(1)?]));
        // The two upper bits say "nested" and "network byte order".
        let kind = u16::from_ne_bytes([*self.0.get(2)?, *self.0.get(3)?]) & 0x3fff;
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A number in an attribute; zero where it is short.
pub fn number(payload: &[u8]) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|at| byte(payload, at)))
}

/// A route-netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn open() -> io::Result<Self> {
        Self::open_protocol(None)
    }

    fn open_protocol(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_flag(&fd, NETLINK_EXT_ACK)?;
        // Without it the kernel ignores the filters of dumps.
        set_flag(&fd, NETLINK_GET_STRICT_CHK)?;
        Ok(Self {
            fd,
            sequence: 1,
            buffer: vec![0; RECEIVE],
        })
    }

    /// Opens a socket for nftables and conntrack of the calling thread's namespace.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn open_netfilter() -> io::Result<Self> {
        Self::open_protocol(Some(rustix::net::netlink::NETFILTER))
    }

    /// The number of the current nftables generation; it changes with every transaction, whoever made it. Only for a
    /// socket of [`Self::open_netfilter`].
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn generation(&mut self) -> io::Result<u32> {
        const NFT_MSG_GETGEN: u16 = (10 << 8) | 16;
        const NFTA_GEN_ID: u16 = 1;
        let answer = self.get(Request::new(NFT_MSG_GETGEN, 0, &[0; 4]))?;
        let id = answer
            .attributes(4)
            .find(NFTA_GEN_ID)
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(u32::from_be_bytes(id.try_into().map_err(io::Error::other)?))
    }

    /// Sends requests of nftables as one transaction: all of them or none, and none when the generation is no longer
    /// `generation`. Only for a socket of [`Self::open_netfilter`].
    ///
    /// # Errors
    /// The first refusal, or when the kernel could not be talked to.
    pub fn transact(&mut self, generation: u32, requests: Vec<Request>) -> io::Result<()> {
        const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
        const NFNL_MSG_BATCH_END: u16 = 0x11;
        const NFNL_BATCH_GENID: u16 = 1;
        // No family, version 0, subsystem nftables.
        const HEAD: [u8; 4] = [0, 0, 0, 10];
        let count = requests.len();
        let first = self.next_sequences(count + 2);
        let begin = Request::new(NFNL_MSG_BATCH_BEGIN, 0, &HEAD).with(NFNL_BATCH_GENID, &generation.to_be_bytes());
        let mut bytes = begin.finish(first, 0);
        let mut sequence = first;
        for request in requests {
            sequence = sequence.wrapping_add(1);
            bytes.extend(request.finish(sequence, NLM_F_ACK));
        }
        let last = sequence.wrapping_add(1);
        bytes.extend(Request::new(NFNL_MSG_BATCH_END, 0, &HEAD).finish(last, 0));
        self.send(&bytes)?;
        let mut answers = 0;
        let mut refusal = None;
        while answers < count {
            for received in self.receive()? {
                let at = usize::try_from(received.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if at > count + 1 || received.kind != NLMSG_ERROR {
                    continue;
                }
                match received.error() {
                    None => answers += 1,
                    // The whole batch is refused at its beginning: nothing else is answered.
                    Some(error) if at == 0 => return Err(error),
                    Some(error) => {
                        answers += 1;
                        refusal = refusal.or(Some(error));
                    }
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Sends all requests at once and waits until each is answered. Returns those that were refused, by position; the
    /// others were carried out.
    ///
    /// # Errors
    /// When the kernel could not be talked to at all.
    pub fn carry_out(&mut self, requests: &[Request]) -> io::Result<Vec<(usize, io::Error)>> {
        // The answers to one batch must fit into the socket's receive buffer.
        const BATCH: usize = 64;
        let mut refused = Vec::new();
        for (at, batch) in requests.chunks(BATCH).enumerate() {
            let answers = self.carry_out_batch(batch)?;
            refused.extend(answers.into_iter().map(|(within, error)| (at * BATCH + within, error)));
        }
        Ok(refused)
    }

    fn carry_out_batch(&mut self, requests: &[Request]) -> io::Result<Vec<(usize, io::Error)>> {
        let count = requests.len();
        let first = self.next_sequences(count);
        let mut bytes = Vec::new();
        for (sequence, request) in (first..).zip(requests) {
            bytes.extend(request.clone().finish(sequence, NLM_F_ACK));
        }
        self.send(&bytes)?;
        let mut answers = 0;
        let mut refused = Vec::new();
        while answers < count {
            for received in self.receive()? {
                let at = usize::try_from(received.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if at >= count || received.kind != NLMSG_ERROR {
                    continue;
                }
                answers += 1;
                refused.extend(received.error().map(|error| (at, error)));
            }
        }
        Ok(refused)
    }

    /// Asks for one object.
    ///
    /// # Errors
    /// Those of the kernel; `ENODEV` or `ENOENT` where it does not exist.
    pub fn get(&mut self, request: Request) -> io::Result<Message> {
        let sequence = self.next_sequences(1);
        let bytes = request.finish(sequence, 0);
        self.send(&bytes)?;
        loop {
            for received in self.receive()? {
                if received.sequence != sequence {
                    continue;
                }
                if received.kind == NLMSG_ERROR {
                    return Err(received
                        .error()
                        .unwrap_or_else(|| io::Error::from(io::ErrorKind::InvalidData)));
                }
                return Ok(Message {
                    kind: received.kind,
                    body: received.body,
                });
            }
        }
    }

    /// Asks for all objects of a kind; repeats when they changed meanwhile.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn dump(&mut self, request: &Request) -> io::Result<Vec<Message>> {
        const TRIES: u32 = 20;
        for _ in 0..TRIES {
            if let Some(all) = self.dump_once(request.clone())? {
                return Ok(all);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's list kept changing while it was read",
        ))
    }

    fn dump_once(&mut self, request: Request) -> io::Result<Option<Vec<Message>>> {
        let sequence = self.next_sequences(1);
        let bytes = request.finish(sequence, NLM_F_DUMP);
        self.send(&bytes)?;
        let mut all = Vec::new();
        let mut torn = false;
        loop {
            for received in self.receive()? {
                if received.sequence != sequence {
                    continue;
                }
                torn |= received.flags & NLM_F_DUMP_INTR != 0;
                match received.kind {
                    NLMSG_DONE => {
                        return match received.error() {
                            Some(error) => Err(error),
                            None => Ok((!torn).then_some(all)),
                        };
                    }
                    NLMSG_ERROR => return Err(received.error().unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
                    kind => all.push(Message {
                        kind,
                        body: received.body,
                    }),
                }
            }
        }
    }

    fn next_sequences(&mut self, count: usize) -> u32 {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(u32::try_from(count).unwrap_or(1));
        first
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.fd, bytes, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<Received>> {
        let (length, _) = rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        let mut all = Vec::new();
        while rest.len() >= HEADER {
            let size = usize::try_from(number(rest)).unwrap_or(usize::MAX);
            let Some(message) = rest.get(..size).filter(|message| message.len() >= HEADER) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a netlink message longer than its datagram",
                ));
            };
            all.push(Received {
                kind: u16::from_ne_bytes([byte(message, 4), byte(message, 5)]),
                flags: u16::from_ne_bytes([byte(message, 6), byte(message, 7)]),
                sequence: number(message.get(8..).unwrap_or_default()),
                body: message.get(HEADER..).unwrap_or_default().to_vec(),
            });
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(all)
    }
}

/// A netfilter socket that hears of what happens.
#[derive(Debug)]
pub struct Events(Socket);

/// What a wait brought.
#[derive(Debug)]
pub enum Heard {
    /// Events, at least one.
    Messages(Vec<Message>),
    /// The time passed.
    Nothing,
    /// Events were lost: they came faster than they were heard.
    TooMuch,
}

impl Events {
    /// Listens to the groups of this mask in the calling thread's namespace.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn open(groups: u32) -> io::Result<Self> {
        const ROOM: usize = 8 << 20;
        let socket = Socket::open_netfilter()?;
        // Without the privilege the ordinary size has to do.
        let _smaller = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket.fd, ROOM);
        rustix::net::bind(&socket.fd, &rustix::net::netlink::SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    /// Waits for events.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn wait(&mut self, at_most: Duration) -> io::Result<Heard> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let at_most = Timespec::try_from(at_most).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.0.fd, PollFlags::IN)], Some(&at_most)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Heard::Nothing),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        match self.0.receive() {
            Ok(received) => Ok(Heard::Messages(
                received
                    .into_iter()
                    .map(|one| Message {
                        kind: one.kind,
                        body: one.body,
                    })
                    .collect(),
            )),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Heard::TooMuch),
            Err(error) => Err(error),
        }
    }
}

struct Received {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: Vec<u8>,
}

impl Received {
    /// The error in an answer or at the end of a dump; `None` is success.
    fn error(&self) -> Option<io::Error> {
        let code = i32::from_ne_bytes(std::array::from_fn(|at| byte(&self.body, at)));
        if code == 0 {
            return None;
        }
        let plain = io::Error::from_raw_os_error(code.saturating_neg());
        match self.explanation() {
            Some(text) => Some(io::Error::new(plain.kind(), Explained { text, errno: plain })),
            None => Some(plain),
        }
    }

    fn explanation(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 || self.kind != NLMSG_ERROR {
            return None;
        }
        // Error code, then the refused message: its header alone when capped.
        let echoed = usize::try_from(number(self.body.get(4..)?)).ok()?;
        let skipped = if self.flags & NLM_F_CAPPED == 0 {
            echoed.next_multiple_of(4)
        } else {
            HEADER
        };
        let text = Attributes(self.body.get(4 + skipped..)?).find(NLMSGERR_ATTR_MSG)?;
        Some(String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned())
    }
}

/// The kernel's error number with its own words.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({errno})")]
struct Explained {
    text: String,
    errno: io::Error,
}

/// The error number of a netlink error, explained or not.
pub fn errno(error: &io::Error) -> Option<i32> {
    let explained = error.get_ref().and_then(|inner| inner.downcast_ref::<Explained>());
    explained.map_or_else(|| error.raw_os_error(), |explained| explained.errno.raw_os_error())
}

#[expect(unsafe_code, reason = "netlink's socket options have no safe wrapper")]
fn set_flag(fd: &OwnedFd, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the descriptor is open, the pointer is to a live integer of the given size.
    let code = unsafe { libc::setsockopt(fd.as_raw_fd(), SOL_NETLINK, option, (&raw const on).cast(), size) };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
