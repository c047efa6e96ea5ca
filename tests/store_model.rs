//! The store against a model: random calls, published in sub-batches; every kept version must equal the model's at its epoch,
//! an aborted call must leave nothing behind, and when old versions go, every byte of them comes back.

use look::base::{Epoch, KeyHasher, mix64};
use look::store::{Arena, Coll, Read, Ref, Rope, Store, Value, Writer, kinds, map, rope};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Int(i64),
    Bytes(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    content: Content,
    due: Option<i64>,
    version: u64,
}

type Model = BTreeMap<(u8, Vec<u8>), Row>;

#[derive(Clone, Debug)]
enum Call {
    SetInt(u8, u16, i64),
    SetStr(u8, u16, usize, Option<i64>),
    Append(u8, u16, usize),
    HSet(u8, u16, u16, usize),
    HDel(u8, u16, u16),
    Del(u8, u16),
    Expire(u8, u16, Option<i64>),
    Relocate { from: (u8, u16), to: (u8, u16), take: bool },
    Flush(u8),
    Swap(u8, u8),
    ExpireNow(i64),
    Publish,
}

fn call() -> impl Strategy<Value = Call> {
    let place = || (0u8..3, 0u16..40);
    let due = || prop::option::weighted(0.3, 1i64..60);
    let len = prop_oneof![0usize..100, 4000usize..4200, 9000usize..9010];
    prop_oneof![
        4 => (place(), any::<i64>()).prop_map(|((d, k), n)| Call::SetInt(d, k, n)),
        8 => (place(), len, due()).prop_map(|((d, k), n, due)| Call::SetStr(d, k, n, due)),
        4 => (place(), 1usize..3000).prop_map(|((d, k), n)| Call::Append(d, k, n)),
        12 => (place(), 0u16..200, prop_oneof![0usize..20, 200usize..600]).prop_map(|((d, k), f, n)| Call::HSet(d, k % 5, f, n)),
        5 => (place(), 0u16..200).prop_map(|((d, k), f)| Call::HDel(d, k % 5, f)),
        6 => place().prop_map(|(d, k)| Call::Del(d, k)),
        3 => (place(), due()).prop_map(|((d, k), due)| Call::Expire(d, k, due)),
        5 => (place(), place(), any::<bool>()).prop_map(|(from, to, take)| Call::Relocate { from, to, take }),
        1 => (0u8..3).prop_map(Call::Flush),
        1 => (0u8..3, 0u8..3).prop_map(|(a, b)| Call::Swap(a, b)),
        2 => (0i64..60).prop_map(Call::ExpireNow),
        6 => Just(Call::Publish),
    ]
}

/// A store under test, and what it should hold.
struct Rig {
    store: Store,
    writer: Writer,
    hasher: KeyHasher,
    /// How many different hashes keys may have: few make full collisions.
    hashes: u64,
    model: Model,
    /// Last epoch that changed or removed a key.
    touched: BTreeMap<(u8, Vec<u8>), u64>,
    epoch: u64,
}

fn key_name(k: u16) -> Vec<u8> {
    let mut name = format!("key:{k}").into_bytes();
    if k.is_multiple_of(13) {
        name.resize(1500, b'.');
    }
    name
}

fn text(seed: u64, n: usize) -> Vec<u8> {
    (0..n).map(|i| mix64(seed ^ (i as u64 / 8)) as u8).collect()
}

