//! Frames of `application/vnd.amazon.eventstream`: the answer of InvokeEndpointWithResponseStream (SM-53).

use bytes::{BufMut, Bytes, BytesMut};

/// Largest payload of one frame; longer parts are split by [`payload_parts`].
const LARGEST_PAYLOAD: usize = 128 << 10;
/// Total length, headers' length, their checksum; then the checksum of all.
const FRAME_OVERHEAD: usize = 16;
/// The type of a string header's value.
const STRING: u8 = 7;

/// Frames of event type `PayloadPart` that carry `bytes`; none for no bytes.
pub fn payload_parts(bytes: &[u8]) -> Vec<Bytes> {
    let headers = [
        (":event-type", "PayloadPart"),
        (":content-type", "application/octet-stream"),
        (":message-type", "event"),
    ];
    bytes
        .chunks(LARGEST_PAYLOAD)
        .map(|part| frame(&headers, part))
        .collect()
}

/// A frame that ends the stream with a modelled exception, such as `ModelStreamError`. `members` is its JSON.
pub fn exception(name: &str, members: &[u8]) -> Bytes {
    frame(
        &[
            (":exception-type", name),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        members,
    )
}

/// `ModelStreamError` with its message and code (`ModelInvocationTimeExceeded`, `StreamBroken`).
pub fn model_stream_error(message: &str, code: &str) -> Bytes {
    exception(
        "ModelStreamError",
        serde_json::json!({"Message": message, "ErrorCode": code})
            .to_string()
            .as_bytes(),
    )
}

/// `InternalStreamFailure` with its message.
pub fn internal_stream_failure(message: &str) -> Bytes {
    exception(
        "InternalStreamFailure",
        serde_json::json!({ "Message": message }).to_string().as_bytes(),
    )
}

/// Names and values longer than their length fields hold are cut: all of ours are constants or error names.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut head = BytesMut::new();
    for (name, value) in headers {
        let name = name.get(..name.len().min(usize::from(u8::MAX))).unwrap_or_default();
        let value = value.get(..value.len().min(usize::from(u16::MAX))).unwrap_or_default();
        head.put_u8(u8::try_from(name.len()).unwrap_or_default());
        head.put_slice(name.as_bytes());
        head.put_u8(STRING);
        head.put_u16(u16::try_from(value.len()).unwrap_or_default());
        head.put_slice(value.as_bytes());
    }
    let total = FRAME_OVERHEAD + head.len() + payload.len();
    let mut out = BytesMut::with_capacity(total);
    out.put_u32(u32::try_from(total).unwrap_or_default());
    out.put_u32(u32::try_from(head.len()).unwrap_or_default());
    let prelude = crc32fast::hash(&out);
    out.put_u32(prelude);
    out.put_slice(&head);
    out.put_slice(payload);
    let whole = crc32fast::hash(&out);
    out.put_u32(whole);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(frame: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_frame_has_lengths_checksums_headers_and_payload() {
        let frames = payload_parts(b"hello");
        let [frame] = frames.as_slice() else {
            panic!("one frame")
        };
        assert_eq!(usize::try_from(word(frame, 0)).unwrap(), frame.len());
        assert_eq!(word(frame, 8), crc32fast::hash(&frame[..8]));
        assert_eq!(word(frame, frame.len() - 4), crc32fast::hash(&frame[..frame.len() - 4]));
        let headers = usize::try_from(word(frame, 4)).unwrap();
        assert_eq!(&frame[12 + headers..frame.len() - 4], b"hello");
        assert!(frame[12..12 + headers].starts_with(b"\x0b:event-type\x07\x00\x0bPayloadPart"));
    }

    #[test]
    fn long_parts_are_split_and_nothing_is_lost() {
        let bytes = vec![7; LARGEST_PAYLOAD * 2 + 1];
        assert_eq!(payload_parts(&bytes).len(), 3);
        let carried: usize = payload_parts(&bytes)
            .iter()
            .map(|frame| frame.len() - FRAME_OVERHEAD - usize::try_from(word(frame, 4)).unwrap())
            .sum();
        assert_eq!(carried, bytes.len());
        assert!(payload_parts(b"").is_empty());
    }

    #[test]
    fn exceptions_carry_their_members() {
        let frame = model_stream_error("late", "ModelInvocationTimeExceeded");
        let text = String::from_utf8_lossy(&frame);
        assert!(text.contains(":exception-type") && text.contains("ModelStreamError"));
        assert!(text.contains(r#"{"Message":"late","ErrorCode":"ModelInvocationTimeExceeded"}"#));
        assert!(String::from_utf8_lossy(&internal_stream_failure("x")).contains("InternalStreamFailure"));
    }
}
