//! Encoding of records in columns.
//!
//! The forms are stored and never change. Bytes of records are stored as they came; only text needs
//! care, since a Postgres text can hold no NUL.

use std::borrow::Cow;

use bytes::{Buf, BufMut, Bytes};
use tidings_core::{Error, ErrorKind, Header, Headers, Result};
use uuid::Uuid;

/// Encodes headers as alternating names and values, each prefixed with its length; -1 is null.
pub(crate) fn headers_to_bytes(headers: &Headers) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(headers.size() + headers.len() * 8);
    for header in headers {
        put(&mut bytes, Some(&header.name));
        put(&mut bytes, header.value.as_ref());
    }
    bytes
}

/// Appends a length and the bytes.
fn put(onto: &mut Vec<u8>, part: Option<&Bytes>) {
    let Some(part) = part else {
        onto.put_i32(-1);
        return;
    };
    // Records far below 2 GiB are refused already.
    onto.put_i32(i32::try_from(part.len()).unwrap_or(i32::MAX));
    onto.put_slice(part);
}

/// Decodes headers.
///
/// # Errors
/// [`ErrorKind::Corrupt`]: they were written by another program.
pub(crate) fn headers_from_bytes(bytes: Vec<u8>) -> Result<Headers> {
    let mut bytes = Bytes::from(bytes);
    let mut headers = Vec::new();
    while bytes.has_remaining() {
        let name = take(&mut bytes)?.ok_or_else(damaged)?;
        headers.push(Header { name, value: take(&mut bytes)? });
    }
    Ok(headers.into_iter().collect())
}

/// Takes a part off the front; lengths are checked before they are used.
fn take(bytes: &mut Bytes) -> Result<Option<Bytes>> {
    match bytes.try_get_i32().map_err(|_| damaged())? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= bytes.len() => Ok(Some(bytes.split_to(length))),
            _ => Err(damaged()),
        },
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "read a record from its table: its headers are damaged")
}

/// Escapes text for a column: a NUL, which Postgres text can't contain, as `\0`, and a backslash as `\\`.
pub(crate) fn escape(text: &str) -> String {
    if !text.contains(['\\', '\0']) {
        return text.to_owned();
    }
    text.replace('\\', "\\\\").replace('\0', "\\0")
}

/// Prefix of text that [`storable`] had to encode.
const MARK: &str = "\\0";

/// The longest name that is stored unchanged: two of them, a group's and a topic's, share an index entry, which takes
/// 2,704 bytes.
const LONGEST_NAME: usize = 2 << 10;
/// The longest event type that is stored unchanged.
const LONGEST_TYPE: usize = 512;
/// Bytes of a longer name that are kept readable in the table.
const SHOWN_BYTES: usize = 256;

/// Encodes text for a column of names. It stays unchanged, so that rows of earlier versions are found, unless it
/// contains a NUL, which Postgres text can't, or does not fit into an index. Then it is escaped behind a mark, or
/// represented by its beginning and its hash. Different texts have different encodings.
pub(crate) fn storable(text: &str) -> Cow<'_, str> {
    let stored = match text.contains('\0') || text.starts_with(MARK) {
        true => Cow::Owned(MARK.to_owned() + &escape(text)),
        false => Cow::Borrowed(text),
    };
    if stored.len() <= LONGEST_NAME {
        return stored;
    }
    Cow::Owned(shortened(text))
}

/// Represents a long text by its beginning and its hash.
fn shortened(text: &str) -> String {
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
    let shown = escape(&text[..text.floor_char_boundary(SHOWN_BYTES)]);
    // `escape` writes no such pair, so that no shorter name looks the same.
    format!("{MARK}\\#{hash} {shown}")
}

/// Encodes an event type for the column that letters are found by. It must fit into an index entry, escapes and all, so
/// a long one is represented by its beginning and its hash.
pub(crate) fn type_to_column(event_type: &str) -> String {
    if event_type.len() > LONGEST_TYPE { shortened(event_type) } else { escape(event_type) }
}

/// Reverses [`escape`].
pub(crate) fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('0') => plain.push('\0'),
                other => plain.extend(other),
            },
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn headers_survive_their_bytes() {
        let mut headers = Headers::new().with("a", "1").with("a", "").with("", vec![0xff, 0]);
        headers.push(Header::null("n"));
        for headers in [headers, Headers::new()] {
            assert_eq!(headers_from_bytes(headers_to_bytes(&headers)).unwrap(), headers);
        }
    }

    #[test]
    fn damaged_headers_are_corrupt_and_no_panic() {
        let good = headers_to_bytes(&Headers::new().with("name", "value"));
        for cut in 1..good.len() {
            let read = headers_from_bytes(good[..cut].to_vec());
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt, "cut to {cut}");
        }
        let bad = headers_from_bytes(vec![0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0]);
        assert_eq!(bad.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn text_survives_its_escape() {
        for text in ["", "plain", "a\0b", "c:\\0", "\\\\\0\\"] {
            let escaped = escape(text);
            assert!(!escaped.contains('\0'));
            assert_eq!(unescape(&escaped), text);
        }
    }

    #[test]
    fn names_are_stored_as_they_are_or_apart_from_all_others() {
        for plain in ["", "orders", "a\\b", "a\\0b", "\\"] {
            assert_eq!(storable(plain), plain);
        }
        let odd = ["\0", "a\0b", "a\0b\\", "\\0", "\\0a", "\\0\\0", "\\0\0", "\0\\0"];
        let stored: HashSet<Cow<'_, str>> = odd.into_iter().map(storable).collect();
        assert_eq!(stored.len(), odd.len());
        assert!(stored.iter().all(|text| text.starts_with(MARK) && !text.contains('\0')), "{stored:?}");
    }

    #[test]
    fn a_name_of_any_length_fits_into_an_index_and_stays_apart() {
        let long = "\0\\x".repeat(100_000);
        let odd = [long.clone(), long.clone() + "x", "y".repeat(2_049), "y".repeat(2_050), "\0".repeat(1_025)];
        let stored: HashSet<Cow<'_, str>> = odd.iter().map(|text| storable(text)).collect();
        assert_eq!(stored.len(), odd.len());
        assert!(stored.iter().all(|text| text.len() <= LONGEST_NAME && !text.contains('\0')));
        let plain = "y".repeat(LONGEST_NAME);
        assert_eq!(storable(&plain), plain);
    }
}
