//! The few bytes of Kafka's protocol that show whether a cluster is up, without a client library.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const METADATA: i16 = 3;
const METADATA_VERSION: i16 = 1;
const MAX_ANSWER: usize = 1 << 20;

/// A broker's view of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterView {
    /// Ids of the brokers that are up.
    pub(crate) brokers: Vec<i32>,
    /// The broker that accepts administrative requests; -1 if there is none.
    pub(crate) controller: i32,
}

/// Asks the broker at `address`, over a new connection, for the brokers of its cluster.
pub(crate) fn cluster_view(address: &str, timeout: Duration) -> io::Result<ClusterView> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&request())?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size)).map_err(io::Error::other)?;
    if size > MAX_ANSWER {
        return Err(io::Error::other("the answer is no metadata"));
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other("the answer is no metadata"))
}

/// Builds a metadata request without topics.
fn request() -> Vec<u8> {
    let client = b"tidings-testbed";
    let mut body = Vec::new();
    body.extend(METADATA.to_be_bytes());
    body.extend(METADATA_VERSION.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend((client.len() as i16).to_be_bytes());
    body.extend(client);
    body.extend(0_i32.to_be_bytes());
    let mut framed = (body.len() as i32).to_be_bytes().to_vec();
    framed.extend(body);
    framed
}

fn parse(answer: &[u8]) -> Option<ClusterView> {
    let mut rest = answer.get(4..)?;
    let count = take_i32(&mut rest)?;
    let mut brokers = Vec::new();
    for _ in 0..count {
        brokers.push(take_i32(&mut rest)?);
        skip_text(&mut rest)?;
        take_i32(&mut rest)?;
        skip_text(&mut rest)?;
    }
    brokers.sort_unstable();
    Some(ClusterView { brokers, controller: take_i32(&mut rest)? })
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*head))
}

fn skip_text(bytes: &mut &[u8]) -> Option<()> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::try_from(i16::from_be_bytes(*head)).unwrap_or(0);
    *bytes = rest.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_brokers_and_the_controller() {
        let mut answer = 1_i32.to_be_bytes().to_vec();
        answer.extend(1_i32.to_be_bytes());
        answer.extend(7_i32.to_be_bytes());
        answer.extend([0, 1, b'h']);
        answer.extend(9092_i32.to_be_bytes());
        answer.extend((-1_i16).to_be_bytes());
        answer.extend(7_i32.to_be_bytes());
        answer.extend(0_i32.to_be_bytes());
        assert_eq!(parse(&answer), Some(ClusterView { brokers: vec![7], controller: 7 }));
        assert_eq!(parse(&answer[..20]), None);
    }
}
