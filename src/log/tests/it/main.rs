//! The log from outside: writer, reader, crash.

mod support;
mod lane;
