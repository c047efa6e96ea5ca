//! A place between two items, which moves both ways.

use super::branch::{self, Path};
use super::{Tree, leaf};
use crate::store::arena::{Arena, Node, Ref};

/// Stands between two items of a tree that does not change meanwhile. Holds no borrow: every call names the arena.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    path: Path,
    leaf: Ref,
    at: u16,
}

impl Cursor {
    /// Before the item of that rank; past the end is the end.
    pub fn at(arena: &Arena, tree: &Tree, rank: u64) -> Cursor {
        let mut cursor = Cursor::default();
        if !tree.root.is_null() {
            let (leaf, at) = branch::seek(arena, tree.root, rank.min(tree.len), &mut cursor.path);
            (cursor.leaf, cursor.at) = (leaf.get(), at as u16);
        }
        cursor
    }

    /// The item after the place, which moves behind it.
    #[inline]
    pub fn next<'a>(&mut self, arena: &'a Arena) -> Option<&'a [u8]> {
        if self.leaf.is_null() {
            return None;
        }
        let mut node = arena.node(self.leaf);
        if self.at as usize == leaf::count(node) {
            node = self.turn(arena, true)?;
            self.at = 0;
        }
        let item = leaf::item(arena, node, self.at as usize);
        self.at += 1;
        Some(item)
    }

    /// The item before the place, which moves before it.
    #[inline]
    pub fn prev<'a>(&mut self, arena: &'a Arena) -> Option<&'a [u8]> {
        if self.leaf.is_null() {
            return None;
        }
        let mut node = arena.node(self.leaf);
        if self.at == 0 {
            node = self.turn(arena, false)?;
            self.at = leaf::count(node) as u16;
        }
        self.at -= 1;
        Some(leaf::item(arena, node, self.at as usize))
    }

    /// Moves to the leaf after or before this one; stays if there is none.
    fn turn<'a>(&mut self, arena: &'a Arena, forward: bool) -> Option<Node<'a>> {
        let step = |&(at, i): &(Ref, u16)| match forward {
            true => i as usize + 1 < branch::count(arena.node(at)),
            false => i > 0,
        };
        let level = self.path.iter().rposition(step)?;
        self.path.truncate(level + 1);
        let (at, i) = self.path.last_mut()?;
        if forward {
            *i += 1
        } else {
            *i -= 1
        }
        let mut node = branch::child(arena, arena.node(*at), *i as usize);
        while branch::is_branch(node.kind()) {
            let i = if forward { 0 } else { branch::count(node) - 1 };
            self.path.push((node.get(), i as u16));
            node = branch::child(arena, node, i);
        }
        self.leaf = node.get();
        Some(node)
    }
}
