//! Names and values as HTML forms write them, in a query or in a body: bytes to bytes.
//!
//! `&` parts the pairs, the first `=` a name from its value, `+` is a space and `%41` a byte. What
//! has no `=` is a name with an empty value; what is empty is nothing. A percent sign that two
//! hexadecimal digits do not follow stands for itself.

use std::borrow::Cow;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode, percent_encode};

use crate::reject::Reject;

/// A name and its value, decoded.
pub(super) type Pair<'q> = (Cow<'q, [u8]>, Cow<'q, [u8]>);

/// The query of a request target, without its question mark.
pub(super) fn of(target: &str) -> &[u8] {
    target.split_once('?').map_or(b"", |(_, query)| query.as_bytes())
}

/// Every pair, in order.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let texts = text.split(|byte| *byte == b'&').filter(|text| !text.is_empty());
    texts.map(|text| {
        let equals = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
        let (name, value) = text.split_at(equals);
        (decoded(name), decoded(value.get(1..).unwrap_or_default()))
    })
}

/// The value of a parameter that must stand exactly once in the query and not be empty.
pub(super) fn only<'q>(target: &'q str, name: &[u8]) -> Result<Cow<'q, [u8]>, Reject> {
    let mut found = pairs(of(target)).filter(|(known, _)| **known == *name);
    let (_, value) = found.next().ok_or(Reject::SignatureMissing)?;
    match found.next() {
        Some(_) => Err(Reject::SignatureDoubled),
        None if value.is_empty() => Err(Reject::SignatureMissing),
        None => Ok(value),
    }
}

/// Puts one more parameter behind a target.
pub(super) fn add(target: &mut String, name: &[u8], value: &[u8]) {
    target.push(if target.contains('?') { '&' } else { '?' });
    target.extend(percent_encode(name, NON_ALPHANUMERIC));
    target.push('=');
    target.extend(percent_encode(value, NON_ALPHANUMERIC));
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_forms_write_them() {
        let read = |text: &str| -> Vec<(String, String)> {
            let text_of = |bytes: Cow<'_, [u8]>| String::from_utf8_lossy(&bytes).into_owned();
            pairs(text.as_bytes()).map(|(name, value)| (text_of(name), text_of(value))).collect()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read(""), []);
        assert_eq!(
            read("a=1&&b&c=&=d"),
            [pair("a", "1"), pair("b", ""), pair("c", ""), pair("", "d")]
        );
        assert_eq!(read("To=%2B1415&q=a+b%20c%2b=+"), [pair("To", "+1415"), pair("q", "a b c+= ")]);
        assert_eq!(read("%zz=%4&x=%"), [pair("%zz", "%4"), pair("x", "%")]);
    }

    #[test]
    fn a_parameter_that_counts_stands_once() {
        let token = |target| only(target, b"token").map(Cow::into_owned);
        assert_eq!(token("/in?a=b&token=x%41"), Ok(b"xA".to_vec()));
        assert_eq!(token("/in?tok%65n=x"), Ok(b"x".to_vec()));
        assert_eq!(token("/in"), Err(Reject::SignatureMissing));
        assert_eq!(token("/in?token="), Err(Reject::SignatureMissing));
        assert_eq!(token("/in?token=x&token=x"), Err(Reject::SignatureDoubled));
    }
}
