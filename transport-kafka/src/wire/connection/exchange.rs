//! Requests sent one at a time: those that open a connection, and those that renew its credentials.

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Request, StrBytes};
use tidings_core::{Error, ErrorKind, Result};
use tokio::io::AsyncWriteExt;

use super::stream::{Stream, failed, read_message};
use crate::wire::messages::{self, BrokerVersions, Code};

/// Sends one request at a time, and waits for its answer.
pub(super) trait Exchange: Send {
    /// Sends `request` in this version, and decodes the answer.
    fn call<R: Request + Sync>(
        &mut self,
        request: &R,
        version: i16,
    ) -> impl Future<Output = Result<R::Response>> + Send;
}

/// A connection before its first request.
pub(super) struct Handshake {
    stream: Stream,
    client_id: StrBytes,
    correlation: i32,
    max_answer: usize,
}

impl Handshake {
    pub(super) fn new(stream: Stream, client_id: StrBytes, max_answer: usize) -> Self {
        Self { stream, client_id, correlation: i32::MIN, max_answer }
    }

    /// Returns the stream, and the maximum size of an answer.
    pub(super) fn into_stream(self) -> (Stream, usize) {
        (self.stream, self.max_answer)
    }

    /// Requests the API versions that the broker supports.
    pub(super) async fn versions(&mut self) -> Result<BrokerVersions> {
        let name = StrBytes::from_static_str(env!("CARGO_PKG_NAME"));
        let request = ApiVersionsRequest::default()
            .with_client_software_name(name)
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let answer = self.send(&request, 3).await?;
        // The code has the same position in all versions. A broker without support for this one answers in version 0.
        let code = answer.get(4..6).and_then(|code| code.first_chunk()).map(|code| Code(i16::from_be_bytes(*code)));
        let answer = if code == Some(Code::UNSUPPORTED_VERSION) {
            self.call(&ApiVersionsRequest::default(), 0).await?
        } else {
            messages::decode::<ApiVersionsRequest>(answer, 3)?
        };
        let ApiVersionsResponse { error_code, .. } = &answer;
        Code(*error_code).ok().map_err(|code| code.error("request the supported versions"))?;
        Ok(BrokerVersions::of(&answer))
    }

    async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<Bytes> {
        self.correlation += 1;
        let frame = messages::encode(request, version, self.correlation, &self.client_id)?;
        self.stream.writer.write_all(&frame).await.map_err(failed)?;
        self.stream.writer.flush().await.map_err(failed)?;
        let answer = read_message(&mut self.stream.reader, self.max_answer, |_| {}).await?;
        if messages::correlation_of(&answer) != Some(self.correlation) {
            return Err(Error::new(ErrorKind::Undecodable, "the broker answered a request that was not sent"));
        }
        Ok(answer)
    }
}

impl Exchange for Handshake {
    async fn call<R: Request + Sync>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        messages::decode::<R>(self.send(request, version).await?, version)
    }
}