impl Rig {
    fn new(hashes: u64) -> Rig {
        let arena = Arc::new(Arena::with_reserve(1 << 30).unwrap());
        let (store, writer) = look::store::restore(arena, Default::default());
        Rig {
            store,
            writer,
            hasher: KeyHasher::new(7),
            hashes,
            model: Model::new(),
            touched: BTreeMap::new(),
            epoch: 0,
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        mix64(self.hasher.hash(key) % self.hashes)
    }

    /// Runs one call as the next epoch, in the store and in the model.
    fn run(&mut self, call: &Call) {
        self.epoch += 1;
        self.writer.set_epoch(Epoch(self.epoch));
        self.writer.set_time(self.epoch as i64);
        match *call {
            Call::SetInt(db, k, n) => self.set(db, k, Content::Int(n), None),
            Call::SetStr(db, k, n, due) => self.set(db, k, Content::Bytes(text(self.epoch, n)), due),
            Call::Append(db, k, n) => self.append(db, k, n),
            Call::HSet(db, k, f, n) => self.hash_call(db, k, f, Some(text(self.epoch, n))),
            Call::HDel(db, k, f) => self.hash_call(db, k, f, None),
            Call::Del(db, k) => self.del(db, k),
            Call::Expire(db, k, due) => self.expire(db, k, due),
            Call::Relocate { from, to, take } => self.relocate(from, to, take),
            Call::Flush(db) => {
                self.writer.flush_db(db);
                self.touch_all(|k| k.0 == db);
                self.model.retain(|k, _| k.0 != db);
            }
            Call::Swap(a, b) => {
                self.writer.swap_db(a, b);
                self.touch_all(|k| k.0 == a || k.0 == b);
                let swap = |db| {
                    if db == a {
                        b
                    } else if db == b {
                        a
                    } else {
                        db
                    }
                };
                self.model =
                    std::mem::take(&mut self.model).into_iter().map(|((d, k), row)| ((swap(d), k), row)).collect();
            }
            Call::ExpireNow(now) => self.expire_now(now),
            Call::Publish => self.writer.publish(),
        }
    }

    fn touch(&mut self, db: u8, key: &[u8]) {
        self.touched.insert((db, key.to_vec()), self.epoch);
    }
    fn touch_all(&mut self, which: impl Fn(&(u8, Vec<u8>)) -> bool) {
        for key in self.model.keys().filter(|k| which(k)) {
            self.touched.insert(key.clone(), self.epoch);
        }
    }
    fn model_put(&mut self, db: u8, key: &[u8], content: Content, due: Option<i64>) {
        self.model.insert((db, key.to_vec()), Row { content, due, version: self.epoch });
        self.touch(db, key);
    }

    fn set(&mut self, db: u8, k: u16, content: Content, due: Option<i64>) {
        let key = key_name(k);
        let mut slot = self.writer.find_slot(db, self.hash(&key), &key);
        match &content {
            Content::Int(n) => self.writer.put(&mut slot, &key, Value::Int(*n), due),
            Content::Bytes(b) => self.writer.put(&mut slot, &key, Value::Str(b), due),
            Content::Hash(_) => unreachable!(),
        }
        self.model_put(db, &key, content, due);
    }

    fn del(&mut self, db: u8, k: u16) {
        let key = key_name(k);
        let mut slot = self.writer.find_slot(db, self.hash(&key), &key);
        let was = self.model.remove(&(db, key.clone())).is_some();
        assert_eq!(self.writer.remove(&mut slot, &key), was);
        if was {
            self.touch(db, &key);
        }
    }

    fn expire(&mut self, db: u8, k: u16, due: Option<i64>) {
        let key = key_name(k);
        let mut slot = self.writer.find_slot(db, self.hash(&key), &key);
        self.writer.set_due(&mut slot, &key, due);
        if let Some(row) = self.model.get_mut(&(db, key.clone())) {
            (row.due, row.version) = (due, self.epoch);
            self.touch(db, &key);
        }
    }

    fn expire_now(&mut self, now: i64) {
        let mut name = Vec::new();
        while let Some(expired) = self.writer.next_expired(now) {
            assert!(self.writer.remove_expired(expired, &mut name));
            let row = self.model.remove(&(expired.db, name.clone())).unwrap();
            assert_eq!(row.due, Some(expired.due));
            self.touch(expired.db, &name);
        }
        assert!(!self.model.values().any(|row| row.due.is_some_and(|due| due <= now)));
    }

    fn append(&mut self, db: u8, k: u16, n: usize) {
        let (key, tail) = (key_name(k), text(self.epoch, n));
        let mut slot = self.writer.find_slot(db, self.hash(&key), &key);
        let due = self.writer.entry(&mut slot, &key).and_then(|e| e.due());
        let mut all = match self.model.get(&(db, key.clone())).map(|row| &row.content) {
            Some(Content::Bytes(b)) => b.clone(),
            Some(_) => return,
            None => Vec::new(),
        };
        all.extend(&tail);
        let old = self.writer.entry(&mut slot, &key).map(|e| e.value());
        if let Some(Value::Rope(mut r)) = old {
            let end = r.len;
            rope::write(self.writer.mutator(), &mut r, end, &tail);
            self.writer.put_back(&mut slot, &key, Value::Rope(r), due);
        } else {
            self.writer.put(&mut slot, &key, Value::Str(&all), due);
        }
        self.model_put(db, &key, Content::Bytes(all), due);
    }

    fn hash_call(&mut self, db: u8, k: u16, f: u16, value: Option<Vec<u8>>) {
        let (key, field) = (key_name(k), format!("field:{f}").into_bytes());
        let field_hash = self.hash(&field);
        let mut slot = self.writer.find_slot(db, self.hash(&key), &key);
        let (mut coll, due) = match self.writer.entry(&mut slot, &key).map(|e| (e.value(), e.due())) {
            None if value.is_none() => return,
            None => (Coll::default(), None),
            Some((Value::Hash(coll), due)) => (coll, due),
            Some(_) => return,
        };
        let mut fields = match self.model.get(&(db, key.clone())).map(|row| row.content.clone()) {
            Some(Content::Hash(fields)) => fields,
            _ => BTreeMap::new(),
        };
        let mut root = coll.map();
        let m = self.writer.mutator();
        match &value {
            Some(v) => {
                assert_eq!(map::put(m, &mut root, field_hash, &field, v), fields.insert(field, v.clone()).is_none())
            }
            None => assert_eq!(map::remove(m, &mut root, field_hash, &field), fields.remove(&field).is_some()),
        }
        coll.set_map(root);
        self.writer.put_back(&mut slot, &key, Value::Hash(coll), due);
        if coll.len == 0 {
            self.model.remove(&(db, key.clone()));
            self.touch(db, &key);
        } else {
            self.model_put(db, &key, Content::Hash(fields), due);
        }
    }

    fn relocate(&mut self, (db, k): (u8, u16), (to_db, to_k): (u8, u16), take: bool) {
        if (db, k) == (to_db, to_k) {
            return;
        }
        let (key, to) = (key_name(k), key_name(to_k));
        let mut from_slot = self.writer.find_slot(db, self.hash(&key), &key);
        let mut to_slot = self.writer.find_slot(to_db, self.hash(&to), &to);
        let done = match take {
            true => self.writer.move_entry(&mut from_slot, &key, &mut to_slot, &to),
            false => self.writer.copy_entry(&mut from_slot, &key, &mut to_slot, &to),
        };
        let row = self.model.get(&(db, key.clone())).cloned();
        assert_eq!(done, row.is_some());
        let Some(row) = row else { return };
        if take {
            self.model.remove(&(db, key.clone()));
            self.touch(db, &key);
        }
        self.model_put(to_db, &to, row.content, row.due);
    }

    fn check(&self) {
        assert_eq!(content(&self.writer), self.model);
        for ((db, key), touched) in &self.touched {
            let hash = self.hash(key);
            let found = self.writer.find(*db, hash, key);
            assert_eq!(found.is_some(), self.model.contains_key(&(*db, key.clone())));
            assert!(
                found.is_some() || self.writer.last_change(*db, hash, key).0 >= *touched,
                "WATCH would miss a removal"
            );
        }
    }
}

/// A version's whole content.
fn content(version: &impl Read) -> Model {
    let mut all = Model::new();
    for db in 0..4 {
        let mut n = 0;
        version.scan(db, 0, |entry| {
            let content = match entry.value() {
                Value::Int(n) => Content::Int(n),
                Value::Str(s) => Content::Bytes(s.to_vec()),
                Value::Rope(r) => Content::Bytes(rope_bytes(version, r)),
                Value::Hash(coll) => Content::Hash(hash_fields(version, coll)),
                other => panic!("{other:?}"),
            };
            n += 1;
            all.insert((db, entry.key().to_vec()), Row { content, due: entry.due(), version: entry.version().0 });
            true
        });
        assert_eq!(version.db_len(db), n);
        assert_eq!(version.expires_len(db), all.iter().filter(|(k, r)| k.0 == db && r.due.is_some()).count() as u64);
    }
    all
}

fn hash_fields(version: &impl Read, coll: Coll) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut fields = BTreeMap::new();
    map::scan(version.arena(), &coll.map(), 0, |i| fields.insert(i.key.to_vec(), i.value.to_vec()).is_none());
    assert_eq!(fields.len() as u64, coll.len);
    fields
}

