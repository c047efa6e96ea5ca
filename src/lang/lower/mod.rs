//! # Lowering: checked on the way from syntax tree to IR
//!
//! One walk over a command's body types it, resolves helpers, checks that no killed view is used, infers effects and bounds, and
//! emits operations. `finish.rs` then drops what nothing reads and adds up the cost.
//!
//! Values stay lazy ([`Loc`]): an argument or constant becomes an operation where it is needed, so branches that do not look at an
//! argument do not pay for it.

mod call;
mod collections;
mod counters;
mod declare;
mod expr;
mod finish;
mod flow;
mod items;
mod pattern;
mod stmt;

use super::ast::*;
use super::diag::{Code, Diagnostic, Span};
use super::grammar::{Grammar, ParamKind, Shape};
use super::ir::{BytesWord, NESTING_MAX, Op, Program, REGS_MAX, Reg};
use super::poly::{Atom, Number, Place, Poly};
use super::table::{Effect, Table};
use super::types::{Collection, Record, Type};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use collections::system_key;
pub use finish::{Finished, LineCost};

pub type Low<T> = Result<T, Diagnostic>;

/// Where a word is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Loc {
    Const(u64),
    Reg(Reg),
    Arg(u16),
    Elem { slot: u16, index: Reg, width: u8, field: u8 },
    Count(u16),
}

/// One word of a value, and what is known of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Word {
    pub loc: Loc,
    /// At most: value of an int (0 when it is negative), blocks of bytes. None: unknown.
    pub bound: Option<Poly>,
    /// An int that is never negative.
    pub natural: bool,
    /// It is this argument itself, unchanged.
    pub is: Option<Number>,
    /// Bytes joined from others: they may be longer than all that the call can see.
    pub joined: bool,
}

impl Word {
    fn constant(value: u64) -> Word {
        let natural = value as i64 >= 0;
        let bound = Some(Poly::constant(if natural { value } else { 0 }));
        Word { bound, natural, ..Word::at(Loc::Const(value)) }
    }
    fn at(loc: Loc) -> Word {
        Word { loc, bound: None, natural: false, is: None, joined: false }
    }
    fn bounded(loc: Loc, bound: Poly) -> Word {
        Word { bound: Some(bound), natural: true, ..Word::at(loc) }
    }
}

/// Number of a view, slot, collection or iterator within a body. 0 is the whole store.
type OriginId = u32;
type Origins = SmallVec<[OriginId; 2]>;

/// A typed value.
#[derive(Clone, PartialEq, Debug)]
pub struct Val {
    pub ty: Type,
    pub words: SmallVec<[Word; 2]>,
    /// What must be alive for it to be used.
    origins: Origins,
    /// For handles: itself among the origins.
    own: Option<OriginId>,
    place: Option<Whose>,
}

/// A place, or an element's share of it inside a loop.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Whose {
    place: Place,
    each: Option<u16>,
}

/// Shares of a whole that a loop hands out.
const EACH_BLOCKS: u8 = 0;
const EACH_LEN: u8 = 1;
const EACH_ITEM: u8 = 2;
const EACH_TOTAL: u8 = 3;
/// What a loop that writes into the keyspace may have added, in earlier turns, to what it reads there.
const EACH_GROWN: u8 = 4;

impl Whose {
    fn len(self) -> Poly {
        Poly::atom(self.each.map_or(Atom::Len(self.place), |l| Atom::Each(l, EACH_LEN)))
    }
    fn total(self) -> Poly {
        Poly::atom(self.each.map_or(Atom::Total(self.place), |l| Atom::Each(l, EACH_TOTAL)))
    }
    fn depth(self) -> Poly {
        Poly::atom(Atom::Depth(self.place))
    }
}

