//! Hand-made batches, and a producer that sends them unchecked, as none of our clients would.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::{LIMIT, TestResult};

/// Positions of the fields of a batch header.
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const GZIP: u8 = 1;
const PRODUCE: i16 = 0;
const VERSION: i16 = 3;

/// A record of a batch: its value, and its number of headers.
pub(crate) struct Raw<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) headers: usize,
}

impl<'a> Raw<'a> {
    pub(crate) fn new(value: &'a [u8]) -> Self {
        Self { value, headers: 0 }
    }
}

/// Returns a batch of these records, compressed with gzip or uncompressed.
pub(crate) fn batch(records: &[Raw<'_>], gzip: bool) -> TestResult<Vec<u8>> {
    let mut body = Vec::new();
    for (number, record) in records.iter().enumerate() {
        encode(record, i64::try_from(number)?, &mut body);
    }
    if gzip {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&body)?;
        body = packer.finish()?;
    }
    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes());
    batch.extend(i32::try_from(49 + body.len())?.to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend([0; 4]);
    batch.extend(i16::from(if gzip { GZIP } else { 0 }).to_be_bytes());
    batch.extend(i32::try_from(records.len() - 1)?.to_be_bytes());
    let now = tidings_core::Timestamp::now().millis();
    batch.extend(now.to_be_bytes());
    batch.extend(now.to_be_bytes());
    batch.extend((-1_i64).to_be_bytes());
    batch.extend((-1_i16).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.extend(i32::try_from(records.len())?.to_be_bytes());
    batch.extend(body);
    seal(&mut batch);
    Ok(batch)
}

fn encode(record: &Raw<'_>, number: i64, out: &mut Vec<u8>) {
    let mut body = vec![0];
    varint(0, &mut body);
    varint(number, &mut body);
    varint(-1, &mut body);
    varint(record.value.len() as i64, &mut body);
    body.extend(record.value);
    varint(record.headers as i64, &mut body);
    for _ in 0..record.headers {
        varint(1, &mut body);
        body.push(b'h');
        varint(0, &mut body);
    }
    varint(body.len() as i64, out);
    out.extend(body);
}

fn varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Recomputes the checksum of a changed batch (CRC-32C).
pub(crate) fn seal(batch: &mut [u8]) {
    let table: Vec<u32> = (0..256_u32)
        .map(|byte| (0..8).fold(byte, |c, _| if c & 1 == 1 { 0x82F6_3B78 ^ (c >> 1) } else { c >> 1 }))
        .collect();
    let crc = batch[ATTRIBUTES..].iter().fold(!0_u32, |c, b| table[((c ^ u32::from(*b)) & 0xff) as usize] ^ (c >> 8));
    batch[CRC..ATTRIBUTES].copy_from_slice(&(!crc).to_be_bytes());
}

/// Sends a batch unchanged, and waits until it is stored.
pub(crate) fn produce(broker: &str, topic: &str, partition: i32, batch: &[u8]) -> TestResult {
    let text = |body: &mut Vec<u8>, text: &str| {
        body.extend((text.len() as i16).to_be_bytes());
        body.extend(text.as_bytes());
    };
    let mut body = Vec::new();
    body.extend(PRODUCE.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    text(&mut body, "by-hand");
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend(i32::try_from(LIMIT.as_millis())?.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    text(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(i32::try_from(batch.len())?.to_be_bytes());
    body.extend(batch);
    let mut stream = TcpStream::connect(broker)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&i32::try_from(body.len())?.to_be_bytes())?;
    stream.write_all(&body)?;
    // Length, correlation, one topic with its name, one partition, and then its error.
    let mut answer = vec![0; 4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 2];
    stream.read_exact(&mut answer)?;
    match i16::from_be_bytes([answer[answer.len() - 2], answer[answer.len() - 1]]) {
        0 => Ok(()),
        code => Err(format!("the batch was refused: {code}").into()),
    }
}
