//! # Counted B+tree: lists, the order of sorted sets, the expiry index
//!
//! Owns the tree's shape; items are byte strings. Two uses: *positional* (a list: items stand where they were put) and
//! *ordered* (searched by an [`Order`]). Both know every item's rank: select, rank, insert and remove walk one path, O(log n).
//! A small collection is one packed leaf. Copy-on-write by the mutator: whatever a published root shows stays as it is.
//! Dropping a whole tree is O(1).
//!
//! Files: `order` compares, `leaf` packs, `branch` counts and splits, `cursor` walks.

use super::arena::{Arena, Node, Ref};
use super::extent::{Extent, blocks};
use super::kinds;
use super::mutator::Mutator;
use crate::base::mix64;
use std::cmp::Ordering;

pub(in crate::store) mod branch;
mod cursor;
mod leaf;
mod order;

use branch::{Entries, Path};
pub use cursor::Cursor;
pub use order::{Order, score_item, split_score};

/// A tree, held by whoever owns the collection. The root is null when it is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    pub root: Ref,
    pub len: u64,
    pub extent: Extent,
}

impl Tree {
    pub const EMPTY: Tree = Tree { root: Ref::NULL, len: 0, extent: Extent(0) };
}

/// Calls `visit` with the byte offset of every child cell of a node of this room.
pub fn cells(node: Node<'_>, visit: impl FnMut(usize)) {
    if branch::is_branch(node.kind()) { branch::cells(node, visit) } else { leaf::cells(node, visit) }
}

fn fold(m: &mut Mutator, what: u64, item: &[u8]) {
    m.fold(mix64(what), xxhash_rust::xxh3::xxh3_64(item));
}

/// The item of that rank.
pub fn get<'a>(arena: &'a Arena, tree: &Tree, rank: u64) -> Option<&'a [u8]> {
    if rank >= tree.len {
        return None;
    }
    let mut path = Path::new();
    let (node, i) = branch::seek(arena, tree.root, rank, &mut path);
    Some(leaf::item(arena, node, i as usize))
}

/// Puts an item before the one of that rank (at most the length).
pub fn insert_at(m: &mut Mutator, tree: &mut Tree, rank: u64, item: &[u8]) {
    assert!(rank <= tree.len, "rank {rank} of {}", tree.len);
    fold(m, rank, item);
    if tree.root.is_null() {
        tree.root = leaf::single(m, item);
    } else {
        let mut path = Path::new();
        let (node, i) = branch::seek(m.arena(), tree.root, rank, &mut path);
        let leaf = node.get();
        let new = leaf::insert(m, leaf, i as usize, item, None);
        branch::splice(m, &mut tree.root, kinds::TREE_BRANCH, path, 1, new);
    }
    tree.len += 1;
    tree.extent.grow(blocks(item.len()));
}

pub fn push_front(m: &mut Mutator, tree: &mut Tree, item: &[u8]) {
    insert_at(m, tree, 0, item)
}

pub fn push_back(m: &mut Mutator, tree: &mut Tree, item: &[u8]) {
    insert_at(m, tree, tree.len, item)
}

/// Removes the item of that rank from a positional tree. False: there is none.
pub fn remove_at(m: &mut Mutator, tree: &mut Tree, rank: u64) -> bool {
    if rank >= tree.len {
        return false;
    }
    fold(m, !rank, &[]);
    let mut path = Path::new();
    let (node, i) = branch::seek(m.arena(), tree.root, rank, &mut path);
    tree.extent.shrink(blocks(leaf::item(m.arena(), node, i as usize).len()));
    let leaf = node.get();
    cut(m, tree, None, path, leaf, i as usize);
    true
}

/// Replaces the item of that rank in a positional tree. False: there is none.
pub fn replace_at(m: &mut Mutator, tree: &mut Tree, rank: u64, item: &[u8]) -> bool {
    if rank >= tree.len {
        return false;
    }
    fold(m, rank, item);
    let mut path = Path::new();
    let (node, i) = branch::seek(m.arena(), tree.root, rank, &mut path);
    tree.extent.shrink(blocks(leaf::item(m.arena(), node, i as usize).len()));
    tree.extent.grow(blocks(item.len()));
    let leaf = node.get();
    let new = leaf::replace(m, leaf, i as usize, item);
    branch::splice(m, &mut tree.root, kinds::TREE_BRANCH, path, 1, new);
    true
}

/// Adds a key. False: it is there already.
pub fn insert(m: &mut Mutator, tree: &mut Tree, order: Order, key: &[u8]) -> bool {
    if tree.root.is_null() {
        tree.root = leaf::single(m, key);
    } else {
        let mut path = Path::new();
        let found = search(m.arena(), tree, order, key, &mut path);
        let Err(i) = found.at else { return false };
        let leaf = found.leaf;
        let new = leaf::insert(m, leaf, i, key, Some(order));
        branch::splice(m, &mut tree.root, kinds::TREE_BRANCH_ORDERED, path, 1, new);
    }
    fold(m, 1, key);
    tree.len += 1;
    tree.extent.grow(blocks(key.len()));
    true
}

/// Removes a key. False: it was not there.
pub fn remove(m: &mut Mutator, tree: &mut Tree, order: Order, key: &[u8]) -> bool {
    if tree.root.is_null() {
        return false;
    }
    let mut path = Path::new();
    let found = search(m.arena(), tree, order, key, &mut path);
    let Ok(i) = found.at else { return false };
    let leaf = found.leaf;
    fold(m, 2, key);
    tree.extent.shrink(blocks(key.len()));
    cut(m, tree, Some(order), path, leaf, i);
    true
}

