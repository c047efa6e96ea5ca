//! Versions on disk: what is recovered equals what was there, after any fault; what is damaged is said to be.

use look::base::{Epoch, KeyHasher, PageId, mix64};
use look::disk::pages::{FjallPages, MemoryPages, PageStore, PagesOptions};
use look::store::checkpoint::{CheckpointError, Checkpointed, Checkpoints, Meta, Retention, RootRecord};
use look::store::recovery::{self, Recovered};
use look::store::transfer::{self, Export, Import, OwnParts};
use look::store::tree::{self, Cursor, Order, Tree};
use look::store::{Coll, Extent, OwnedSnapshot, Read, Slot, Store, Value, Writer, blocks, map, page, rope};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const SEED: u64 = 0x10_0c;
const DBS_USED: u8 = 3;

/// What a key holds, apart from any node.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Zset(Vec<Vec<u8>>),
}

type Model = BTreeMap<(u8, Vec<u8>), (Option<i64>, Content)>;

/// A store with its model, on a page store.
struct Rig {
    pages: Arc<dyn PageStore>,
    checkpoints: Arc<Checkpoints>,
    store: Store,
    writer: Writer,
    model: Model,
    hasher: KeyHasher,
    random: u64,
}

fn start(pages: Arc<dyn PageStore>, model: Model, random: u64) -> Rig {
    let Recovered { checkpoints, record, .. } = recovery::open(pages.clone()).unwrap();
    let source = Box::new(page::Source(pages.clone()));
    let state = record.map(|record| record.state).unwrap_or_default();
    let (store, writer) = look::store::open(state, source).unwrap();
    Rig { pages, checkpoints, store, writer, model, hasher: KeyHasher::new(SEED), random }
}

