//! # env: what a running program sees
//!
//! Owns the environment behind the machine's [`Head`]: the call's arguments, the state it reads or writes, the tables that handle
//! words index (views, slots, iterators), the call's scratch memory and where its reply goes. One environment serves one thread and is
//! used for call after call without allocating.
//!
//! Handle words come from verified programs, but verification does not type them: every index is checked here, and a wrong
//! one ends the call with [`Trap::Index`].

use super::engine::Code;
use super::helpers::collections::OpenCollection;
use super::helpers::lcs::Lcs;
use super::helpers::programs::{Draft, Items};
use super::helpers::scratch::Scratch;
use super::helpers::walk::Walk;
use super::ir::{BytesWord, Program, Trap};
use super::machine::{Head, RESULTS_MAX};
use crate::base::{Epoch, KeyHasher, Millis, mix64};
use crate::resp::{Mark, ReplyBuf};
use crate::store::rope::{self, Rope};
use crate::store::{Arena, Entry, Read, Writer};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::ptr::NonNull;

/// Loop iterations that any one call may take: the net under the static bounds.
pub const FUEL: u64 = 1 << 40;

/// What a call is given.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Number of its program in the code table.
    pub program: usize,
    /// The selected database.
    pub db: u8,
    /// Argument words: the fixed slots, then elements of list arguments.
    pub words: &'a [u64],
    /// What argument words point into.
    pub blob: &'a [u8],
    /// Log time: keys due at it or before do not exist.
    pub now: Millis,
    /// The epoch that the call makes, or that it reads.
    pub epoch: Epoch,
    /// Source of its random numbers, mixed from (batch seed, log index, call number): see [`random_source`].
    pub seed: u64,
    /// The largest value (entries or blocks, whichever are more) that a reading call may look up; at a larger one it ends
    /// with [`Ended::Large`].
    pub patience: u64,
}

/// The random source of a call.
pub fn random_source(seed: u64, log_index: u64, call: u64) -> u64 {
    mix64(seed ^ mix64(log_index ^ mix64(call.wrapping_add(0x9e37_79b9_7f4a_7c15))))
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// The reply is an error; what the call wrote before ([`Env::wrote`]) must be undone.
    Failed,
    /// The program asks to be run again when its key is written; no reply.
    Wait,
    /// A value was larger than the call's patience; no reply, nothing done.
    Large,
    /// A helper panicked: as [`Ended::Failed`], and the state the helper was changing may be half changed.
    Panicked,
}

