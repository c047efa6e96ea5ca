//! Types, and how many words a value of each takes.

use std::fmt;
use std::sync::Arc;

#[derive(Clone, PartialEq, Debug)]
pub enum Type {
    Int,
    Float,
    Bool,
    Bytes,
    /// Bytes word and hash; usable as bytes.
    Key,
    /// Tag, then the widest payload.
    Sum(Arc<Sum>),
    Tuple(Vec<Type>),
    /// What a helper gave out: number in [`super::table::Table`]'s handles.
    Handle(u16, Arc<str>),
    /// A `rest` parameter: never a value, only looped over, counted or indexed.
    List(Arc<Type>),
    /// Fields by name; the words of all of them.
    Record(Arc<Record>),
    /// A local list.
    Items(Arc<Items>),
    /// A collection that the module declares; its word is the opened collection's.
    Collection(Arc<Collection>),
    /// A place in one: the collection, the key, and (`loaded`) the row's words.
    Row {
        of: Arc<Collection>,
        loaded: bool,
    },
    /// A case by name (`NX`, `str(v)`, `none`) before it is known of which sum.
    Case(String, Vec<Type>),
    Unit,
    /// The type of what does not come back: `fail`, `return`.
    Never,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    pub name: String,
    pub fields: Vec<(String, Type)>,
    /// One for each word.
    pub limits: Vec<Limit>,
}

/// `list<T>[N]`
#[derive(Clone, PartialEq, Debug)]
pub struct Items {
    pub element: Type,
    pub limits: Vec<Limit>,
    pub max: u32,
}

/// What a stored word may be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    None,
    Int {
        min: i64,
        max: i64,
    },
    /// At most so many bytes.
    Bytes(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CollectionKind {
    Map,
    OrderedMap,
    Set,
    OrderedSet,
    Seq,
}

/// `collection NAME : map<K, V>`
#[derive(Clone, PartialEq, Debug)]
pub struct Collection {
    pub name: String,
    /// Its number in the module.
    pub number: u16,
    pub kind: CollectionKind,
    /// Unit for a `seq`.
    pub key: Type,
    /// Unit for a set.
    pub value: Type,
    pub key_limits: Vec<Limit>,
    pub limits: Vec<Limit>,
}

/// Cases have tags 1, 2, …; `none`, where allowed, is 0.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Sum {
    /// As declared in the table; empty for a parameter's alternatives.
    pub name: String,
    pub none: bool,
    pub cases: Vec<(String, Vec<Type>)>,
}

impl Sum {
    /// Tag and payload of a case.
    pub fn case(&self, name: &str) -> Option<(u64, &[Type])> {
        if name == "none" {
            return self.none.then_some((0, &[][..]));
        }
        let i = self.cases.iter().position(|c| c.0 == name)?;
        Some((i as u64 + 1, &self.cases[i].1))
    }
    pub fn payload_width(&self) -> usize {
        self.cases.iter().map(|c| c.1.iter().map(Type::width).sum()).max().unwrap_or(0)
    }
    fn is_optional(&self) -> bool {
        self.none && self.cases.len() == 1 && self.cases[0].0 == "some"
    }
}

impl Type {
    /// `T?`: an alternatives type takes `none` as one more case.
    pub fn optional(self) -> Type {
        match self {
            Type::Sum(s) if !s.none => Type::Sum(Arc::new(Sum { none: true, ..(*s).clone() })),
            Type::Tuple(fields) => Type::Sum(Arc::new(Sum {
                none: true,
                cases: vec![("some".into(), vec![Type::Tuple(fields)])],
                ..Sum::default()
            })),
            t => Type::Sum(Arc::new(Sum { none: true, cases: vec![("some".into(), vec![t])], ..Sum::default() })),
        }
    }
    /// What a `T?` holds when it holds something.
    pub fn inner(&self) -> Option<Type> {
        match self {
            Type::Sum(s) if s.is_optional() => Some(s.cases[0].1[0].clone()),
            _ => None,
        }
    }
    pub fn width(&self) -> usize {
        match self {
            Type::Int | Type::Float | Type::Bool | Type::Bytes | Type::Handle(..) | Type::List(_) => 1,
            Type::Items(..) | Type::Collection(_) => 1,
            Type::Record(r) => r.limits.len(),
            Type::Row { of, loaded } => 2 + if *loaded { of.limits.len() } else { 0 },
            Type::Key => 2,
            Type::Sum(s) => 1 + s.payload_width(),
            Type::Tuple(fields) => fields.iter().map(Type::width).sum(),
            Type::Case(_, payload) => payload.iter().map(Type::width).sum(),
            Type::Unit | Type::Never => 0,
        }
    }
    pub fn is_bytes(&self) -> bool {
        matches!(self, Type::Bytes | Type::Key)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, types: &[Type]| {
            for (i, t) in types.iter().enumerate() {
                write!(f, "{}{t}", if i == 0 { "" } else { ", " })?;
            }
            Ok(())
        };
        match self {
            Type::Int => f.write_str("int"),
            Type::Float => f.write_str("float"),
            Type::Bool => f.write_str("bool"),
            Type::Bytes => f.write_str("bytes"),
            Type::Key => f.write_str("key"),
            Type::Sum(s) if s.is_optional() => write!(f, "{}?", s.cases[0].1[0]),
            Type::Sum(s) if !s.name.is_empty() => f.write_str(&s.name),
            Type::Sum(s) => {
                let names: Vec<&str> = s.cases.iter().map(|c| c.0.as_str()).collect();
                write!(f, "({}){}", names.join(" | "), if s.none { "?" } else { "" })
            }
            Type::Tuple(fields) => {
                f.write_str("(")?;
                list(f, fields)?;
                f.write_str(")")
            }
            Type::Handle(_, name) => f.write_str(name),
            Type::List(t) => write!(f, "list of {t}"),
            Type::Items(i) => write!(f, "list<{}>[{}]", i.element, i.max),
            Type::Record(r) => f.write_str(&r.name),
            Type::Collection(c) => write!(f, "the collection {}", c.name),
            Type::Row { of, .. } => write!(f, "a row of {}", of.name),
            Type::Case(name, payload) if payload.is_empty() => f.write_str(name),
            Type::Case(name, payload) => {
                write!(f, "{name}(")?;
                list(f, payload)?;
                f.write_str(")")
            }
            Type::Unit => f.write_str("nothing"),
            Type::Never => f.write_str("no value"),
        }
    }
}