impl Rig {
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.random) % below
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.draw(40) {
            0 => 5000 + self.draw(60_000),
            1..=3 => 300 + self.draw(700),
            _ => self.draw(80),
        };
        let seed = self.draw(256);
        (0..len).map(|i| (seed + i * 31) as u8).collect()
    }

    /// One random change, in the store and in the model.
    fn change(&mut self, keys: u64) {
        let db = self.draw(DBS_USED as u64) as u8;
        let key = format!("key:{}", self.draw(keys)).into_bytes();
        let due = (self.draw(4) == 0).then(|| 1_000_000 + self.draw(1 << 30) as i64);
        let epoch = self.writer.epoch().next();
        self.writer.set_epoch(epoch);
        self.writer.set_time(epoch.0 as i64);
        let mut slot = self.writer.find_slot(db, self.hasher.hash(&key), &key);
        match self.draw(12) {
            0 => {
                let n = self.draw(1 << 40) as i64;
                self.writer.put(&mut slot, &key, Value::Int(n), due);
                self.model.insert((db, key), (due, Content::Int(n)));
            }
            1..=4 => {
                let bytes = self.bytes();
                self.writer.put(&mut slot, &key, Value::Str(&bytes), due);
                self.model.insert((db, key), (due, Content::Bytes(bytes)));
            }
            5 => {
                self.writer.remove(&mut slot, &key);
                self.model.remove(&(db, key));
            }
            6 if self.draw(60) == 0 => {
                self.writer.flush_db(db);
                self.model.retain(|(other, _), _| *other != db);
            }
            6 | 7 => self.change_list(slot, db, key, due),
            8 | 9 => self.change_hash(slot, db, key, due),
            _ => self.change_zset(slot, db, key, due),
        }
    }

    fn coll(&mut self, mut slot: Slot, key: &[u8], same: fn(&Value<'_>) -> bool) -> Option<Coll> {
        let value = self.writer.entry(&mut slot, key)?.value();
        if same(&value) { value.coll() } else { None }
    }

    fn put(&mut self, mut slot: Slot, key: &[u8], fresh: bool, value: Value<'_>, due: Option<i64>) {
        match fresh {
            true => self.writer.put(&mut slot, key, value, due),
            false => self.writer.put_back(&mut slot, key, value, due),
        }
    }

    fn change_list(&mut self, slot: Slot, db: u8, key: Vec<u8>, due: Option<i64>) {
        let old = self.coll(slot, &key, |value| matches!(value, Value::List(_)));
        let mut coll = old.unwrap_or_default();
        let mut tree = coll.tree(0);
        let mut items = match self.model.get(&(db, key.clone())) {
            Some((_, Content::List(items))) => items.clone(),
            _ => Vec::new(),
        };
        for _ in 0..1 + self.draw(60) {
            let (at, item) = (self.draw(items.len() as u64 + 1), self.bytes());
            tree::insert_at(self.writer.mutator(), &mut tree, at, &item);
            items.insert(at as usize, item);
        }
        coll.set_tree(0, tree);
        self.put(slot, &key, old.is_none(), Value::List(coll), due);
        self.model.insert((db, key), (due, Content::List(items)));
    }

    fn change_hash(&mut self, slot: Slot, db: u8, key: Vec<u8>, due: Option<i64>) {
        let old = self.coll(slot, &key, |value| matches!(value, Value::Hash(_)));
        let mut coll = old.unwrap_or_default();
        let mut root = coll.map();
        let mut fields = match self.model.get(&(db, key.clone())) {
            Some((_, Content::Hash(fields))) => fields.clone(),
            _ => BTreeMap::new(),
        };
        for _ in 0..1 + self.draw(80) {
            let (field, value) = (format!("f{}", self.draw(200)).into_bytes(), self.bytes());
            map::put(self.writer.mutator(), &mut root, self.hasher.hash(&field), &field, &value);
            fields.insert(field, value);
        }
        coll.set_map(root);
        self.put(slot, &key, old.is_none(), Value::Hash(coll), due);
        self.model.insert((db, key), (due, Content::Hash(fields)));
    }

    fn change_zset(&mut self, slot: Slot, db: u8, key: Vec<u8>, due: Option<i64>) {
        let old = self.coll(slot, &key, |value| matches!(value, Value::Zset(_)));
        let mut coll = old.unwrap_or_default();
        let mut order = coll.tree(1);
        let mut items = match self.model.get(&(db, key.clone())) {
            Some((_, Content::Zset(items))) => items.clone(),
            _ => Vec::new(),
        };
        let mut item = Vec::new();
        for _ in 0..1 + self.draw(80) {
            let (score, member) = (self.draw(50) as f64, self.draw(1000).to_string());
            tree::score_item(score, member.as_bytes(), &mut item);
            let place = items.binary_search_by(|other: &Vec<u8>| {
                let ((a, x), (b, y)) = (tree::split_score(other), tree::split_score(&item));
                a.total_cmp(&b).then_with(|| x.cmp(y))
            });
            assert_eq!(tree::insert(self.writer.mutator(), &mut order, Order::Score, &item), place.is_err());
            if let Err(place) = place {
                items.insert(place, item.clone());
            }
        }
        coll.set_tree(1, order);
        self.put(slot, &key, old.is_none(), Value::Zset(coll), due);
        self.model.insert((db, key), (due, Content::Zset(items)));
    }

    fn changes(&mut self, count: u64, keys: u64) {
        for i in 0..count {
            self.change(keys);
            if i % 16 == 15 {
                self.writer.publish();
            }
        }
        self.writer.publish();
    }

    fn checkpoint(&self, records: usize) -> Result<Checkpointed, CheckpointError> {
        let snapshot = self.store.snapshot().unwrap();
        let meta = Meta { applied: snapshot.epoch().0.to_le_bytes().to_vec(), ..Meta::default() };
        let retention = Retention { records, oldest_live: self.store.oldest_sub_batch() };
        self.checkpoints.run(snapshot.arena(), &snapshot.state(), meta, retention, &|_| ())
    }

    fn dump(&self) -> Model {
        dump(&self.store.snapshot().unwrap())
    }

    /// Nothing older than the newest version stays in memory, but what is pinned.
    fn forget_the_past(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        let settings = self.store.settings();
        settings.ms.store(0, Relaxed);
        settings.epochs.store(1, Relaxed);
        self.writer.collect(1 << 24);
    }
}

