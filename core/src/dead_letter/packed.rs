//! Packing of many headers into one, for a letter that would otherwise have more headers than a client sends.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{Header, Headers};

/// Packs headers, in order.
///
/// Each is encoded as the name's length, the name, the value's length plus one (zero for null), and the value.
/// Lengths are unsigned LEB128, so that the result takes no more bytes than the headers do in a Kafka record.
pub(crate) fn pack(headers: &Headers) -> Bytes {
    let mut packed = BytesMut::with_capacity(headers.size() + 4 * headers.len());
    for Header { name, value } in headers {
        put_length(&mut packed, name.len());
        packed.put_slice(name);
        put_length(&mut packed, value.as_ref().map_or(0, |value| value.len() + 1));
        packed.put_slice(value.as_deref().unwrap_or_default());
    }
    packed.freeze()
}

/// Unpacks headers; `None` for any other bytes. Names and values are slices of `packed`.
pub(crate) fn unpack(mut packed: Bytes) -> Option<Headers> {
    let mut headers = Headers::new();
    while !packed.is_empty() {
        let name = take(&mut packed)?;
        let name = take_bytes(&mut packed, name)?;
        headers.push(match take(&mut packed)?.checked_sub(1) {
            Some(length) => Header::new(name, take_bytes(&mut packed, length)?),
            None => Header::null(name),
        });
    }
    Some(headers)
}

fn put_length(to: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        to.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    to.put_u8(length as u8);
}

/// Reads a length.
fn take(from: &mut Bytes) -> Option<usize> {
    let mut length = 0_usize;
    for shift in (0..u32::BITS).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

fn take_bytes(from: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= from.len()).then(|| from.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_byte_for_byte() {
        let mut headers = Headers::new().with("", "").with("a", "1").with("a", vec![0, 255]);
        headers.push(Header::null("n"));
        headers.push(Header::new(vec![7; 300], vec![8; 20_000]));
        assert_eq!(unpack(pack(&headers)), Some(headers));
        assert_eq!(unpack(Bytes::new()), Some(Headers::new()));
    }

    #[test]
    fn other_bytes_are_no_headers() {
        let packed = pack(&Headers::new().with("name", "value"));
        for cut in 1..packed.len() {
            assert_eq!(unpack(packed.slice(..cut)), None, "{cut}");
        }
        for bytes in [&[0xff; 20][..], &[1], &[0], &[0xff, 0xff, 0xff, 0xff, 0x0f, 1]] {
            assert_eq!(unpack(Bytes::copy_from_slice(bytes)), None, "{bytes:?}");
        }
    }
}
