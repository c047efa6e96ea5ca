//! Records and collections of a module, from syntax to types.

use super::super::ast::*;
use super::super::diag::{Code, Diagnostic, Span};
use super::super::table::Table;
use super::super::types::{Collection, CollectionKind, Limit, Record, Type};
use super::{Low, Names};
use std::sync::Arc;

/// Most collections of a module: each takes a register.
const COLLECTIONS_MAX: usize = 32;

impl Names<'_> {
    /// A type as written, records included.
    pub fn resolve(&self, t: &TypeSyntax, table: &Table) -> Low<Type> {
        match &t.kind {
            TypeSyntaxKind::Named(name) if self.records.contains_key(name) => {
                Ok(Type::Record(self.records[name].clone()))
            }
            TypeSyntaxKind::Optional(inner) => Ok(self.resolve(inner, table)?.optional()),
            TypeSyntaxKind::Tuple(fields) => {
                Ok(Type::Tuple(fields.iter().map(|f| self.resolve(&f.1, table)).collect::<Low<_>>()?))
            }
            _ => table.resolve(t),
        }
    }

    /// The type of something stored, and the limit of each of its words.
    pub fn stored(&self, t: &TypeSyntax, table: &Table) -> Low<(Type, Vec<Limit>)> {
        let mut limits = Vec::new();
        self.limits(t, &mut limits, false)?;
        Ok((self.resolve(t, table)?, limits))
    }

    fn limits(&self, t: &TypeSyntax, out: &mut Vec<Limit>, optional: bool) -> Low<()> {
        match &t.kind {
            TypeSyntaxKind::Int { min: None, max: None, .. } | TypeSyntaxKind::Float { .. } | TypeSyntaxKind::Bool => {
                out.push(Limit::None);
            }
            TypeSyntaxKind::Int { .. } if optional => {
                return Err(Diagnostic::new(Code::Unsupported, t.span, "a range inside `T?` cannot be stored yet")
                    .help("leave out the range, or give absence a value of its own"));
            }
            TypeSyntaxKind::Int { min, max, .. } => {
                out.push(Limit::Int { min: min.unwrap_or(i64::MIN), max: max.unwrap_or(i64::MAX) });
            }
            TypeSyntaxKind::Bytes { max: Some(max) } => out.push(Limit::Bytes(*max)),
            TypeSyntaxKind::Bytes { max: None } => {
                return Err(Diagnostic::new(Code::Unbounded, t.span, "stored bytes need a maximum")
                    .note("nothing says how large this can be")
                    .help("`bytes<=64K`: what reads it has a provable bound then"));
            }
            TypeSyntaxKind::Enum(_) => out.push(Limit::None),
            TypeSyntaxKind::Tuple(fields) => {
                for f in fields {
                    self.limits(&f.1, out, optional)?;
                }
            }
            TypeSyntaxKind::Optional(inner) => {
                out.push(Limit::None);
                self.limits(inner, out, true)?;
            }
            TypeSyntaxKind::Named(name) if self.records.contains_key(name) => {
                out.extend_from_slice(&self.records[name].limits);
            }
            TypeSyntaxKind::Named(name) => {
                return Err(Diagnostic::new(Code::UnknownName, t.span, format!("there is no record `{name}`"))
                    .help("a record is declared before it is used"));
            }
            TypeSyntaxKind::Key { .. } | TypeSyntaxKind::Alts(_) | TypeSyntaxKind::List { .. } => {
                return Err(Diagnostic::new(Code::Unsupported, t.span, "this type cannot be stored yet")
                    .help("int, float, bool, bytes<=N, enum{…}, tuples, records and `T?` of them can"));
            }
        }
        Ok(())
    }

    /// What the type of a function's parameter or result says of each of its words.
    pub fn promised(&self, t: &TypeSyntax, table: &Table) -> Low<Vec<Limit>> {
        Ok(match &t.kind {
            TypeSyntaxKind::Int { min: None, max: None, .. } => vec![Limit::None],
            TypeSyntaxKind::Int { min, max, .. } => {
                vec![Limit::Int { min: min.unwrap_or(i64::MIN), max: max.unwrap_or(i64::MAX) }]
            }
            TypeSyntaxKind::Bytes { max: Some(max) } => vec![Limit::Bytes(*max)],
            TypeSyntaxKind::Key { max: Some(max) } => vec![Limit::Bytes(*max), Limit::None],
            TypeSyntaxKind::Tuple(fields) => {
                fields.iter().map(|f| self.promised(&f.1, table)).collect::<Low<Vec<_>>>()?.concat()
            }
            TypeSyntaxKind::Optional(inner) if self.promised(inner, table)?.iter().any(|l| *l != Limit::None) => {
                return Err(Diagnostic::new(
                    Code::Unsupported,
                    t.span,
                    "a limit inside `T?` of a function is not checked",
                )
                .help("leave out the limit, or unwrap the value and give it to a parameter that is always there"));
            }
            _ => vec![Limit::None; self.resolve(t, table)?.width()],
        })
    }

    pub fn declare_record(&mut self, def: &RecordDef, table: &Table) -> Low<()> {
        let mut record = Record { name: def.name.name.clone(), fields: Vec::new(), limits: Vec::new() };
        for (name, ty) in &def.fields {
            if record.fields.iter().any(|f| f.0 == name.name) {
                return Err(Diagnostic::new(
                    Code::Duplicate,
                    name.span,
                    format!("the field `{}` is there already", name.name),
                ));
            }
            let (ty, limits) = self.stored(ty, table)?;
            record.fields.push((name.name.clone(), ty));
            record.limits.extend(limits);
        }
        self.records.insert(def.name.name.clone(), Arc::new(record));
        Ok(())
    }

    pub fn declare_collection(&mut self, def: &CollectionDef, table: &Table) -> Low<()> {
        use CollectionKind::*;
        let (kind, has_key, has_value) = match def.kind.name.as_str() {
            "map" => (Map, true, true),
            "omap" => (OrderedMap, true, true),
            "set" => (Set, true, false),
            "oset" => (OrderedSet, true, false),
            "seq" => (Seq, false, true),
            other => {
                return Err(Diagnostic::new(
                    Code::UnknownName,
                    def.kind.span,
                    format!("there is no collection `{other}`"),
                )
                .help("map<K, V>, omap<K, V>, set<K>, oset<K>, seq<V>"));
            }
        };
        if def.types.len() != has_key as usize + has_value as usize {
            let text = format!("`{}` takes {} types", def.kind.name, has_key as usize + has_value as usize);
            return Err(Diagnostic::new(Code::Type, def.kind.span, text));
        }
        if self.collections.len() == COLLECTIONS_MAX {
            let text = format!("a module has at most {COLLECTIONS_MAX} collections");
            return Err(Diagnostic::new(Code::TooBig, def.name.span, text));
        }
        let nothing = || Ok((Type::Unit, Vec::new()));
        let (key, key_limits) = if has_key { self.stored(&def.types[0], table)? } else { nothing()? };
        if has_key {
            check_key(&key, def.types[0].span)?;
        }
        let (value, limits) = if has_value { self.stored(&def.types[has_key as usize], table)? } else { nothing()? };
        let number = self.collections.len() as u16;
        let name = def.name.name.clone();
        let collection = Collection { name: name.clone(), number, kind, key, value, key_limits, limits };
        self.collections.insert(name, Arc::new(collection));
        Ok(())
    }
}

/// Keys have an order: no `T?`, no records.
fn check_key(ty: &Type, span: Span) -> Low<()> {
    match ty {
        Type::Tuple(types) if !types.is_empty() => types.iter().try_for_each(|t| check_key(t, span)),
        Type::Int | Type::Float | Type::Bool | Type::Bytes => Ok(()),
        Type::Sum(s) if !s.none && s.payload_width() == 0 => Ok(()),
        t => Err(Diagnostic::new(Code::Type, span, format!("{t} cannot be a key"))
            .help("keys are int, float, bool, bytes<=N, enum{…} and tuples of them")),
    }
}