/// The parts of [`Read`] that helpers use, for any version of the state.
pub(super) trait Version {
    fn arena(&self) -> &Arena;
    fn len(&self, db: u8) -> u64;
    fn entry(&self, db: u8, hash: u64, key: &[u8]) -> Option<Entry<'_>>;
    fn show_keys(&self, db: u8, cursor: u64, go_on: &mut dyn FnMut(Entry<'_>) -> bool) -> u64;
    fn random_entry(&self, db: u8, random: &mut dyn FnMut() -> u64) -> Option<Entry<'_>>;
}

impl<R: Read> Version for R {
    fn arena(&self) -> &Arena {
        Read::arena(self)
    }
    fn len(&self, db: u8) -> u64 {
        self.db_len(db)
    }
    fn entry(&self, db: u8, hash: u64, key: &[u8]) -> Option<Entry<'_>> {
        self.find(db, hash, key)
    }
    fn show_keys(&self, db: u8, cursor: u64, go_on: &mut dyn FnMut(Entry<'_>) -> bool) -> u64 {
        self.scan(db, cursor, go_on)
    }
    fn random_entry(&self, db: u8, random: &mut dyn FnMut() -> u64) -> Option<Entry<'_>> {
        self.random_key(db, random)
    }
}

/// The state that a call works on, lent for the call.
#[derive(Clone, Copy)]
pub(super) enum Held {
    Nothing,
    Write(NonNull<Writer>),
    Read(NonNull<dyn Version>),
}

/// A bytes value that a helper gave out.
#[derive(Clone, Copy)]
pub(super) enum View {
    Flat(NonNull<[u8]>),
    /// `from .. to` of a rope.
    Rope(Rope, u64, u64),
}

/// See the module's head.
#[repr(C)]
pub struct Env {
    pub(super) head: Head,
    pub(super) held: Held,
    pub(super) db: u8,
    pub(super) now: Millis,
    pub(super) patience: u64,
    pub(super) epoch: Epoch,
    pub(super) hasher: KeyHasher,
    random: u64,
    drawn: u64,
    blob: NonNull<[u8]>,
    literals: NonNull<[Vec<u8>]>,
    pub(super) views: Vec<View>,
    pub(super) scratch: Scratch,
    pub(super) slots: Vec<super::helpers::keys::SlotState>,
    /// Slots with an open collection.
    pub(super) open: SmallVec<[(u32, OpenCollection); 4]>,
    pub(super) walks: Vec<Walk>,
    pub(super) draft: Draft,
    pub(super) lists: Vec<Items>,
    pub(super) found: Vec<Lcs>,
    reply: NonNull<ReplyBuf>,
    /// Aggregates of the reply whose count is not known yet, inner ones last.
    pub(super) open_replies: SmallVec<[Mark; 8]>,
    pub(super) error: Cow<'static, str>,
    pub(super) wrote: bool,
    pub(super) panic_key: Vec<u8>,
    /// Keys that reads looked up and found, and did not find.
    pub hits: u64,
    pub misses: u64,
}

// SAFETY: the raw pointers in it are set and cleared within one `call`, so between calls an Env holds none that is used.
unsafe impl Send for Env {}

impl Env {
    /// An environment for programs that were verified against [`helpers::table`](super::helpers::table).
    pub fn new(hasher: KeyHasher) -> Env {
        let helpers = super::helpers::calls();
        Env {
            head: Head {
                args: std::ptr::null(),
                args_len: 0,
                ops: 0,
                locs: 0,
                fuel: FUEL,
                fail_text: 0,
                results: [0; RESULTS_MAX],
                helpers: helpers.as_ptr(),
                helpers_len: helpers.len() as u64,
            },
            held: Held::Nothing,
            db: 0,
            now: 0,
            patience: u64::MAX,
            epoch: Epoch::ZERO,
            hasher,
            random: 0,
            drawn: 0,
            blob: NonNull::from(&[][..]),
            literals: NonNull::from(&[][..]),
            views: Vec::new(),
            scratch: Scratch::default(),
            slots: Vec::new(),
            open: SmallVec::new(),
            walks: Vec::new(),
            draft: Draft::default(),
            lists: Vec::new(),
            found: Vec::new(),
            reply: NonNull::dangling(),
            open_replies: SmallVec::new(),
            error: Cow::Borrowed(""),
            wrote: false,
            panic_key: Vec::new(),
            hits: 0,
            misses: 0,
        }
    }

    /// From here on a string written under `key` makes a helper panic behind its write: a bug planted by tests.
    pub fn plant_panic(&mut self, key: &[u8]) {
        self.panic_key = key.to_vec();
        self.head.helpers = super::helpers::calls_with_panic().as_ptr();
    }

    /// The hash seed is replicated state: it is known only after the first log entry.
    pub fn set_hasher(&mut self, hasher: KeyHasher) {
        self.hasher = hasher;
    }

    /// Operations that the last call took.
    pub fn ops(&self) -> u64 {
        self.head.ops
    }

    /// Places that the last call touched.
    pub fn locs(&self) -> u64 {
        self.head.locs
    }

    /// Whether the last call changed the state (as far as it came).
    pub fn wrote(&self) -> bool {
        self.wrote
    }

    /// Runs a writing call. Exactly one reply is appended (none for [`Ended::Wait`] and [`Ended::Large`]).
    #[inline]
    pub fn write(&mut self, code: &Code, call: &Call<'_>, writer: &mut Writer, reply: &mut ReplyBuf) -> Ended {
        self.run(code, call, Held::Write(NonNull::from(writer)), reply)
    }

