//! # helpers: the operations that programs call
//!
//! Small, general operations over the store, bytes, numbers and replies; composite logic belongs in `.look`. This file gathers the rows
//! of the table. [`keys`], [`collections`], [`programs`], [`walk`], [`text`] and [`replies`] hold rows and the functions behind them;
//! [`bits`], [`lcs`], [`longdouble`], [`number`] and [`rdb`] are plain algorithms over byte slices.
//!
//! The edge ([`edge`]): a helper receives a pointer to the machine's head and casts it to its [`Env`](super::env::Env). Every helper
//! catches its own panics, since unwinding through compiled frames would abort the process.

pub mod bits;
pub mod collections;
mod edge;
mod encoding;
pub mod keys;
pub mod lcs;
pub mod longdouble;
pub mod number;
pub mod programs;
pub mod rdb;
pub mod replies;
mod restore;
pub mod scratch;
pub mod text;
pub mod walk;
mod words;

use super::machine::HelperFn;
use super::table::{Row, Table};
use crate::store::ValueKind;
use std::sync::LazyLock;

/// Types that rows name.
pub const TYPES: &str = "handle Db: collection; handle Slot: slot; \
    handle List: collection; handle Set: collection; handle Hash: collection; handle Zset: collection; \
    handle KeyIter: iterator; handle ListIter: iterator; handle SetIter: iterator; handle HashIter: iterator; \
    handle ZsetIter: iterator; handle WordIter: iterator; handle Lcs: iterator; handle Ordered: collection; handle Items: slot; \
    type Value = none | int(int) | str(bytes) | list | set | hash | zset | stream; \
    global db: Db = 0";

/// Consts, errors and functions that every module sees.
pub const PRELUDE: &str = include_str!("../../../commands/redis/prelude.look");

/// All rows. A helper's number is its place here: rows are only ever added at the end of the last family.
fn rows() -> Vec<Row> {
    [keys::ROWS, collections::ROWS, text::ROWS, replies::ROWS, programs::ROWS, words::ROWS].concat()
}

/// The helper table that programs are compiled against.
pub fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| match Table::new(TYPES, &rows(), PRELUDE) {
        Ok(table) => table,
        Err(diagnostic) => panic!("the helper table is wrong: {diagnostic:?}"),
    });
    &TABLE
}

/// The helpers' addresses, by number.
pub fn calls() -> &'static [HelperFn] {
    &table().calls
}

/// The same with a panic behind the write of one key: what tests of surviving a panic plant.
pub(super) fn calls_with_panic() -> &'static [HelperFn] {
    static CALLS: LazyLock<Vec<HelperFn>> = LazyLock::new(|| {
        let mut calls = calls().to_vec();
        table().named("Slot.put_str").for_each(|row| calls[row.number as usize] = keys::put_str_then_panic);
        calls
    });
    &CALLS
}

/// A value's tag in the type `Value`.
pub(super) fn tag(kind: ValueKind) -> u64 {
    match kind {
        ValueKind::Int => 1,
        ValueKind::Str | ValueKind::Rope => 2,
        ValueKind::List => 3,
        ValueKind::Set => 4,
        ValueKind::Hash => 5,
        ValueKind::Zset => 6,
        ValueKind::Stream => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_well_formed() {
        assert_eq!(table().helpers.len(), rows().len());
    }
}
