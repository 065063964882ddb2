//! Ids of events in audit records.

use bytes::Bytes;
use tidings_core::{Headers, StoredRecord, Timestamp, codec, headers};
use uuid::Uuid;

/// Prefix of an envelope whose id is its first field, as tidings and `JSON.stringify` write it.
const START: &[u8] = br#"{"eventId":""#;
const JSON: &[u8] = b"application/json";
/// Length of an id as text.
const ID_LENGTH: usize = 36;

/// Returns the id of an event, if it has one.
///
/// Most ids are read from the beginning of a JSON envelope, or from the header. Parsing the record would cost more than
/// recording it.
pub(crate) fn id_of(headers: &Headers, value: Option<&Bytes>) -> Option<Uuid> {
    if headers.get(headers::CONTENT_TYPE).is_none_or(|kind| kind == JSON) {
        return first_field(value?).or_else(|| peek(headers, value?));
    }
    match headers.get(headers::EVENT_ID) {
        Some(id) => parse(id),
        None => peek(headers, value?),
    }
}

fn parse(id: &[u8]) -> Option<Uuid> {
    Uuid::try_parse_ascii(id).ok().filter(|id| !id.is_nil())
}

/// Returns the id that is the first field of an envelope.
fn first_field(value: &[u8]) -> Option<Uuid> {
    let (id, rest) = value.strip_prefix(START)?.split_at_checked(ID_LENGTH)?;
    if rest.starts_with(b"\"") { parse(id) } else { None }
}

/// Parses an envelope and returns its id; `None` for bytes that are not a JSON object.
fn peek(headers: &Headers, value: &Bytes) -> Option<Uuid> {
    if value.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let record = StoredRecord::new(0, Timestamp::default()).with_value(value.clone()).with_headers(headers.clone());
    codec::peek(&record).ok().map(|head| head.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01939bd5-7b6c-7000-8000-000000000001";

    fn id(headers: &[(&'static str, &'static str)], value: Option<String>) -> Option<String> {
        let headers = headers.iter().fold(Headers::new(), |headers, (name, value)| headers.with(*name, *value));
        id_of(&headers, value.map(Bytes::from).as_ref()).map(|id| id.to_string())
    }

    #[test]
    fn the_id_is_found_wherever_it_is() {
        let first = format!(r#"{{"eventId":"{ID}","eventType":"paid","payload":{{}}}}"#);
        let last = format!(r#" {{"eventType": "paid", "payload": {{}}, "eventId": "{ID}"}}"#);
        for body in [first, last] {
            for headers in
                [&[][..], &[("content-type", "application/json")], &[("content-type", "application/json; a=b")]]
            {
                assert_eq!(id(headers, Some(body.clone())).as_deref(), Some(ID), "{headers:?} {body}");
            }
        }
        let bare = [("content-type", "application/postcard"), ("eventId", ID), ("eventType", "paid")];
        assert_eq!(id(&bare, None).as_deref(), Some(ID));
        assert_eq!(id(&bare, Some("{".into())).as_deref(), Some(ID));
    }

    #[test]
    fn records_without_an_id_have_none() {
        let nil = format!(r#"{{"eventId":"{}","eventType":"paid","payload":1}}"#, Uuid::nil());
        let longer = format!(r#"{{"eventId":"{ID}0","eventType":"paid","payload":1}}"#);
        for body in ["", "x", "{", "[]", r#"{"eventId":"7"}"#, r#"{"eventId":""#, &nil, &longer] {
            assert_eq!(id(&[], Some(body.to_owned())), None, "{body}");
        }
        assert_eq!(id(&[], None), None);
        assert_eq!(id(&[("content-type", "text/plain"), ("eventId", "7")], Some("{}".into())), None);
    }
}