fn content(version: &OwnedSnapshot, value: Value<'_>) -> Content {
    let arena = version.arena();
    let items = |tree: Tree| {
        let mut cursor = Cursor::at(arena, &tree, 0);
        let items: Vec<Vec<u8>> = std::iter::from_fn(|| cursor.next(arena).map(<[u8]>::to_vec)).collect();
        measures(tree.extent, items.iter().map(|item| blocks(item.len())));
        items
    };
    match value {
        Value::Int(n) => Content::Int(n),
        Value::Str(bytes) => Content::Bytes(bytes.to_vec()),
        Value::Rope(long) => {
            let mut bytes = Vec::new();
            rope::read(arena, long, 0, long.len, |piece| bytes.extend_from_slice(piece));
            Content::Bytes(bytes)
        }
        Value::List(coll) => Content::List(items(coll.tree(0))),
        Value::Zset(coll) => Content::Zset(items(coll.tree(1))),
        Value::Hash(coll) => {
            let mut cursor = map::Cursor::new(arena, &coll.map(), 0);
            let fields = std::iter::from_fn(|| cursor.next(arena).map(|item| (item.key.to_vec(), item.value.to_vec())));
            let fields: BTreeMap<Vec<u8>, Vec<u8>> = fields.collect();
            measures(coll.extent, fields.iter().map(|(field, value)| blocks(field.len()) + blocks(value.len())));
            Content::Hash(fields)
        }
        other => panic!("a value that was never written: {other:?}"),
    }
}

/// An extent says what the elements are, or for the longest at least that.
#[track_caller]
fn measures(extent: Extent, elements: impl Iterator<Item = u64>) {
    let (total, longest) = elements.fold((0, 0), |(total, longest), blocks| (total + blocks, blocks.max(longest)));
    assert_eq!(extent.total(), total);
    assert!((longest..=total).contains(&extent.longest()), "{} of {longest}, {total}", extent.longest());
}

fn dump(version: &OwnedSnapshot) -> Model {
    let mut model = Model::new();
    for db in 0..DBS_USED {
        version.scan(db, 0, |entry| {
            model.insert((db, entry.key().to_vec()), (entry.due(), content(version, entry.value())));
            true
        });
        let keys = model.keys().filter(|(other, _)| *other == db);
        assert_eq!(version.db_len(db), keys.clone().count() as u64);
        measures(version.db(db).keys.extent, keys.map(|(_, key)| blocks(key.len())));
    }
    model
}

/// A record's version, read from disk alone.
fn dump_record(pages: &Arc<dyn PageStore>, record: &RootRecord) -> Model {
    let (store, _writer) = look::store::open(record.state, Box::new(page::Source(pages.clone()))).unwrap();
    dump(&store.snapshot().unwrap())
}

fn memory() -> (Arc<MemoryPages>, Arc<dyn PageStore>) {
    let pages = Arc::new(MemoryPages::default());
    (pages.clone(), pages)
}

#[track_caller]
fn assert_same(a: &Model, b: &Model) {
    let missing =
        |x: &Model, y: &Model| x.iter().find(|(key, value)| y.get(*key) != Some(value)).map(|(key, _)| key.clone());
    let differs = missing(a, b).or_else(|| missing(b, a));
    assert!(differs.is_none(), "{} against {} keys, first difference at {differs:?}", a.len(), b.len());
}

