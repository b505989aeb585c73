//! The meta section of a record: tagged fields, one after the other.
//!
//! A field is a tag, a length and that many bytes, without padding. A request header is two
//! fields: its name, then its value or the digest that stands for it. Reading takes any bytes:
//! a section that ends in the middle of a field yields the fields before it.

use crate::position::Key;

/// What a field of the meta section holds. The numbers are persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Tag {
    /// Name of the source.
    Source = 1,
    /// Environment of the source.
    Environment = 2,
    /// Tenant.
    Tenant = 3,
    /// The provider's id of the event.
    EventId = 4,
    /// The provider's type of the event.
    EventType = 5,
    /// The provider's time of the event, as sent.
    EventTime = 6,
    /// Name of the secret that matched.
    Secret = 7,
    /// Request method.
    Method = 8,
    /// Request target.
    Target = 9,
    /// Address of the peer.
    Peer = 10,
    /// Trace id.
    TraceId = 11,
    /// In a delivery: the position of the event.
    EventPosition = 12,
    /// Of a request whose id is not signed and whose signed bytes came before under another id:
    /// an attacker may have sent a captured one again. The value is empty.
    SuspectReplay = 13,
    /// In an event whose id is not signed: the fingerprint of its signed bytes, by which they are
    /// known under another id. Only as the first field, of 16 bytes, is it found by
    /// [`Lane::keys`](crate::Lane::keys).
    SignedKey = 14,
    /// In a quarantined request: why it was refused.
    Reason = 16,
    /// In an event out of quarantine: its position there.
    Quarantined = 17,
    /// In an event out of quarantine: when it first arrived, in unix nanoseconds, decimal.
    FirstReceived = 18,
    /// In a dead letter: why the event was given up.
    DeadReason = 19,
    /// In a dead letter: how often it was tried, decimal.
    DeadAttempts = 20,
    /// In a dead letter: the lane that the event was in.
    DeadLane = 21,
    /// In a dead letter: its position there.
    DeadPosition = 22,
    /// Name of a request header; its value or digest follows.
    HeaderName = 32,
    /// Value of the header named before, byte-exact.
    HeaderValue = 33,
    /// Keyed digest in place of the value of the header named before.
    HeaderDigest = 34,
}

/// A field longer than its 16-bit length can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field of {bytes} bytes is longer than the 65535 that a meta section can hold")]
pub struct FieldTooLong {
    /// Length of what was given.
    pub bytes: usize,
}

/// Tag and length in front of a field.
const FIELD_HEADER_BYTES: usize = 4;
/// Tag and length of the key of the signed bytes.
const SIGNED_KEY_FRONT: [u8; FIELD_HEADER_BYTES] = [Tag::SignedKey as u8, 0, 16, 0];
/// Bytes of the field that is the key of the signed bytes.
pub(crate) const SIGNED_KEY_BYTES: usize = FIELD_HEADER_BYTES + 16;
/// The longest field that a 16-bit length can tell.
const BYTES_MAX: usize = u16::MAX as usize;

/// Writes a meta section into a buffer that is kept for the next one.
#[derive(Clone, Debug, Default)]
pub struct MetaWriter {
    buffer: Vec<u8>,
}

impl MetaWriter {
    /// An empty section with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: Vec::with_capacity(capacity) }
    }

    /// Forgets the fields and keeps the buffer.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Adds a field. On an error nothing is added.
    pub fn field(&mut self, tag: Tag, value: &[u8]) -> Result<(), FieldTooLong> {
        self.add([(tag as u16, value)])
    }

    /// Adds a field of another record by its number, also one that this version does not know. On an
    /// error nothing is added.
    pub fn copy(&mut self, number: u16, value: &[u8]) -> Result<(), FieldTooLong> {
        self.add([(number, value)])
    }

    /// Adds a request header with its value, byte-exact. On an error nothing is added.
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldTooLong> {
        self.add([(Tag::HeaderName as u16, name), (Tag::HeaderValue as u16, value)])
    }

    /// Adds a request header whose value is a credential: only its digest is kept.
    pub fn header_digest(&mut self, name: &[u8], digest: &[u8]) -> Result<(), FieldTooLong> {
        self.add([(Tag::HeaderName as u16, name), (Tag::HeaderDigest as u16, digest)])
    }

    /// Adds all of these fields or none.
    fn add<const COUNT: usize>(
        &mut self,
        fields: [(u16, &[u8]); COUNT],
    ) -> Result<(), FieldTooLong> {
        if let Some((_, long)) = fields.iter().find(|(_, value)| value.len() > BYTES_MAX) {
            return Err(FieldTooLong { bytes: long.len() });
        }
        for (tag, value) in fields {
            let [tag_low, tag_high] = tag.to_le_bytes();
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            let [length_low, length_high] = length.to_le_bytes();
            self.buffer.extend_from_slice(&[tag_low, tag_high, length_low, length_high]);
            self.buffer.extend_from_slice(value);
        }
        Ok(())
    }

    /// The section written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }
}

