//! One file a verb: what it takes, what it prints, what it exits with.

pub mod check;
mod terminal;
