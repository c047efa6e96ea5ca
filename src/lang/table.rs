//! The helper table: one row declares a helper once. From it come signatures, effects, costs, the interpreter's dispatch and the
//! compiler's call table.
//!
//! ```text
//! Row::read("Db.slot(key: key) -> Slot", "20 + blocks(key)", "depth", slot)
//! Row::read("Slot.value -> Value", "4", "1", value)              // no brackets: a property
//! Row::write("Slot.put_str(value: bytes, due: time?)", "30 + blocks(value)", "2", put_str).kills(Kills::Slots)
//! ```
//! A receiver whose name is a handle type, `bytes`, `int`, … is the first argument; any other (`batch.now`) is part of the name.
//! Costs are polynomials in numbers, `blocks(argument)` (the receiver is `self`), integer arguments, `int(argument)` (what it spells), `len` (entries of the receiver's
//! collection, or blocks of the string under its key), `total` and `longest` (blocks of its elements) and `depth`.

use super::ast::{AtomSyntax, SumSyntax, TypeSyntax, TypeSyntaxKind};
use super::diag::{Code, Diagnostic, Span};
use super::machine::HelperFn;
use super::parse::Parser;
use super::types::{Sum, Type};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most argument words of a helper call.
pub const ARG_WORDS_MAX: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Effect {
    Pure,
    Read,
    /// Changes state but never lets it grow: allowed when memory is full.
    Trim,
    Write,
    Reply,
}

/// Which values a call makes unusable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kills {
    Nothing,
    /// Views of the receiver's collection.
    Views,
    /// Those, and its slots except the receiver.
    Slots,
}

/// Where a bytes result lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lives {
    /// In the call's own memory.
    Call,
    /// As long as the arguments.
    Arguments,
    /// In a page: a view.
    Page,
}

/// One helper.
#[derive(Clone, Copy)]
pub struct Row {
    pub signature: &'static str,
    pub effect: Effect,
    pub ops: &'static str,
    pub locs: &'static str,
    /// What the result is at most: blocks for bytes, value for ints. Empty: see [`Table`].
    pub bound: &'static str,
    pub kills: Kills,
    pub lives: Lives,
    /// Can end the call with an error or a trap of its own.
    pub fails: bool,
    /// The bytes result is as long as its arguments together.
    pub joins: bool,
    pub call: HelperFn,
}

impl Row {
    pub const fn new(
        effect: Effect,
        signature: &'static str,
        ops: &'static str,
        locs: &'static str,
        call: HelperFn,
    ) -> Row {
        let (kills, lives) = match effect {
            Effect::Pure | Effect::Reply => (Kills::Nothing, Lives::Arguments),
            Effect::Read => (Kills::Nothing, Lives::Page),
            Effect::Trim | Effect::Write => (Kills::Slots, Lives::Call),
        };
        Row { signature, effect, ops, locs, bound: "", kills, lives, fails: false, joins: false, call }
    }
    pub const fn pure(signature: &'static str, ops: &'static str, locs: &'static str, call: HelperFn) -> Row {
        Row::new(Effect::Pure, signature, ops, locs, call)
    }
    pub const fn read(signature: &'static str, ops: &'static str, locs: &'static str, call: HelperFn) -> Row {
        Row::new(Effect::Read, signature, ops, locs, call)
    }
    pub const fn write(signature: &'static str, ops: &'static str, locs: &'static str, call: HelperFn) -> Row {
        Row::new(Effect::Write, signature, ops, locs, call)
    }
    pub const fn trim(signature: &'static str, ops: &'static str, locs: &'static str, call: HelperFn) -> Row {
        Row::new(Effect::Trim, signature, ops, locs, call)
    }
    pub const fn reply(signature: &'static str, ops: &'static str, locs: &'static str, call: HelperFn) -> Row {
        Row::new(Effect::Reply, signature, ops, locs, call)
    }
    pub const fn bound(mut self, poly: &'static str) -> Row {
        self.bound = poly;
        self
    }
    pub const fn kills(mut self, kills: Kills) -> Row {
        self.kills = kills;
        self
    }
    pub const fn fails(mut self) -> Row {
        self.fails = true;
        self
    }
    pub const fn joins(mut self) -> Row {
        self.joins = true;
        self
    }
    /// The bytes result is a copy in the call's own memory.
    pub const fn own(mut self) -> Row {
        self.lives = Lives::Call;
        self
    }
    /// The bytes result is a view of a page.
    pub const fn view(mut self) -> Row {
        self.lives = Lives::Page;
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandleKind {
    /// One entry of a collection.
    Slot,
    Collection,
    Iterator,
}

#[derive(Clone, Debug)]
pub struct Handle {
    pub name: Arc<str>,
    pub kind: HandleKind,
}

/// One factor of a row's polynomial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowAtom {
    /// Blocks of argument (receiver first)
    Blocks(u8),
    /// Value of an integer argument
    Int(u8),
    /// Integer that an argument spells
    Text(u8),
    Len,
    Total,
    Longest,
    Depth,
}

pub type RowPoly = Vec<(u64, Vec<RowAtom>)>;

/// A row, parsed.
#[derive(Clone, Debug)]
pub struct Helper {
    pub number: u16,
    pub name: String,
    pub signature: &'static str,
    /// Receiver first.
    pub params: Vec<(String, Type)>,
    pub has_receiver: bool,
    pub is_property: bool,
    pub result: Type,
    pub effect: Effect,
    pub ops: RowPoly,
    pub locs: RowPoly,
    pub bound: Option<RowPoly>,
    pub kills: Kills,
    pub lives: Lives,
    pub fails: bool,
    pub joins: bool,
}

/// The parsed table. Helper numbers are row numbers.
pub struct Table {
    pub helpers: Vec<Helper>,
    pub handles: Vec<Handle>,
    pub sums: BTreeMap<String, Arc<Sum>>,
    /// Names that stand for a fixed handle: `db` = Db 0.
    pub globals: BTreeMap<String, (Type, u64)>,
    /// Consts, errors and functions that every module sees.
    pub prelude: String,
    pub calls: Vec<HelperFn>,
    by_name: BTreeMap<String, Vec<u16>>,
}

impl Table {
    /// Parses rows. `types` declares handles, sums and globals:
    /// `handle Db: collection; handle Slot: slot; type Value = none | int(int) | str(bytes) | list; global db: Db = 0`
    pub fn new(types: &str, rows: &[Row], prelude: &str) -> Result<Table, Diagnostic> {
        let mut table = Table {
            helpers: Vec::new(),
            handles: Vec::new(),
            sums: BTreeMap::new(),
            globals: BTreeMap::new(),
            prelude: prelude.to_owned(),
            calls: rows.iter().map(|r| r.call).collect(),
            by_name: BTreeMap::new(),
        };
        table.declare(types)?;
        for row in rows {
            let helper = table.helper(row).map_err(|d| in_row(row, d))?;
            table.by_name.entry(helper.name.clone()).or_default().push(helper.number);
            table.helpers.push(helper);
        }
        Ok(table)
    }

