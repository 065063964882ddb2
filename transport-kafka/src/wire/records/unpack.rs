//! Decompression within a bound.
//!
//! The output grows with the decompressed bytes, never by a declared size alone: a batch that
//! declares or contains more than the bound takes no more memory than the bound. Accepts the same
//! input as Java's client: several gzip members or zstd frames in sequence, bytes behind the last
//! gzip member, and snappy with or without xerial's framing.

use std::io::{ErrorKind, Read};

use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder as Lz4Decoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder as ZstdDecoder};

use super::{BatchError, Codec};

/// Number of bytes that the first read of a source takes at most; it doubles with each read up to the largest.
const FIRST_PIECE: usize = 8 << 10;
const MAX_PIECE: usize = 1 << 20;
/// First bytes of a gzip member.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// First bytes of xerial's framing for snappy; two version numbers follow.
pub(super) const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
pub(super) const XERIAL_HEADER: usize = 16;
/// Maximum ratio of snappy's decompression: three bytes copy 64.
const SNAPPY_RATIO: usize = 22;
/// Largest window of zstd: that of the C library's default, which Java's client uses.
const ZSTD_WINDOW: u64 = 128 << 20;
/// Number of bytes after which zstd's output is compared with the bound.
const ZSTD_STEP: usize = 1 << 20;

/// Decompresses `packed` to at most `limit` bytes.
pub(super) fn unpack(codec: Codec, packed: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut output = Output { bytes: Vec::new(), limit };
    match codec {
        Codec::None => output.append(packed)?,
        Codec::Gzip => gzip(packed, &mut output)?,
        Codec::Snappy => snappy(packed, &mut output)?,
        Codec::Lz4 => output.read(Lz4Decoder::new(packed))?,
        Codec::Zstd => zstd(packed, &mut output)?,
    }
    Ok(output.finish())
}

fn failed(error: impl std::fmt::Display) -> BatchError {
    BatchError::Packed(error.to_string())
}

/// The bytes decompressed until now, at most `limit` of them.
struct Output {
    bytes: Vec<u8>,
    limit: usize,
}

impl Output {
    fn too_large(&self) -> BatchError {
        BatchError::TooLarge { limit: self.limit }
    }

    /// Makes space for `more` bytes, zeroed, and returns it.
    fn space(&mut self, more: usize) -> Result<&mut [u8], BatchError> {
        let start = self.bytes.len();
        if more > self.limit - start {
            return Err(self.too_large());
        }
        self.bytes.resize(start + more, 0);
        Ok(self.bytes.get_mut(start..).unwrap_or_default())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), BatchError> {
        self.space(bytes.len()).map(|space| space.copy_from_slice(bytes))
    }

    /// Reads `source` to its end. Its cost does not depend on earlier output: a batch may have many gzip members, most
    /// of them empty.
    fn read(&mut self, mut source: impl Read) -> Result<(), BatchError> {
        let mut piece = FIRST_PIECE;
        loop {
            let len = self.bytes.len();
            let more = piece.min(self.limit - len);
            piece = (piece * 2).min(MAX_PIECE);
            let ended = match more {
                // Full: only its end may follow.
                0 => return if fill(&mut source, &mut [0])? == 0 { Ok(()) } else { Err(self.too_large()) },
                more => {
                    let filled = fill(&mut source, self.space(more)?)?;
                    self.bytes.truncate(len + filled);
                    filled < more
                }
            };
            if ended {
                return Ok(());
            }
        }
    }

    /// Returns the bytes, and releases unused capacity, which any record would otherwise keep allocated.
    fn finish(mut self) -> Vec<u8> {
        if self.bytes.capacity() - self.bytes.len() > self.bytes.len() / 8 {
            self.bytes.shrink_to_fit();
        }
        self.bytes
    }
}

/// Reads until `space` is full or `source` ends.
fn fill(source: &mut impl Read, space: &mut [u8]) -> Result<usize, BatchError> {
    let mut filled = 0;
    while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(filled)
}

fn gzip(mut packed: &[u8], output: &mut Output) -> Result<(), BatchError> {
    loop {
        let mut member = GzDecoder::new(packed);
        output.read(&mut member)?;
        packed = member.into_inner();
        if !packed.starts_with(&GZIP_MAGIC) {
            return Ok(());
        }
    }
}

fn snappy(packed: &[u8], output: &mut Output) -> Result<(), BatchError> {
    if !packed.starts_with(&XERIAL_MAGIC) {
        return snappy_block(packed, output);
    }
    let mut rest = packed;
    while !rest.is_empty() {
        // A stream may follow another one.
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER..).ok_or_else(|| failed("the snappy header is cut off"))?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk().ok_or_else(|| failed("a snappy block is cut off"))?;
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (block, behind) = behind.split_at_checked(length).ok_or_else(|| failed("a snappy block is cut off"))?;
        snappy_block(block, output)?;
        rest = behind;
    }
    Ok(())
}

fn snappy_block(block: &[u8], output: &mut Output) -> Result<(), BatchError> {
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    if length > block.len().saturating_mul(SNAPPY_RATIO) {
        return Err(failed("a snappy block declares more than it can contain"));
    }
    let space = output.space(length)?;
    snap::raw::Decoder::new().decompress(block, space).map(drop).map_err(failed)
}

fn zstd(mut packed: &[u8], output: &mut Output) -> Result<(), BatchError> {
    while !packed.is_empty() {
        let mut frame = ZstdDecoder::new();
        frame.set_max_window_size(ZSTD_WINDOW);
        match frame.init(&mut packed) {
            Ok(()) => zstd_frame(frame, &mut packed, output)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                packed = packed.get(length..).ok_or_else(|| failed("a zstd frame to skip is cut off"))?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn zstd_frame(mut frame: ZstdDecoder, packed: &mut &[u8], output: &mut Output) -> Result<(), BatchError> {
    // The decoder keeps up to a window of output, whose size it does not report. But each step decodes at least
    // that many bytes unless the frame ends.
    let room = output.limit - output.bytes.len();
    let mut decoded = 0_usize;
    let mut ended = false;
    while !ended {
        ended = frame.decode_blocks(&mut *packed, BlockDecodingStrategy::UptoBytes(ZSTD_STEP)).map_err(failed)?;
        if !ended {
            decoded += ZSTD_STEP;
        }
        if decoded > room || frame.can_collect() > output.limit - output.bytes.len() {
            return Err(output.too_large());
        }
        frame.collect_to_writer(&mut output.bytes).map_err(failed)?;
    }
    match (frame.get_checksum_from_data(), frame.get_calculated_checksum()) {
        (Some(stored), Some(computed)) if stored != computed => Err(failed("the checksum of a zstd frame is wrong")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty source that notes the largest space that it gets.
    struct Empty(usize);

    impl Read for &mut Empty {
        fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
            self.0 = self.0.max(space.len());
            Ok(0)
        }
    }

    #[test]
    fn an_empty_member_costs_nothing_of_what_is_there() {
        let mut output = Output { bytes: vec![0; 1 << 20], limit: 2 << 20 };
        let mut empty = Empty(0);
        output.read(&mut empty).expect("its end");
        assert_eq!((empty.0, output.bytes.len()), (FIRST_PIECE, 1 << 20));
    }
}
