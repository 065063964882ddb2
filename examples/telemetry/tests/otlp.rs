//! The example sends spans and metrics to a collector: a stub that answers each request.
#![cfg(feature = "otlp")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// How long the example may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A request: its path, and its body.
type Request = (String, Vec<u8>);

/// Reads one request after the other, and answers each.
fn serve(stream: TcpStream, seen: &mpsc::Sender<Request>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            } else if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let _ = seen.send((path, body));
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        reader.get_mut().write_all(head.as_bytes())?;
    }
}

#[test]
fn spans_and_metrics_reach_a_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let seen = seen.clone();
            std::thread::spawn(move || serve(stream, &seen));
        }
    });
    let mut example = Command::new(env!("CARGO_BIN_EXE_telemetry"));
    let output = example.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let requests: Vec<Request> = requests.try_iter().collect();
    let contains = |path: &str, text: &str| {
        let has = |body: &[u8]| body.windows(text.len()).any(|window| window == text.as_bytes());
        requests.iter().any(|(of, body)| of == path && has(body))
    };
    for name in ["publish orders", "create orders", "process orders", "process invoices"] {
        assert!(contains("/v1/traces", name), "no span {name}");
    }
    for name in ["messaging.process.duration", "messaging.client.consumed.messages", "tidings.settled.messages"] {
        assert!(contains("/v1/metrics", name), "no metric {name}");
    }
}
