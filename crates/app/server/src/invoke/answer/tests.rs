use super::*;

/// What an answer is when it arrives in pieces of `step` bytes: status, body, whether the connection may be kept.
fn read(text: &str, step: usize) -> Result<(u16, String, bool), Malformed> {
    let (mut bytes, mut looked) = (BytesMut::new(), 0);
    let mut arriving = text.as_bytes().chunks(step);
    let mut found = loop {
        if let Some(found) = head(&mut bytes, &mut looked)? {
            break found;
        }
        bytes.extend_from_slice(arriving.next().ok_or(Malformed("cut"))?);
    };
    let mut body = Vec::new();
    loop {
        match found.framing.next(&mut bytes)? {
            Piece::Data(data) => {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
            Piece::End => break,
            Piece::More => match arriving.next() {
                Some(more) => bytes.extend_from_slice(more),
                None if found.framing == Framing::UntilClose => break,
                None => return Err(Malformed("cut")),
            },
        }
    }
    let nothing_left = bytes.is_empty() && arriving.next().is_none();
    let keeps = found.keeps && found.framing.is_at_end() && nothing_left;
    Ok((found.status.as_u16(), String::from_utf8(body).unwrap(), keeps))
}

/// The same, whatever the pieces.
fn read_any(text: &str) -> Result<(u16, String, bool), Malformed> {
    let whole = read(text, text.len().max(1));
    for step in [1, 2, 3, 7] {
        assert_eq!(read(text, step), whole, "{text:?} in pieces of {step}");
    }
    whole
}

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")
}

/// Proves: CC-52
#[test]
fn every_framing_of_a_body_is_read_however_it_arrives() {
    for (text, body, keeps) in [
        (answer("Content-Length: 5", "hello"), "hello", true),
        (answer("content-length:  5 ", "hello"), "hello", true),
        (answer("content-length: 5\r\nContent-Length: 5", "hello"), "hello", true),
        (answer("content-length: 0", ""), "", true),
        (
            answer("content-length: 5\r\nconnection: keep-alive, Close", "hello"),
            "hello",
            false,
        ),
        (answer("content-length: 2", "hello"), "he", false),
        (answer("x: y", "hello"), "hello", false),
        (
            answer("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
            "hello",
            true,
        ),
        (
            answer("Transfer-Encoding: gzip, Chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
            "hello",
            true,
        ),
        (
            answer(
                "transfer-encoding: chunked",
                "05;a=\"b\"\r\nhello\r\n000\r\nx: y\r\nz: a\r\n\r\n",
            ),
            "hello",
            true,
        ),
        (
            answer("transfer-encoding: chunked", "A ;x\r\n0123456789\r\n0\r\n\r\n"),
            "0123456789",
            true,
        ),
        (answer("transfer-encoding: chunked, gzip", "hello"), "hello", false),
        (
            answer(
                "transfer-encoding: chunked\r\ncontent-length: 3",
                "5\r\nhello\r\n0\r\n\r\n",
            ),
            "hello",
            false,
        ),
    ] {
        assert_eq!(read_any(&text), Ok((200, body.to_owned(), keeps)), "{text:?}");
    }
    for (text, want) in [
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, "ok", false)),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok",
            (200, "ok", true),
        ),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\n", (204, "", true)),
        ("HTTP/1.1 500 \r\ncontent-length: 3\r\n\r\nbad", (500, "bad", true)),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 201 C\r\ncontent-length: 1\r\n\r\n1",
            (201, "1", true),
        ),
    ] {
        let (status, body, keeps) = want;
        assert_eq!(read_any(text), Ok((status, body.to_owned(), keeps)), "{text:?}");
    }
}

#[test]
fn what_is_not_plainly_correct_is_malformed() {
    let good = answer("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n");
    assert!(read_any(&good).is_ok(), "control");
    let long = "x".repeat(LINE_LIMIT);
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\nhello".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!".into(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".into(),
        "HTTP/2 200 OK\r\n\r\n".into(),
        "no HTTP at all\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nna me: x\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\nhello".into(),
        "HTTP/1.1 200 OK\ncontent-length: 5\n\nhello\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\nhello\r\n\r\n".into(),
        answer(&"a: b\r\n".repeat(FIELDS + 1), ""),
        answer("transfer-encoding: chunked", "5\nhello\r\n0\r\n\r\n"),
        answer("transfer-encoding: chunked", "\r\nhello\r\n0\r\n\r\n"),
        answer("transfer-encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n"),
        answer("transfer-encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n"),
        answer("transfer-encoding: chunked", "5\r\nhello!\r\n0\r\n\r\n"),
        answer("transfer-encoding: chunked", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
        answer("transfer-encoding: chunked", &format!("5;{long}\r\nhello\r\n0\r\n\r\n")),
        answer(
            "transfer-encoding: chunked",
            &format!("0\r\na: {0}\r\nb: {0}\r\nc: {0}\r\n\r\n", &long[..2_000]),
        ),
    ] {
        let read = read_any(&text);
        assert!(
            matches!(&read, Err(error) if *error != Malformed("cut")),
            "{text:?}: {read:?}"
        );
    }
}

#[test]
fn a_head_without_end_is_given_up_at_its_limit() {
    let (mut bytes, mut looked) = (BytesMut::from("HTTP/1.1 200 OK\r\n"), 0);
    let mut given = 0;
    while head(&mut bytes, &mut looked).is_ok() {
        assert!(given <= HEAD_LIMIT);
        bytes.extend_from_slice(b"a: b\r\n");
        given += 6;
    }
    assert!(given > HEAD_LIMIT - 100, "control: what is shorter is awaited");
}

/// Proves: CC-52
#[test]
fn of_the_headers_only_the_contracts_are_kept() {
    let mut bytes = BytesMut::from(
        "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/csv\r\ncontent-type: second\r\n\
         X-Amzn-SageMaker-Custom-Attributes: a=b\r\nSet-Cookie: c\r\nContent-Length: 0\r\n\r\n",
    );
    let head = head(&mut bytes, &mut 0).unwrap().unwrap();
    assert_eq!(head.content_type, Some(HeaderValue::from_static("text/csv")));
    assert_eq!(head.attributes, Some(HeaderValue::from_static("a=b")));
}
