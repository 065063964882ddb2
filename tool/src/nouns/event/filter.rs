//! Filters of records: `FIELD=TEXT` or `FIELD~TEXT`. There is no expression language, on purpose: operators' consoles
//! were attacked through theirs.

use tidings_core::{StoredRecord, codec};

/// The condition of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    field: Field,
    /// Contained, not equal.
    part: bool,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Key,
    Value,
    Type,
    Id,
    Header(String),
}

/// Parses a filter.
pub(crate) fn filter(text: &str) -> Result<Filter, String> {
    let expected = "expected FIELD=TEXT or FIELD~TEXT, where FIELD is key, value, type, id or header.NAME";
    let at = text.find(['=', '~']).ok_or(expected)?;
    let field = match &text[..at] {
        "key" => Field::Key,
        "value" => Field::Value,
        "type" => Field::Type,
        "id" => Field::Id,
        name => match name.strip_prefix("header.") {
            Some(name) if !name.is_empty() => Field::Header(name.to_owned()),
            _ => return Err(expected.to_owned()),
        },
    };
    Ok(Filter { field, part: text[at..].starts_with('~'), text: text[at + 1..].to_owned() })
}

impl Filter {
    /// Returns whether a record passes.
    pub(crate) fn matches(&self, record: &StoredRecord) -> bool {
        let head = || codec::peek(record).ok();
        match &self.field {
            Field::Key => self.is(record.key.as_deref()),
            Field::Value => self.is(record.value.as_deref()),
            Field::Type => self.is(head().as_ref().map(|head| head.event_type.as_bytes())),
            Field::Id => self.is(head().map(|head| head.id.to_string()).as_ref().map(String::as_bytes)),
            Field::Header(name) => {
                let named = |header: &&tidings_core::Header| header.name == name.as_bytes();
                record.headers.iter().filter(named).any(|header| self.is(header.value.as_deref()))
            }
        }
    }

    fn is(&self, found: Option<&[u8]>) -> bool {
        let text = self.text.as_bytes();
        match found {
            Some(found) if self.part => text.is_empty() || found.windows(text.len()).any(|part| part == text),
            Some(found) => found == text,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::{Headers, Timestamp};

    use super::*;

    #[test]
    fn a_filter_is_equal_or_contained() {
        let record = StoredRecord::new(0, Timestamp::now()).with_key("k1").with_value("a body");
        let record = record.with_headers(Headers::new().with("h", "x").with("h", "y"));
        let passes = |text: &str| filter(text).unwrap().matches(&record);
        assert!(passes("key=k1") && passes("key~k") && passes("value~body") && passes("header.h=y"));
        assert!(!passes("key=k") && !passes("value=body") && !passes("header.g=y") && !passes("type=a"));
        for wrong in ["key", "kye=a", "header.=a", "=a", ""] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
