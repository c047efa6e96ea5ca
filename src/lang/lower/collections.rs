//! Collections that the module declares: slots, rows and methods. The helpers work on encoded keys and rows (`helpers/programs.rs`);
//! here values of the language become those and come back.

use super::super::ast::*;
use super::super::types::{Collection, CollectionKind, Limit, Sum};
use super::expr::word_kinds;
use super::flow::{coerce, mismatch};
use super::items::key_blocks;
use super::*;
use std::sync::Arc;

impl<'a> Lower<'a> {
    /// A collection by its name. Each is opened once, before the body: see [`Lower::open_collections`].
    pub(super) fn collection(&mut self, of: Arc<Collection>) -> Val {
        self.opened.insert(of.number, of.clone());
        let origin = 1 + of.number as OriginId;
        let place = Some(Whose { place: Place::Collection(of.number), each: None });
        let words = [Word::at(Loc::Reg(of.number as Reg))].into_iter().collect();
        Val { ty: Type::Collection(of), words, origins: [origin].into_iter().collect(), own: Some(origin), place }
    }

    /// Puts the opening of every collection that the body named before it. Their registers are the first ones.
    pub(super) fn open_collections(&mut self, span: Span) -> Low<()> {
        let body = std::mem::take(&mut self.ops);
        self.at(span);
        for of in std::mem::take(&mut self.opened).into_values() {
            let opener = match of.kind {
                CollectionKind::Map => "program_map",
                CollectionKind::Set => "program_set",
                CollectionKind::OrderedMap | CollectionKind::OrderedSet => "program_ordered",
                CollectionKind::Seq => "program_seq",
            };
            let name = self.literal(system_key(self.names.module, &of.name).as_bytes());
            let handle = self.helper(opener, vec![name], false, span)?;
            self.load_into(of.number as Reg, handle.words[0].loc);
        }
        self.ops.extend(body);
        Ok(())
    }

    pub(super) fn handle(&self, on: &Val, of: &Collection) -> Val {
        let name = match of.kind {
            CollectionKind::Map => "Hash",
            CollectionKind::Set => "Set",
            CollectionKind::OrderedMap | CollectionKind::OrderedSet => "Ordered",
            CollectionKind::Seq => "List",
        };
        on.with(self.table.handle(name).unwrap_or(Type::Unit), on.words[..1].to_vec())
    }

    /// A method of this collection's handle.
    pub(super) fn on_handle(
        &mut self,
        on: &Val,
        of: &Collection,
        method: &str,
        mut args: Vec<Val>,
        span: Span,
    ) -> Low<Val> {
        let handle = self.handle(on, of);
        let name = format!("{}.{method}", handle.ty);
        args.insert(0, handle);
        self.helper(&name, args, false, span)
    }