    /// Rows of this full name (`Slot.put_str`, `batch.now`), in order.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Helper> {
        self.by_name.get(name).into_iter().flatten().map(|n| &self.helpers[*n as usize])
    }
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }
    pub fn handle(&self, name: &str) -> Option<Type> {
        let n = self.handles.iter().position(|h| &*h.name == name)?;
        Some(Type::Handle(n as u16, self.handles[n].name.clone()))
    }

    fn declare(&mut self, types: &str) -> Result<(), Diagnostic> {
        let mut p = Parser::new(types, 0)?;
        let decls = p.type_declarations()?;
        for (name, kind) in decls.handles {
            let kind = match kind.name.as_str() {
                "slot" => HandleKind::Slot,
                "collection" => HandleKind::Collection,
                "iterator" => HandleKind::Iterator,
                _ => return Err(Diagnostic::new(Code::Table, kind.span, "a handle is a slot, collection or iterator")),
            };
            self.handles.push(Handle { name: name.name.into(), kind });
        }
        for SumSyntax { name, none, cases } in decls.sums {
            let mut sum = Sum { name: name.name.clone(), none, cases: Vec::new() };
            for (case, payload) in cases {
                let payload = payload.iter().map(|t| self.resolve(t)).collect::<Result<_, _>>()?;
                sum.cases.push((case.name, payload));
            }
            self.sums.insert(name.name, Arc::new(sum));
        }
        for (name, ty, value) in decls.globals {
            let ty = self.resolve(&ty)?;
            self.globals.insert(name.name, (ty, value as u64));
        }
        Ok(())
    }

    /// The type that was written.
    pub fn resolve(&self, t: &TypeSyntax) -> Result<Type, Diagnostic> {
        Ok(match &t.kind {
            TypeSyntaxKind::Key { .. } => Type::Key,
            TypeSyntaxKind::Bytes { .. } => Type::Bytes,
            TypeSyntaxKind::Int { .. } => Type::Int,
            TypeSyntaxKind::Float { .. } => Type::Float,
            TypeSyntaxKind::Bool => Type::Bool,
            TypeSyntaxKind::Alts(alts) => {
                let mut sum = Sum::default();
                for alt in alts {
                    let payload = alt.payload.iter().map(|p| self.resolve(p)).collect::<Result<_, _>>()?;
                    if sum.cases.iter().any(|c| c.0 == alt.word.name) {
                        return Err(Diagnostic::new(Code::Duplicate, alt.word.span, "this word is there already"));
                    }
                    sum.cases.push((alt.word.name.clone(), payload));
                }
                Type::Sum(Arc::new(sum))
            }
            TypeSyntaxKind::Tuple(fields) => {
                Type::Tuple(fields.iter().map(|f| self.resolve(&f.1)).collect::<Result<_, _>>()?)
            }
            TypeSyntaxKind::Optional(inner) => self.resolve(inner)?.optional(),
            TypeSyntaxKind::Enum(names) => {
                let mut sum = Sum::default();
                for name in names {
                    if sum.cases.iter().any(|c| c.0 == name.name) {
                        return Err(Diagnostic::new(Code::Duplicate, name.span, "this case is there already"));
                    }
                    sum.cases.push((name.name.clone(), Vec::new()));
                }
                Type::Sum(Arc::new(sum))
            }
            TypeSyntaxKind::List { .. } => {
                return Err(Diagnostic::new(Code::Type, t.span, "a list is the type of a variable only")
                    .help("`var x: list<int>[16]`; to keep many values declare a `seq` collection"));
            }
            TypeSyntaxKind::Named(name) => match (self.handle(name), self.sums.get(name)) {
                (Some(handle), _) => handle,
                (None, Some(sum)) => Type::Sum(sum.clone()),
                (None, None) => {
                    return Err(Diagnostic::new(Code::UnknownName, t.span, format!("there is no type `{name}`")));
                }
            },
        })
    }

    fn receiver_type(&self, name: &str) -> Option<Type> {
        Some(match name {
            "bytes" => Type::Bytes,
            "key" => Type::Key,
            "int" | "time" => Type::Int,
            "float" => Type::Float,
            "bool" => Type::Bool,
            _ => return self.handle(name).or_else(|| self.sums.get(name).map(|s| Type::Sum(s.clone()))),
        })
    }

    fn helper(&self, row: &Row) -> Result<Helper, Diagnostic> {
        let syntax = Parser::new(row.signature, 0)?.signature()?;
        let mut params = Vec::new();
        let mut name = syntax.name.name;
        let mut has_receiver = false;
        if let Some(receiver) = &syntax.receiver {
            name = format!("{}.{name}", receiver.name);
            if let Some(ty) = self.receiver_type(&receiver.name) {
                params.push(("self".to_owned(), ty));
                has_receiver = true;
            }
        }
        for (field, ty) in syntax.params.iter().flatten() {
            params.push((field.as_ref().map_or_else(String::new, |f| f.name.clone()), self.resolve(ty)?));
        }
        let bad = |message: &str| Diagnostic::new(Code::Table, syntax.name.span, message);
        if params.iter().map(|p| p.1.width()).sum::<usize>() > ARG_WORDS_MAX {
            return Err(bad("a helper takes at most 4 argument words"));
        }
        let result = syntax.result.as_ref().map_or(Ok(Type::Unit), |t| self.resolve(t))?;
        if result.width() > super::machine::RESULTS_MAX {
            return Err(bad("a helper gives at most 8 words"));
        }
        let poly = |text: &str| row_poly(text, &params);
        Ok(Helper {
            number: self.helpers.len() as u16,
            name,
            signature: row.signature,
            has_receiver,
            is_property: syntax.params.is_none(),
            result,
            effect: row.effect,
            ops: poly(row.ops)?,
            locs: poly(row.locs)?,
            bound: if row.bound.is_empty() { None } else { Some(poly(row.bound)?) },
            kills: row.kills,
            lives: row.lives,
            fails: row.fails,
            joins: row.joins,
            params,
        })
    }
}