impl Val {
    fn new(ty: Type, words: impl IntoIterator<Item = Word>) -> Val {
        Val { ty, words: words.into_iter().collect(), origins: Origins::new(), own: None, place: None }
    }
    fn unit() -> Val {
        Val::new(Type::Unit, [])
    }
    fn never() -> Val {
        Val::new(Type::Never, [])
    }
    fn with(&self, ty: Type, words: impl IntoIterator<Item = Word>) -> Val {
        Val { ty, words: words.into_iter().collect(), ..self.clone() }
    }
    fn is_never(&self) -> bool {
        self.ty == Type::Never
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OriginKind {
    View,
    Slot,
    Collection,
    Iterator,
}

#[derive(Clone, Debug)]
struct Origin {
    kind: OriginKind,
    parent: OriginId,
    span: Span,
    /// A collection of the module: no part of the keyspace, so that writes there do not reach it.
    apart: bool,
}

#[derive(Clone, Debug)]
enum Binding {
    Let(Val),
    /// Registers of its own; `Val` says which.
    Var(Val),
}

/// What `finish` must know of an operation.
#[derive(Clone, Debug)]
enum Note {
    Plain,
    /// Ends the call if an index is outside its list.
    MayTrap,
    /// Arithmetic that cannot overflow.
    Counts,
    Call {
        ops: Poly,
        locs: Poly,
        writes: bool,
        fails: bool,
        /// Only gives a value: left out if nobody reads it.
        pure: bool,
    },
    Loop {
        trips: Poly,
        number: u16,
        wholes: Vec<(u8, Poly)>,
    },
}

#[derive(Clone, Debug)]
struct Emitted {
    op: Op,
    line: u32,
    note: Note,
}

/// Operations of a branch that have not been joined yet.
struct Branch {
    ops: Vec<Emitted>,
    val: Val,
    killed: BTreeMap<OriginId, Span>,
    span: Span,
    /// First register that it did not use.
    top: usize,
    /// Its value lies in a variable.
    named: bool,
}

struct LoopFrame {
    /// Origins below this number are older than the loop.
    first_origin: OriginId,
    /// Uses of older origins in the body.
    uses: Vec<(OriginId, Span)>,
    /// Kills seen by `break`.
    broke_with: BTreeMap<OriginId, Span>,
    breaks: bool,
}

/// Everything a body may name besides its parameters.
pub struct Names<'a> {
    /// The module's.
    pub module: &'a str,
    pub records: BTreeMap<String, Arc<Record>>,
    pub collections: BTreeMap<String, Arc<Collection>>,
    pub consts: BTreeMap<&'a str, &'a ConstDef>,
    pub texts: BTreeMap<&'a str, &'a str>,
    pub fns: BTreeMap<&'a str, &'a FnDef>,
}

/// Lowers one command.
pub struct Lower<'a> {
    table: &'a Table,
    names: &'a Names<'a>,
    sources: [&'a LineIndex; 2],
    ops: Vec<Emitted>,
    line: u32,
    next_reg: usize,
    regs: usize,
    nesting: usize,
    scope: Vec<(String, Binding)>,
    literals: Vec<Vec<u8>>,
    texts: Vec<String>,
    origins: Vec<Origin>,
    killed: BTreeMap<OriginId, Span>,
    loops: Vec<LoopFrame>,
    loop_count: u16,
    /// Numbers of the loops around, also of those around a call of the function being inlined.
    inside: Vec<u16>,
    /// Functions being inlined, outermost first.
    inlining: Vec<&'a str>,
    /// Counters of open `array { … }` replies; None where the count was known.
    emitted: Vec<Option<Reg>>,
    /// Names of variables that only count, in the body being lowered.
    counters: BTreeSet<String>,
    pub effects: Effects,
    everything: Poly,
    /// The body has written into the keyspace: what it reads there from now on may be longer than what was stored before the call.
    wrote: bool,
    /// And what it wrote was joined from others: nothing says how long what it reads there may be.
    wrote_joined: bool,
    /// The command's header says what it blocks on.
    blocks: bool,
    waits: bool,
    /// Collections that the body names.
    opened: BTreeMap<u16, Arc<Collection>>,
    /// The text for a row that an index names and that is not there.
    broken_index: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub reads: bool,
    /// Changes state, in whatever way.
    pub writes: bool,
    /// May let state grow.
    pub grows: bool,
    pub replies: bool,
}

/// Line numbers of a source.
pub struct LineIndex(Vec<u32>);

impl LineIndex {
    pub fn new(source: &str) -> Self {
        let ends = source.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i as u32);
        LineIndex(ends.collect())
    }
    pub fn line(&self, at: u32) -> u32 {
        self.0.partition_point(|end| *end < at) as u32 + 1
    }
}