    pub(super) fn collection_method(
        &mut self,
        on: &Val,
        of: &Arc<Collection>,
        name: &Ident,
        args: &[Expr],
        span: Span,
    ) -> Low<Val> {
        use CollectionKind::*;
        let (is_map, is_seq) = (matches!(of.kind, Map | OrderedMap), of.kind == Seq);
        match (name.name.as_str(), args) {
            ("len", []) => self.on_handle(on, of, "len", Vec::new(), span),
            ("slot", [key]) if is_map => {
                let key = self.key(key, of)?;
                let words = [on.words[0].clone(), key.words[0].clone()];
                Ok(on.with(Type::Row { of: of.clone(), loaded: false }, words))
            }
            ("get", [key]) if is_map => {
                let key = self.key(key, of)?;
                self.row_of_key(on, of, &key, span)
            }
            ("put", [key, value]) if is_map => {
                let key = self.key(key, of)?;
                let value = self.expr_as(value, &of.value)?;
                self.put(on, of, &key, &value, span)
            }
            ("add", [key, delta]) if is_map && of.value == Type::Int => {
                let key = self.key(key, of)?;
                let delta = self.expr_as(delta, &Type::Int)?;
                self.add(on, of, &key, delta, span)
            }
            ("insert", [key]) if matches!(of.kind, Set | OrderedSet) => {
                let key = self.key(key, of)?;
                if of.kind == Set {
                    return self.on_handle(on, of, "add", vec![key], span);
                }
                let nothing = self.literal(b"");
                self.on_handle(on, of, "put", vec![key, nothing], span)
            }
            ("remove", [key]) if !is_seq => {
                let key = self.key(key, of)?;
                self.on_handle(on, of, "remove", vec![key], span)
            }
            ("has", [key]) if !is_seq => {
                let key = self.key(key, of)?;
                if of.kind == Set {
                    return self.on_handle(on, of, "has", vec![key], span);
                }
                let found = self.on_handle(on, of, "get", vec![key], span)?;
                Ok(Val::new(Type::Bool, found.words[..1].to_vec()))
            }
            ("seek", [key]) if matches!(of.kind, OrderedMap | OrderedSet) => {
                let from = self.range_end(Some(key), of, false)?.unwrap_or_else(Val::unit);
                let rank = self.on_handle(on, of, "below", vec![from], span)?;
                let found = self.on_handle(on, of, "at", vec![rank], span)?;
                self.optional(found, &of.key.clone(), span, |l, key| {
                    l.key_part(&key, &of.key, &of.key_limits, &mut 0, span)
                })
            }
            ("push_front" | "push_back", [value]) if is_seq => {
                let value = self.expr_as(value, &of.value)?;
                let row = self.encode_row(&value, &of.limits, span)?;
                self.on_handle(on, of, &name.name, vec![row], span)
            }
            ("pop_front" | "pop_back", []) if is_seq => {
                let found = self.on_handle(on, of, &name.name, Vec::new(), span)?;
                self.optional(found, &of.value.clone(), span, |l, row| l.decode_row(row, &of.value, &of.limits, span))
            }
            ("get", [i]) if is_seq => {
                let i = self.expr_as(i, &Type::Int)?;
                let found = self.on_handle(on, of, "get", vec![i], span)?;
                self.optional(found, &of.value.clone(), span, |l, row| l.decode_row(row, &of.value, &of.limits, span))
            }
            ("range" | "take", [_]) if matches!(of.kind, OrderedMap | OrderedSet) => {
                Err(Diagnostic::new(Code::Misplaced, span, format!("`{}` gives the keys of a loop", name.name))
                    .help("`for key in x.range(a ..= b) limit n { … }`"))
            }
            _ => Err(no_method(of, name, span)),
        }
    }

    // --- rows ---

    pub(super) fn row_method(
        &mut self,
        row: &Val,
        of: &Arc<Collection>,
        name: &Ident,
        args: Option<&[Expr]>,
        span: Span,
    ) -> Low<Val> {
        let key = row.with(Type::Bytes, row.words[1..2].to_vec());
        match (name.name.as_str(), args) {
            ("value", None) => self.row_of_key(row, of, &key, span),
            ("exists", None) => {
                let found = self.on_handle(row, of, "get", vec![key], span)?;
                Ok(Val::new(Type::Bool, found.words[..1].to_vec()))
            }
            ("must", None) => {
                let found = self.on_handle(row, of, "get", vec![key], span)?;
                let c = self.load(&found.words[0].clone(), span)?;
                let text = self.broken_index();
                self.open(span)?;
                self.close();
                self.push(Op::If { c });
                self.push(Op::Else);
                self.push(Op::Fail { text });
                self.push(Op::End);
                let view = found.with(Type::Bytes, found.words[1..].to_vec());
                let value = self.decode_row(view, &of.value, &of.limits, span)?;
                if !matches!(of.value, Type::Record(_)) {
                    return Ok(value);
                }
                let words = row.words[..2].iter().cloned().chain(value.words);
                Ok(row.with(Type::Row { of: of.clone(), loaded: true }, words))
            }
            ("put", Some([value])) => {
                let value = self.expr_as(value, &of.value)?;
                self.put(row, of, &key, &value, span)
            }
            ("remove", Some([])) => self.on_handle(row, of, "remove", vec![key], span),
            (field, None) => self.field(row, field, span),
            _ => Err(Diagnostic::new(Code::NoHelper, span, format!("a row of {} has no `{}`", of.name, name.name))
                .help("value, exists, must, put(value), remove(); of a row that is there, its fields")),
        }
    }