#[test]
fn recovered_store_equals_the_checkpointed_one_through_restarts_and_further_changes() {
    for seed in 0..4 {
        let (_, pages) = memory();
        let mut rig = start(pages.clone(), Model::new(), seed);
        let mut history: Vec<(RootRecord, Model)> = Vec::new();
        for round in 0..12 {
            rig.changes([300, 20, 3, 120][round % 4], 400);
            let done = rig.checkpoint(usize::MAX).unwrap();
            assert_same(&rig.dump(), &rig.model);
            history.push((done.record, rig.model.clone()));
            if round % 3 == 2 {
                let (model, random) = (rig.model.clone(), rig.random);
                rig = start(pages.clone(), model, random);
                assert_eq!(rig.checkpoints.newest().unwrap(), history.last().unwrap().0);
            }
            if round % 4 == 1 {
                assert_same(&rig.dump(), &rig.model);
                rig.forget_the_past();
            }
        }
        // Every older version is still there, unchanged.
        for (record, model) in &history {
            assert_same(&dump_record(&pages, record), model);
            assert_eq!(record.meta.applied, record.epoch().0.to_le_bytes());
        }
        let view = rig.checkpoints.view(Epoch(history[5].0.epoch().0 + 1)).unwrap();
        assert_eq!(view.record(), &history[5].0);
        assert!(rig.checkpoints.view(Epoch(1)).is_none());
    }
}

#[test]
fn crash_at_any_step_recovers_the_older_or_the_newer_version_whole() {
    let (mut older, mut newer) = (0, 0);
    for crash_seed in 0..3 {
        for step in 0.. {
            let (memory, pages) = memory();
            let mut rig = start(pages.clone(), Model::new(), 7);
            rig.changes(200, 150);
            rig.checkpoint(1).unwrap();
            let before = rig.model.clone();
            rig.changes(100, 150);
            rig.forget_the_past();
            let from = memory.steps();
            memory.fail_after(Some(from + step));
            let result = rig.checkpoint(1);
            let steps = memory.steps() - from;
            memory.crash(crash_seed);
            let after = rig.model.clone();
            let mut rig = start(pages, Model::new(), 8);
            let dump = rig.dump();
            let is_newer = rig.checkpoints.newest().unwrap().sequence == 2;
            assert_same(&dump, if is_newer { &after } else { &before });
            let next = rig.checkpoints.newest().unwrap().next_page;
            assert!(rig.pages.ids().unwrap().iter().all(|id| page::number(*id) < next), "an unfinished run left pages");
            assert!(is_newer || result.is_err(), "a checkpoint that was reported durable is gone");
            if is_newer {
                newer += 1
            } else {
                older += 1
            }
            // Life goes on.
            rig.model = dump;
            rig.changes(50, 150);
            rig.checkpoint(1).unwrap();
            assert_same(&rig.dump(), &rig.model);
            assert_same(&dump_record(&rig.pages, &rig.checkpoints.newest().unwrap()), &rig.model);
            if steps <= step {
                break;
            }
        }
    }
    assert!(older >= 6 && newer >= 3, "{older} older, {newer} newer: not every step was tried");
}

#[test]
fn a_failed_run_is_repeated_without_loss() {
    let (memory, pages) = memory();
    let mut rig = start(pages.clone(), Model::new(), 3);
    rig.changes(200, 150);
    memory.fail_after(Some(memory.steps()));
    assert!(rig.checkpoint(1).is_err());
    memory.fail_after(None);
    rig.changes(20, 150);
    let done = rig.checkpoint(1).unwrap();
    assert_same(&dump_record(&pages, &done.record), &rig.model);
}

#[test]
fn a_flipped_bit_in_any_page_is_reported_whoever_reads_the_page() {
    let (memory, pages) = memory();
    let mut rig = start(pages.clone(), Model::new(), 11);
    rig.changes(120, 100);
    let record = rig.checkpoint(1).unwrap().record;
    let ids = pages.ids().unwrap();
    for (i, id) in ids.iter().enumerate() {
        let bits = pages.read(*id).unwrap().len() * 8 + 32;
        let bit = mix64(i as u64) as usize % bits;
        assert!(memory.flip_page(*id, bit));
        assert!(catch_unwind(AssertUnwindSafe(|| dump_record(&pages, &record))).is_err(), "page {id}, bit {bit}");
        let mut export = Export::new(rig.checkpoints.view_newest().unwrap());
        let sent = export
            .as_mut()
            .is_ok_and(|export| std::iter::from_fn(|| export.next_piece().transpose()).all(|p| p.is_ok()));
        assert!(!sent, "page {id}, bit {bit}");
        memory.flip_page(*id, bit);
    }
    assert!(ids.len() > 20);
    assert_same(&dump_record(&pages, &record), &rig.model);
}

