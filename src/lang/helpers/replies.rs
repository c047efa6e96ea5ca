//! Replies: what a program answers, in the client's dialect. Nothing here influences state.

use super::edge::{blocks, helpers};
use crate::lang::env::{Env, View};
use crate::lang::ir::Trap;
use crate::lang::table::Row;
use crate::resp::ReplyBuf;
use crate::store::rope;

pub const ROWS: &[Row] = &[
    Row::reply("reply_ok()", "6", "0", ok),
    Row::reply("reply_nil()", "6", "0", nil),
    Row::reply("reply_nil_array()", "6", "0", nil_array),
    Row::reply("reply_status(text: bytes)", "6 + blocks(text)", "0", status),
    Row::reply("reply_int(x: int)", "6", "0", int),
    Row::reply("reply_double(x: float)", "12", "0", double),
    Row::reply("reply_bytes(x: bytes)", "6 + blocks(x)", "0", bulk),
    Row::reply("reply_array(n: int)", "6", "0", array),
    Row::reply("reply_map(n: int)", "6", "0", map),
    Row::reply("reply_set(n: int)", "6", "0", set),
    Row::reply("reply_pairs(n: int)", "6", "0", pairs),
    Row::reply("reply_pair()", "6", "0", pair),
    Row::reply("reply_open() -> int", "6", "0", open),
    Row::reply("reply_close(mark: int, n: int)", "6", "0", close),
    Row::reply("reply_bool(x: bool)", "6", "0", bool),
];

helpers! {
    /// `+OK`
    fn ok(env) { value(env, 6, |r| r.ok()) }
    /// Null, as a lone value.
    fn nil(env) { value(env, 6, |r| r.nil()) }
    /// Null, where an array was due.
    fn nil_array(env) { value(env, 6, |r| r.nil_array()) }
    /// One pair begins: a nested array in RESP3, nothing in RESP2.
    fn pair(env) { value(env, 6, |r| r.pair()) }
    /// A simple string.
    fn status(env, text) {
        let text = env.bytes(text)?;
        value(env, 6 + blocks(text.len()), |r| r.simple(text))
    }
    /// An integer.
    fn int(env, x) { value(env, 6, |r| r.int(x as i64)) }
    /// A truth: RESP2 has only 1 and 0 for it.
    fn bool(env, x) { value(env, 6, |r| r.bool(x != 0)) }
    /// A float.
    fn double(env, x) { value(env, 12, |r| r.double(f64::from_bits(x))) }
    /// A bulk string; a rope goes out piece by piece.
    fn bulk(env, x) {
        match env.view(x)? {
            View::Flat(_) => {
                let bytes = env.bytes(x)?;
                value(env, 6 + blocks(bytes.len()), |r| r.bulk(bytes))
            }
            View::Rope(rope, from, to) => {
                let arena = env.arena()?;
                value(env, 6 + blocks((to - from) as usize), |r| {
                    if !r.is_null() {
                        r.bulk_begin((to - from) as usize);
                        rope::read(arena, rope, from, to - from, |piece| r.raw(piece));
                        r.bulk_end();
                    }
                })
            }
        }
    }
    /// An array of a known count begins.
    fn array(env, n) { value(env, 6, |r| r.array(count(n))) }
    /// A map of a known count of pairs begins.
    fn map(env, n) { value(env, 6, |r| r.map(count(n))) }
    /// A set of a known count begins.
    fn set(env, n) { value(env, 6, |r| r.set(count(n))) }
    /// Pairs of a known count begin: nested in RESP3, flat in RESP2.
    fn pairs(env, n) { value(env, 6, |r| r.pairs(count(n))) }
    /// An array whose count is not known yet begins.
    fn open(env) {
        env.charge(6, 0);
        let mark = env.reply().open();
        env.open_replies.push(mark);
        Ok(env.open_replies.len() as u64)
    }
    /// It ends. Marks are checked against the environment's own list, so that a wrong one ends the call on every node, also where
    /// nobody reads the reply.
    fn close(env, mark, n) {
        if mark != env.open_replies.len() as u64 {
            return Err(Trap::Index);
        }
        let mark = env.open_replies.pop().ok_or(Trap::Index)?;
        value(env, 6, |r| r.close(mark, count(n)))
    }
}

#[inline]
fn value(env: &mut Env, ops: u64, write: impl FnOnce(&mut ReplyBuf)) -> Result<u64, Trap> {
    env.charge(ops, 0);
    write(env.reply());
    Ok(0)
}

fn count(n: u64) -> usize {
    (n as i64).max(0) as usize
}
