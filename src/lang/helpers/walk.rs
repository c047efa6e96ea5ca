//! Iterators: what `for … in … limit n` walks. None of them survives a change of what it walks.

use super::edge::helpers;
use super::tag;
use crate::lang::env::{Env, View};
use crate::lang::ir::Trap;
use crate::store::tree::{self, Tree};
use crate::store::{MapRoot, map};

/// Keys fetched at a time.
const KEYS_AT_ONCE: usize = 64;

/// The state of one iteration.
pub(in crate::lang) enum Walk {
    /// Keys of a database: (key, type tag) in hand, then where to fetch more; `None` = no more.
    Keys {
        db: u8,
        next: Option<u64>,
        to: u64,
        in_hand: Vec<(View, u64)>,
    },
    Map(map::Cursor),
    List(tree::Cursor),
    Ranked {
        cursor: tree::Cursor,
        reverse: bool,
    },
    /// The words of a text that no write changes, from a place in it, each cut after `max` bytes.
    Words {
        text: u64,
        at: usize,
        max: usize,
    },
}

impl Walk {
    pub fn keys(db: u8, from: u64, to: u64) -> Walk {
        Walk::Keys { db, next: Some(from), to, in_hand: Vec::new() }
    }
}

impl Env {
    pub(super) fn start_walk(&mut self, walk: Walk) -> Result<u64, Trap> {
        self.walks.push(walk);
        Ok(self.walks.len() as u64 - 1)
    }
    pub(super) fn walk_map(&mut self, map: &MapRoot) -> Result<u64, Trap> {
        let cursor = map::Cursor::new(self.arena()?, map, 0);
        self.start_walk(Walk::Map(cursor))
    }
    pub(super) fn walk_list(&mut self, tree: &Tree, from: u64) -> Result<u64, Trap> {
        let cursor = tree::Cursor::at(self.arena()?, tree, from);
        self.start_walk(Walk::List(cursor))
    }
    pub(super) fn walk_ranked(&mut self, tree: &Tree, rank: u64, reverse: bool) -> Result<u64, Trap> {
        // Backwards, the cursor stands behind the item that comes first.
        let cursor = tree::Cursor::at(self.arena()?, tree, if reverse { rank.saturating_add(1) } else { rank });
        self.start_walk(Walk::Ranked { cursor, reverse })
    }

    fn fetch_keys(&mut self, walk: usize) -> Result<Option<(View, u64)>, Trap> {
        loop {
            let Some(Walk::Keys { db, next, to, in_hand }) = self.walks.get_mut(walk) else { return Err(Trap::Index) };
            if let Some(key) = in_hand.pop() {
                return Ok(Some(key));
            }
            let (db, to, Some(from)) = (*db, *to, *next) else { return Ok(None) };
            let mut keys = std::mem::take(in_hand);
            let now = self.now;
            let mut past = false;
            let mut seen = 0;
            let end = self.version()?.show_keys(db, from, &mut |entry| {
                past |= to != 0 && entry.hash() >= to;
                if past {
                    return false;
                }
                if entry.due().is_none_or(|due| due > now) {
                    keys.push((View::Flat(entry.key().into()), tag(entry.kind())));
                }
                seen += 1;
                seen < KEYS_AT_ONCE
            });
            self.charge(0, seen as u64);
            keys.reverse();
            let more = (end != 0 && !past).then_some(end);
            self.walks[walk] = Walk::Keys { db, next: more, to, in_hand: keys };
        }
    }
}

helpers! {
    /// `KeyIter.next`: key and type tag.
    fn next_key(env, walk) {
        env.charge(12, 0);
        let Some((key, kind)) = env.fetch_keys(walk as usize)? else { return Ok(0) };
        let word = env.push_view(key);
        env.set_result(2, kind);
        env.give(Some(word))
    }
    /// `SetIter.next`
    fn next_member(env, walk) {
        env.charge(12, 1);
        let arena = env.arena()?;
        let Some(Walk::Map(cursor)) = env.walks.get_mut(walk as usize) else { return Err(Trap::Index) };
        let item = cursor.next(arena);
        let word = item.map(|i| env.lend(i.key));
        env.give(word)
    }
    /// `HashIter.next`: field and value.
    fn next_field(env, walk) {
        env.charge(12, 1);
        let arena = env.arena()?;
        let Some(Walk::Map(cursor)) = env.walks.get_mut(walk as usize) else { return Err(Trap::Index) };
        let Some(item) = cursor.next(arena) else { return Ok(0) };
        let (field, value) = (env.lend(item.key), env.lend(item.value));
        env.set_result(2, value);
        env.give(Some(field))
    }
    /// `ListIter.next`
    fn next_element(env, walk) {
        env.charge(12, 1);
        let arena = env.arena()?;
        let Some(Walk::List(cursor)) = env.walks.get_mut(walk as usize) else { return Err(Trap::Index) };
        let item = cursor.next(arena);
        let word = item.map(|i| env.lend(i));
        env.give(word)
    }
    /// `ZsetIter.next`: member and score.
    fn next_ranked(env, walk) {
        env.charge(12, 1);
        let arena = env.arena()?;
        let Some(Walk::Ranked { cursor, reverse }) = env.walks.get_mut(walk as usize) else { return Err(Trap::Index) };
        let item = if *reverse { cursor.prev(arena) } else { cursor.next(arena) };
        let Some(item) = item else { return Ok(0) };
        let (score, member) = tree::split_score(item);
        let word = env.lend(member);
        env.set_result(2, score.to_bits());
        env.give(Some(word))
    }
}