/// A meta section as read.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    bytes: &'a [u8],
}

/// What is kept of a header's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderValue<'a> {
    /// The value, byte-exact.
    Bytes(&'a [u8]),
    /// A keyed digest of a value that was a credential.
    Digest(&'a [u8]),
}

impl<'a> Meta<'a> {
    /// Reads `bytes` as a meta section; any bytes will do.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The section as stored.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Every field by its number, also those that this version does not know.
    pub fn fields(&self) -> Fields<'a> {
        Fields { rest: self.bytes }
    }

    /// The first field with this tag.
    pub fn get(&self, tag: Tag) -> Option<&'a [u8]> {
        self.fields().find(|(number, _)| *number == tag as u16).map(|(_, value)| value)
    }

    /// The key of the signed bytes, if the section begins with one: the key, and its whole field.
    pub(crate) fn signed_key(&self) -> Option<(Key, &'a [u8; SIGNED_KEY_BYTES])> {
        let field = self.bytes.first_chunk::<SIGNED_KEY_BYTES>()?;
        let (front, key) = field.split_first_chunk::<FIELD_HEADER_BYTES>()?;
        (*front == SIGNED_KEY_FRONT).then_some((Key(*key.first_chunk()?), field))
    }

    /// The request headers in the order of the request; a name without a value is left out.
    pub fn headers(&self) -> Headers<'a> {
        Headers { fields: self.fields(), name: None }
    }
}

/// The fields of a meta section.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (tag, rest) = self.rest.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        self.rest = rest;
        Some((u16::from_le_bytes(*tag), value))
    }
}

/// The request headers of a meta section.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    fields: Fields<'a>,
    name: Option<&'a [u8]>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], HeaderValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        for (number, value) in self.fields.by_ref() {
            if number == Tag::HeaderName as u16 {
                self.name = Some(value);
                continue;
            }
            let kept = match number {
                number if number == Tag::HeaderValue as u16 => HeaderValue::Bytes(value),
                number if number == Tag::HeaderDigest as u16 => HeaderValue::Digest(value),
                _ => continue,
            };
            if let Some(name) = self.name.take() {
                return Some((name, kept));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_and_headers_come_back_in_order() {
        let mut writer = MetaWriter::default();
        writer.field(Tag::Source, b"stripe").expect("short");
        writer.header(b"host", b"a.example").expect("short");
        writer.header_digest(b"authorization", &[9; 16]).expect("short");
        writer.header(b"host", b"").expect("short");
        let meta = Meta::new(writer.as_bytes());
        assert_eq!(meta.get(Tag::Source), Some(b"stripe".as_slice()));
        assert_eq!(meta.get(Tag::Tenant), None);
        let headers: Vec<_> = meta.headers().collect();
        assert_eq!(headers.len(), 3);
        assert_eq!(headers[0], (b"host".as_slice(), HeaderValue::Bytes(b"a.example")));
        assert_eq!(headers[1], (b"authorization".as_slice(), HeaderValue::Digest(&[9; 16])));
        assert_eq!(headers[2], (b"host".as_slice(), HeaderValue::Bytes(b"")));
    }

    #[test]
    fn a_key_of_signed_bytes_is_one_only_whole_and_in_front() {
        let mut writer = MetaWriter::default();
        writer.field(Tag::SignedKey, &[7; 16]).expect("short");
        writer.field(Tag::Source, b"github").expect("short");
        let bytes = writer.as_bytes();
        let (key, field) = Meta::new(bytes).signed_key().expect("it begins with one");
        assert_eq!((key, &field[..]), (Key([7; 16]), &bytes[..20]));
        assert_eq!(Meta::new(&bytes[..20]).get(Tag::SignedKey), Some(&[7; 16][..]));
        assert!(Meta::new(&bytes[..19]).signed_key().is_none());
        for fields in [
            [(Tag::SignedKey, &[7; 15]), (Tag::Source, &[7; 15])],
            [(Tag::Source, &[7; 15]), (Tag::SignedKey, &[7; 15])],
        ] {
            writer.clear();
            for (tag, value) in fields {
                writer.field(tag, value).expect("short");
            }
            assert!(Meta::new(writer.as_bytes()).signed_key().is_none());
        }
    }

    #[test]
    fn a_field_too_long_adds_nothing() {
        let mut writer = MetaWriter::with_capacity(16);
        let long = vec![0; 65_536];
        assert_eq!(writer.header(b"x", &long), Err(FieldTooLong { bytes: 65_536 }));
        assert!(writer.as_bytes().is_empty());
        assert_eq!(writer.field(Tag::EventId, &long[1..]), Ok(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let meta = Meta::new(&bytes);
            let fields: usize = meta.fields().map(|(_, value)| value.len() + 4).sum();
            prop_assert!(fields <= bytes.len());
            let _ = meta.headers().count();
            let _ = meta.signed_key();
        }
    }
}
