//! Trees against `Vec` and `BTreeSet`; published versions never change.

use super::*;
use crate::base::SubBatch;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

fn mutator() -> Mutator {
    Mutator::new(Arc::new(Arena::with_reserve(1 << 30).unwrap()), SubBatch(0))
}

fn items(arena: &Arena, tree: &Tree) -> Vec<Vec<u8>> {
    let mut cursor = Cursor::at(arena, tree, 0);
    std::iter::from_fn(|| cursor.next(arena).map(<[u8]>::to_vec)).collect()
}

fn items_backward(arena: &Arena, tree: &Tree) -> Vec<Vec<u8>> {
    let mut cursor = Cursor::at(arena, tree, u64::MAX);
    std::iter::from_fn(|| cursor.prev(arena).map(<[u8]>::to_vec)).collect()
}

fn item(seed: u32) -> Vec<u8> {
    // Mostly short, some long enough for blobs, one in a hundred beyond an ordinary node.
    let len = match seed % 100 {
        0 => 70_000,
        1..=5 => 250 + (seed / 100 % 900) as usize,
        _ => (seed / 100 % 60) as usize,
    };
    (0..len).map(|i| (seed as usize + i * 7) as u8).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32, u32),
    Remove(u32),
    Replace(u32, u32),
    Front(u32),
    Back(u32),
    PopFront,
    PopBack,
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u32>(), any::<u32>()).prop_map(|(at, seed)| Step::Insert(at, seed)),
        3 => any::<u32>().prop_map(Step::Remove),
        2 => (any::<u32>(), any::<u32>()).prop_map(|(at, seed)| Step::Replace(at, seed)),
        2 => any::<u32>().prop_map(Step::Front),
        2 => any::<u32>().prop_map(Step::Back),
        1 => Just(Step::PopFront),
        1 => Just(Step::PopBack),
        1 => Just(Step::Publish),
    ]
}