#[test]
fn a_damaged_root_record_gives_way_to_the_one_before_and_is_reported() {
    let (memory, pages) = memory();
    let mut rig = start(pages.clone(), Model::new(), 12);
    rig.changes(100, 100);
    rig.checkpoint(4).unwrap();
    let before = rig.model.clone();
    rig.changes(30, 100);
    rig.checkpoint(4).unwrap();
    for bit in (0..pages.root(2).unwrap().len() * 8 + 32).step_by(37) {
        assert!(memory.flip_root(2, bit));
        let found = recovery::open(pages.clone()).unwrap();
        assert_eq!((found.record.as_ref().map(|record| record.sequence), found.damaged.len()), (Some(1), 1));
        assert_same(&dump_record(&pages, &found.record.unwrap()), &before);
        memory.flip_root(2, bit);
    }
    assert!(memory.flip_root(1, 99) && memory.flip_root(2, 99));
    assert!(recovery::open(pages).is_err(), "a store whose records are all damaged is not an empty one");
}

#[test]
fn a_few_changes_write_a_few_pages() {
    let (memory, pages) = memory();
    let mut rig = start(pages, Model::new(), 5);
    for i in 0..100_000u64 {
        let key = i.to_be_bytes();
        let mut slot = rig.writer.find_slot(0, rig.hasher.hash(&key), &key);
        rig.writer.put(&mut slot, &key, Value::Str(&[7; 64]), None);
        if i % 1000 == 0 {
            rig.writer.publish();
        }
    }
    rig.writer.publish();
    let all = rig.checkpoint(1).unwrap();
    let average = all.page_bytes / all.pages;
    assert!((8 << 10..=24 << 10).contains(&average), "{average} bytes a page");
    assert_eq!(rig.checkpoint(1).unwrap().pages, 0);
    for i in 0..10u64 {
        let key = (i * 7919).to_be_bytes();
        let mut slot = rig.writer.find_slot(0, rig.hasher.hash(&key), &key);
        rig.writer.put(&mut slot, &key, Value::Str(b"changed"), None);
    }
    rig.writer.publish();
    let few = rig.checkpoint(1).unwrap();
    assert!(few.pages <= 25, "{} of {} pages for 10 keys", few.pages, all.pages);
    assert!(memory.page_bytes() as u64 <= all.page_bytes * 5 / 4);
}

#[test]
fn pages_beyond_retention_are_deleted_and_no_other() {
    let (memory, pages) = memory();
    let mut rig = start(pages.clone(), Model::new(), 21);
    rig.changes(300, 200);
    let first = rig.checkpoint(2).unwrap().record;
    let (view, viewed) = (rig.checkpoints.view_newest().unwrap(), rig.model.clone());
    let mut last = Vec::new();
    for _ in 0..40 {
        rig.changes(60, 200);
        rig.forget_the_past();
        last.push((rig.checkpoint(2).unwrap().record, rig.model.clone()));
    }
    assert_eq!(rig.checkpoints.oldest_epoch(|_| true), Some(first.epoch()), "a view holds its record");
    assert_same(&dump_record(&pages, view.record()), &viewed);
    for (record, model) in &last[38..] {
        assert_same(&dump_record(&pages, record), model);
    }
    drop(view);
    for _ in 0..8 {
        rig.changes(60, 200);
        rig.forget_the_past();
        rig.checkpoint(1).unwrap();
    }
    assert!(rig.checkpoints.oldest_epoch(|_| true).unwrap() > last[39].0.epoch());
    // A full copy of what is there takes one checkpoint into an empty page store.
    let (fresh, pages_of_copy) = memory_of(&rig);
    assert!(memory.page_bytes() < 3 * fresh, "{} bytes, {fresh} are enough", memory.page_bytes());
    drop(pages_of_copy);
    assert_same(&dump_record(&pages, &rig.checkpoints.newest().unwrap()), &rig.model);
}