impl<'a> Lower<'a> {
    pub fn new(table: &'a Table, names: &'a Names<'a>, sources: [&'a LineIndex; 2], grammar: &Grammar) -> Self {
        let mut l = Lower {
            table,
            names,
            sources,
            ops: Vec::new(),
            line: 0,
            // the first registers hold the module's collections
            next_reg: names.collections.len(),
            regs: names.collections.len(),
            nesting: 0,
            scope: Vec::new(),
            literals: Vec::new(),
            texts: Vec::new(),
            origins: origins(names),
            killed: BTreeMap::new(),
            loops: Vec::new(),
            loop_count: 0,
            inside: Vec::new(),
            inlining: Vec::new(),
            emitted: Vec::new(),
            counters: BTreeSet::new(),
            effects: Effects::default(),
            everything: everything(grammar),
            wrote: false,
            wrote_joined: false,
            blocks: false,
            waits: false,
            opened: BTreeMap::new(),
            broken_index: None,
        };
        for p in &grammar.params {
            let val = l.parameter(p.slot, &p.kind, p.ty());
            l.scope.push((p.name.clone(), Binding::Let(val)));
        }
        l
    }

    /// Lowers the body and finishes the program.
    pub fn command(mut self, def: &'a CommandDef) -> Low<(Finished, Effects)> {
        self.counters = counters::counters(&def.body);
        self.blocks = def.blocks.is_some();
        let own_text = def.errors.iter().find(|e| e.name.name == "broken_index");
        self.broken_index = own_text.map(|e| e.text.clone());
        self.unit_block(&def.body)?;
        self.open_collections(def.name.span)?;
        if let (Some((keys, _)), false) = (&def.blocks, self.waits) {
            return Err(Diagnostic::new(
                Code::Misplaced,
                keys.span,
                "this command blocks, but nothing in its body waits",
            )
            .help("`wait` ends the call until the key is written; or drop the clause"));
        }
        let mut program = Program::default();
        for e in &def.errors {
            let text = Some(self.text_number(&e.text));
            match e.name.name.as_str() {
                "overflow" => program.on_overflow = text,
                "div_zero" => program.on_div_zero = text,
                "nan" => program.on_nan = text,
                _ => {}
            }
        }
        let effects = self.effects;
        Ok((self.finish(program), effects))
    }

    // --- values of parameters ---

    fn parameter(&self, slot: u16, kind: &ParamKind, ty: Type) -> Val {
        let mut words = SmallVec::new();
        match kind {
            ParamKind::One(shape) => shape_words(shape, slot, &mut words),
            ParamKind::Flag { .. } => words.push(Word::at(Loc::Arg(slot))),
            ParamKind::Options(alts) => shape_words(&Shape::Words(alts.clone()), slot, &mut words),
            ParamKind::Rest { element, .. } => {
                words.push(Word::at(Loc::Arg(slot)));
                let mut val = Val::new(ty, words);
                val.place = has_key(element).then_some(Whose { place: Place::Keys(slot), each: None });
                return val;
            }
        }
        let mut val = Val::new(ty, words);
        if let ParamKind::One(Shape::Key { .. }) = kind {
            val.place = Some(Whose { place: Place::Key(slot), each: None });
        }
        val
    }

    // --- emission ---

    fn at(&mut self, span: Span) {
        self.line = self.sources[span.file as usize % 2].line(span.start);
    }
    fn push(&mut self, op: Op) {
        self.push_noted(op, Note::Plain);
    }
    fn push_noted(&mut self, op: Op, note: Note) {
        self.ops.push(Emitted { op, line: self.line, note });
    }
    fn reg(&mut self, span: Span) -> Low<Reg> {
        if self.next_reg >= REGS_MAX {
            return Err(Diagnostic::new(Code::TooBig, span, "this command needs more than 255 registers")
                .help("split it, or compute fewer things at once"));
        }
        self.next_reg += 1;
        self.regs = self.regs.max(self.next_reg);
        Ok((self.next_reg - 1) as Reg)
    }
    fn open(&mut self, span: Span) -> Low<()> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(Diagnostic::new(Code::TooBig, span, format!("nested more than {NESTING_MAX} deep"))
                .help("a long `else if` chain nests; a `match` does not"));
        }
        Ok(())
    }
    fn close(&mut self) {
        self.nesting -= 1;
    }

    /// The word in a register.
    fn load(&mut self, word: &Word, span: Span) -> Low<Reg> {
        if let Loc::Reg(r) = word.loc {
            return Ok(r);
        }
        let d = self.reg(span)?;
        self.load_into(d, word.loc);
        Ok(d)
    }
    fn load_into(&mut self, d: Reg, loc: Loc) {
        self.push(match loc {
            Loc::Const(value) => Op::Const { d, value },
            Loc::Reg(s) => Op::Mov { d, s },
            Loc::Arg(slot) => Op::Arg { d, slot },
            Loc::Elem { slot, index, width, field } => Op::Elem { d, slot, index, width, field },
            Loc::Count(slot) => Op::Count { d, slot },
        });
    }

    fn text_number(&mut self, text: &str) -> u16 {
        if let Some(i) = self.texts.iter().position(|t| t == text) {
            return i as u16;
        }
        self.texts.push(text.to_owned());
        (self.texts.len() - 1) as u16
    }
    fn literal(&mut self, bytes: &[u8]) -> Val {
        let i = self.literals.iter().position(|l| l == bytes).unwrap_or_else(|| {
            self.literals.push(bytes.to_vec());
            self.literals.len() - 1
        });
        let mut word = Word::constant(BytesWord::literal(i as u32).0);
        word.bound = Some(Poly::constant(super::poly::blocks(bytes.len())));
        Val::new(Type::Bytes, [word])
    }

    // --- names ---

    fn lookup(&self, name: &str) -> Option<&Binding> {
        self.scope.iter().rev().find(|b| b.0 == name).map(|b| &b.1)
    }
    fn bind(&mut self, name: &str, binding: Binding) {
        if name != "_" {
            self.scope.push((name.to_owned(), binding));
        }
    }

    // --- life of views and slots ---

    fn origin(&mut self, kind: OriginKind, parent: OriginId, span: Span) -> OriginId {
        self.origins.push(Origin { kind, parent, span, apart: false });
        (self.origins.len() - 1) as OriginId
    }

    fn descends(&self, mut o: OriginId, from: OriginId) -> bool {
        while o != 0 && !self.origins[o as usize].apart {
            o = self.origins[o as usize].parent;
            if o == from {
                return true;
            }
        }
        false
    }

    /// A value is used: everything it points into must be alive.
    fn check_alive(&mut self, val: &Val, span: Span) -> Low<()> {
        for &o in &val.origins {
            if let Some(&by) = self.killed.get(&o) {
                return Err(self.killed_error(o, by, span));
            }
            for frame in self.loops.iter_mut().filter(|f| o < f.first_origin) {
                frame.uses.push((o, span));
            }
        }
        Ok(())
    }

    fn killed_error(&self, o: OriginId, by: Span, span: Span) -> Diagnostic {
        let origin = &self.origins[o as usize];
        let what = match origin.kind {
            OriginKind::View => "view",
            OriginKind::Slot => "slot",
            OriginKind::Collection => "collection",
            OriginKind::Iterator => "iterator",
        };
        Diagnostic::new(
            Code::Killed,
            span,
            format!("this {what} is used after a write that may have moved what it points to"),
        )
        .note("used here")
        .label(origin.span, format!("the {what} was taken here"))
        .label(by, "this write ends it")
        .help("use it before the write, or look it up again after it")
    }
}