fn in_row(row: &Row, mut d: Diagnostic) -> Diagnostic {
    d.message = format!("helper row `{}` (ops `{}`, locs `{}`): {}", row.signature, row.ops, row.locs, d.message);
    d.code = Code::Table;
    d
}

fn row_poly(text: &str, params: &[(String, Type)]) -> Result<RowPoly, Diagnostic> {
    let mut parser = Parser::new(text, 0)?;
    let syntax = parser.poly()?;
    if !parser.at_end() {
        return Err(Diagnostic::new(Code::Table, Span::default(), format!("`{text}` is not a polynomial")));
    }
    let unknown = |what: &str| Diagnostic::new(Code::Table, Span::default(), format!("unknown size `{what}`"));
    let argument = |name: &str, wanted: fn(&Type) -> bool| {
        params.iter().position(|p| p.0 == name && wanted(&p.1)).map(|i| i as u8).ok_or_else(|| unknown(name))
    };
    let atom = |a: &AtomSyntax| match a {
        AtomSyntax::Of(f, x) if f == "int" => argument(x, Type::is_bytes).map(RowAtom::Text),
        AtomSyntax::Of(f, x) if f == "blocks" => argument(x, Type::is_bytes).map(RowAtom::Blocks),
        AtomSyntax::Name(x) if x == "len" => Ok(RowAtom::Len),
        AtomSyntax::Name(x) if x == "total" => Ok(RowAtom::Total),
        AtomSyntax::Name(x) if x == "longest" => Ok(RowAtom::Longest),
        AtomSyntax::Name(x) if x == "depth" => Ok(RowAtom::Depth),
        AtomSyntax::Name(x) => argument(x, |t| *t == Type::Int).map(RowAtom::Int),
        AtomSyntax::Of(f, _) => Err(unknown(f)),
        AtomSyntax::Least(_) | AtomSyntax::Signed(..) | AtomSyntax::Chosen(..) => Err(unknown("of a choice")),
    };
    syntax.terms.iter().map(|(n, atoms)| Ok((*n, atoms.iter().map(atom).collect::<Result<_, _>>()?))).collect()
}