    /// Runs a reading call against any version of the state.
    #[inline]
    pub fn read<R: Read>(&mut self, code: &Code, call: &Call<'_>, state: &R, reply: &mut ReplyBuf) -> Ended {
        let state: NonNull<dyn Version + '_> = NonNull::from(state);
        // SAFETY: only the lifetime changes; `run` forgets the pointer before it returns.
        let state = unsafe { std::mem::transmute::<NonNull<dyn Version + '_>, NonNull<dyn Version>>(state) };
        self.run(code, call, Held::Read(state), reply)
    }

    fn run(&mut self, code: &Code, call: &Call<'_>, held: Held, reply: &mut ReplyBuf) -> Ended {
        let start = reply.len();
        let program = code.program(call.program);
        self.begin(program, call, held, reply);
        // SAFETY: the head is ours, its words are the call's, and its helpers are the table that programs are verified against,
        // made for this environment.
        let ended = unsafe { code.run(call.program, &raw mut self.head) };
        let ended = ended.and_then(|()| self.settle_all());
        self.held = Held::Nothing;
        let Err(trap) = ended else { return Ended::Done };
        reply.rollback(start);
        match trap {
            Trap::Wait => return Ended::Wait,
            Trap::Large => return Ended::Large,
            _ => reply.error(self.error_text(program, trap).as_bytes()),
        }
        if trap == Trap::Panic { Ended::Panicked } else { Ended::Failed }
    }

    fn begin(&mut self, program: &Program, call: &Call<'_>, held: Held, reply: &mut ReplyBuf) {
        self.head.args = call.words.as_ptr();
        self.head.args_len = call.words.len() as u64;
        (self.head.ops, self.head.locs, self.head.fuel) = (0, 0, FUEL);
        (self.db, self.now, self.epoch) = (call.db, call.now, call.epoch);
        self.patience = call.patience;
        (self.random, self.drawn) = (call.seed, 0);
        self.blob = NonNull::from(call.blob);
        self.literals = NonNull::from(&program.literals[..]);
        self.reply = NonNull::from(reply);
        self.held = held;
        self.views.clear();
        self.slots.clear();
        self.open.clear();
        self.walks.clear();
        self.draft.clear();
        self.lists.clear();
        self.found.clear();
        self.open_replies.clear();
        self.scratch.clear();
        self.wrote = false;
    }

    /// The error line that a trap replies.
    fn error_text<'a>(&'a self, program: &'a Program, trap: Trap) -> &'a str {
        let text = |n: Option<u16>, or: &'static str| n.and_then(|n| program.texts.get(n as usize)).map_or(or, |s| s);
        match trap {
            Trap::Fail => text(u16::try_from(self.head.fail_text).ok(), "ERR failed"),
            Trap::Overflow => text(program.on_overflow, "ERR increment or decrement would overflow"),
            Trap::DivZero => text(program.on_div_zero, "ERR division by zero"),
            Trap::NotANumber => text(program.on_nan, "ERR resulting score is not a number (NaN)"),
            Trap::Error => &self.error,
            Trap::Index => "ERR internal error: index out of range",
            Trap::Fuel => "ERR internal error: the program ran past its bound",
            Trap::Panic => "ERR internal error: a helper panicked",
            Trap::Wait => "ERR this command cannot wait here",
            Trap::Large => "ERR internal error: this value is too large to be looked at here",
        }
    }

    /// Ends the call with an error line of the helper's own.
    pub(super) fn fail<T>(&mut self, text: impl Into<Cow<'static, str>>) -> Result<T, Trap> {
        self.error = text.into();
        Err(Trap::Error)
    }

    /// Counts what a helper did.
    #[inline]
    pub(super) fn charge(&mut self, ops: u64, locs: u64) {
        self.head.ops += ops;
        self.head.locs += locs;
    }

    #[inline]
    pub(super) fn set_result(&mut self, index: usize, word: u64) {
        self.head.results[index] = word;
    }

    // ---- state

    /// The writer of a writing call; a reading one that gets here (hostile IR) ends.
    #[inline]
    pub(super) fn writer<'e>(&mut self) -> Result<&'e mut Writer, Trap> {
        match self.held {
            Held::Write(mut writer) => {
                self.wrote = true;
                // SAFETY: lent to `run` exclusively for the call; helpers run one at a time, and each lets go of it (and of what
                // `version` gave) before it asks again.
                Ok(unsafe { writer.as_mut() })
            }
            _ => Err(Trap::Index),
        }
    }

    /// The state, to read.
    #[inline]
    pub(super) fn version<'e>(&self) -> Result<&'e dyn Version, Trap> {
        match self.held {
            // SAFETY: lent to `run` for the call; not kept across a write.
            Held::Write(writer) => Ok(unsafe { &*writer.as_ptr() }),
            // SAFETY: lent to `run` for the call.
            Held::Read(state) => Ok(unsafe { &*state.as_ptr() }),
            Held::Nothing => Err(Trap::Index),
        }
    }

    /// The arena that everything lives in.
    #[inline]
    pub(super) fn arena<'e>(&self) -> Result<&'e Arena, Trap> {
        Ok(self.version()?.arena())
    }

    // ---- bytes

    /// The bytes that a word names, as they lie.
    #[inline]
    pub(super) fn view(&self, word: u64) -> Result<View, Trap> {
        let word = BytesWord(word);
        match word.space() {
            0 => {
                // SAFETY: the blob was lent to `call` for its whole length.
                let blob = unsafe { self.blob.as_ref() };
                let end = word.offset() + word.len();
                blob.get(word.offset()..end).map(|b| View::Flat(NonNull::from(b))).ok_or(Trap::Index)
            }
            1 => self.views.get(word.index()).copied().ok_or(Trap::Index),
            2 => {
                // SAFETY: the program was lent to `call` for its whole length.
                let literals = unsafe { self.literals.as_ref() };
                literals.get(word.index()).map(|b| View::Flat(NonNull::from(&b[..]))).ok_or(Trap::Index)
            }
            _ => Err(Trap::Index),
        }
    }

    /// The bytes in one piece; a rope is copied to the scratch memory first.
    ///
    /// The slice is valid until the call ends, or until the page that it lies in is written: no helper keeps it across a write,
    /// and programs that use a view after a write to its collection are refused by the checker.
    #[inline]
    pub(super) fn bytes<'e>(&mut self, word: u64) -> Result<&'e [u8], Trap> {
        match self.view(word)? {
            // SAFETY: see above.
            View::Flat(slice) => Ok(unsafe { slice.as_ref() }),
            View::Rope(rope, from, to) => {
                let arena = self.arena()?;
                let out = self.scratch.take((to - from) as usize);
                let mut at = 0;
                rope::read(arena, rope, from, to - from, |piece| {
                    out[at..at + piece.len()].copy_from_slice(piece);
                    at += piece.len();
                });
                Ok(out)
            }
        }
    }

    #[inline]
    pub(super) fn len_of(&self, word: u64) -> Result<u64, Trap> {
        Ok(match self.view(word)? {
            // SAFETY: only the length is read, which is in the pointer.
            View::Flat(slice) => slice.len() as u64,
            View::Rope(_, from, to) => to - from,
        })
    }

    /// A word for bytes that stay where they are until the call ends (or their page is written).
    #[inline]
    pub(super) fn lend(&mut self, bytes: &[u8]) -> u64 {
        self.push_view(View::Flat(NonNull::from(bytes)))
    }

    #[inline]
    pub(super) fn push_view(&mut self, view: View) -> u64 {
        self.views.push(view);
        BytesWord::view(self.views.len() as u32 - 1).0
    }

    /// A word for a copy of `bytes` in the call's own memory.
    #[inline]
    pub(super) fn keep(&mut self, bytes: &[u8]) -> u64 {
        let copy = self.scratch.take(bytes.len());
        copy.copy_from_slice(bytes);
        self.lend(copy)
    }

    /// The bytes, copied to the call's memory when they may lie in a page: for what writes to pages.
    #[inline]
    pub(super) fn stable_bytes<'e>(&mut self, word: u64) -> Result<&'e [u8], Trap> {
        let bytes = self.bytes(word)?;
        if BytesWord(word).space() != 1 {
            return Ok(bytes);
        }
        let copy = self.scratch.take(bytes.len());
        copy.copy_from_slice(bytes);
        Ok(copy)
    }

    #[inline]
    pub(super) fn hash(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash(bytes)
    }

    /// The next random word of this call.
    pub(super) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        mix64(self.random.wrapping_add(mix64(self.drawn)))
    }

    // ---- reply

    /// The reply buffer, if anybody reads it.
    #[inline]
    pub(super) fn reply<'e>(&mut self) -> &'e mut ReplyBuf {
        // SAFETY: lent to `call` exclusively for its whole length; helpers run one at a time.
        unsafe { self.reply.as_mut() }
    }
}