/// The keyspace, then the module's collections by number.
fn origins(names: &Names<'_>) -> Vec<Origin> {
    let origin = |apart| Origin { kind: OriginKind::Collection, parent: 0, span: Span::default(), apart };
    std::iter::once(origin(false)).chain(names.collections.values().map(|_| origin(true))).collect()
}

/// The sum of all sizes a call can see: the bound of bytes of which nothing better is known.
fn everything(grammar: &Grammar) -> Poly {
    let mut sum = Poly::constant(1);
    for p in &grammar.params {
        match &p.kind {
            ParamKind::One(Shape::Bytes { .. }) => sum.add(&Poly::atom(Atom::Blocks(p.slot))),
            ParamKind::One(Shape::Key { .. }) => sum.add(&all_under(Place::Key(p.slot))),
            ParamKind::Rest { element, .. } => {
                sum.add(&blocks_of_list(p.slot, element));
                if has_key(element) {
                    sum.add(&all_under(Place::Keys(p.slot)));
                }
            }
            _ => {}
        }
    }
    sum
}

/// Blocks of the strings, or of all elements, under keys.
fn all_under(place: Place) -> Poly {
    Poly::atom(Atom::Len(place)).plus(&Poly::atom(Atom::Total(place)))
}

fn blocks_of_list(slot: u16, element: &Shape) -> Poly {
    Poly::atom(Atom::BlocksAll { slot, width: element.words() as u8, fields: element.bytes_fields() })
}