fn rope_bytes(version: &impl Read, r: Rope) -> Vec<u8> {
    let mut bytes = Vec::new();
    rope::read(version.arena(), r, 0, r.len, |piece| bytes.extend_from_slice(piece));
    bytes
}

/// Bytes of everything that a version reaches; no node may be reached twice.
fn reachable_bytes(version: &impl Read) -> u64 {
    fn walk(version: &impl Read, at: Ref, seen: &mut HashSet<Ref>) -> u64 {
        if at.is_null() {
            return 0;
        }
        let node = version.arena().node(at);
        assert!(seen.insert(at), "two parents share a node");
        let mut bytes = node.capacity() as u64;
        kinds::cells(node, |off| bytes += walk(version, node.child(off), seen));
        bytes
    }
    let mut seen = HashSet::new();
    let state = version.state();
    let tops = state.dbs.iter().flat_map(|db| [db.keys.root, db.expires.root]).chain([state.deletions]);
    tops.map(|at| walk(version, at, &mut seen)).sum()
}

/// With no old version kept, live bytes are what the newest version reaches, and its root.
fn no_leak(rig: &mut Rig) {
    rig.store.settings().ms.store(0, Ordering::Relaxed);
    rig.store.settings().epochs.store(0, Ordering::Relaxed);
    // The first round takes out the tombstones that no version needs, the second frees them.
    for _ in 0..2 {
        rig.epoch += 1;
        rig.writer.set_epoch(Epoch(rig.epoch));
        rig.writer.publish();
        assert!(rig.writer.collect(usize::MAX));
    }
    let newest = rig.store.newest().unwrap();
    assert_eq!(rig.writer.mutator().live_bytes(), reachable_bytes(&newest) + newest.root_bytes());
}

