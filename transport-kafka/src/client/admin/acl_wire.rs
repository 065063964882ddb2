//! The requests of access control, encoded here: the client's numbers of the patterns are not the broker's (it creates a
//! literal entry for a prefix), and it lacks newer operations and resources.
//!
//! Versions 2 and 3 of DescribeAcls, CreateAcls and DeleteAcls have the same form: flexible, as KIP-482 defines it.
//! Answers are untrusted: a length beyond the bytes is an error.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use krafka::KrafkaError;
use krafka::error::ErrorCode;
use tidings_core::{Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, AclResourceType};

/// The versions used, newest first: brokers have them since 2.4 and 3.3.
pub(super) const VERSIONS: (i16, i16) = (3, 2);

/// The numbers for "any value" and, of patterns, for "any entry that applies to the name".
const ANY: i8 = 1;
const MATCH: i8 = 2;

const TYPES: &[(i8, AclResourceType)] = &[
    (2, AclResourceType::Topic),
    (3, AclResourceType::Group),
    (4, AclResourceType::Cluster),
    (5, AclResourceType::TransactionalId),
    (6, AclResourceType::DelegationToken),
    (7, AclResourceType::User),
];
const PATTERNS: &[(i8, AclPattern)] = &[(3, AclPattern::Literal), (4, AclPattern::Prefixed)];
const OPERATIONS: &[(i8, AclOperation)] = &[
    (2, AclOperation::All),
    (3, AclOperation::Read),
    (4, AclOperation::Write),
    (5, AclOperation::Create),
    (6, AclOperation::Delete),
    (7, AclOperation::Alter),
    (8, AclOperation::Describe),
    (9, AclOperation::ClusterAction),
    (10, AclOperation::DescribeConfigs),
    (11, AclOperation::AlterConfigs),
    (12, AclOperation::IdempotentWrite),
    (13, AclOperation::CreateTokens),
    (14, AclOperation::DescribeTokens),
    (15, AclOperation::TwoPhaseCommit),
];
const PERMISSIONS: &[(i8, AclPermission)] = &[(2, AclPermission::Deny), (3, AclPermission::Allow)];

fn number<T: PartialEq>(numbers: &[(i8, T)], value: T) -> Option<i8> {
    numbers.iter().find(|(_, known)| *known == value).map(|(number, _)| *number)
}

fn value<T: Copy>(numbers: &[(i8, T)], number: i8, unknown: T) -> T {
    numbers.iter().find(|(known, _)| *known == number).map_or(unknown, |(_, value)| *value)
}

/// Returns whether all values of an entry can be sent.
pub(super) fn is_known(acl: &Acl) -> bool {
    number(TYPES, acl.resource.kind).is_some()
        && number(PATTERNS, acl.resource.pattern).is_some()
        && number(OPERATIONS, acl.operation).is_some()
        && number(PERMISSIONS, acl.permission).is_some()
}

/// A request's fields; those that are `None` are "any".
struct Fields<'a> {
    kind: Option<i8>,
    name: Option<&'a str>,
    pattern: Option<i8>,
    principal: Option<&'a str>,
    host: Option<&'a str>,
    operation: Option<i8>,
    permission: Option<i8>,
}

impl<'a> Fields<'a> {
    fn of(acl: &'a Acl) -> Self {
        Self {
            kind: number(TYPES, acl.resource.kind),
            name: Some(&acl.resource.name),
            pattern: number(PATTERNS, acl.resource.pattern),
            principal: Some(&acl.principal),
            host: Some(&acl.host),
            operation: number(OPERATIONS, acl.operation),
            permission: number(PERMISSIONS, acl.permission),
        }
    }

    fn of_filter(filter: &'a AclFilter) -> Self {
        // The broker finds the entries that apply to a name; the pattern is then compared here.
        let applies = filter.applies && filter.name.is_some();
        Self {
            kind: filter.kind.and_then(|kind| number(TYPES, kind)),
            name: filter.name.as_deref(),
            pattern: if applies { Some(MATCH) } else { filter.pattern.and_then(|pattern| number(PATTERNS, pattern)) },
            principal: filter.principal.as_deref(),
            host: filter.host.as_deref(),
            operation: filter.operation.and_then(|operation| number(OPERATIONS, operation)),
            permission: filter.permission.and_then(|permission| number(PERMISSIONS, permission)),
        }
    }

