//! What a packet socket does not tell by itself.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How many frames a packet socket has dropped since this was last asked: its buffer was full. Who reads frames to show
/// that none passed must know of the ones it did not get.
///
/// # Errors
/// When it is no packet socket.
#[expect(unsafe_code, reason = "this socket option has no safe wrapper")]
pub fn lost(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut counts = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut size = libc::socklen_t::try_from(size_of::<libc::tpacket_stats>()).unwrap_or(8);
    // SAFETY: the descriptor is open, the pointer is to a live structure of the given size.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counts).cast(),
            &raw mut size,
        )
    };
    if code == 0 {
        Ok(counts.tp_drops)
    } else {
        Err(io::Error::last_os_error())
    }
}