fn not_publish(call: &&Call) -> bool {
    !matches!(call, Call::Publish)
}

#[test]
fn two_keys_of_one_hash_that_are_found_together_keep_ways_of_their_own() {
    for to in 0..40 {
        let mut rig = Rig::new(1);
        let keys = (0..40).step_by(3).filter(|key| *key != to);
        keys.for_each(|key| rig.run(&Call::SetStr(0, key, 1, None)));
        rig.run(&Call::Relocate { from: (0, 9), to: (0, to), take: true });
        assert!(content(&rig.writer) == rig.model, "moved to key {to}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_kept_version_equals_the_model_at_its_epoch(calls in prop::collection::vec(call(), 1..250), hashes in prop::sample::select(vec![3u64, 60, 1 << 50])) {
        // The expiry index tells keys apart by hash, so deadlines need real ones.
        let hashes = if calls.iter().any(|c| matches!(c, Call::ExpireNow(_))) { 1 << 50 } else { hashes };
        let mut rig = Rig::new(hashes);
        let mut log = vec![Model::new()];
        for call in &calls {
            rig.run(call);
            log.push(rig.model.clone());
        }
        if hashes > 100 {
            rig.check();
        }
        rig.writer.publish();
        for epoch in 0..=rig.epoch {
            let version = rig.store.snapshot_at(Epoch(epoch)).unwrap();
            prop_assert!(version.epoch().0 <= epoch);
            prop_assert_eq!(&content(&version), &log[version.epoch().0 as usize]);
        }
        prop_assert_eq!(content(&rig.store.newest().unwrap()), rig.model);
    }

    #[test]
    fn aborted_calls_leave_nothing_behind(before in prop::collection::vec(call(), 0..80), aborted in prop::collection::vec(call(), 1..40), after in prop::collection::vec(call(), 0..80)) {
        let (mut plain, mut with) = (Rig::new(1 << 50), Rig::new(1 << 50));
        for c in &before {
            plain.run(c);
            with.run(c);
        }
        let (model, touched, epoch, digest) = (with.model.clone(), with.touched.clone(), with.epoch, with.writer.digest());
        with.writer.mark();
        for c in aborted.iter().filter(not_publish) {
            with.run(c);
        }
        with.writer.rollback();
        (with.model, with.touched, with.epoch) = (model, touched, epoch);
        prop_assert_eq!(with.writer.digest(), digest);
        with.check();
        with.writer.mark();
        for c in after.iter().filter(not_publish) {
            plain.run(c);
            with.run(c);
        }
        with.writer.commit();
        with.check();
        prop_assert_eq!(plain.writer.digest(), with.writer.digest());
        no_leak(&mut with);
    }

    #[test]
    fn released_versions_give_every_byte_back(calls in prop::collection::vec(call(), 1..300), pinned_at in any::<prop::sample::Index>()) {
        let mut rig = Rig::new(1 << 50);
        rig.store.settings().ms.store(0, Ordering::Relaxed);
        rig.store.settings().epochs.store(20, Ordering::Relaxed);
        let pin = pinned_at.index(calls.len());
        let mut pinned = None;
        for (i, call) in calls.iter().enumerate() {
            if i == pin {
                rig.writer.publish();
                pinned = Some((rig.store.snapshot().unwrap(), rig.model.clone()));
            }
            rig.run(call);
        }
        if let Some((version, model)) = pinned {
            rig.store.settings().epochs.store(0, Ordering::Relaxed);
            rig.writer.publish();
            rig.writer.collect(usize::MAX);
            prop_assert_eq!(content(&version), model);
        }
        no_leak(&mut rig);
    }

    #[test]
    fn private_replay_changes_nothing_that_is_published(calls in prop::collection::vec(call(), 1..100), replay in prop::collection::vec(call(), 1..100)) {
        let mut rig = Rig::new(1 << 50);
        for c in &calls {
            rig.run(c);
        }
        rig.writer.publish();
        let bytes = rig.store.arena().bytes_out();
        let private = Writer::private(rig.store.snapshot().unwrap());
        let published = std::mem::replace(&mut rig.writer, private);
        let model = rig.model.clone();
        for c in &replay {
            rig.run(c);
        }
        rig.check();
        prop_assert_eq!(content(&published), model);
        drop(std::mem::replace(&mut rig.writer, published));
        prop_assert_eq!(rig.store.arena().bytes_out(), bytes);
    }
}