/// The rank of a key, or how many items are less.
pub fn rank(arena: &Arena, tree: &Tree, order: Order, key: &[u8]) -> Result<u64, u64> {
    if tree.root.is_null() {
        return Err(0);
    }
    let found = search(arena, tree, order, key, &mut Path::new());
    match found.at {
        Ok(i) => Ok(found.before + i as u64),
        Err(i) => Err(found.before + i as u64),
    }
}

/// How many items are less than a key.
pub fn lower_bound(arena: &Arena, tree: &Tree, order: Order, key: &[u8]) -> u64 {
    rank(arena, tree, order, key).unwrap_or_else(|less| less)
}

/// How many items of a sorted set have a score below this one (or equal to it, if `inclusive`).
pub fn below(arena: &Arena, tree: &Tree, score: f64, inclusive: bool) -> u64 {
    let bound = match inclusive {
        true if score == f64::INFINITY => return tree.len,
        // The next greater number; both zeros count as one.
        true => (score + 0.0).next_up(),
        false => score,
    };
    lower_bound(arena, tree, Order::Score, &bound.to_bits().to_le_bytes())
}

/// How many items of a sorted set whose scores are all equal have a member below this one (or equal to it).
pub fn below_lex(arena: &Arena, tree: &Tree, member: &[u8], inclusive: bool) -> u64 {
    let Some(first) = get(arena, tree, 0) else { return 0 };
    let key = [&first[..8], member].concat();
    match rank(arena, tree, Order::Score, &key) {
        Ok(rank) => rank + inclusive as u64,
        Err(less) => less,
    }
}

/// Empties a tree. Its nodes are freed later, by bounded work.
pub fn drop(m: &mut Mutator, tree: &mut Tree) {
    m.fold(tree.len, 3);
    m.retire_tree(tree.root);
    *tree = Tree::EMPTY;
}

/// Takes item `i` out of a leaf, and joins the leaf with a neighbour when little is left of both.
fn cut(m: &mut Mutator, tree: &mut Tree, order: Option<Order>, mut path: Path, leaf: Ref, i: usize) {
    let kind = if order.is_some() { kinds::TREE_BRANCH_ORDERED } else { kinds::TREE_BRANCH };
    let mut new = leaf::remove(m, leaf, i, order);
    let gone = if let [only] = new.as_slice() { join(m, order, &mut path, only.at, &mut new) } else { 1 };
    branch::splice(m, &mut tree.root, kind, path, gone, new);
    tree.len -= 1;
}

fn join(m: &mut Mutator, order: Option<Order>, path: &mut Path, leaf: Ref, new: &mut Entries) -> usize {
    let Some((parent, i)) = path.last_mut() else { return 1 };
    let Some((first, other)) = branch::neighbour(m.arena(), *parent, *i as usize) else { return 1 };
    let (left, right) = if first == *i as usize { (leaf, other) } else { (other, leaf) };
    let Some(joined) = leaf::merge(m, left, right, order) else { return 1 };
    *i = first as u16;
    new.clear();
    new.push(joined);
    2
}

/// Where a key is or would be.
struct Found {
    leaf: Ref,
    /// Items in the leaves before.
    before: u64,
    /// Its index in the leaf, or where it would stand.
    at: Result<usize, usize>,
}

fn search(arena: &Arena, tree: &Tree, order: Order, key: &[u8], path: &mut Path) -> Found {
    let prefix = order::prefix(order, key);
    let mut before = 0;
    let mut node = arena.node(arena.load(tree.root));
    while branch::is_branch(node.kind()) {
        let i = child_for(arena, node, order, key, &prefix);
        before += branch::weights(node)[..i].iter().sum::<u64>();
        path.push((node.get(), i as u16));
        node = branch::child(arena, node, i);
    }
    Found { leaf: node.get(), before, at: search_leaf(arena, node, order, key) }
}

/// The last child whose first item is not greater than the key; the first if there is none.
fn child_for(arena: &Arena, node: Node<'_>, order: Order, key: &[u8], prefix: &branch::Prefix) -> usize {
    let prefix_of = branch::prefixes(node);
    let (mut low, mut high) = (0, branch::count(node) - 1);
    while low < high {
        let middle = (low + high).div_ceil(2);
        let not_greater = match prefix_of(middle).cmp(prefix) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                order::compare(order, first_item(arena, branch::child(arena, node, middle)), key).is_le()
            }
        };
        if not_greater { low = middle } else { high = middle - 1 }
    }
    low
}

fn first_item<'a>(arena: &'a Arena, mut node: Node<'a>) -> &'a [u8] {
    while branch::is_branch(node.kind()) {
        node = branch::child(arena, node, 0);
    }
    leaf::item(arena, node, 0)
}

fn search_leaf(arena: &Arena, node: Node<'_>, order: Order, key: &[u8]) -> Result<usize, usize> {
    let (mut low, mut high) = (0, leaf::count(node));
    while low < high {
        let middle = (low + high) / 2;
        match order::compare(order, leaf::item(arena, node, middle), key) {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Ok(middle),
        }
    }
    Err(low)
}

#[cfg(test)]
mod tests;