    /// The tags of the entry are left to the caller: the fields of a filter alone are a whole request.
    fn put(&self, buffer: &mut BytesMut) {
        buffer.put_i8(self.kind.unwrap_or(ANY));
        put_text(buffer, self.name);
        buffer.put_i8(self.pattern.unwrap_or(ANY));
        put_text(buffer, self.principal);
        put_text(buffer, self.host);
        buffer.put_i8(self.operation.unwrap_or(ANY));
        buffer.put_i8(self.permission.unwrap_or(ANY));
    }
}

/// Encodes a request for the entries that a filter selects.
pub(super) fn describe(filter: &AclFilter, buffer: &mut BytesMut) {
    Fields::of_filter(filter).put(buffer);
    put_tags(buffer);
}

/// Encodes a request to create entries, or to delete exactly these: both have the same form.
pub(super) fn change(acls: &[&Acl], buffer: &mut BytesMut) {
    put_length(buffer, acls.len());
    for acl in acls {
        Fields::of(acl).put(buffer);
        put_tags(buffer);
    }
    put_tags(buffer);
}

fn put_text(buffer: &mut BytesMut, text: Option<&str>) {
    match text {
        None => put_unsigned(buffer, 0),
        Some(text) => {
            put_length(buffer, text.len());
            buffer.put_slice(text.as_bytes());
        }
    }
}

/// Lengths are one higher than they are: zero is null.
fn put_length(buffer: &mut BytesMut, length: usize) {
    put_unsigned(buffer, u32::try_from(length).unwrap_or(u32::MAX - 1).saturating_add(1));
}