/// Bytes of a transfer of the newest version.
fn memory_of(rig: &Rig) -> (usize, Arc<MemoryPages>) {
    let (memory, pages) = memory();
    let mut export = Export::new(rig.checkpoints.view_newest().unwrap()).unwrap();
    let mut import = Import::new(pages).unwrap();
    while let Some(piece) = export.next_piece().unwrap() {
        import.piece(&piece).unwrap();
    }
    import.finish().unwrap();
    (memory.page_bytes(), memory)
}

#[test]
fn versions_kept_in_memory_can_still_load_what_newer_checkpoints_have_dropped() {
    let (_, pages) = memory();
    let mut rig = start(pages.clone(), Model::new(), 31);
    rig.changes(300, 200);
    rig.checkpoint(1).unwrap();
    let model = rig.model.clone();
    let mut rig = start(pages, model.clone(), 32);
    // Nothing is loaded yet; the pinned version needs all of it later.
    let pinned = rig.store.snapshot().unwrap();
    for db in 0..DBS_USED {
        rig.writer.flush_db(db);
    }
    rig.model.clear();
    for _ in 0..5 {
        rig.changes(80, 50);
        rig.forget_the_past();
        rig.checkpoint(1).unwrap();
    }
    assert_same(&dump(&pinned), &model);
    assert_same(&rig.dump(), &rig.model);
}

