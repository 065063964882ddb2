//! Compression of a batch's records.

use std::io::{Result, Write};

use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder as Lz4Encoder, FrameInfo};

use super::Codec;
use super::unpack::{XERIAL_HEADER, XERIAL_MAGIC};

/// Uncompressed size of a snappy block, the one of Java's client.
const SNAPPY_BLOCK: usize = 32 << 10;
/// Version of xerial's framing, and the oldest one that can read it.
const XERIAL_VERSION: u32 = 1;

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    /// The codec.
    pub(crate) codec: Codec,
    /// The level, of gzip and zstd; `None` is the codec's own default.
    pub(crate) level: Option<i32>,
}

impl Packing {
    /// No compression.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests use it"))]
    pub(crate) const NONE: Self = Self { codec: Codec::None, level: None };

    /// Appends `records`, compressed, to `out`.
    ///
    /// # Errors
    /// Zstd without the feature `zstd` is unsupported.
    pub(super) fn pack(self, records: &[u8], out: Vec<u8>) -> Result<Vec<u8>> {
        match self.codec {
            Codec::None => {
                let mut out = out;
                out.extend_from_slice(records);
                Ok(out)
            }
            Codec::Gzip => gzip(self.level, records, out),
            Codec::Snappy => snappy(records, out),
            Codec::Lz4 => lz4(records, out),
            Codec::Zstd => zstd(self.level, records, out),
        }
    }
}

fn gzip(level: Option<i32>, records: &[u8], out: Vec<u8>) -> Result<Vec<u8>> {
    let level = level.and_then(|level| u32::try_from(level).ok());
    let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
    let mut encoder = GzEncoder::new(out, level);
    encoder.write_all(records)?;
    encoder.finish()
}

fn snappy(records: &[u8], mut out: Vec<u8>) -> Result<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    out.reserve(XERIAL_HEADER);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSION.to_be_bytes());
    out.extend_from_slice(&XERIAL_VERSION.to_be_bytes());
    for block in records.chunks(SNAPPY_BLOCK) {
        let start = out.len() + size_of::<u32>();
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let length = encoder.compress(block, &mut out[start..])?;
        out.truncate(start + length);
        let prefix = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        out[start - size_of::<u32>()..start].copy_from_slice(&prefix);
    }
    Ok(out)
}

fn lz4(records: &[u8], out: Vec<u8>) -> Result<Vec<u8>> {
    // Java's client reads independent blocks only.
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = Lz4Encoder::with_frame_info(info, out);
    encoder.write_all(records)?;
    Ok(encoder.finish()?)
}

#[cfg(feature = "zstd")]
fn zstd(level: Option<i32>, records: &[u8], out: Vec<u8>) -> Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))?;
    encoder.write_all(records)?;
    encoder.finish()
}

#[cfg(not(feature = "zstd"))]
fn zstd(_level: Option<i32>, _records: &[u8], _out: Vec<u8>) -> Result<Vec<u8>> {
    let reason = "writing zstd requires the feature `zstd`";
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, reason))
}
