//! One message per frame: four bytes of length, then JSON; at most one descriptor rides on the first byte.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Longest message, bytes. A launch spec with 100 environment entries of 1 KiB is about 130 KiB.
pub const MAX_FRAME: usize = 8 << 20;

/// Why a frame could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed between two frames.
    #[error("the connection was closed")]
    Closed,
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("a frame of {0} bytes is longer than any message")]
    TooLong(usize),
    #[error("a frame holds no valid message")]
    Malformed(#[source] serde_json::Error),
}

/// Sends one message, with `descriptor` if there is one.
///
/// # Errors
/// When the connection fails or the message cannot be written as JSON.
pub fn send<M: Serialize>(
    stream: &UnixStream,
    message: &M,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), FrameError> {
    let body = serde_json::to_vec(message).map_err(FrameError::Malformed)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_FRAME)
        .ok_or(FrameError::TooLong(body.len()))?;
    let mut bytes = Vec::with_capacity(body.len() + 4);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let passed = descriptor.map(|fd| [fd]);
    if let Some(fds) = &passed {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let sent = retry(|| {
        sendmsg(
            stream.as_fd(),
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    let mut stream = stream;
    stream
        .write_all(bytes.get(sent..).unwrap_or_default())
        .map_err(FrameError::Io)
}

/// Receives one message and the descriptor that came with it.
///
/// # Errors
/// `Closed` at a clean end; otherwise what went wrong. A descriptor of a broken frame is closed.
pub fn receive<M: DeserializeOwned>(stream: &UnixStream) -> Result<(M, Option<OwnedFd>), FrameError> {
    let mut head = [0u8; 4];
    let mut descriptor = None;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = retry(|| {
        recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut head)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map(|received| received.bytes)
    })?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptor = fds.into_iter().next();
        }
    }
    if got == 0 {
        return Err(FrameError::Closed);
    }
    let mut stream = stream;
    stream
        .read_exact(head.get_mut(got..).unwrap_or_default())
        .map_err(FrameError::Io)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(FrameError::Io)?;
    Ok((
        serde_json::from_slice(&body).map_err(FrameError::Malformed)?,
        descriptor,
    ))
}

fn retry<T>(mut call: impl FnMut() -> Result<T, rustix::io::Errno>) -> Result<T, FrameError> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(|errno| FrameError::Io(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    #[test]
    fn a_message_and_its_descriptor_arrive_together() {
        let (left, right) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"passed").unwrap();
        file.rewind().unwrap();
        send(&left, &"hello", Some(file.as_fd())).unwrap();
        send(&left, &"alone", None).unwrap();
        let (text, fd) = receive::<String>(&right).unwrap();
        assert_eq!(text, "hello");
        let mut read = String::new();
        std::fs::File::from(fd.unwrap()).read_to_string(&mut read).unwrap();
        assert_eq!(read, "passed");
        let (text, fd) = receive::<String>(&right).unwrap();
        assert_eq!(text, "alone");
        assert!(fd.is_none());
    }

    #[test]
    fn long_messages_survive_partial_writes() {
        let (left, right) = UnixStream::pair().unwrap();
        let long = "x".repeat(3 << 20);
        let expected = long.clone();
        let writer = std::thread::spawn(move || send(&left, &long, None));
        assert_eq!(receive::<String>(&right).unwrap().0, expected);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_frame_longer_than_any_message_is_refused() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(receive::<String>(&right), Err(FrameError::TooLong(_))));
        drop(left);
        let (left, right) = UnixStream::pair().unwrap();
        drop(left);
        assert!(matches!(receive::<String>(&right), Err(FrameError::Closed)));
    }
}
