//! # Map: bytes → bytes, in the order of hashes
//!
//! Hashes, sets (values empty), the member → score side of sorted sets, the expiry index. A small map is one packed bucket; a large one
//! is a trie (`trie.rs`) whose leaves are buckets. The caller keeps the root and gives the hash of each key.
//!
//! ```text
//! bucket = header | count u16 | low u16 | 0 u32 | slot × count, by (hash, key) | free … | items, from the end downwards
//! slot   = hash u64 | offset u16 | key bytes u16 | value bytes u16 | big u16
//! item   = key, value;   a big one: the cell of a blob: key bytes u64, key, value
//! ```

use super::arena::{Arena, Node, Ref};
use super::extent::{Extent, blocks};
use super::mutator::Mutator;
use super::trie::{self, End, Leaves, Path};
use super::{blob, kinds};
use smallvec::SmallVec;
use std::cmp::Ordering;

/// A bucket with more entries, or more bytes, becomes a branch of buckets.
const ENTRIES_MAX: usize = 32;
const BUCKET_BYTES_MAX: usize = 1024;
/// Key and value beyond this together live in a blob of their own.
const INLINE_MAX: usize = 256;
const COUNT: usize = 8;
const LOW: usize = 10;
const SLOTS: usize = 16;
const SLOT: usize = 16;

/// A map as its owner keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MapRoot {
    pub root: Ref,
    pub len: u64,
    pub extent: Extent,
}

/// One entry, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub hash: u64,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl Item<'_> {
    fn blocks(&self) -> u64 {
        blocks(self.key.len()) + blocks(self.value.len())
    }
}

/// The stable hash of a value, for the effect digest.
#[inline]
pub fn value_hash(value: &[u8]) -> u64 {
    rapidhash::v3::rapidhash_v3(value)
}

/// A bucket, read in place.
#[derive(Clone, Copy)]
struct Bucket<'a> {
    node: Node<'a>,
    arena: &'a Arena,
}

impl<'a> Bucket<'a> {
    #[inline]
    fn count(self) -> usize {
        self.node.u16(COUNT) as usize
    }
    #[inline]
    fn hash(self, i: usize) -> u64 {
        self.node.u64(SLOTS + SLOT * i)
    }
    /// Offset, key length, value length, big.
    #[inline]
    fn slot(self, i: usize) -> (usize, usize, usize, bool) {
        let w = self.node.u64(SLOTS + SLOT * i + 8);
        (w as usize & 0xffff, (w >> 16) as usize & 0xffff, (w >> 32) as usize & 0xffff, w >> 48 != 0)
    }
    #[inline]
    fn item(self, i: usize) -> Item<'a> {
        let (off, klen, vlen, big) = self.slot(i);
        let (key, value) =
            if big { self.big(off) } else { (self.node.bytes(off, klen), self.node.bytes(off + klen, vlen)) };
        Item { hash: self.hash(i), key, value }
    }
    fn big(self, off: usize) -> (&'a [u8], &'a [u8]) {
        let blob = self.arena.child(self.node.cell(off));
        let payload = blob::get(blob);
        let (len, rest) = payload.split_at(8);
        rest.split_at(u64::from_le_bytes(len.try_into().unwrap_or_default()) as usize)
    }
    /// Where (hash, key) is, or where it belongs.
    #[inline]
    fn find(self, hash: u64, key: &[u8]) -> Result<usize, usize> {
        let count = self.count();
        let (mut low, mut high) = (0, count);
        while low < high {
            let mid = (low + high) / 2;
            if self.hash(mid) < hash { low = mid + 1 } else { high = mid }
        }
        while low < count && self.hash(low) == hash {
            match self.item(low).key.cmp(key) {
                Ordering::Equal => return Ok(low),
                Ordering::Less => low += 1,
                Ordering::Greater => break,
            }
        }
        Err(low)
    }
    /// Bytes between the slots and the items.
    fn room(self) -> usize {
        self.node.u16(LOW) as usize - (SLOTS + SLOT * self.count())
    }
}

pub(super) fn bucket_cells(node: Node<'_>, mut visit: impl FnMut(usize)) {
    for i in 0..node.u16(COUNT) as usize {
        let w = node.u64(SLOTS + SLOT * i + 8);
        if w >> 48 != 0 {
            visit(w as usize & 0xffff);
        }
    }
}

