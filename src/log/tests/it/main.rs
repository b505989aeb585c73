//! The log from outside: writer, reader, crash and damage.

mod support;
mod lane;
mod threads;
mod damage;
mod bus;
mod model;
mod cursor;
mod inspect;
mod purge;
mod signed_keys;
mod readers;
mod repair;
mod retention;