    /// Where a field's words begin, its type, and the limits of all words from the first field on.
    fn field_at(&self, on: &Val, field: &str, span: Span) -> Low<(usize, Type, usize)> {
        let (first, record) = match &on.ty {
            Type::Record(r) => (0, r.clone()),
            Type::Row { of, loaded: true } => match &of.value {
                Type::Record(r) => (2, r.clone()),
                t => return Err(Diagnostic::new(Code::Type, span, format!("{t} has no fields"))),
            },
            t => {
                return Err(Diagnostic::new(Code::Type, span, format!("{t} has no `{field}` yet"))
                    .help("`.must` gives the row that has to be there; `.value` gives it if it is"));
            }
        };
        let mut at = first;
        for (name, ty) in &record.fields {
            if name == field {
                return Ok((at, ty.clone(), first));
            }
            at += ty.width();
        }
        let names: Vec<&str> = record.fields.iter().map(|f| f.0.as_str()).collect();
        Err(Diagnostic::new(Code::UnknownName, span, format!("{} has no field `{field}`", record.name))
            .help(format!("fields: {}", names.join(", "))))
    }

    /// `value.field`
    pub(super) fn field(&self, on: &Val, field: &str, span: Span) -> Low<Val> {
        let (at, ty, _) = self.field_at(on, field, span)?;
        let words = on.words[at..at + ty.width()].to_vec();
        let mut part = on.with(ty, words);
        if matches!(on.ty, Type::Row { .. }) {
            // decoded into the call's own memory: no write ends it
            part.origins.clear();
        }
        part.own = None;
        Ok(part)
    }