/// The value of a key.
#[inline]
pub fn get<'a>(arena: &'a Arena, map: &MapRoot, hash: u64, key: &[u8]) -> Option<&'a [u8]> {
    let bucket = Bucket { node: trie::find_leaf(arena, map.root, hash, key)?, arena };
    bucket.find(hash, key).ok().map(|i| bucket.item(i).value)
}

/// Sets the value of a key. True when the key is new.
pub fn put(m: &mut Mutator, map: &mut MapRoot, hash: u64, key: &[u8], value: &[u8]) -> bool {
    m.fold(hash, value_hash(value));
    let arena = m.shared_arena().clone();
    let mut path = Path::new();
    let leaf = match trie::descend(&arena, map.root, hash, key, &mut path) {
        End::Leaf(leaf) => leaf,
        End::Hole => {
            let piece = piece(m, hash, key, value);
            let bucket = build(m, &[piece], 0);
            trie::insert(m, &mut map.root, &mut path, hash, key, bucket);
            map.len += 1;
            map.extent.grow(Item { hash, key, value }.blocks());
            return true;
        }
    };
    let bucket = Bucket { node: arena.node(leaf), arena: &arena };
    let found = bucket.find(hash, key);
    match found {
        Ok(i) => {
            let (off, klen, vlen, big) = bucket.slot(i);
            if !big && vlen == value.len() {
                let owned = own_leaf(m, map, &mut path, leaf);
                m.node_mut(owned).bytes_mut(off + klen, vlen).copy_from_slice(value);
                return false;
            }
            let new = piece(m, hash, key, value);
            map.extent.shrink(bucket.item(i).blocks());
            map.extent.grow(Item { hash, key, value }.blocks());
            if big {
                m.retire(bucket.node.child(off));
            }
            rebuild(m, map, &mut path, bucket, i..i + 1, Some(new));
        }
        Err(i) => {
            map.len += 1;
            map.extent.grow(Item { hash, key, value }.blocks());
            let bytes = key.len() + value.len();
            if bytes <= INLINE_MAX && SLOT + bytes <= bucket.room() && bucket.count() < ENTRIES_MAX {
                let owned = own_leaf(m, map, &mut path, leaf);
                insert_in_place(m, owned, i, hash, key, value);
                return true;
            }
            let new = piece(m, hash, key, value);
            rebuild(m, map, &mut path, bucket, i..i, Some(new));
        }
    }
    found.is_err()
}

/// Takes a key out. True when it was there.
pub fn remove(m: &mut Mutator, map: &mut MapRoot, hash: u64, key: &[u8]) -> bool {
    let arena = m.shared_arena().clone();
    let mut path = Path::new();
    let End::Leaf(leaf) = trie::descend(&arena, map.root, hash, key, &mut path) else { return false };
    let bucket = Bucket { node: arena.node(leaf), arena: &arena };
    let Ok(i) = bucket.find(hash, key) else { return false };
    m.fold(hash, 0);
    map.extent.shrink(bucket.item(i).blocks());
    let (off, _, _, big) = bucket.slot(i);
    if big {
        m.retire(bucket.node.child(off));
    }
    map.len -= 1;
    if bucket.count() == 1 {
        trie::remove(m, &mut map.root, &mut path);
        m.retire(leaf);
    } else {
        rebuild(m, map, &mut path, bucket, i..i + 1, None);
    }
    true
}

#[inline]
fn own_leaf(m: &mut Mutator, map: &mut MapRoot, path: &mut Path, leaf: Ref) -> Ref {
    let owned = m.own(leaf);
    if owned != leaf {
        trie::replace(m, &mut map.root, path, owned);
    }
    owned
}

fn insert_in_place(m: &mut Mutator, bucket: Ref, i: usize, hash: u64, key: &[u8], value: &[u8]) {
    let mut node = m.node_mut(bucket);
    let count = node.u16(COUNT) as usize;
    let off = node.u16(LOW) as usize - key.len() - value.len();
    node.bytes_mut(off, key.len()).copy_from_slice(key);
    node.bytes_mut(off + key.len(), value.len()).copy_from_slice(value);
    let slot = SLOTS + SLOT * i;
    node.move_within(slot, slot + SLOT, SLOT * (count - i));
    node.set_u64(slot, hash);
    node.set_u64(slot + 8, off as u64 | (key.len() as u64) << 16 | (value.len() as u64) << 32);
    node.set_u16(COUNT, count as u16 + 1);
    node.set_u16(LOW, off as u16);
}

