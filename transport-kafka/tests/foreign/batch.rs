//! Record batches of format v2, encoded by hand: every field can be wrong.

use std::io::Write;

use crate::common::TestResult;

/// Position of the codec's byte within a batch.
pub(crate) const CODEC_AT: usize = 22;
/// Position of the magic byte within a batch.
pub(crate) const MAGIC_AT: usize = 16;
/// Position of the checksum within a batch.
const CRC_AT: usize = 17;
/// Position of the batch's length, which counts the bytes after it.
pub(crate) const LENGTH_AT: usize = 8;
/// Position of the records.
pub(crate) const RECORDS_AT: usize = HEADER;
/// The first byte covered by the checksum.
const COVERED_AT: usize = 21;
/// Length of a batch header.
pub(crate) const HEADER: usize = 61;

/// The codecs of the format, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// A record of a batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Raw {
    pub(crate) attributes: u8,
    pub(crate) time_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Error of the record's declared length.
    pub(crate) length_off: i64,
    /// Error of the record's declared number of headers.
    pub(crate) headers_off: i64,
    /// Encodes numbers with all five bytes.
    pub(crate) wide: bool,
}

impl Raw {
    pub(crate) fn new(offset_delta: i32, value: impl Into<Vec<u8>>) -> Self {
        Self { offset_delta, value: Some(value.into()), ..Self::default() }
    }

    pub(crate) fn with_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn with_header(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    fn encode(&self) -> Vec<u8> {
        let number = |out: &mut Vec<u8>, n: i64| varint(out, n, if self.wide { 5 } else { 1 });
        let mut body = vec![self.attributes];
        varint(&mut body, self.time_delta, 1);
        number(&mut body, self.offset_delta.into());
        let text = |body: &mut Vec<u8>, bytes: Option<&[u8]>| {
            number(body, bytes.map_or(-1, |b| b.len() as i64));
            body.extend(bytes.unwrap_or_default());
        };
        text(&mut body, self.key.as_deref());
        text(&mut body, self.value.as_deref());
        number(&mut body, self.headers.len() as i64 + self.headers_off);
        for (name, value) in &self.headers {
            text(&mut body, Some(name));
            text(&mut body, value.as_deref());
        }
        let mut out = Vec::with_capacity(body.len() + 5);
        number(&mut out, body.len() as i64 + self.length_off);
        out.extend(body);
        out
    }
}

/// A batch before it is sealed.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) base_offset: i64,
    pub(crate) magic: i8,
    pub(crate) codec: Codec,
    /// All attribute bits except those of the codec.
    pub(crate) attributes: i16,
    pub(crate) last_delta: i32,
    pub(crate) base_time: i64,
    pub(crate) max_time: i64,
    pub(crate) producer: (i64, i16, i32),
    pub(crate) count: i32,
    /// The records, encoded and uncompressed.
    pub(crate) records: Vec<u8>,
    /// The records, compressed with a codec other than the declared one.
    pub(crate) packed: Option<Vec<u8>>,
}

impl Batch {
    pub(crate) fn new(records: &[Raw]) -> Self {
        let now = tidings_core::Timestamp::now().millis();
        Self {
            base_offset: 0,
            magic: 2,
            codec: Codec::None,
            attributes: 0,
            last_delta: records.len() as i32 - 1,
            base_time: now,
            max_time: now,
            producer: (-1, -1, -1),
            count: records.len() as i32,
            records: records.iter().flat_map(Raw::encode).collect(),
            packed: None,
        }
    }

    /// Creates a batch of this many records with the same value, without copying the value for each.
    pub(crate) fn of_many(count: i32, record: impl Fn(i32) -> Raw) -> Self {
        let mut batch = Self::new(&[]);
        batch.records = (0..count).flat_map(|n| record(n).encode()).collect();
        (batch.last_delta, batch.count) = (count - 1, count);
        batch
    }

    pub(crate) fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn encode(&self) -> TestResult<Vec<u8>> {
        let packed = match &self.packed {
            Some(packed) => packed.clone(),
            None => pack(self.codec, &self.records)?,
        };
        let mut out = Vec::with_capacity(HEADER + packed.len());
        out.extend(self.base_offset.to_be_bytes());
        out.extend(i32::try_from(HEADER - 12 + packed.len())?.to_be_bytes());
        out.extend((-1_i32).to_be_bytes());
        out.extend(self.magic.to_be_bytes());
        out.extend([0; 4]);
        out.extend((self.attributes | self.codec as i16).to_be_bytes());
        out.extend(self.last_delta.to_be_bytes());
        out.extend(self.base_time.to_be_bytes());
        out.extend(self.max_time.to_be_bytes());
        out.extend(self.producer.0.to_be_bytes());
        out.extend(self.producer.1.to_be_bytes());
        out.extend(self.producer.2.to_be_bytes());
        out.extend(self.count.to_be_bytes());
        out.extend(packed);
        seal(&mut out);
        Ok(out)
    }
}

/// Updates the checksum to match the bytes.
pub(crate) fn seal(batch: &mut [u8]) {
    let sum = crc32c(&batch[COVERED_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&sum.to_be_bytes());
}

fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let (mut sum, mut bit) = (n as u32, 0);
            while bit < 8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
                bit += 1;
            }
            table[n] = sum;
            n += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum, byte| TABLE[(sum as u8 ^ byte) as usize] ^ sum >> 8)
}

/// Writes a zigzag number with at least `least` bytes.
fn varint(out: &mut Vec<u8>, n: i64, least: usize) {
    let mut rest = (n << 1 ^ n >> 63) as u64;
    let mut written = 1;
    while rest >= 0x80 || written < least {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
        written += 1;
    }
    out.push(rest as u8);
}

pub(crate) fn pack(codec: Codec, records: &[u8]) -> TestResult<Vec<u8>> {
    Ok(match codec {
        Codec::None => records.to_vec(),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(records)?;
            encoder.finish()?
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(records)?,
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records)?;
            encoder.finish()?
        }
        Codec::Zstd => ruzstd::encoding::compress_to_vec(records, ruzstd::encoding::CompressionLevel::Fastest),
    })
}
