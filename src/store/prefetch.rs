//! Group prefetch: walks several keys down the trie in step. Each step only asks for the lines that the next one reads, so
//! that the misses of the whole group overlap (Chen, Ailamaki, Gibbons, Mowry 2004).

use super::arena::Ref;
use super::kinds;
use super::read::Read;
use super::trie;

const GROUP: usize = 32;
/// Deeper ways are rare.
const STEPS_MAX: usize = 6;
const LINE: usize = 64;

pub(super) fn keys<R: Read + ?Sized>(version: &R, keys: &[(u8, u64)]) {
    for group in keys.chunks(GROUP) {
        walk(version, group);
    }
}

fn walk<R: Read + ?Sized>(version: &R, group: &[(u8, u64)]) {
    let arena = version.arena();
    let mut at = [Ref::NULL; GROUP];
    let mut cells = [0u16; GROUP];
    for (at, &(db, _)) in at.iter_mut().zip(group) {
        *at = version.db(db).keys.root;
    }
    for level in 0..STEPS_MAX {
        let mut going = false;
        // The nodes' first lines are near: find the cells, ask for their lines.
        for (i, &(_, hash)) in group.iter().enumerate() {
            cells[i] = 0;
            if !at[i].is_resident() {
                continue;
            }
            let node = arena.node(at[i]);
            if node.kind() != kinds::BRANCH {
                arena.prefetch(at[i], LINE);
                at[i] = Ref::NULL;
                continue;
            }
            let bitmap = node.u64(trie::BITMAP);
            let digit = trie::digit(hash, b"", level);
            if !trie::has(bitmap, digit) {
                at[i] = Ref::NULL;
                continue;
            }
            let cell = trie::cell_of(bitmap, digit);
            cells[i] = cell as u16;
            going = true;
            if cell >= LINE - 8 {
                arena.prefetch(at[i], cell);
            }
        }
        if !going {
            return;
        }
        for i in 0..group.len() {
            if cells[i] != 0 {
                at[i] = arena.node(at[i]).child(cells[i] as usize);
                arena.prefetch(at[i], 0);
            }
        }
    }
}