/// An entry on its way into a new bucket.
#[derive(Clone, Copy)]
struct Piece<'a> {
    hash: u64,
    key: &'a [u8],
    value: &'a [u8],
    /// The blob of a big one.
    blob: Ref,
}

impl Piece<'_> {
    fn bytes(&self) -> usize {
        if self.blob.is_null() { self.key.len() + self.value.len() } else { 15 }
    }
}

fn piece<'a>(m: &mut Mutator, hash: u64, key: &'a [u8], value: &'a [u8]) -> Piece<'a> {
    let big = key.len() + value.len() > INLINE_MAX;
    let blob = if big { blob::put(m, &[&(key.len() as u64).to_le_bytes(), key, value]) } else { Ref::NULL };
    Piece { hash, key, value, blob }
}

/// Replaces a bucket by one (or a branch of several) without the entries `gone` and with `new` in their place.
fn rebuild(
    m: &mut Mutator,
    map: &mut MapRoot,
    path: &mut Path,
    old: Bucket<'_>,
    gone: std::ops::Range<usize>,
    new: Option<Piece<'_>>,
) {
    let mut pieces: SmallVec<[Piece<'_>; ENTRIES_MAX + 1]> = SmallVec::new();
    for i in 0..old.count() {
        if i == gone.start {
            pieces.extend(new);
        }
        if !gone.contains(&i) {
            let (off, _, _, big) = old.slot(i);
            let item = old.item(i);
            let blob = if big { old.node.child(off) } else { Ref::NULL };
            pieces.push(Piece { hash: item.hash, key: item.key, value: item.value, blob });
        }
    }
    if gone.start == old.count() {
        pieces.extend(new);
    }
    let fresh = build_all(m, &pieces, path.len(), new.is_some());
    trie::replace(m, &mut map.root, path, fresh);
    m.retire(old.node.get());
}

fn bucket_bytes(pieces: &[Piece<'_>]) -> usize {
    SLOTS + pieces.iter().map(|p| SLOT + p.bytes()).sum::<usize>()
}

/// A bucket of the pieces, or a branch at `level` when they are too many.
fn build_all(m: &mut Mutator, pieces: &[Piece<'_>], level: usize, growing: bool) -> Ref {
    let bytes = bucket_bytes(pieces);
    if pieces.len() == 1 || (pieces.len() <= ENTRIES_MAX && bytes <= BUCKET_BYTES_MAX) {
        return build(m, pieces, if growing && pieces.len() > 1 { bytes / 8 } else { 0 });
    }
    assert!(level < trie::LEVELS_MAX, "more keys than a bucket holds share 128 bits of two hashes");
    let mut sorted: SmallVec<[(u32, Piece<'_>); ENTRIES_MAX + 1]> =
        pieces.iter().map(|p| (trie::digit(p.hash, p.key, level), *p)).collect();
    // Already ascending where digits come from the hash; stable, so that (hash, key) stays the order inside a digit.
    sorted.sort_by_key(|&(digit, _)| digit);
    let mut children: SmallVec<[(u32, Ref); ENTRIES_MAX + 1]> = SmallVec::new();
    let mut rest = &sorted[..];
    while let Some(&(digit, _)) = rest.first() {
        let (group, after) = rest.split_at(rest.partition_point(|&(d, _)| d == digit));
        let group: SmallVec<[Piece<'_>; ENTRIES_MAX + 1]> = group.iter().map(|&(_, p)| p).collect();
        children.push((digit, build_all(m, &group, level + 1, growing)));
        rest = after;
    }
    trie::branch(m, &children)
}

fn build(m: &mut Mutator, pieces: &[Piece<'_>], slack: usize) -> Ref {
    let mut node = m.alloc_node(bucket_bytes(pieces) + slack, kinds::BUCKET);
    let mut low = node.capacity();
    for (i, piece) in pieces.iter().enumerate() {
        let (klen, vlen) = (piece.key.len(), piece.value.len());
        let mut word = 0;
        if piece.blob.is_null() {
            low -= klen + vlen;
            node.bytes_mut(low, klen).copy_from_slice(piece.key);
            node.bytes_mut(low + klen, vlen).copy_from_slice(piece.value);
            word |= (klen as u64) << 16 | (vlen as u64) << 32;
        } else {
            low = (low - 8) & !7;
            node.set_child(low, piece.blob);
            word |= 1 << 48;
        }
        node.set_u64(SLOTS + SLOT * i, piece.hash);
        node.set_u64(SLOTS + SLOT * i + 8, word | low as u64);
    }
    node.set_u16(COUNT, pieces.len() as u16);
    node.set_u16(LOW, low as u16);
    node.get()
}

/// Walks a map in the order of (hash, key). Not across changes of the map.
pub struct Cursor {
    leaves: Leaves,
    from: u64,
    bucket: Ref,
    next: usize,
}

impl Cursor {
    /// From the first entry whose hash is at least `from`.
    pub fn new(arena: &Arena, map: &MapRoot, from: u64) -> Cursor {
        Cursor { leaves: Leaves::new(arena, map.root, from), from, bucket: Ref::NULL, next: 0 }
    }

    #[inline]
    pub fn next<'a>(&mut self, arena: &'a Arena) -> Option<Item<'a>> {
        loop {
            if !self.bucket.is_null() {
                let bucket = Bucket { node: arena.node(self.bucket), arena };
                while self.next < bucket.count() {
                    let item = bucket.item(self.next);
                    self.next += 1;
                    if item.hash >= self.from {
                        return Some(item);
                    }
                }
            }
            self.bucket = self.leaves.next(arena)?.get();
            self.next = 0;
        }
    }
}

/// Shows entries from hash `cursor` on until `go_on` says no; entries of equal hash are never parted. Tells where to go on, 0 at the end.
/// Every entry that is there from the first call to the last of a full scan is shown exactly once, whatever else changes.
pub fn scan<'a>(arena: &'a Arena, map: &MapRoot, cursor: u64, mut go_on: impl FnMut(Item<'a>) -> bool) -> u64 {
    let mut walk = Cursor::new(arena, map, cursor);
    let mut stopped_at = None;
    while let Some(item) = walk.next(arena) {
        if stopped_at.is_some_and(|h| h != item.hash) {
            return item.hash;
        }
        if !go_on(item) {
            stopped_at = Some(item.hash);
        }
    }
    0
}

/// How many entries a random choice expects in the stretch of hashes it looks at, and the most it allows for.
const STRETCH: u64 = 8;
const STRETCH_MAX: u64 = 64;

/// A stretch of hashes that holds about [`STRETCH`] of `len` evenly spread ones: (first hash, bits of the prefix), from a random word.
pub(super) fn random_stretch(len: u64, random: u64) -> (u64, u32) {
    let bits = (len / STRETCH).max(1).ilog2();
    if bits == 0 { (0, 0) } else { (random >> (64 - bits) << (64 - bits), bits) }
}
pub(super) fn in_stretch(hash: u64, first: u64, bits: u32) -> bool {
    bits == 0 || (hash ^ first) >> (64 - bits) == 0
}
/// The place in the stretch to take, from a random word. Past its entries the choice is made anew: so every entry has the same chance.
pub(super) fn random_place(len: u64, bits: u32, random: u64) -> u64 {
    if bits == 0 { random % len } else { random % STRETCH_MAX }
}

/// An entry, each with the same chance.
pub fn random<'a>(arena: &'a Arena, map: &MapRoot, mut rng: impl FnMut() -> u64) -> Option<Item<'a>> {
    if map.len == 0 {
        return None;
    }
    loop {
        let (first, bits) = random_stretch(map.len, rng());
        let mut place = random_place(map.len, bits, rng());
        let mut walk = Cursor::new(arena, map, first);
        while let Some(item) = walk.next(arena) {
            if !in_stretch(item.hash, first, bits) {
                break;
            }
            if place == 0 {
                return Some(item);
            }
            place -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::mix64;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn mutator() -> Mutator {
        Mutator::private(Arc::new(Arena::with_reserve(256 << 20).unwrap()))
    }
    /// Few hashes, so that full collisions happen; spread over all digits.
    fn poor_hash(key: &[u8], hashes: u64) -> u64 {
        mix64(value_hash(key) % hashes)
    }
    fn content(m: &Mutator, map: &MapRoot) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
        let mut seen = Vec::new();
        assert_eq!(
            scan(m.arena(), map, 0, |i| {
                seen.push((i.hash, i.key.to_vec(), i.value.to_vec()));
                true
            }),
            0
        );
        seen
    }

    proptest! {
        #[test]
        fn map_is_a_btreemap_ordered_by_hash(ops in prop::collection::vec((0u8..8, 0u32..400, 0usize..400, any::<bool>()), 1..600), hashes in prop::sample::select(vec![3u64, 40, 1 << 40])) {
            let mut m = mutator();
            let (mut map, mut model) = (MapRoot::default(), BTreeMap::new());
            for (op, key, len, big) in ops {
                let mut key = key.to_string().into_bytes();
                if key[0] == b'7' && big { key.resize(500, b'x'); }
                let hash = poor_hash(&key, hashes);
                match op {
                    0..=4 => {
                        let value = vec![len as u8; if big { len } else { len % 9 }];
                        let new = put(&mut m, &mut map, hash, &key, &value);
                        prop_assert_eq!(model.insert((hash, key), value).is_none(), new);
                    }
                    5 | 6 => prop_assert_eq!(remove(&mut m, &mut map, hash, &key), model.remove(&(hash, key)).is_some()),
                    _ => m.next_sub_batch(),
                }
                prop_assert_eq!(map.len, model.len() as u64);
            }
            for ((hash, key), value) in &model {
                prop_assert_eq!(get(m.arena(), &map, *hash, key), Some(&value[..]));
            }
            let seen: Vec<_> = content(&m, &map);
            let mut sorted = seen.clone();
            sorted.sort();
            prop_assert_eq!(&seen.iter().map(|s| s.0).collect::<Vec<_>>(), &sorted.iter().map(|s| s.0).collect::<Vec<_>>());
            prop_assert_eq!(sorted, model.into_iter().map(|((h, k), v)| (h, k, v)).collect::<Vec<_>>());
        }

        #[test]
        fn scan_shows_every_lasting_entry_exactly_once_under_writes(lasting in 1u32..500, step in 1usize..20, seed in any::<u64>()) {
            let mut m = mutator();
            let mut map = MapRoot::default();
            let name = |i: u32| i.to_le_bytes();
            for i in 0..lasting {
                put(&mut m, &mut map, value_hash(&name(i)), &name(i), b"v");
            }
            let (mut cursor, mut seen, mut r) = (0, BTreeMap::new(), seed);
            loop {
                let mut n = 0;
                cursor = scan(m.arena(), &map, cursor, |i| {
                    *seen.entry(u32::from_le_bytes(i.key.try_into().unwrap())).or_insert(0) += 1;
                    n += 1;
                    n < step
                });
                if cursor == 0 { break; }
                for _ in 0..5 {
                    r = mix64(r + 1);
                    let k = name(1000 + (r % 300) as u32);
                    if r >> 60 < 8 { put(&mut m, &mut map, value_hash(&k), &k, b"w"); } else { remove(&mut m, &mut map, value_hash(&k), &k); }
                    m.next_sub_batch();
                }
            }
            for i in 0..lasting { prop_assert_eq!(seen.get(&i), Some(&1)); }
        }
    }

    #[test]
    fn random_choice_is_even() {
        let mut m = mutator();
        for len in [1u32, 15, 100, 1000] {
            let mut map = MapRoot::default();
            for i in 0..len {
                put(&mut m, &mut map, value_hash(&i.to_le_bytes()), &i.to_le_bytes(), b"");
            }
            let (mut hits, mut r) = (vec![0u32; len as usize], 1u64);
            for _ in 0..len * 200 {
                let item = random(m.arena(), &map, || {
                    r = r.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    mix64(r)
                })
                .unwrap();
                hits[u32::from_le_bytes(item.key.try_into().unwrap()) as usize] += 1;
            }
            assert!(hits.iter().all(|&h| (110..310).contains(&h)), "{len}: {hits:?}");
        }
    }
}
