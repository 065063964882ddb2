//! The byte stream to a broker: TCP, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidings_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::Endpoint;
use super::tls;
use crate::config::Tls;
use crate::error::is_tls;

/// Delay before the next address of a name is tried, if the previous ones have not answered.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Size of the read buffer, so that a small answer and its length take one system call.
const READ_BUFFER: usize = 64 << 10;

/// The reading half.
pub(super) type Reader = BufReader<Box<dyn AsyncRead + Send + Unpin>>;
/// The writing half.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connected socket.
pub(super) struct Stream {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

impl Stream {
    /// Connects to the first address of the name that answers.
    pub(super) async fn connect(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Self> {
        let socket = connect(endpoint).await.map_err(failed)?;
        let Some(tls) = tls else {
            let (reader, writer) = socket.into_split();
            return Ok(Self::new(Box::new(reader), Box::new(writer)));
        };
        let socket = tls::connect(&endpoint.host, tls, socket).await?;
        let (reader, writer) = tokio::io::split(socket);
        Ok(Self::new(Box::new(reader), Box::new(writer)))
    }

    fn new(reader: Box<dyn AsyncRead + Send + Unpin>, writer: Writer) -> Self {
        Self { reader: BufReader::with_capacity(READ_BUFFER, reader), writer }
    }
}

/// Tries the addresses of a name one after the other, without waiting for one that is silent.
async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((&*endpoint.host, endpoint.port)).await?.collect();
    let attempt = |(place, address): (u32, SocketAddr)| async move {
        sleep(NEXT_ADDRESS * place).await;
        let socket = TcpStream::connect(address).await?;
        // Requests are written whole, so Nagle's algorithm would only delay them.
        socket.set_nodelay(true)?;
        io::Result::Ok(socket)
    };
    let mut attempts: FuturesUnordered<_> = (0..).zip(addresses).map(attempt).collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Converts an I/O error. A TLS alert is permanent: the certificate was refused.
pub(super) fn failed(error: io::Error) -> Error {
    let kind = if is_tls(&error) { ErrorKind::Denied } else { ErrorKind::Unavailable };
    Error::new(kind, error.to_string()).with_source(error)
}

/// Reads one message, without its length, and reports the bytes of each read to `arrived`.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) at the end of the stream, and [`TooLarge`](ErrorKind::TooLarge) for a
/// message of more than `max` bytes, of which none is read.
pub(super) async fn read_message(reader: &mut Reader, max: usize, arrived: impl Fn(usize)) -> Result<Bytes> {
    let length = reader.read_i32().await.map_err(closed)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= max).ok_or_else(|| {
        let text = format!("the broker announces an answer of {length} bytes; at most {max} are accepted");
        Error::new(ErrorKind::TooLarge, text)
    })?;
    let mut message = BytesMut::with_capacity(length);
    while message.len() < length {
        let left = length - message.len();
        let mut rest = reader.take(left as u64);
        match rest.read_buf(&mut message).await.map_err(failed)? {
            0 => return Err(closed(io::ErrorKind::UnexpectedEof.into())),
            read => arrived(read),
        }
    }
    Ok(message.freeze())
}

/// Names the end of a stream in words.
fn closed(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::new(ErrorKind::Unavailable, "the broker closed the connection");
    }
    failed(error)
}