    /// `row.field = value`; the row is written unless `more` of it changes at once.
    pub(super) fn assign_field(
        &mut self,
        on: &Ident,
        field: &Ident,
        op: Option<BinOp>,
        value: &Expr,
        more: bool,
    ) -> Low<()> {
        let span = on.span.to(value.span);
        let row = match self.lookup(&on.name) {
            Some(Binding::Let(v)) if matches!(v.ty, Type::Row { .. }) => v.clone(),
            Some(Binding::Var(v)) => v.clone(),
            Some(_) => {
                return Err(Diagnostic::new(Code::Immutable, on.span, format!("`{}` cannot be changed", on.name))
                    .help("declare it with `var`, or take it with `.must` to change the row itself"));
            }
            None => {
                return Err(Diagnostic::new(Code::UnknownName, on.span, format!("there is no variable `{}`", on.name)));
            }
        };
        let (at, ty, first) = self.field_at(&row, &field.name, field.span)?;
        let new = match op {
            Some(op) => {
                let old = self.field(&row, &field.name, field.span)?;
                let b = self.expr(value, None)?;
                self.binary(op, old, b, span)?
            }
            None => self.expr_as(value, &ty)?,
        };
        let new = coerce(new, &ty).map_err(|v| mismatch(value.span, &ty, &v.ty))?;
        let limits = limits_of(&row.ty);
        self.check_limits(&new, &limits[at - first..], span)?;
        let new = self.stable(new, span)?;
        let dest: Vec<Reg> = row.words[at..at + ty.width()]
            .iter()
            .filter_map(|w| if let Loc::Reg(r) = w.loc { Some(r) } else { None })
            .collect();
        let new = self.copy(new, span)?;
        self.move_into(&dest, &new, false);
        match &row.ty {
            Type::Row { of, .. } if !more => {
                let key = row.with(Type::Bytes, row.words[1..2].to_vec());
                let value = row.with(of.value.clone(), row.words[2..].to_vec());
                let of = of.clone();
                let encoded = self.encode_row(&Val { origins: Origins::new(), ..value }, &[], span)?;
                self.put_encoded(&row, &of, &key, encoded, span).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Bytes that lie in a page are copied: what holds them outlives writes.
    pub(super) fn stable(&mut self, val: Val, span: Span) -> Low<Val> {
        if val.origins.is_empty() {
            return Ok(val);
        }
        let mut kinds = Vec::new();
        word_kinds(&val.ty, &mut kinds);
        let mut words = val.words.clone();
        for (w, _) in words.iter_mut().zip(kinds).filter(|(_, is_bytes)| *is_bytes) {
            let own = self.helper("bytes.own", vec![val.with(Type::Bytes, [w.clone()])], false, span)?;
            w.loc = own.words[0].loc;
        }
        Ok(Val::new(val.ty, words))
    }

    /// `NAME { field: e, … }`
    pub(super) fn record(&mut self, name: &Ident, fields: &[(Ident, Expr)], span: Span) -> Low<Val> {
        let Some(record) = self.names.records.get(&name.name).cloned() else {
            return Err(Diagnostic::new(Code::UnknownName, name.span, format!("there is no record `{}`", name.name)));
        };
        let unknown = |f: &&(Ident, Expr)| !record.fields.iter().any(|r| r.0 == f.0.name);
        if let Some((field, _)) = fields.iter().find(unknown) {
            return Err(Diagnostic::new(
                Code::UnknownName,
                field.span,
                format!("{} has no field `{}`", name.name, field.name),
            ));
        }
        let mut all = Val::new(Type::Record(record.clone()), []);
        for (field, ty) in &record.fields {
            let mut given = fields.iter().filter(|f| f.0.name == *field);
            let (Some((_, value)), None) = (given.next(), given.next()) else {
                return Err(Diagnostic::new(
                    Code::Type,
                    span,
                    format!("`{field}` of {} is to be given once", name.name),
                ));
            };
            let val = self.expr_as(value, ty)?;
            let at = all.words.len();
            self.check_limits(&val, &record.limits[at..], value.span)?;
            all.words.extend(val.words);
            for o in val.origins {
                if !all.origins.contains(&o) {
                    all.origins.push(o);
                }
            }
        }
        Ok(all)
    }

    // --- keys and rows as bytes ---

    /// Ends the call unless a value's words are within their limits.
    pub(super) fn check_limits(&mut self, val: &Val, limits: &[Limit], span: Span) -> Low<()> {
        let constant = |v: i64| Val::new(Type::Int, [Word::constant(v as u64)]);
        for (w, limit) in val.words.clone().into_iter().zip(limits) {
            match *limit {
                Limit::None => {}
                Limit::Int { min, max } => {
                    if !matches!(w.loc, Loc::Const(c) if (min..=max).contains(&(c as i64))) {
                        let args = vec![val.with(Type::Int, [w]), constant(min), constant(max)];
                        self.helper("check_int", args, false, span)?;
                    }
                }
                Limit::Bytes(max) => {
                    let args = vec![val.with(Type::Bytes, [w]), constant(max as i64)];
                    self.helper("check_bytes", args, false, span)?;
                }
            }
        }
        Ok(())
    }

    fn key(&mut self, e: &Expr, of: &Collection) -> Low<Val> {
        let val = self.expr_as(e, &of.key)?;
        self.encode_key(&val, &of.key_limits, false, e.span)
    }

    fn encode_key(&mut self, val: &Val, limits: &[Limit], past: bool, span: Span) -> Low<Val> {
        self.check_alive(val, span)?;
        let (mut fields, mut size) = (Vec::new(), Poly::constant(1));
        key_fields(&val.ty, &val.words, &mut fields);
        size.add(&Poly::constant((fields.len() as u64 * 9).div_ceil(64)));
        for ((kind, word), limit) in fields.into_iter().zip(limits) {
            let field = val.with(kind.clone(), [word]);
            self.check_limits(&field, &[*limit], span)?;
            match kind {
                Type::Float => self.helper("key_float", vec![field], false, span)?,
                Type::Bytes => {
                    size.add(&self.blocks(&field).times(&Poly::constant(2)));
                    self.helper("key_bytes", vec![field], false, span)?
                }
                _ => self.helper("key_int", vec![field], false, span)?,
            };
        }
        let past = Val::new(Type::Bool, [Word::constant(past as u64)]);
        let mut key = self.helper("key_done", vec![past, sized(&size)], false, span)?;
        key.words[0].bound = Some(size);
        Ok(key)
    }

    /// One end of a range of keys: the first fields, perhaps `MIN` or `MAX` for the rest. None: no limit.
    pub(super) fn range_end(&mut self, e: Option<&Expr>, of: &Collection, past: bool) -> Low<Option<Val>> {
        let Some(e) = e else { return Ok(None) };
        let types = if let Type::Tuple(types) = &of.key { types.clone() } else { vec![of.key.clone()] };
        let items = if let ExprKind::Tuple(items) = &e.kind { &items[..] } else { std::slice::from_ref(e) };
        if items.len() > types.len() {
            return Err(Diagnostic::new(
                Code::Type,
                e.span,
                format!("a key of {} has {} fields", of.name, types.len()),
            ));
        }
        let mut past = past;
        let mut part = Val::new(Type::Tuple(Vec::new()), []);
        let mut given = Vec::new();
        for (item, ty) in items.iter().zip(types) {
            if let ExprKind::Name(name) = &item.kind
                && (name == "MIN" || name == "MAX")
            {
                past = name == "MAX";
                break;
            }
            let val = self.expr_as(item, &ty)?;
            given.push(ty);
            part.words.extend(val.words);
            part.origins.extend(val.origins);
        }
        if given.is_empty() {
            return Ok(None);
        }
        part.ty = Type::Tuple(given);
        self.encode_key(&part, &of.key_limits, past, e.span).map(Some)
    }

    /// Fields of a key, from field `leaf` on, as a value of `ty`.
    pub(super) fn key_part(
        &mut self,
        key: &Val,
        ty: &Type,
        limits: &[Limit],
        leaf: &mut usize,
        span: Span,
    ) -> Low<Val> {
        if let Type::Tuple(types) = ty {
            let mut all = Val::new(ty.clone(), []);
            for t in types {
                all.words.extend(self.key_part(key, t, limits, leaf, span)?.words);
            }
            return Ok(all);
        }
        let helper = match ty {
            Type::Float => "bytes.key_float",
            Type::Bytes => "bytes.key_bytes",
            _ => "bytes.key_int",
        };
        let i = Val::new(Type::Int, [Word::constant(*leaf as u64)]);
        let val = self.helper(helper, vec![key.clone(), i], false, span)?;
        let word = limited(val.words[0].clone(), limits.get(*leaf), *ty == Type::Bytes);
        *leaf += 1;
        Ok(Val::new(ty.clone(), [word]))
    }

    /// Binds a pattern to a key's fields; what the pattern leaves out is not read.
    pub(super) fn bind_key(&mut self, p: &Pattern, key: &Val, of: &Collection) -> Low<()> {
        let (PatternKind::Tuple(items), Type::Tuple(types)) = (&p.kind, &of.key) else {
            if matches!(p.kind, PatternKind::Any) {
                return Ok(());
            }
            let val = self.key_part(key, &of.key, &of.key_limits, &mut 0, p.span)?;
            return self.bind_pattern(p, val);
        };
        if items.len() != types.len() {
            return Err(Diagnostic::new(Code::Pattern, p.span, format!("{} names for {}", items.len(), of.key)));
        }
        let mut leaf = 0;
        for (item, ty) in items.iter().zip(types) {
            if matches!(item.kind, PatternKind::Any) {
                let mut fields = Vec::new();
                key_fields(ty, &vec![Word::constant(0); ty.width()], &mut fields);
                leaf += fields.len();
                continue;
            }
            let val = self.key_part(key, ty, &of.key_limits, &mut leaf, item.span)?;
            self.bind_pattern(item, val)?;
        }
        Ok(())
    }

    fn encode_row(&mut self, val: &Val, limits: &[Limit], span: Span) -> Low<Val> {
        self.check_alive(val, span)?;
        self.check_limits(val, limits, span)?;
        let mut kinds = Vec::new();
        word_kinds(&val.ty, &mut kinds);
        let mut size = Poly::constant(1 + (8 + 8 * kinds.len() as u64).div_ceil(64));
        for (w, is_bytes) in val.words.clone().into_iter().zip(kinds) {
            if is_bytes {
                let field = val.with(Type::Bytes, [w]);
                size.add(&self.blocks(&field));
                self.helper("row_bytes", vec![field], false, span)?;
            } else {
                self.helper("row_word", vec![val.with(Type::Int, [w])], false, span)?;
            }
        }
        let mut row = self.helper("row_done", vec![sized(&size)], false, span)?;
        row.words[0].bound = Some(size);
        Ok(row)
    }

    /// A row's words, in the call's own memory.
    pub(super) fn decode_row(&mut self, mut view: Val, ty: &Type, limits: &[Limit], span: Span) -> Low<Val> {
        view.words[0].bound = Some(row_blocks(limits));
        let row = self.helper("bytes.own", vec![view], false, span)?;
        let mut kinds = Vec::new();
        word_kinds(ty, &mut kinds);
        let mut words = Vec::new();
        for (i, is_bytes) in kinds.into_iter().enumerate() {
            let helper = if is_bytes { "bytes.row_bytes" } else { "bytes.row_word" };
            let index = Val::new(Type::Int, [Word::constant(i as u64)]);
            let val = self.helper(helper, vec![row.clone(), index], false, span)?;
            words.push(limited(val.words[0].clone(), limits.get(i), is_bytes));
        }
        Ok(Val::new(ty.clone(), words))
    }

    /// What is under a key, as a `T?`.
    fn row_of_key(&mut self, on: &Val, of: &Arc<Collection>, key: &Val, span: Span) -> Low<Val> {
        let found = self.on_handle(on, of, "get", vec![key.clone()], span)?;
        self.optional(found, &of.value.clone(), span, |l, row| l.decode_row(row, &of.value, &of.limits, span))
    }

    /// `bytes?` that was found, decoded if it is there.
    fn optional(
        &mut self,
        found: Val,
        ty: &Type,
        span: Span,
        decode: impl FnOnce(&mut Self, Val) -> Low<Val>,
    ) -> Low<Val> {
        let some =
            Type::Sum(Arc::new(Sum { none: true, cases: vec![("some".into(), vec![ty.clone()])], ..Sum::default() }));
        let c = self.load(&found.words[0].clone(), span)?;
        let view = found.with(Type::Bytes, found.words[1..].to_vec());
        self.open(span)?;
        let yes = self.branch(span, |l| {
            let val = decode(l, view)?;
            let words: Vec<Word> = std::iter::once(Word::constant(1)).chain(val.words).collect();
            Ok(Val::new(some.clone(), words))
        })?;
        let no =
            self.branch(span, |_| Ok(Val::new(some.clone(), std::iter::repeat_n(Word::constant(0), some.width()))))?;
        self.close();
        self.if_else(c, [yes, no], None)
    }

    fn put(&mut self, on: &Val, of: &Arc<Collection>, key: &Val, value: &Val, span: Span) -> Low<Val> {
        // the fields of a record were checked when it was made
        let limits = if matches!(of.value, Type::Record(_)) { &[][..] } else { &of.limits[..] };
        let row = self.encode_row(value, limits, span)?;
        self.put_encoded(on, of, key, row, span)
    }

    fn put_encoded(&mut self, on: &Val, of: &Arc<Collection>, key: &Val, row: Val, span: Span) -> Low<Val> {
        self.on_handle(on, of, "put", vec![key.clone(), row], span)
    }

    /// Adds to a number, 0 if it is not there; the sum.
    fn add(&mut self, on: &Val, of: &Arc<Collection>, key: &Val, delta: Val, span: Span) -> Low<Val> {
        let old = self.row_of_key(on, of, key, span)?;
        // absent words are zeros
        let old = Val::new(Type::Int, [Word::at(old.words[1].loc)]);
        let sum = self.binary(BinOp::Add, old, delta, span)?;
        self.put(on, of, key, &sum, span)?;
        Ok(sum)
    }

    fn broken_index(&mut self) -> u16 {
        let text = self.broken_index.clone().unwrap_or_else(|| "ERR a row that an index names is not there".to_owned());
        self.text_number(&text)
    }
}

/// The name of a module's collection in the system database.
pub fn system_key(module: &str, collection: &str) -> String {
    format!("collection:{module}.{collection}")
}

/// Fields of a key in order, each of one word.
fn key_fields(ty: &Type, words: &[Word], out: &mut Vec<(Type, Word)>) {
    match ty {
        Type::Tuple(types) => {
            let mut at = 0;
            for t in types {
                key_fields(t, &words[at..at + t.width()], out);
                at += t.width();
            }
        }
        Type::Bytes | Type::Key => out.push((Type::Bytes, words[0].clone())),
        Type::Float => out.push((Type::Float, words[0].clone())),
        _ => out.push((Type::Int, words[0].clone())),
    }
}

/// A size that only the bound knows.
pub(super) fn sized(size: &Poly) -> Val {
    Val::new(Type::Int, [Word::bounded(Loc::Const(0), size.clone())])
}

/// What is known of a stored word.
pub(super) fn limited(word: Word, limit: Option<&Limit>, is_bytes: bool) -> Word {
    match limit {
        Some(Limit::Bytes(max)) if is_bytes => {
            Word { bound: Some(Poly::constant(super::super::poly::blocks(*max as usize))), ..word }
        }
        Some(Limit::Int { min, max }) => {
            Word { bound: Some(Poly::constant((*max).max(0) as u64)), natural: *min >= 0, ..word }
        }
        _ => Word::at(word.loc),
    }
}

/// Most blocks of an entry as it is stored: key and row.
pub(super) fn entry_blocks(of: &Collection) -> Poly {
    let key = if of.key_limits.is_empty() { Poly::default() } else { key_blocks(&of.key_limits) };
    key.plus(&row_blocks(&of.limits))
}

/// Most blocks of a row with these words.
fn row_blocks(limits: &[Limit]) -> Poly {
    let bytes: u64 = limits.iter().map(|l| if let Limit::Bytes(max) = l { *max as u64 } else { 0 }).sum();
    Poly::constant((8 + 8 * limits.len() as u64 + bytes).div_ceil(64))
}

fn limits_of(ty: &Type) -> Vec<Limit> {
    match ty {
        Type::Record(r) => r.limits.clone(),
        Type::Row { of, .. } => of.limits.clone(),
        _ => Vec::new(),
    }
}

fn no_method(of: &Collection, name: &Ident, span: Span) -> Diagnostic {
    let (kind, methods) = match of.kind {
        CollectionKind::Map => (
            "map",
            "len, slot(key), get(key), put(key, value), has(key), remove(key); of ints: add(key, int); `for (key, value) in it limit n`",
        ),
        CollectionKind::OrderedMap => (
            "omap",
            "len, slot(key), get(key), put(key, value), has(key), remove(key), seek(key); in loops: range(a ..= b), take(a ..= b)",
        ),
        CollectionKind::Set => ("set", "len, insert(key), has(key), remove(key); `for key in it limit n`"),
        CollectionKind::OrderedSet => {
            ("oset", "len, insert(key), has(key), remove(key), seek(key); in loops: range(a ..= b), take(a ..= b)")
        }
        CollectionKind::Seq => (
            "seq",
            "len, push_front(value), push_back(value), pop_front(), pop_back(), get(i); `for value in it limit n`",
        ),
    };
    Diagnostic::new(Code::NoHelper, span, format!("{}, a {kind}, has no such `{}`", of.name, name.name))
        .help(format!("there is: {methods}"))
}
