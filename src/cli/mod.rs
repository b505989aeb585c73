//! One file a verb: what it takes, what it prints, what it exits with.

pub mod check;
pub mod tail;
mod row;
mod terminal;
