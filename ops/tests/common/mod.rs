//! Helpers of the endpoint's tests: services on memory, and requests by hand.

#![expect(dead_code, reason = "each test uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use tidings_core::{Record, Topic, Transport, dead_letter_topic};
use tidings_memory::MemoryTransport;
use tidings_service::{Router, Service, ServiceHandle};
use tower_service::Service as _;

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Creates topics with their dead-letter topics.
pub(crate) async fn topics(transport: &MemoryTransport, names: &[&str], partitions: u32) {
    let admin = transport.admin().await.expect("memory has an admin");
    for name in names {
        let pair = [Topic::new(*name).with_partitions(partitions), Topic::new(dead_letter_topic(name))];
        for answer in admin.create_topics(&pair).await.expect("memory is up") {
            answer.expect("a new topic");
        }
    }
}

pub(crate) async fn publish(transport: &MemoryTransport, records: Vec<Record>) {
    let publisher = transport.publisher().await.expect("memory is up");
    for answer in publisher.publish(records).await {
        answer.expect("memory takes it");
    }
}

/// Starts a service, whose topic `t` has one partition.
pub(crate) async fn started(router: Router, transport: &MemoryTransport) -> ServiceHandle {
    topics(transport, &["t"], 1).await;
    Service::new("meter", router).with_workers(1).start(transport).await.expect("it starts")
}

pub(crate) async fn caught_up(service: &ServiceHandle) {
    let done = tokio::time::timeout(DEADLINE, service.caught_up()).await;
    done.expect("it catches up in time").expect("it runs");
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        Self { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}

/// Sends a request on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let host =
        if headers.iter().any(|(name, _)| *name == "host") { String::new() } else { format!("host: {address}\r\n") };
    send(address, &format!("GET {path} HTTP/1.1\r\n{host}connection: close\r\n{lines}\r\n"))
}

/// Sends text, and reads to the end.
pub(crate) fn send(address: SocketAddr, text: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(text.as_bytes()).expect("it is sent");
    read(&mut stream)
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("a timeout");
    stream
}

/// Reads to the end of a stream, or to its error.
pub(crate) fn read(stream: &mut impl Read) -> Answer {
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut part) {
        text.extend_from_slice(&part[..length]);
    }
    Answer::parse(&String::from_utf8_lossy(&text))
}

/// Asks mounted routes, in the runtime of the caller: on its clock.
pub(crate) async fn ask(router: &axum::Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = router.clone().call(request).await.expect("it never fails");
    let code = answer.status();
    let body = to_bytes(answer.into_body(), 16 << 20).await.expect("a short body");
    (code, String::from_utf8(body.into()).expect("text"))
}

/// Asks mounted routes with a token.
pub(crate) async fn ask_with(router: &axum::Router, path: &str, token: &str) -> (u16, String) {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    let answer = router.clone().call(request.body(Body::empty()).expect("a request")).await.expect("it never fails");
    let code = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), 16 << 20).await.expect("a short body");
    (code, String::from_utf8(body.into()).expect("text"))
}

/// Waits on the real clock until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

/// Sends a request with a token, and for a POST with a JSON body.
pub(crate) fn request(ops: &tidings_ops::OpsHandle, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", ops.local_addr());
    let head = format!("{head}authorization: Bearer {token}\r\n");
    let body = match method {
        "POST" => format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        _ => "\r\n".to_owned(),
    };
    send(ops.local_addr(), &format!("{head}{body}"))
}
