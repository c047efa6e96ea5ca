//! # The argument grammar of a command
//!
//! What a command's header says about its arguments, laid out for a parser: which words the arguments become and where each
//! lies among the call's words (`base::batch` draws the record). Arity, key positions and flags derive from it.

/// The parameters of a command, in order of declaration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grammar {
    pub params: Vec<Param>,
    /// Words of the fixed part; the elements of list arguments follow.
    pub fixed_words: u16,
    pub errors: ErrorTexts,
}

/// Texts that replace the parser's general ones; `%s` stands for the offending argument.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorTexts {
    pub syntax: Option<String>,
    pub arity: Option<String>,
    pub not_int: Option<String>,
    pub not_float: Option<String>,
    pub range: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub name: String,
    /// Number of its first word.
    pub slot: u16,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `x: T`: its words.
    One(Scalar),
    /// `x: T?`, `x: (T, U)?`: a tag (0 none, 1 present), then the fields' words. All fields or none.
    Optional(Vec<Scalar>),
    /// `x: A | B(int)`: a tag (1, 2, … in order), then the payload overlay. `optional`: tag 0 when it is not there.
    Cases { cases: Vec<Case>, optional: bool },
    /// `flag WORD`: 0 or 1. Flags and opts next to each other may come in any order.
    Flag(String),
    /// `opt x: A | B(int)`: a tag (0 absent), then the payload overlay. The same or another alternative twice is a syntax error.
    Opt(Vec<Case>),
    /// `rest xs: T [min..]`: one list word; elements of `element.width()` words each.
    Rest { element: Element, min: u32, max: Option<u32> },
}

/// A word, compared case-insensitively, and the arguments that follow it.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Upper case.
    pub word: String,
    pub fields: Vec<Scalar>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    Fields(Vec<Scalar>),
    /// A tag, then the payload overlay.
    Cases(Vec<Case>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Two words: bytes, hash.
    Key {
        max: Option<u32>,
    },
    Bytes {
        max: Option<u32>,
    },
    /// `not_int` answers what is no integer, `range` what is outside; None = the command's or the general text.
    Int {
        min: i64,
        max: i64,
        not_int: Option<String>,
        range: Option<String>,
    },
    Float {
        not_float: Option<String>,
    },
    /// One of these words (upper case): 1, 2, … in order.
    Word(Vec<String>),
}

impl Scalar {
    pub fn width(&self) -> usize {
        if matches!(self, Scalar::Key { .. }) { 2 } else { 1 }
    }
}

/// Words of fields that lie one after the other.
pub fn width(fields: &[Scalar]) -> usize {
    fields.iter().map(Scalar::width).sum()
}

/// Words of a tag and the widest payload.
pub fn cases_width(cases: &[Case]) -> usize {
    1 + cases.iter().map(|c| width(&c.fields)).max().unwrap_or(0)
}

impl Element {
    pub fn width(&self) -> usize {
        match self {
            Element::Fields(f) => width(f),
            Element::Cases(c) => cases_width(c),
        }
    }
}

impl Kind {
    /// Words in the fixed part.
    pub fn width(&self) -> usize {
        match self {
            Kind::One(s) => s.width(),
            Kind::Optional(f) => 1 + width(f),
            Kind::Cases { cases, .. } | Kind::Opt(cases) => cases_width(cases),
            Kind::Flag(_) | Kind::Rest { .. } => 1,
        }
    }
}

impl Grammar {
    /// Lays the parameters out one after the other.
    pub fn new(params: Vec<(String, Kind)>, errors: ErrorTexts) -> Grammar {
        let mut slot = 0;
        let params = params
            .into_iter()
            .map(|(name, kind)| {
                let at = slot;
                slot += kind.width() as u16;
                Param { name, slot: at, kind }
            })
            .collect();
        Grammar { params, fixed_words: slot, errors }
    }
}
