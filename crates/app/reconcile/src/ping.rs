//! `GET /ping` over a connection made inside the container's namespace (CC-49, CC-88).

use isolarium_model::WorkloadId;
use isolarium_runtime::Dial;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub use isolarium_model::sagemaker::model::SERVING_PORT;

/// Whether the container answered 200 in time. The body is ignored; so is everything behind the status line.
pub fn healthy(dial: &dyn Dial, workload: &WorkloadId, port: u16, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let Ok(socket) = dial.dial(workload, port, timeout) else {
        return false;
    };
    let request = b"GET /ping HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\n\r\n";
    status(TcpStream::from(socket), request, deadline).is_some_and(|status| status == 200)
}

/// Whether a server at the port speaks HTTP, whatever it says: a notebook's may want a session first.
pub fn answers(dial: &dyn Dial, workload: &WorkloadId, port: u16, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let Ok(socket) = dial.dial(workload, port, timeout) else {
        return false;
    };
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    status(TcpStream::from(socket), request, deadline).is_some()
}

fn status(mut stream: TcpStream, request: &[u8], deadline: Instant) -> Option<u16> {
    let left = |deadline: Instant| {
        deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    };
    // The descriptor comes from another process, which may have left it non-blocking.
    stream.set_nonblocking(false).ok()?;
    stream.set_write_timeout(left(deadline)).ok()?;
    stream.write_all(request).ok()?;
    // `HTTP/1.1 200` is twelve bytes.
    let mut head = Vec::with_capacity(64);
    while head.len() < 12 {
        stream.set_read_timeout(Some(left(deadline)?)).ok()?;
        let mut piece = [0u8; 64];
        match stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(n) => head.extend(piece.iter().take(n)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let text = std::str::from_utf8(head.get(..12)?).ok()?;
    text.strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|code| code.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolarium_runtime::executor::ExecutorError;
    use std::net::{SocketAddr, TcpListener};
    use std::os::fd::OwnedFd;
    use std::thread;

    struct To(SocketAddr);

    impl Dial for To {
        fn dial(&self, _: &WorkloadId, port: u16, timeout: Duration) -> Result<OwnedFd, ExecutorError> {
            assert_eq!(port, 8080);
            let stream = TcpStream::connect_timeout(&self.0, timeout);
            stream
                .map(OwnedFd::from)
                .map_err(|error| ExecutorError::Host(error.to_string()))
        }
    }

    fn ping_answered_with(answer: &'static [u8]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = To(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0u8; 256];
            let n = stream.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /ping HTTP/1.1\r\n"));
            for byte in answer {
                // The asker hangs up once it knows the status.
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
            }
            if answer.is_empty() {
                thread::sleep(Duration::from_millis(400));
            }
        });
        let workload = "w-0123456789abcdef0".parse().unwrap();
        let result = healthy(&to, &workload, SERVING_PORT, Duration::from_millis(300));
        server.join().unwrap();
        result
    }

    /// Proves: CC-49
    #[test]
    fn only_a_200_in_time_is_healthy() {
        assert!(ping_answered_with(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(ping_answered_with(b"HTTP/1.0 200 OK\r\n\r\n"));
        assert!(!ping_answered_with(b"HTTP/1.1 503 Loading\r\n\r\n"));
        assert!(!ping_answered_with(b"220 smtp ready, not http\r\n"));
        assert!(!ping_answered_with(b"HTTP/1.1 20"));
        assert!(!ping_answered_with(b""), "silence is no answer");
    }
}