fn apply(m: &mut Mutator, tree: &mut Tree, model: &mut Vec<Vec<u8>>, step: &Step) {
    let place = |at: u32, len: usize| at as usize % len.max(1);
    match *step {
        Step::Insert(at, seed) => {
            let at = at as usize % (model.len() + 1);
            insert_at(m, tree, at as u64, &item(seed));
            model.insert(at, item(seed));
        }
        Step::Remove(at) => {
            let at = place(at, model.len());
            assert_eq!(remove_at(m, tree, at as u64), !model.is_empty());
            if !model.is_empty() {
                model.remove(at);
            }
        }
        Step::Replace(at, seed) => {
            let at = place(at, model.len());
            assert_eq!(replace_at(m, tree, at as u64, &item(seed)), !model.is_empty());
            if let Some(old) = model.get_mut(at) {
                *old = item(seed);
            }
        }
        Step::Front(seed) => {
            push_front(m, tree, &item(seed));
            model.insert(0, item(seed));
        }
        Step::Back(seed) => {
            push_back(m, tree, &item(seed));
            model.push(item(seed));
        }
        Step::PopFront => {
            assert_eq!(get(m.arena(), tree, 0), model.first().map(Vec::as_slice));
            remove_at(m, tree, 0);
            model.drain(..model.len().min(1));
        }
        Step::PopBack => {
            let last = tree.len.wrapping_sub(1);
            assert_eq!(get(m.arena(), tree, last), model.last().map(Vec::as_slice));
            remove_at(m, tree, last);
            model.pop();
        }
        Step::Publish => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn positional_tree_equals_a_vec_and_published_versions_stay(steps in proptest::collection::vec(step(), 1..600)) {
        let mut m = mutator();
        let (mut tree, mut model) = (Tree::EMPTY, Vec::new());
        let mut kept = Vec::new();
        for step in &steps {
            apply(&mut m, &mut tree, &mut model, step);
            prop_assert_eq!(tree.len, model.len() as u64);
            if let Step::Publish = step {
                m.next_sub_batch();
                kept.push((tree, model.clone()));
            }
        }
        kept.push((tree, model));
        for (tree, model) in &kept {
            prop_assert!(items(m.arena(), tree) == *model);
            let mut backward = items_backward(m.arena(), tree);
            backward.reverse();
            prop_assert!(backward == *model);
            for (rank, item) in model.iter().enumerate() {
                prop_assert_eq!(get(m.arena(), tree, rank as u64), Some(item.as_slice()));
            }
        }
    }

    #[test]
    fn ordered_tree_equals_a_set_and_published_versions_stay(
        steps in proptest::collection::vec((0u8..10, 0u32..400), 1..1500), publish_each in 1usize..200, score in any::<bool>(),
    ) {
        let order = if score { Order::Score } else { Order::Bytes };
        let mut m = mutator();
        let (mut tree, mut model) = (Tree::EMPTY, BTreeSet::new());
        let mut kept = Vec::new();
        for (i, &(what, seed)) in steps.iter().enumerate() {
            let key = key(seed);
            if what < 6 {
                prop_assert_eq!(insert(&mut m, &mut tree, order, &key.bytes(order)), model.insert(key));
            } else {
                prop_assert_eq!(remove(&mut m, &mut tree, order, &key.bytes(order)), model.remove(&key));
            }
            if i % publish_each == 0 {
                m.next_sub_batch();
                kept.push((tree, model.clone()));
            }
        }
        kept.push((tree, model));
        for (tree, model) in &kept {
            let expected: Vec<_> = model.iter().map(|key| key.bytes(order)).collect();
            prop_assert!(items(m.arena(), tree) == expected);
            for seed in 0..400 {
                let key = key(seed);
                let less = model.range(..&key).count() as u64;
                let here = if model.contains(&key) { Ok(less) } else { Err(less) };
                prop_assert_eq!(rank(m.arena(), tree, order, &key.bytes(order)), here);
            }
        }
    }
}

/// A key that orders the same way as a score and member and as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key(u8, Vec<u8>);

/// Few scores and long common prefixes, so that separators meet their equals.
fn key(seed: u32) -> Key {
    let tail = format!("{:03}", seed / 3);
    let pad = if seed.is_multiple_of(11) { 300 } else { 0 };
    Key((seed % 3) as u8, [b"a-common-prefix-of-members-".as_slice(), tail.as_bytes(), &vec![b'x'; pad]].concat())
}

impl Key {
    fn bytes(&self, order: Order) -> Vec<u8> {
        match order {
            Order::Bytes => [&[self.0][..], &self.1].concat(),
            Order::Score => {
                let mut item = Vec::new();
                score_item([f64::NEG_INFINITY, 0.0, 2.5][self.0 as usize], &self.1, &mut item);
                item
            }
        }
    }
}

#[test]
fn bounds_by_score_and_by_member_count_what_lies_below() {
    let mut m = mutator();
    let mut tree = Tree::EMPTY;
    let mut buffer = Vec::new();
    for (score, member) in [(f64::NEG_INFINITY, "a"), (-0.0, "b"), (0.0, "c"), (1.0, "d"), (f64::INFINITY, "e")] {
        score_item(score, member.as_bytes(), &mut buffer);
        assert!(insert(&mut m, &mut tree, Order::Score, &buffer));
    }
    let count = |score, inclusive| below(m.arena(), &tree, score, inclusive);
    assert_eq!([count(f64::NEG_INFINITY, false), count(f64::NEG_INFINITY, true)], [0, 1]);
    assert_eq!([count(0.0, false), count(-0.0, false), count(0.0, true), count(-0.0, true)], [1, 1, 3, 3]);
    assert_eq!(
        [count(0.5, false), count(1.0, true), count(f64::INFINITY, false), count(f64::INFINITY, true)],
        [3, 4, 4, 5]
    );
    let (score, member) = split_score(get(m.arena(), &tree, 1).unwrap());
    assert!(score == 0.0 && score.is_sign_negative() && member == b"b");

    let mut lex = Tree::EMPTY;
    for member in ["", "a", "ab", "b"] {
        score_item(0.0, member.as_bytes(), &mut buffer);
        insert(&mut m, &mut lex, Order::Score, &buffer);
    }
    let count = |member: &str, inclusive| below_lex(m.arena(), &lex, member.as_bytes(), inclusive);
    assert_eq!(
        [count("", false), count("", true), count("a", true), count("aa", true), count("z", false)],
        [0, 1, 2, 2, 4]
    );
}

#[test]
fn a_queue_of_any_length_stays_shallow_and_packed() {
    let mut m = mutator();
    let mut tree = Tree::EMPTY;
    for i in 0..200_000u64 {
        push_back(&mut m, &mut tree, &i.to_be_bytes());
        if i % 1000 == 0 {
            m.next_sub_batch();
        }
        if i >= 100_000 {
            remove_at(&mut m, &mut tree, 0);
        }
    }
    assert_eq!(tree.len, 100_000);
    assert_eq!(get(m.arena(), &tree, 777), Some(&100_777u64.to_be_bytes()[..]));
    let mut path = Path::new();
    branch::seek(m.arena(), tree.root, 50_000, &mut path);
    assert!(path.len() <= 3, "{} levels", path.len());
    let (mut leaves, mut cursor) = (0, vec![tree.root]);
    while let Some(at) = cursor.pop() {
        let node = m.arena().node(at);
        leaves += !branch::is_branch(node.kind()) as u64;
        cells(node, |offset| cursor.push(node.child(offset)));
    }
    assert!(tree.len / leaves > 70, "{} items a leaf", tree.len / leaves);
}

#[test]
fn removing_all_but_a_few_at_random_gives_the_leaves_back() {
    let mut m = mutator();
    let mut tree = Tree::EMPTY;
    for i in 0..20_000u64 {
        insert(&mut m, &mut tree, Order::Bytes, &mix64(i).to_be_bytes());
    }
    let full = m.live_bytes();
    for i in 0..19_900u64 {
        assert!(remove(&mut m, &mut tree, Order::Bytes, &mix64(i).to_be_bytes()));
    }
    assert!(m.live_bytes() * 10 < full, "{} of {full}", m.live_bytes());
}
