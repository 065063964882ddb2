//! Base64 for URLs, and the ids and tokens encoded in it.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Returns 16 random bytes as Kafka writes its ids: 22 characters, the last of which has 2 bits.
pub(crate) fn random_id() -> String {
    let pick = |place: u64| RandomState::new().hash_one(place);
    // Kafka's tools would read a leading dash as an option.
    let mut id: String = (0..21).map(|place| char::from(ALPHABET[(pick(place) % 62) as usize])).collect();
    id.push(['A', 'Q', 'g', 'w'][(pick(21) % 4) as usize]);
    id
}

/// Creates an unsecured bearer token (`"alg":"none"`) for `subject`, issued `age` ago and valid for `life` from then
/// on.
pub(crate) fn unsecured(subject: &str, age: Duration, life: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let issued = now.saturating_sub(age).as_secs();
    let expires = issued + life.as_secs();
    let claims = format!(r#"{{"sub":"{subject}","iat":{issued},"exp":{expires}}}"#);
    format!("{}.{}.", encode(br#"{"alg":"none"}"#), encode(claims.as_bytes()))
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(padded);
        for place in 0..=chunk.len() {
            let digit = (bits >> (18 - 6 * place)) & 63;
            text.push(char::from(ALPHABET[digit as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_for_urls_has_no_padding() {
        assert_eq!(
            [encode(b""), encode(b"f"), encode(b"fo"), encode(b"foo"), encode(b"\xff\xfe")],
            ["", "Zg", "Zm8", "Zm9v", "__4"]
        );
    }

    #[test]
    fn an_id_has_22_characters() {
        assert_eq!(random_id().len(), 22);
        assert_ne!(random_id(), random_id());
    }
}
