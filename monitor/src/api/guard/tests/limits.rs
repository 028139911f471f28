//! Whoever dawdles, takes too much, or holds too many.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::super::serve::{HANDSHAKE, Limits};
use super::{Authority, HEALTHY, Served, TLS, exchange, pem};

fn quick() -> Limits {
    Limits {
        head: Duration::from_millis(300),
        life: Duration::from_secs(60),
        of_peer: 4,
        connections: 8,
    }
}

/// Reads until the other end hangs up, which it must.
async fn hung_up(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    // A reset is an end too.
    let _ = read.expect("it is hung up on");
    answer
}

#[tokio::test]
async fn whoever_dawdles_is_hung_up_on() {
    let authority = Authority::new();
    let (certificate, key) = pem(&authority.issue("localhost", 2100));
    let files = [("c.pem", &*certificate), ("k.pem", &*key)];
    for yaml in ["{}", TLS] {
        let served = Served::limited(yaml, &files, quick()).await;
        // Says nothing.
        assert_eq!(hung_up(served.connect().await).await, b"");
        if yaml == TLS {
            let mut stream = served.connect().await;
            stream.write_all(&[HANDSHAKE, 3, 1]).await.unwrap();
            assert_eq!(hung_up(stream).await, b"");
            continue;
        }
        // A header, one byte at a time: the whole head has its time, not each byte.
        let (mut stream, began) = (served.connect().await, tokio::time::Instant::now());
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
        while stream.write_all(b"y").await.is_ok() {
            assert!(began.elapsed() < Duration::from_secs(10), "it may go on for ever");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn no_connection_lives_for_ever() {
    let limits = Limits { life: Duration::from_secs(1), ..Limits::default() };
    let served = Served::limited("{}", &[], limits).await;
    let (mut stream, began) = (served.connect().await, tokio::time::Instant::now());
    // Asks again and again, and takes what it is sent.
    while stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok()
        && stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0)
    {
        assert!(began.elapsed() < Duration::from_secs(20), "it goes on for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_peer_does_not_take_all_places_and_gives_them_back() {
    let served = Served::limited("{}", &[], quick()).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = served.connect().await;
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        open.push(stream);
    }
    let mut fifth = served.connect().await;
    // It may be gone already.
    let _ = fifth.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(hung_up(fifth).await, b"", "a fifth is answered");
    drop(open.pop());
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok((200, _)) = exchange(served.connect().await, HEALTHY, None).await {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "the place does not come back");
    }
}

#[tokio::test]
async fn heads_are_bounded_in_number_and_size_and_bodies_are_not_read() {
    let served = Served::with("{}", &[]).await;
    let ask = async |head: String| {
        let mut stream = served.connect().await;
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = hung_up(stream).await;
        String::from_utf8(answer).unwrap().get(9..12).map(str::to_owned)
    };
    let begin = "GET /-/healthy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    assert_eq!(ask(format!("{begin}{}\r\n", "a: b\r\n".repeat(50))).await.as_deref(), Some("200"));
    assert_eq!(ask(format!("{begin}{}\r\n", "a: b\r\n".repeat(100))).await.as_deref(), Some("431"));
    assert_ne!(
        ask(format!("{begin}a: {}\r\n\r\n", "b".repeat(64 << 10))).await.as_deref(),
        Some("200")
    );
    assert_ne!(
        ask(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "b".repeat(64 << 10))).await.as_deref(),
        Some("200")
    );
    assert_eq!(ask(format!("{begin}content-length: 999999\r\n\r\n")).await.as_deref(), Some("413"));
}