fn put_unsigned(buffer: &mut BytesMut, mut number: u32) {
    while number >= 0x80 {
        buffer.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

fn put_tags(buffer: &mut BytesMut) {
    put_unsigned(buffer, 0);
}

/// Decodes the entries that a filter selects.
pub(super) fn described(answer: Bytes) -> krafka::Result<Vec<Acl>> {
    let mut answer = Answer(answer);
    answer.number_of::<4>()?;
    answer.error()??;
    let mut acls = Vec::new();
    for _ in 0..answer.length()? {
        let (kind, name, pattern) = (answer.byte()?, answer.text()?.unwrap_or_default(), answer.byte()?);
        let resource = AclResource::literal(value(TYPES, kind, AclResourceType::Unknown), name);
        for _ in 0..answer.length()? {
            let mut resource = resource.clone();
            resource.pattern = value(PATTERNS, pattern, AclPattern::Unknown);
            acls.push(answer.entry(resource)?);
            answer.tags()?;
        }
        answer.tags()?;
    }
    Ok(acls)
}

/// Decodes the answers to a creation, one for each entry.
pub(super) fn created(answer: Bytes) -> krafka::Result<Vec<krafka::Result<()>>> {
    let mut answer = Answer(answer);
    answer.number_of::<4>()?;
    let mut results = Vec::new();
    for _ in 0..answer.length()? {
        results.push(answer.error()?);
        answer.tags()?;
    }
    Ok(results)
}

/// Decodes the answers to a deletion: for each entry, whether it existed.
pub(super) fn deleted(answer: Bytes) -> krafka::Result<Vec<krafka::Result<bool>>> {
    let mut answer = Answer(answer);
    answer.number_of::<4>()?;
    let mut results = Vec::new();
    for _ in 0..answer.length()? {
        let mut result = answer.error()?.map(|()| false);
        for _ in 0..answer.length()? {
            let one = answer.error()?;
            let (kind, name, pattern) = (answer.byte()?, answer.text()?.unwrap_or_default(), answer.byte()?);
            let mut resource = AclResource::literal(value(TYPES, kind, AclResourceType::Unknown), name);
            resource.pattern = value(PATTERNS, pattern, AclPattern::Unknown);
            answer.entry(resource)?;
            answer.tags()?;
            result = result.and_then(|_| one.map(|()| true));
        }
        answer.tags()?;
        results.push(result);
    }
    Ok(results)
}

/// The rest of an answer.
struct Answer(Bytes);

impl Answer {
    fn entry(&mut self, resource: AclResource) -> krafka::Result<Acl> {
        let (principal, host) = (self.text()?.unwrap_or_default(), self.text()?.unwrap_or_default());
        let (operation, permission) = (self.byte()?, self.byte()?);
        let mut acl =
            Acl::allow(principal, value(OPERATIONS, operation, AclOperation::Unknown), resource).with_host(host);
        acl.permission = value(PERMISSIONS, permission, AclPermission::Unknown);
        Ok(acl)
    }

    /// Reads a code and its text; the outer error is of the bytes.
    fn error(&mut self) -> krafka::Result<krafka::Result<()>> {
        let code = ErrorCode::from(i16::from_be_bytes(self.number_of()?));
        let text = self.text()?;
        let refused = || Err(KrafkaError::broker(code, text.unwrap_or_else(|| format!("{code:?}"))));
        Ok(if code.is_ok() { Ok(()) } else { refused() })
    }

    fn number_of<const N: usize>(&mut self) -> krafka::Result<[u8; N]> {
        let bytes = *self.0.first_chunk::<N>().ok_or_else(malformed)?;
        self.0.advance(N);
        Ok(bytes)
    }

    fn byte(&mut self) -> krafka::Result<i8> {
        Ok(i8::from_be_bytes(self.number_of()?))
    }

    fn text(&mut self) -> krafka::Result<Option<String>> {
        let Some(length) = self.unsigned()?.checked_sub(1) else { return Ok(None) };
        let length = length as usize;
        if self.0.len() < length {
            return Err(malformed());
        }
        let bytes = self.0.split_to(length);
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| malformed())
    }

    /// Reads the length of a list; each element has at least one byte.
    fn length(&mut self) -> krafka::Result<usize> {
        let length = self.unsigned()?.saturating_sub(1) as usize;
        if length <= self.0.len() { Ok(length) } else { Err(malformed()) }
    }

    fn tags(&mut self) -> krafka::Result<()> {
        for _ in 0..self.unsigned()? {
            self.unsigned()?;
            let length = self.unsigned()? as usize;
            if self.0.len() < length {
                return Err(malformed());
            }
            self.0.advance(length);
        }
        Ok(())
    }

    fn unsigned(&mut self) -> krafka::Result<u32> {
        let mut number = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.number_of()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| malformed());
            }
        }
        Err(malformed())
    }
}

fn malformed() -> KrafkaError {
    KrafkaError::illegal_state("the answer about access control is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Acl {
        Acl::deny("User:alice", AclOperation::Read, AclResource::prefixed(AclResourceType::Topic, "orders"))
    }

    #[test]
    fn a_prefix_is_sent_as_the_brokers_number() {
        let mut buffer = BytesMut::new();
        change(&[&entry()], &mut buffer);
        let wanted = [&[2, 2, 7][..], b"orders", &[4, 11], b"User:alice", &[2], b"*", &[3, 2, 0, 0]].concat();
        assert_eq!(buffer[..], wanted);
    }

    #[test]
    fn an_answer_is_read_and_its_bytes_are_not_trusted() {
        let head = [0, 0, 0, 0, 0, 0, 0];
        let body = [&[2, 2, 7][..], b"orders", &[4, 2, 11], b"User:alice", &[2], b"*", &[3, 2, 0, 0, 0]].concat();
        let whole = [&head[..], &body].concat();
        assert_eq!(described(Bytes::from(whole.clone())).unwrap(), [entry()]);
        for length in 0..whole.len() - 1 {
            assert!(described(Bytes::copy_from_slice(&whole[..length])).is_err(), "{length}");
        }
        let endless = [&head[..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        assert!(described(Bytes::from(endless)).is_err());
    }

    #[test]
    fn a_refusal_has_the_brokers_text() {
        let refused = [&[0, 0, 0, 0, 2, 0, 42, 5][..], b"oops", &[0, 0]].concat();
        let error = created(Bytes::from(refused)).unwrap().remove(0).unwrap_err();
        assert!(error.to_string().contains("oops"), "{error}");
    }
}