#[test]
fn a_transfer_rebuilds_the_version_elsewhere_and_every_damage_is_seen() {
    let (_, pages) = memory();
    let mut rig = start(pages, Model::new(), 41);
    rig.changes(600, 300);
    rig.checkpoint(1).unwrap();
    rig.changes(50, 300);
    let record = rig.checkpoint(1).unwrap().record;
    let mut export = Export::new(rig.checkpoints.view_newest().unwrap()).unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = export.next_piece().unwrap() {
        assert!(piece.len() <= transfer::PIECE_BYTES);
        pieces.push(piece);
    }
    assert!(pieces.len() > 1);
    let receive = |pieces: &[Vec<u8>]| {
        let (_, pages) = memory();
        let mut import = Import::new(pages.clone())?;
        pieces.iter().try_for_each(|piece| import.piece(piece))?;
        import.finish().map(|record| (pages, record))
    };
    let (copy, copied) = receive(&pieces).unwrap();
    assert_eq!(copied, record);
    assert_same(&dump_record(&copy, &copied), &rig.model);
    // The copy lives on as a store of its own.
    let mut other = start(copy.clone(), rig.model.clone(), 42);
    other.changes(100, 300);
    other.checkpoint(1).unwrap();
    assert_same(&start(copy, Model::new(), 0).dump(), &other.model);

    let whole = pieces.concat();
    for i in 0..60 {
        let mut bad = whole.clone();
        let bit = mix64(i) as usize % (bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(receive(&[bad]).is_err(), "bit {bit}");
        let cut = mix64(i + 1000) as usize % whole.len();
        assert!(receive(&[whole[..cut].to_vec()]).is_err(), "cut at {cut}");
    }
}

/// Sends the newest version of `from` to whoever has the newest of `to`. `answers`: what becomes of the answer to an offer.
fn send(
    from: &Rig,
    to: &Rig,
    answers: impl Fn(Vec<u8>) -> Vec<u8>,
) -> (transfer::Tally, Result<Model, CheckpointError>) {
    let own = Arc::new(OwnParts::new(to.checkpoints.view_newest().unwrap(), 77));
    let (_, pages) = memory();
    let mut export = Export::new(from.checkpoints.view_newest().unwrap()).unwrap();
    let mut import = Import::resume(pages.clone(), Arc::default(), Some(own));
    export.resume(PageId(0), import.seed());
    let arrived = loop {
        if let Some(offer) = export.offer().unwrap() {
            export.wanted(&answers(import.lacks(&offer)));
        }
        match export.next_piece().unwrap().map(|piece| import.piece(&piece)) {
            Some(Ok(())) => {}
            Some(Err(error)) => break Err(error),
            None => break import.finish(),
        }
    };
    (export.tally(), arrived.map(|record| dump_record(&pages, &record)))
}

#[test]
fn a_receiver_is_sent_only_what_it_lacks() {
    // Alike in content, packed at other moments
    let [mut one, mut other] = [memory().1, memory().1].map(|pages| start(pages, Model::new(), 61));
    for round in 0..6 {
        for rig in [&mut one, &mut other] {
            rig.changes(200, 600);
        }
        if round % 2 == 0 { &mut one } else { &mut other }.checkpoint(1).unwrap();
    }
    one.checkpoint(1).unwrap();
    one.changes(20, 600);
    let whole = one.checkpoint(1).unwrap().record.pages(&*one.pages).unwrap().len();
    let (sent, arrived) = send(&one, &other, |lacking| lacking);
    assert_same(&arrived.unwrap(), &one.model);
    assert!(sent.pages < whole / 2, "{sent:?} of {whole} pages");
    // Without an answer, all of it
    let (sent, arrived) = send(&one, &other, |_| Vec::new());
    assert_same(&arrived.unwrap(), &one.model);
    assert_eq!((sent.pages, sent.spared), (whole, 0));
    // An answer that claims what is not there does not make a hole in the version
    let (_, arrived) = send(&one, &other, |lacking| vec![0; lacking.len()]);
    assert!(matches!(arrived, Err(CheckpointError::Transfer(_))));
}

#[test]
fn checkpoints_run_beside_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let options = PagesOptions { cache_bytes: 8 << 20, worker_threads: 1, seal: None };
    let pages: Arc<dyn PageStore> = Arc::new(FjallPages::open(dir.path(), &options).unwrap());
    let mut rig = start(pages.clone(), Model::new(), 51);
    let (store, checkpoints) = (rig.store.clone(), rig.checkpoints.clone());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) || seen.len() < 3 {
            let snapshot = store.snapshot().unwrap();
            let retention = Retention { records: usize::MAX, oldest_live: store.oldest_sub_batch() };
            let done =
                checkpoints.run(snapshot.arena(), &snapshot.state(), Meta::default(), retention, &|_| ()).unwrap();
            seen.push((done.record, dump(&snapshot)));
        }
        seen
    });
    for _ in 0..60 {
        rig.changes(40, 300);
        rig.forget_the_past();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let seen = thread.join().unwrap();
    for (record, model) in seen.iter().rev().take(6) {
        assert_same(&dump_record(&pages, record), model);
    }
    let last = rig.checkpoint(1).unwrap().record;
    let model = rig.model.clone();
    drop((rig, pages, seen));
    let pages: Arc<dyn PageStore> = Arc::new(FjallPages::open(dir.path(), &options).unwrap());
    let rig = start(pages, model, 0);
    assert_eq!(rig.checkpoints.newest(), Some(last));
    assert_same(&rig.dump(), &rig.model);
}

#[test]
fn a_record_of_an_older_or_newer_format_is_refused_by_name() {
    let (_, pages) = memory();
    let rig = start(pages.clone(), Model::new(), 0);
    let mut bytes = rig.checkpoint(1).unwrap().record.encode();
    for (sequence, found) in [(2, 3), (3, 9)] {
        bytes[4] = found as u8;
        pages.commit_root(sequence, &bytes).unwrap();
        assert_eq!(recovery::open(pages.clone()).err(), Some(CheckpointError::Format { sequence, found }));
    }
}

#[test]
fn a_page_that_is_gone_is_a_fault_that_the_store_remembers() {
    let (_, pages) = memory();
    let mut rig = start(pages.clone(), Model::new(), 61);
    rig.changes(200, 100);
    let record = rig.checkpoint(1).unwrap().record;
    let gone: PageId = pages.ids().unwrap()[0];
    pages.delete(&[gone], &[]).unwrap();
    let (store, _writer) = look::store::open(record.state, Box::new(page::Source(pages))).unwrap();
    let snapshot = store.snapshot().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| dump(&snapshot))).is_err());
    assert!(store.fault().is_some());
}
