//! One message with descriptors on a Unix stream socket: between `node` and the processes it starts.

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

/// Longest message, bytes. A launch spec of the greatest lengths `node` admits stays below.
const LONGEST: usize = 64 << 20;

/// Most descriptors in a message.
const MOST_DESCRIPTORS: usize = 6;

/// Sends `message` and lends `descriptors` to the receiver, who gets copies.
///
/// # Errors
/// What the socket answers; a message over 64 MiB.
pub fn send<T: Serialize>(stream: &UnixStream, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= LONGEST)
        .ok_or_else(too_long)?
        .to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    // Descriptors travel with the first byte; four bytes always fit into an empty socket buffer.
    let sent = sendmsg(
        stream.as_fd(),
        &[IoSlice::new(&length)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    let mut writer = stream;
    writer.write_all(length.get(sent..).unwrap_or_default())?;
    writer.write_all(&body)
}

/// Receives one message and its descriptors (all close-on-exec).
///
/// # Errors
/// `UnexpectedEof` when the other side is gone; what the socket or the parser answers.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut length = [0_u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(&mut length)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(message) => break message.bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let mut reader = stream;
    reader.read_exact(length.get_mut(got..).unwrap_or_default())?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| too_long())?;
    if length > LONGEST {
        return Err(too_long());
    }
    let mut body = vec![0_u8; length];
    reader.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, descriptors))
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "message too long")
}
