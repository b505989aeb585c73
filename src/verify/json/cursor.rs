//! A cursor that goes over a JSON text value by value and builds nothing.
//!
//! It knows the whole grammar of RFC 8259, so that it never takes the inside of a string or of a
//! nested value for something else. What it does not judge, for nobody reads it here: whether the
//! text is UTF-8, whether escaped surrogates come in pairs, how large a number is.

/// The text is no JSON, as far as it was read, or nests deeper than [`DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The deepest nesting that is followed, as `serde_json` has it for values.
pub(super) const DEPTH_MAX: u32 = u128::BITS;

/// The inside of a string, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoted<'b> {
    pub(super) inside: &'b [u8],
    pub(super) escaped: bool,
}

/// A place in a text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'b> {
    text: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    pub(super) fn new(text: &'b [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Where the cursor is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What lies between `start` and the cursor.
    pub(super) fn since(&self, start: usize) -> &'b [u8] {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Whether nothing but white space is left.
    pub(super) fn ends(&mut self) -> bool {
        self.peek().is_err()
    }

    /// The byte at which the next token begins; the cursor is in front of it.
    pub(super) fn peek(&mut self) -> Result<u8, Broken> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(Broken)
    }

    /// Steps over `token` if it is next.
    pub(super) fn take(&mut self, token: u8) -> Result<bool, Broken> {
        let next = self.peek()? == token;
        self.at += usize::from(next);
        Ok(next)
    }

    fn expect(&mut self, token: u8) -> Result<(), Broken> {
        if self.take(token)? { Ok(()) } else { Err(Broken) }
    }

    /// A key and the colon behind it.
    pub(super) fn key(&mut self) -> Result<Quoted<'b>, Broken> {
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// A string; the quote in front of it is next.
    pub(super) fn string(&mut self) -> Result<Quoted<'b>, Broken> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(self.text.get(self.at..).unwrap_or_default());
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(Broken),
            }
            escaped = true;
        }
        let inside = self.since(start);
        self.at += 1;
        Ok(Quoted { inside, escaped })
    }

    fn escape(&mut self) -> Result<(), Broken> {
        let escape = self.text.get(self.at + 1..).unwrap_or_default();
        self.at += match escape {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', digits @ ..]
                if digits.len() >= 4 && digits.iter().take(4).all(u8::is_ascii_hexdigit) =>
            {
                6
            }
            _ => return Err(Broken),
        };
        Ok(())
    }

    /// Steps over a value that lies in `depth` others.
    pub(super) fn skip(&mut self, depth: u32) -> Result<(), Broken> {
        // The containers opened here, innermost last, a bit each: set for an object.
        let (mut open, mut count) = (0_u128, 0);
        loop {
            let opened = match self.peek()? {
                b'{' => Some(true),
                b'[' => Some(false),
                b'"' => self.string().map(|_| None)?,
                _ => self.scalar().map(|()| None)?,
            };
            if let Some(object) = opened {
                self.at += 1;
                if self.take(if object { b'}' } else { b']' })? {
                    // An empty one.
                } else if depth + count < DEPTH_MAX {
                    open = open << 1 | u128::from(object);
                    count += 1;
                    if object {
                        self.key()?;
                    }
                    continue;
                } else {
                    return Err(Broken);
                }
            }
            loop {
                if count == 0 {
                    return Ok(());
                }
                let object = open & 1 == 1;
                if self.take(b',')? {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' })?;
                open >>= 1;
                count -= 1;
            }
        }
    }

    /// A number or a literal.
    fn scalar(&mut self) -> Result<(), Broken> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let literal = [&b"true"[..], b"false", b"null"].into_iter().find(|l| rest.starts_with(l));
        let length = literal.map(<[u8]>::len).or_else(|| number(rest)).ok_or(Broken)?;
        self.at += length;
        Ok(())
    }
}

/// The length of the number in front of `text`.
fn number(text: &[u8]) -> Option<usize> {
    let digits = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(at + count)
    };
    let sign = usize::from(text.first() == Some(&b'-'));
    let mut end = if text.get(sign) == Some(&b'0') { sign + 1 } else { digits(sign)? };
    if text.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let signed = matches!(text.get(end + 1), Some(b'+' | b'-'));
        end = digits(end + 1 + usize::from(signed))?;
    }
    Some(end)
}

/// How many bytes in front of `text` are neither quote, backslash nor control character.
///
/// A few words first, since most strings are short; then blocks, in a form that compilers turn
/// into vector instructions, as large as makes it worth to look at what they come to.
pub(super) fn plain(text: &[u8]) -> usize {
    const WORDS: usize = 5;
    const BLOCK_BYTES: usize = 64;
    let near = text.get(..WORDS * 8).unwrap_or(text);
    let start = plain_by_words(near);
    if start < near.len() {
        return start;
    }
    let far = text.get(start..).unwrap_or_default();
    let any = |block: &[u8; BLOCK_BYTES]| block.iter().fold(false, |any, &b| any | special(b));
    let blocks = far.as_chunks::<BLOCK_BYTES>().0.iter().take_while(|block| !any(block)).count();
    let start = start + blocks * BLOCK_BYTES;
    start + plain_by_words(text.get(start..).unwrap_or_default())
}

fn plain_by_words(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        if let Some(place) = special_in(*word) {
            return index * 8 + place;
        }
    }
    words.len() * 8 + rest.iter().position(|&byte| special(byte)).unwrap_or(rest.len())
}

fn special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The first special byte of a word, by the tests of
/// <https://graphics.stanford.edu/~seander/bithacks.html>, whose lowest hit is exact.
fn special_in(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let word = u64::from_le_bytes(word);
    let equal = |byte: u8| {
        let zeroed = word ^ (ONES * u64::from(byte));
        zeroed.wrapping_sub(ONES) & !zeroed
    };
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let hits = (below | equal(b'"') | equal(b'\\')) & (ONES << 7);
    (hits != 0).then(|| (hits.trailing_zeros() / 8) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_json(text: &[u8]) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip(0).is_ok() && cursor.ends()
    }

    #[test]
    fn it_follows_the_deepest_nesting_and_not_one_more() {
        let nested = |depth: usize| "[".repeat(depth) + "1" + &"]".repeat(depth);
        let most = DEPTH_MAX as usize;
        assert!(is_json(nested(most).as_bytes()));
        assert!(!is_json(nested(most + 1).as_bytes()));
        assert!(!is_json("[".repeat(1 << 20).as_bytes()));
    }

    #[test]
    fn numbers_strings_and_literals_keep_to_the_grammar() {
        for good in ["0", "-0", "10.5e-3", "1E+9", "\"\\u00e9\\n\"", "null", " [ ] ", "{\"\":{}}"] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "nul",
            "True",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"\n\"",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[}",
            "{\"a\":1]",
            "1 1",
            "]",
        ] {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn it_judges_texts_as_serde_json_does(text in "[\\[\\]{}:,\"\\\\ua0-9eE.+\\- tfnrlsu\n\u{1}]{0,24}") {
            let theirs = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_json(text.as_bytes()), theirs, "{}", text);
        }

        #[test]
        fn special_bytes_are_found_wherever_they_are(
            mut text in prop::collection::vec(0x23_u8..=0xff, 0..200),
            special in prop_oneof![0_u8..0x20, Just(b'"'), Just(b'\\')],
            place in 0_usize..200,
        ) {
            text.retain(|byte| *byte != b'\\');
            prop_assert_eq!(plain(&text), text.len());
            let place = place.min(text.len());
            text.insert(place, special);
            prop_assert_eq!(plain(&text), place);
        }
    }
}
