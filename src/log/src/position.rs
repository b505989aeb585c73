//! Where a record stands and what it is: the small values of the public interface.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// A place in a lane: the epoch of the writer that wrote there, and the byte offset.
///
/// Offsets grow over the whole life of a lane and are never used twice. The epoch grows with
/// every start of the writer, so that a place remembered from before a loss of power is never
/// mistaken for what was written there later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    epoch: u32,
    offset: u64,
}

impl Position {
    /// The place at `offset`, written in `epoch`.
    pub const fn new(epoch: u32, offset: u64) -> Self {
        Self { epoch, offset }
    }

    /// The start of the writer, counted from 1, in which the record was written.
    pub const fn epoch(self) -> u32 {
        self.epoch
    }

    /// The byte offset in the lane.
    pub const fn offset(self) -> u64 {
        self.offset
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.epoch, self.offset)
    }
}

/// Why text is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePositionError {
    /// There is no `-` between the two numbers.
    #[error("a position is written EPOCH-OFFSET, for example 1-4096")]
    Shape,
    /// One of the two is not a decimal number in range.
    #[error("a position is two decimal numbers, EPOCH-OFFSET")]
    Number(#[from] ParseIntError),
}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, offset) = text.split_once('-').ok_or(ParsePositionError::Shape)?;
        Ok(Self { epoch: epoch.parse()?, offset: offset.parse()? })
    }
}

/// What a record holds. The numbers are persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An accepted event.
    Event = 1,
    /// A later delivery of an event that the lane already holds.
    Delivery = 2,
    /// A request that was refused and kept for looking at.
    Quarantine = 3,
}

impl Kind {
    /// The kind of a persisted number, if this version knows it.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Event),
            2 => Some(Self::Delivery),
            3 => Some(Self::Quarantine),
            _ => None,
        }
    }
}

/// The 128-bit fingerprint of an event key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 16]);

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({self})")
    }
}

impl Key {
    /// The 32 hexadecimal digits that it is written with, in the order of its bytes.
    pub fn digits(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |half: u8| DIGITS[usize::from(half & 0xf)];
        let mut text = [0; 32];
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [digit(byte >> 4), digit(byte)];
        }
        text
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_byte_by_byte_with_its_leading_zeros() {
        let mut key = Key([0xab; 16]);
        key.0[0] = 0;
        key.0[1] = 0x05;
        assert_eq!(key.to_string(), "0005abababababababababababababab");
    }

    #[test]
    fn a_position_survives_its_own_text() {
        let position = Position::new(7, 123_456);
        assert_eq!(position.to_string(), "7-123456");
        assert_eq!("7-123456".parse(), Ok(position));
    }

    #[test]
    fn text_that_is_no_position_is_refused() {
        for text in ["", "7", "-", "7-", "-7", "a-1", "1-a", "1-2-3", "4294967296-0", "1--2"] {
            assert!(text.parse::<Position>().is_err(), "{text} was taken for a position");
        }
    }

    #[test]
    fn positions_order_by_epoch_and_then_by_offset() {
        assert!(Position::new(1, 900) < Position::new(2, 100));
        assert!(Position::new(2, 100) < Position::new(2, 101));
    }
}
