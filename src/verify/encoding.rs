//! Text to bytes, strictly: one encoded form for each value, so that no two texts are one
//! signature.
//!
//! Hex is lower case only and base64 is canonical and padded. Secrets are read more kindly than
//! signatures: they are typed by people and read once, at load.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

/// The longest tag of a MAC, that of HMAC-SHA512.
pub(super) const MAC_BYTES_MAX: usize = 64;
/// The longest signature of a private key, that of RSA with 8192 bits.
pub(super) const SIGNATURE_BYTES_MAX: usize = 1024;
/// What a decoder of base64 asks for beyond what it writes.
const SLACK: usize = 8;
/// Room to decode a signature of any algorithm; MACs have less and never need it.
pub(super) type SignatureBuffer = [u8; SIGNATURE_BYTES_MAX + SLACK];
pub(super) const SIGNATURE_BUFFER: SignatureBuffer = [0; SIGNATURE_BYTES_MAX + SLACK];

/// How a signature is written in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureEncoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Standard alphabet, padded, no stray bits.
    Base64,
}

impl SignatureEncoding {
    /// The length of the text for so many bytes.
    pub(super) const fn text_bytes(self, count: usize) -> usize {
        match self {
            Self::Hex => count * 2,
            Self::Base64 => count.div_ceil(3) * 4,
        }
    }

    /// Whether `text` is the one form of `out.len()` bytes, which are those of a MAC at most; on
    /// success they stand in `out`.
    pub(super) fn decode_exact(self, text: &[u8], out: &mut [u8]) -> bool {
        match self {
            Self::Hex => decode_hex(text, out),
            Self::Base64 => {
                let mut buffer = [0; MAC_BYTES_MAX + SLACK];
                if text.len() != self.text_bytes(out.len()) {
                    return false;
                }
                let Ok(count) = STANDARD.decode_slice(text, &mut buffer) else { return false };
                let fits = count == out.len();
                if fits {
                    out.copy_from_slice(buffer.get(..count).unwrap_or_default());
                }
                fits
            }
        }
    }

    /// The bytes of which `text` is the one form, if they are at most [`SIGNATURE_BYTES_MAX`].
    pub(super) fn decode(self, text: &[u8], buffer: &mut SignatureBuffer) -> Option<usize> {
        let count = match self {
            Self::Hex => {
                let count = text.len() / 2;
                decode_hex(text, buffer.get_mut(..count)?).then_some(count)?
            }
            Self::Base64 => STANDARD.decode_slice(text, buffer).ok()?,
        };
        (count <= SIGNATURE_BYTES_MAX).then_some(count)
    }

    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => encode_hex(bytes),
            Self::Base64 => STANDARD.encode(bytes),
        }
    }
}

/// How a secret's text stands for its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyEncoding {
    /// The text is the key.
    #[default]
    Utf8,
    /// Base64, padded or not.
    Base64,
    /// Hexadecimal of either case.
    Hex,
    /// Standard Webhooks: `whsec_` and base64; the prefix and the padding may be absent.
    Whsec,
    /// `whsec_` and text: only the prefix is taken off.
    WhsecRaw,
    /// A public key as PEM, certificate, base64 of its DER, or JWK.
    PublicKey,
}

impl KeyEncoding {
    /// The key, or what is wrong with the text in words that do not repeat it.
    pub(super) fn decode(self, text: &str) -> Result<Vec<u8>, String> {
        let unprefixed = text.strip_prefix("whsec_").unwrap_or(text);
        match self {
            // Of the wrappings `public` takes care.
            Self::Utf8 | Self::PublicKey => Ok(text.as_bytes().to_vec()),
            Self::WhsecRaw => Ok(unprefixed.as_bytes().to_vec()),
            Self::Base64 => decode_key_base64(text),
            Self::Whsec => decode_key_base64(unprefixed),
            Self::Hex => {
                let lower = text.to_ascii_lowercase();
                let mut key = vec![0; lower.len() / 2];
                if decode_hex(lower.as_bytes(), &mut key) {
                    Ok(key)
                } else {
                    Err("is not hexadecimal; copy it again from the sender".to_owned())
                }
            }
        }
    }
}

