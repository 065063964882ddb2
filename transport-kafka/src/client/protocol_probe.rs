//! Detects the protocol of a port after a connection to it failed: the wrong protocol looks like a network failure,
//! and retrying never helps.
//!
//! It sends a `SaslHandshake` request for a mechanism that no broker has. A TLS port answers with
//! an alert, a SASL port with its mechanisms, and a plain port that the request is out of place.
//! Nothing secret is sent, and no login fails.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long to wait for each port's answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Far more than the names of all mechanisms.
const MAX_ANSWER: usize = 4 << 10;
/// API key of the request.
const SASL_HANDSHAKE: i16 = 17;
/// Any number: the answer repeats it, which distinguishes Kafka from other protocols.
const CORRELATION: i32 = 17;
/// Answer of a port without SASL.
const ILLEGAL_SASL_STATE: i16 = 34;
/// Answer of a port with SASL; it lists the mechanisms.
const UNSUPPORTED_MECHANISM: i16 = 33;
/// First byte of a TLS alert and of a TLS handshake.
const TLS_RECORDS: [u8; 2] = [0x15, 0x16];

/// Protocol of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PortProtocol {
    /// Kafka's protocol, without authentication.
    Plain,
    /// Kafka's protocol, after SASL with one of these mechanisms.
    Sasl(String),
    /// TLS; the protocol inside is not known.
    Tls,
}

/// Asks for a mechanism that does not exist, so that no login is attempted at a protected port.
fn handshake_request() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(SASL_HANDSHAKE.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend(CORRELATION.to_be_bytes());
    for text in ["tidings", "NONE"] {
        body.extend((text.len() as i16).to_be_bytes());
        body.extend(text.as_bytes());
    }
    let mut framed = (body.len() as i32).to_be_bytes().to_vec();
    framed.extend(body);
    framed
}

/// Returns the protocol of the port at `address`, if its answer comes in time.
pub(super) async fn probe(address: &str) -> Option<PortProtocol> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(&handshake_request()).await.ok()?;
        let mut answer = Vec::new();
        loop {
            if let Some(spoken) = parse(&answer) {
                return Some(spoken);
            }
            let read = stream.read_buf(&mut answer).await.ok()?;
            if read == 0 || answer.len() > MAX_ANSWER {
                return None;
            }
        }
    };
    timeout(PROBE_TIMEOUT, asked).await.ok()?
}

/// Interprets an answer; returns `None` while it is incomplete.
///
/// The answer may come in parts, and a foreign protocol may send anything: an answer that is
/// neither of the expected ones is `None`, too, and the connection's end decides.
fn parse(answer: &[u8]) -> Option<PortProtocol> {
    if TLS_RECORDS.contains(answer.first()?) {
        return Some(PortProtocol::Tls);
    }
    let (length, rest) = answer.split_first_chunk::<4>()?;
    let body = rest.get(..usize::try_from(i32::from_be_bytes(*length)).ok()?)?;
    let (correlation, body) = body.split_first_chunk::<4>()?;
    let (code, body) = body.split_first_chunk::<2>()?;
    match (i32::from_be_bytes(*correlation), i16::from_be_bytes(*code)) {
        (CORRELATION, ILLEGAL_SASL_STATE) => Some(PortProtocol::Plain),
        (CORRELATION, 0 | UNSUPPORTED_MECHANISM) => Some(PortProtocol::Sasl(mechanisms(body))),
        _ => None,
    }
}

/// Returns the names in an array of strings.
fn mechanisms(body: &[u8]) -> String {
    let mut names = Vec::new();
    let mut rest = body.get(4..).unwrap_or_default();
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let length = usize::try_from(i16::from_be_bytes(*length)).unwrap_or(0);
        let Some(name) = more.get(..length) else { break };
        names.push(String::from_utf8_lossy(name).into_owned());
        rest = &more[length..];
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i16, names: &[&str]) -> Vec<u8> {
        let mut body = CORRELATION.to_be_bytes().to_vec();
        body.extend(code.to_be_bytes());
        body.extend((names.len() as i32).to_be_bytes());
        for name in names {
            body.extend((name.len() as i16).to_be_bytes());
            body.extend(name.as_bytes());
        }
        [(body.len() as i32).to_be_bytes().to_vec(), body].concat()
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(parse(&answer(34, &[])), Some(PortProtocol::Plain));
        assert_eq!(parse(&answer(33, &["PLAIN", "X"])), Some(PortProtocol::Sasl("PLAIN, X".into())));
        assert_eq!(parse(&[0x15, 3, 3, 0, 2, 2, 80]), Some(PortProtocol::Tls));
        let whole = answer(33, &["PLAIN"]);
        assert!((0..whole.len()).all(|part| parse(&whole[..part]).is_none()));
        assert_eq!(parse(b"HTTP/1.1 400 Bad Request"), None);
    }
}