fn has_key(shape: &Shape) -> bool {
    match shape {
        Shape::Key { .. } => true,
        Shape::Tuple(fields) => fields.iter().any(has_key),
        _ => false,
    }
}

/// The words of a parameter of the fixed part.
fn shape_words(shape: &Shape, slot: u16, out: &mut SmallVec<[Word; 2]>) {
    let loc = Loc::Arg(slot);
    match shape {
        Shape::Int { min, .. } => {
            let bound = Some(Poly::atom(Atom::Int(slot)));
            out.push(Word { bound, natural: *min >= 0, is: Some(Number::Word(slot)), ..Word::at(loc) });
        }
        Shape::Float { .. } => out.push(Word::at(loc)),
        Shape::Bytes { .. } => out.push(Word::bounded(loc, Poly::atom(Atom::Blocks(slot)))),
        Shape::Key { .. } => {
            out.push(Word::bounded(loc, Poly::atom(Atom::Blocks(slot))));
            out.push(Word::at(Loc::Arg(slot + 1)));
        }
        Shape::Tuple(fields) => {
            let mut at = slot;
            for f in fields {
                shape_words(f, at, out);
                at += f.words();
            }
        }
        Shape::Words(alts) => {
            out.push(Word::at(loc));
            // Payloads overlay: each word may be an int or bytes, and its bound depends on the case; see `case_payload`.
            let first = out.len();
            for alt in alts {
                let mut words = SmallVec::new();
                let mut at = slot + 1;
                for p in &alt.payload {
                    shape_words(p, at, &mut words);
                    at += p.words();
                }
                for (i, w) in words.into_iter().enumerate() {
                    match out.get_mut(first + i) {
                        None => out.push(w),
                        Some(have) => {
                            have.natural &= w.natural;
                            have.is = have.is.filter(|is| w.is == Some(*is));
                            have.bound = match (have.bound.take(), w.bound) {
                                (Some(a), Some(b)) => Some(a.max(&b)),
                                _ => None,
                            };
                        }
                    }
                }
            }
        }
        Shape::Optional(inner) => match &**inner {
            Shape::Words(_) => shape_words(inner, slot, out),
            _ => {
                out.push(Word::at(loc));
                shape_words(inner, slot + 1, out);
            }
        },
    }
}

/// The widest effect of a row, remembered.
impl Effects {
    fn add(&mut self, effect: Effect) {
        match effect {
            Effect::Pure => {}
            Effect::Read => self.reads = true,
            Effect::Trim => self.writes = true,
            Effect::Write => {
                self.writes = true;
                self.grows = true;
            }
            Effect::Reply => self.replies = true,
        }
    }
}
