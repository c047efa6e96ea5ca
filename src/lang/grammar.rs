//! The argument grammar of a command: what its header says, in the form that drives an argument parser and lays out the call's words.
//!
//! Words are laid out in the order of declaration (see `batch::format`): int, float, bool 1; bytes 1; key 2 (bytes word, hash);
//! words without payload 1 (tag 1, 2, … in order; 0 absent); words with payload 1 + the widest payload (payloads overlay, unused
//! words are 0); `T?` 1 + T's, except that alternatives share their tag with absence; `rest` 1 `ListWord`, its elements' words
//! follow the fixed part.

use super::ast::{AltSyntax, CommandDef, ParamSyntax, ParamSyntaxKind, TypeSyntax, TypeSyntaxKind};
use super::diag::{Code, Diagnostic};
use super::types::{Sum, Type};
use std::sync::Arc;

/// Most words of a command's fixed part, and of a list's element.
const WORDS_MAX: u16 = 200;

/// Error texts of an argument that replace the general ones.
pub use super::ast::TypeTexts as Texts;

#[derive(Clone, Debug, PartialEq)]
pub struct Grammar {
    pub params: Vec<Param>,
    /// Words of the fixed part.
    pub fixed_words: u16,
    /// As `COMMAND INFO` has it: the name's words count, negative = at least.
    pub arity: i32,
    /// The command's own general texts (`errors syntax = …`); `%s` stands for the argument.
    pub errors: GrammarErrors,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrammarErrors {
    pub syntax: Option<String>,
    pub arity: Option<String>,
    pub not_int: Option<String>,
    pub not_float: Option<String>,
    pub range: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub name: String,
    /// First of its words.
    pub slot: u16,
    pub words: u16,
    pub kind: ParamKind,
    /// A flag or option whose words may not be said twice: the second is a syntax error.
    pub once: bool,
    /// Fewest arguments that it takes, and that those behind it take.
    pub least: u32,
    pub reserved: u32,
    /// Of a flag or an option: how many of them follow each other from here on. Else 0.
    pub options: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ParamKind {
    /// At its place. `Shape::Optional`: may be left out (then all words are 0).
    One(Shape),
    /// `flag WORD`: anywhere among neighbouring flags and options; 1 when there.
    Flag { word: String },
    /// `opt name: A | B(int)`: anywhere among neighbouring flags and options. The same word twice: the last counts, unless the
    /// parameter is `once`; two different words of one option: a syntax error.
    Options(Vec<Alternative>),
    /// All arguments that are left (less what later required parameters take).
    Rest { element: Shape, min: u32, max: Option<u32> },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Int {
        min: i64,
        max: i64,
        texts: Texts,
    },
    Float {
        texts: Texts,
    },
    Bytes {
        max: Option<u32>,
    },
    Key {
        max: Option<u32>,
    },
    /// One of some words, case-insensitive, with payload: tag 1, 2, …
    Words(Vec<Alternative>),
    Tuple(Vec<Shape>),
    /// `Words` inside share the tag (0 = absent); others: tag 0 or 1, then the words.
    Optional(Box<Shape>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Upper case.
    pub word: String,
    pub payload: Vec<Shape>,
}

impl Shape {
    pub fn words(&self) -> u16 {
        match self {
            Shape::Int { .. } | Shape::Float { .. } | Shape::Bytes { .. } => 1,
            Shape::Key { .. } => 2,
            Shape::Words(alts) => 1 + payload_words(alts),
            Shape::Tuple(fields) => fields.iter().map(Shape::words).sum(),
            Shape::Optional(inner) if matches!(**inner, Shape::Words(_)) => inner.words(),
            Shape::Optional(inner) => 1 + inner.words(),
        }
    }
    /// Fewest and most arguments it takes (the words themselves included).
    pub fn arguments(&self) -> (u32, u32) {
        let sum = |shapes: &[Shape]| shapes.iter().map(Shape::arguments).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        match self {
            Shape::Words(alts) => {
                let each: Vec<_> = alts.iter().map(|a| sum(&a.payload)).collect();
                let least = each.iter().map(|e| e.0).min().unwrap_or(0);
                (1 + least, 1 + each.iter().map(|e| e.1).max().unwrap_or(0))
            }
            Shape::Tuple(fields) => sum(fields),
            Shape::Optional(inner) => (0, inner.arguments().1),
            _ => (1, 1),
        }
    }

    fn of(t: &TypeSyntax) -> Result<Shape, Diagnostic> {
        Ok(match &t.kind {
            TypeSyntaxKind::Key { max } => Shape::Key { max: *max },
            TypeSyntaxKind::Bytes { max } => Shape::Bytes { max: *max },
            TypeSyntaxKind::Int { min, max, texts } => {
                Shape::Int { min: min.unwrap_or(i64::MIN), max: max.unwrap_or(i64::MAX), texts: texts.clone() }
            }
            TypeSyntaxKind::Float { texts } => Shape::Float { texts: texts.clone() },
            TypeSyntaxKind::Alts(alts) => Shape::Words(alternatives(alts)?),
            TypeSyntaxKind::Tuple(fields) => {
                Shape::Tuple(fields.iter().map(|f| Shape::of(&f.1)).collect::<Result<_, _>>()?)
            }
            TypeSyntaxKind::Optional(inner) => Shape::Optional(Box::new(Shape::of(inner)?)),
            TypeSyntaxKind::Bool | TypeSyntaxKind::Named(_) | TypeSyntaxKind::Enum(_) | TypeSyntaxKind::List { .. } => {
                return Err(Diagnostic::new(Code::Type, t.span, "an argument cannot have this type").help(
                    "arguments are key, bytes, int, float, words (A | B), tuples and `T?` of them; a bool is a `flag`",
                ));
            }
        })
    }

    fn holds_key(&self) -> bool {
        match self {
            Shape::Key { .. } => true,
            Shape::Words(alternatives) => any_key(alternatives),
            Shape::Tuple(fields) => fields.iter().any(Shape::holds_key),
            Shape::Optional(inner) => inner.holds_key(),
            Shape::Int { .. } | Shape::Float { .. } | Shape::Bytes { .. } => false,
        }
    }

    /// The type of a value of this shape.
    pub fn ty(&self) -> Type {
        match self {
            Shape::Int { .. } => Type::Int,
            Shape::Float { .. } => Type::Float,
            Shape::Bytes { .. } => Type::Bytes,
            Shape::Key { .. } => Type::Key,
            Shape::Words(alts) => Type::Sum(Arc::new(sum_of(alts))),
            Shape::Tuple(fields) => Type::Tuple(fields.iter().map(Shape::ty).collect()),
            Shape::Optional(inner) => inner.ty().optional(),
        }
    }

    /// Which words are byte strings in every form this shape takes, one bit each from bit 0.
    pub fn bytes_fields(&self) -> u32 {
        match self {
            Shape::Bytes { .. } | Shape::Key { .. } => 1,
            Shape::Int { .. } | Shape::Float { .. } => 0,
            Shape::Words(alts) => {
                let width = payload_words(alts);
                let each = alts.iter().filter(|a| !a.payload.is_empty()).map(|a| {
                    let used: u16 = a.payload.iter().map(Shape::words).sum();
                    let absent = if used >= 32 { 0 } else { u32::MAX << used };
                    fields_of(&a.payload) | absent
                });
                let all = each.fold(u32::MAX, |a, b| a & b);
                (all & ((1u32 << width.min(30)) - 1)) << 1
            }
            Shape::Tuple(fields) => fields_of(fields),
            Shape::Optional(inner) if matches!(**inner, Shape::Words(_)) => inner.bytes_fields(),
            Shape::Optional(inner) => inner.bytes_fields() << 1,
        }
    }
}

fn any_key(alternatives: &[Alternative]) -> bool {
    alternatives.iter().any(|a| a.payload.iter().any(Shape::holds_key))
}

fn fields_of(shapes: &[Shape]) -> u32 {
    let mut at = 0;
    let mut fields = 0u32;
    for shape in shapes {
        fields |= shape.bytes_fields().checked_shl(at).unwrap_or(0);
        at += shape.words() as u32;
    }
    fields
}

fn payload_words(alts: &[Alternative]) -> u16 {
    alts.iter().map(|a| a.payload.iter().map(Shape::words).sum()).max().unwrap_or(0)
}

pub fn sum_of(alts: &[Alternative]) -> Sum {
    let case = |a: &Alternative| (a.word.clone(), a.payload.iter().map(Shape::ty).collect());
    Sum { name: String::new(), none: false, cases: alts.iter().map(case).collect() }
}

fn alternatives(alts: &[AltSyntax]) -> Result<Vec<Alternative>, Diagnostic> {
    let mut out: Vec<Alternative> = Vec::new();
    for alt in alts {
        let word = alt.word.name.to_ascii_uppercase();
        if out.iter().any(|a| a.word == word) {
            return Err(Diagnostic::new(Code::Duplicate, alt.word.span, format!("the word `{word}` is there already")));
        }
        out.push(Alternative { word, payload: alt.payload.iter().map(Shape::of).collect::<Result<_, _>>()? });
    }
    Ok(out)
}

impl Param {
    /// Some of its arguments are keys.
    pub fn holds_key(&self) -> bool {
        match &self.kind {
            ParamKind::One(shape) | ParamKind::Rest { element: shape, .. } => shape.holds_key(),
            ParamKind::Options(alternatives) => any_key(alternatives),
            ParamKind::Flag { .. } => false,
        }
    }
    pub fn ty(&self) -> Type {
        match &self.kind {
            ParamKind::One(shape) => shape.ty(),
            ParamKind::Flag { .. } => Type::Bool,
            ParamKind::Options(alts) => Type::Sum(Arc::new(Sum { none: true, ..sum_of(alts) })),
            ParamKind::Rest { element, .. } => Type::List(Arc::new(element.ty())),
        }
    }
}

impl Grammar {
    pub(super) fn of(command: &CommandDef) -> Result<Grammar, Diagnostic> {
        let mut g = Grammar { params: Vec::new(), fixed_words: 0, arity: 0, errors: GrammarErrors::default() };
        for p in &command.params {
            g.push(p)?;
        }
        g.arity = g.arity(command.name.name.split(' ').count() as i32);
        Ok(g)
    }

    fn push(&mut self, p: &ParamSyntax) -> Result<(), Diagnostic> {
        if self.params.iter().any(|q| q.name == p.name.name) {
            return Err(Diagnostic::new(
                Code::Duplicate,
                p.name.span,
                format!("the parameter `{}` is there already", p.name.name),
            ));
        }
        let (kind, words) = match &p.kind {
            ParamSyntaxKind::One(t) => {
                let shape = Shape::of(t)?;
                let words = shape.words();
                (ParamKind::One(shape), words)
            }
            ParamSyntaxKind::Flag => (ParamKind::Flag { word: p.name.name.to_ascii_uppercase() }, 1),
            ParamSyntaxKind::Opt(alts) => {
                let alts = alternatives(alts)?;
                let words = 1 + payload_words(&alts);
                (ParamKind::Options(alts), words)
            }
            ParamSyntaxKind::Rest { element, min, max } => {
                if self.params.iter().any(|q| matches!(q.kind, ParamKind::Rest { .. })) {
                    return Err(Diagnostic::new(Code::Duplicate, p.span, "a command has at most one `rest`"));
                }
                (ParamKind::Rest { element: Shape::of(element)?, min: *min, max: *max }, 1)
            }
        };
        let element = if let ParamKind::Rest { element, .. } = &kind { element.words() } else { 0 };
        if self.fixed_words + words > WORDS_MAX || element > WORDS_MAX {
            return Err(Diagnostic::new(Code::TooBig, p.span, "these arguments take too many words"));
        }
        self.add(&p.name.name, words, kind, p.once);
        Ok(())
    }

    /// Appends a parameter of so many words.
    pub fn add(&mut self, name: &str, words: u16, kind: ParamKind, once: bool) {
        let (least, options) = match &kind {
            ParamKind::One(shape) => (shape.arguments().0, 0),
            ParamKind::Rest { element, min, .. } => (min.saturating_mul(element.arguments().0), 0),
            ParamKind::Flag { .. } | ParamKind::Options(_) => (0, 1),
        };
        self.params.iter_mut().for_each(|before| before.reserved = before.reserved.saturating_add(least));
        let row = self.params.iter_mut().rev().take_while(|before| options > 0 && before.options > 0);
        row.for_each(|before| before.options += 1);
        let slot = self.fixed_words;
        self.params.push(Param { name: name.into(), slot, words, kind, once, least, reserved: 0, options });
        self.fixed_words += words;
    }

    fn arity(&self, name_words: i32) -> i32 {
        let (mut least, mut fixed) = (name_words, true);
        for p in &self.params {
            match &p.kind {
                ParamKind::One(shape) => {
                    let (min, max) = shape.arguments();
                    least += min as i32;
                    fixed &= min == max;
                }
                ParamKind::Rest { element, min, .. } => {
                    least = least.saturating_add(min.saturating_mul(element.arguments().0).min(1 << 20) as i32);
                    fixed = false;
                }
                ParamKind::Flag { .. } | ParamKind::Options(_) => fixed = false,
            }
        }
        if fixed { least } else { -least }
    }

    /// Words of one element of the list argument in `slot`.
    pub fn element_words(&self, slot: u16) -> usize {
        let element = self.params.iter().find(|p| p.slot == slot).map(|p| &p.kind);
        if let Some(ParamKind::Rest { element, .. }) = element { element.words() as usize } else { 1 }
    }

    /// Where keys stand, derived.
    pub fn keys(&self, name_words: u32) -> Vec<KeySpec> {
        let mut keys = Vec::new();
        let mut at = Some(name_words);
        for p in &self.params {
            match (&p.kind, at) {
                (ParamKind::One(shape), Some(position)) => {
                    if let Some(offset) = key_offset(shape) {
                        keys.push(KeySpec { param: p.slot, first: position + offset, last: KeyEnd::Same, step: 1 });
                    }
                    let (min, max) = shape.arguments();
                    at = (min == max).then_some(position + min);
                }
                (ParamKind::Rest { element, .. }, Some(position)) => {
                    if let Some(offset) = key_offset(element) {
                        let step = element.arguments().0.max(1);
                        keys.push(KeySpec { param: p.slot, first: position + offset, last: KeyEnd::Last, step });
                    }
                    at = None;
                }
                _ => at = None,
            }
        }
        keys
    }
}

fn key_offset(shape: &Shape) -> Option<u32> {
    match shape {
        Shape::Key { .. } => Some(0),
        Shape::Tuple(fields) => {
            let i = fields.iter().position(|f| matches!(f, Shape::Key { .. }))?;
            Some(fields[..i].iter().map(|f| f.arguments().0).sum())
        }
        Shape::Optional(inner) => key_offset(inner),
        _ => None,
    }
}

/// Positions of keys, as `COMMAND INFO` counts (the command's first word is 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Slot of the parameter that holds them.
    pub param: u16,
    pub first: u32,
    pub last: KeyEnd,
    pub step: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEnd {
    /// One key.
    Same,
    /// Up to the last argument.
    Last,
}
