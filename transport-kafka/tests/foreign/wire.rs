//! A minimal producer: one Produce request over a new connection, with the batch's bytes unchanged.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{LIMIT, TestResult};

const PRODUCE: i16 = 0;
/// The last version without tagged fields; its answers contain the broker's message.
const VERSION: i16 = 8;
const NOT_LEADER: i16 = 6;
const MOST_ANSWER: usize = 1 << 20;

/// A broker's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Appended to the log, at this offset.
    Stored(u64),
    /// The broker's error code and message.
    Refused(i16, String),
}

impl Answer {
    pub(crate) fn stored(self) -> TestResult<u64> {
        match self {
            Self::Stored(offset) => Ok(offset),
            Self::Refused(code, words) => Err(format!("the broker refused a batch: {code} {words}").into()),
        }
    }
}

/// Sends `batch` to a partition of `topic`, trying each broker until one leads it.
pub(crate) async fn produce(brokers: &str, topic: &str, partition: u32, batch: &[u8]) -> TestResult<Answer> {
    let mut answer = Answer::Refused(NOT_LEADER, "no broker leads the partition".to_owned());
    for broker in brokers.split(',') {
        answer = timeout(LIMIT, to_broker(broker, topic, partition, batch)).await??;
        if !matches!(answer, Answer::Refused(NOT_LEADER, _)) {
            break;
        }
    }
    Ok(answer)
}

async fn to_broker(broker: &str, topic: &str, partition: u32, batch: &[u8]) -> TestResult<Answer> {
    let mut stream = TcpStream::connect(broker).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&request(topic, partition, batch)?).await?;
    let size = usize::try_from(stream.read_i32().await?)?;
    if size > MOST_ANSWER {
        return Err("an answer that is no Produce response".into());
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer).await?;
    parse(&answer).ok_or_else(|| "an answer that is no Produce response".into())
}

fn request(topic: &str, partition: u32, batch: &[u8]) -> TestResult<Vec<u8>> {
    let mut body = Vec::with_capacity(batch.len() + 100);
    body.extend(PRODUCE.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    text(&mut body, "foreign");
    // No transaction; acknowledged by all; one topic with one partition.
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend(i32::try_from(Duration::from_secs(20).as_millis())?.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    text(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(i32::try_from(batch.len())?.to_be_bytes());
    body.extend(batch);
    let mut framed = i32::try_from(body.len())?.to_be_bytes().to_vec();
    framed.extend(body);
    Ok(framed)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn parse(answer: &[u8]) -> Option<Answer> {
    // The correlation id, and one topic's name.
    let mut rest = answer.get(8..)?;
    taken_text(&mut rest)?;
    let _partitions = taken::<4>(&mut rest)?;
    let _partition = taken::<4>(&mut rest)?;
    let code = i16::from_be_bytes(taken(&mut rest)?);
    let offset = i64::from_be_bytes(taken(&mut rest)?);
    if code == 0 {
        return u64::try_from(offset).ok().map(Answer::Stored);
    }
    let _append_time = taken::<8>(&mut rest)?;
    let _log_start = taken::<8>(&mut rest)?;
    let mut words = Vec::new();
    for _ in 0..i32::from_be_bytes(taken(&mut rest)?).max(0) {
        let _index = taken::<4>(&mut rest)?;
        words.push(taken_text(&mut rest)?);
    }
    words.push(taken_text(&mut rest)?);
    words.retain(|word| !word.is_empty());
    Some(Answer::Refused(code, words.join("; ")))
}

fn taken<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn taken_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(i16::from_be_bytes(taken(rest)?)).unwrap_or(0);
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(String::from_utf8_lossy(head).into_owned())
}