/// Some secrets in use are cut from longer ones and end in stray bits; the senders' own libraries
/// take them.
const KEY_BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, NO_PAD.with_decode_allow_trailing_bits(true));

fn decode_key_base64(text: &str) -> Result<Vec<u8>, String> {
    KEY_BASE64
        .decode(text.trim_end_matches('='))
        .map_err(|_| "is not base64; copy it again from the sender".to_owned())
}

/// Base64 of any length: padded, no stray bits.
pub(super) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Base64url as JWTs use it: no padding, no stray bits.
pub(super) fn decode_base64url(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(super) fn encode_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Whether `text` is the lower-case hexadecimal form of exactly `out.len()` bytes.
fn decode_hex(text: &[u8], out: &mut [u8]) -> bool {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != out.len() {
        return false;
    }
    let mut seen = 0;
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        let (high, low) = (HEX_VALUES[usize::from(*high)], HEX_VALUES[usize::from(*low)]);
        seen |= high | low;
        *byte = (high << 4) | (low & 0x0f);
    }
    // A digit is at most 15; NOT_HEX leaves the upper bits set.
    seen < 16
}

const NOT_HEX: u8 = 0xff;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The value of each character as a digit.
const HEX_VALUES: [u8; 256] = {
    let mut values = [NOT_HEX; 256];
    let mut value = 0;
    while value < 16 {
        values[HEX_DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};

fn encode_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(HEX_DIGITS[usize::from(value & 0x0f)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_lower_case_whole_and_of_the_right_length() {
        let mut out = [0; 2];
        assert!(SignatureEncoding::Hex.decode_exact(b"00ff", &mut out));
        assert_eq!(out, [0, 255]);
        for bad in ["00FF", "00f", "00ff0", "00ff00", "0g00", "", " 0ff", "00f\u{b2}"] {
            assert!(!SignatureEncoding::Hex.decode_exact(bad.as_bytes(), &mut out), "{bad}");
        }
    }

    #[test]
    fn base64_is_padded_and_canonical() {
        let mut out = [0; 1];
        assert!(SignatureEncoding::Base64.decode_exact(b"/w==", &mut out));
        assert_eq!(out, [255]);
        for bad in ["/w", "/w=", "/x==", "_w==", "/w==\n", "", "//8=", "===="] {
            assert!(!SignatureEncoding::Base64.decode_exact(bad.as_bytes(), &mut out), "{bad}");
        }
    }

    #[test]
    fn keys_are_read_as_their_senders_print_them() {
        let key = |encoding: KeyEncoding, text: &str| encoding.decode(text).ok();
        assert_eq!(key(KeyEncoding::Utf8, "whsec_x"), Some(b"whsec_x".to_vec()));
        assert_eq!(key(KeyEncoding::Whsec, "whsec_/w=="), Some(vec![255]));
        assert_eq!(key(KeyEncoding::Whsec, "/w"), Some(vec![255]));
        assert_eq!(key(KeyEncoding::WhsecRaw, "whsec_/w"), Some(b"/w".to_vec()));
        assert_eq!(key(KeyEncoding::Hex, "FF00"), Some(vec![255, 0]));
        assert_eq!(key(KeyEncoding::Hex, "FF0"), None);
        assert_eq!(key(KeyEncoding::Base64, "_w=="), None);
    }

    #[test]
    fn what_is_encoded_decodes() {
        for encoding in [SignatureEncoding::Hex, SignatureEncoding::Base64] {
            for length in 0..=MAC_BYTES_MAX {
                let bytes: Vec<u8> = (0_u8..).take(length).map(|i| i.wrapping_mul(37)).collect();
                let mut out = vec![0; length];
                assert!(encoding.decode_exact(encoding.encode(&bytes).as_bytes(), &mut out));
                assert_eq!(out, bytes);
                let mut buffer = SIGNATURE_BUFFER;
                let count = encoding.decode(encoding.encode(&bytes).as_bytes(), &mut buffer);
                assert_eq!(count.map(|count| &buffer[..count]), Some(&bytes[..]));
            }
        }
    }
}
