//! Loops over collections of the module, and local lists.

use super::super::ast::*;
use super::super::ir::IntOp;
use super::super::types::{Collection, CollectionKind, Items, Limit};
use super::collections::{limited, sized};
use super::expr::word_kinds;
use super::*;
use std::sync::Arc;

/// A `for` over a collection or a local list, as written.
pub(super) struct Each<'e> {
    pub pattern: &'e Pattern,
    pub limit: Option<&'e Expr>,
    pub body: &'e Block,
    pub exhausted: Option<&'e Block>,
    pub span: Span,
}

impl<'a> Lower<'a> {
    /// The collection that a loop runs over: `x.range(…)`, `x.take(…)`, or a `seq` itself.
    pub(super) fn looped_collection<'e>(&self, e: &'e Expr) -> Option<(Arc<Collection>, &'e str, Option<&'e Expr>)> {
        let named = |e: &Expr| match &e.kind {
            ExprKind::Name(name) if self.lookup(name).is_none() => self.names.collections.get(name).cloned(),
            _ => None,
        };
        match &e.kind {
            ExprKind::Method { on, name, args: Some(args) } => match (name.name.as_str(), &args[..]) {
                (word @ ("range" | "take"), [keys]) => Some((named(on)?, word, Some(keys))),
                _ => None,
            },
            _ => Some((named(e)?, "", None)),
        }
    }

    pub(super) fn for_collection(
        &mut self,
        of: Arc<Collection>,
        word: &str,
        keys: Option<&Expr>,
        each: Each<'_>,
    ) -> Low<()> {
        let ordered = matches!(of.kind, CollectionKind::OrderedMap | CollectionKind::OrderedSet);
        if keys.is_some() != ordered {
            return Err(Diagnostic::new(Code::Unsupported, each.span, format!("{} cannot be looped over in this way", of.name))
                .help("`for key in x.range(a ..= b) limit n` of an omap or oset, `for value in x limit n` of a seq, `for (key, value) in x limit n` of a map, `for key in x limit n` of a set; the last two in no order"));
        }
        let Some(limit) = each.limit else {
            return Err(Diagnostic::new(Code::Unbounded, each.span, "this loop has no provable bound")
                .note(format!("`{}` may hold any number of entries", of.name))
                .help("add `limit <constant, bounded int argument or length>`"));
        };
        let on = self.collection(of.clone());
        match (word, keys) {
            ("take", Some(keys)) => {
                let [from, to] = self.range_ends(keys, &of)?;
                self.for_take(on, of, from, to, limit, each)
            }
            (_, Some(keys)) => {
                let [from, to] = self.range_ends(keys, &of)?;
                let first = match from {
                    Some(from) => self.on_handle(&on, &of, "below", vec![from], each.span)?,
                    None => Val::new(Type::Int, [Word::constant(0)]),
                };
                let end = match to {
                    Some(to) => self.on_handle(&on, &of, "below", vec![to], each.span)?,
                    None => self.on_handle(&on, &of, "len", Vec::new(), each.span)?,
                };
                let count = self.binary(BinOp::Sub, end, first.clone(), each.span)?;
                self.for_ranks(on, of, first, count, limit, each)
            }
            _ if of.kind != CollectionKind::Seq => self.for_entries(on, of, limit, each),
            _ => {
                let first = Val::new(Type::Int, [Word::constant(0)]);
                let count = self.on_handle(&on, &of, "len", Vec::new(), each.span)?;
                self.for_ranks(on, of, first, count, limit, each)
            }
        }
    }

    /// Entries of a map or a set, in the order of their hashes: the same on every node, and no order to anybody else. The iterator
    /// dies of every write to the collection.
    fn for_entries(&mut self, on: Val, of: Arc<Collection>, limit: &Expr, each: Each<'_>) -> Low<()> {
        let span = each.span;
        let (bound, word) = self.bound(limit)?;
        let trips = word.bound.unwrap_or_default();
        let iterator = self.on_handle(&on, &of, "iter", Vec::new(), span)?;
        let next = format!("{}.next", iterator.ty);
        self.looped(bound, trips, Vec::new(), each.exhausted, span, |l, _, _| {
            let found = l.helper(&next, vec![iterator], true, span)?;
            l.break_unless(&found, span)?;
            let mut key = found.with(Type::Bytes, [found.words[1].clone()]);
            key.words[0].bound = Some(key_blocks(&of.key_limits));
            match (of.kind, &each.pattern.kind) {
                (CollectionKind::Set, _) => l.bind_key(each.pattern, &key, &of)?,
                (_, PatternKind::Tuple(two)) if two.len() == 2 => {
                    l.bind_key(&two[0], &key, &of)?;
                    if !matches!(two[1].kind, PatternKind::Any) {
                        let row = found.with(Type::Bytes, [found.words[2].clone()]);
                        let value = l.decode_row(row, &of.value, &of.limits, span)?;
                        l.bind_pattern(&two[1], value)?;
                    }
                }
                _ => {
                    return Err(Diagnostic::new(
                        Code::Pattern,
                        each.pattern.span,
                        "a map gives pairs of key and value",
                    )
                    .help("`for (key, value) in x limit n`; `_` for what is not wanted"));
                }
            }
            l.unit_block(each.body).map(|_| ())
        })
    }

    /// `a ..= b`, each end as an encoded key.
    fn range_ends(&mut self, keys: &Expr, of: &Collection) -> Low<[Option<Val>; 2]> {
        let ExprKind::Range { from, to, inclusive } = &keys.kind else {
            return Err(Diagnostic::new(Code::Type, keys.span, "this is no range of keys").help(
                "`a ..= b`, `a .. b`, `a ..`, `..`; the ends are keys or their first fields, `(a, MIN)`, `(a, MAX)`",
            ));
        };
        Ok([self.range_end(from.as_deref(), of, false)?, self.range_end(to.as_deref(), of, *inclusive)?])
    }

    /// Elements by rank. They are found anew in each turn, so the collection must not be written in the body: the iterator that
    /// stands for the loop dies of it.
    fn for_ranks(
        &mut self,
        on: Val,
        of: Arc<Collection>,
        first: Val,
        count: Val,
        limit: &Expr,
        each: Each<'_>,
    ) -> Low<()> {
        let span = each.span;
        let (limit, word) = self.bound(limit)?;
        let trips = word.bound.unwrap_or_default();
        let count = self.in_reg(&count, span)?;
        let bound = self.reg(span)?;
        self.push(Op::Int { op: IntOp::Min, d: bound, a: count, b: limit });
        let mut iterator = Val::unit();
        iterator.origins.push(self.origin(OriginKind::Iterator, on.own.unwrap_or(0), span));
        self.looped(bound, trips, Vec::new(), each.exhausted, span, |l, i, _| {
            l.check_alive(&iterator, span)?;
            let turn = Val::new(Type::Int, [Word { natural: true, ..Word::at(Loc::Reg(i)) }]);
            let rank =
                if first.words[0].loc == Loc::Const(0) { turn } else { l.binary(BinOp::Add, first, turn, span)? };
            let method = if of.kind == CollectionKind::Seq { "get" } else { "at" };
            let found = l.on_handle(&on, &of, method, vec![rank], span)?;
            l.bind_found(found, &of, each.pattern, span)?;
            l.unit_block(each.body).map(|_| ())
        })
    }

    /// Takes the first key of the range out in each turn.
    fn for_take(
        &mut self,
        on: Val,
        of: Arc<Collection>,
        from: Option<Val>,
        to: Option<Val>,
        limit: &Expr,
        each: Each<'_>,
    ) -> Low<()> {
        let span = each.span;
        let (bound, word) = self.bound(limit)?;
        let trips = word.bound.unwrap_or_default();
        let from = from.unwrap_or_else(|| self.literal(b""));
        let to = to.unwrap_or_else(|| self.literal(b""));
        self.looped(bound, trips, Vec::new(), each.exhausted, span, |l, _, _| {
            let size = sized(&key_blocks(&of.key_limits));
            let found = l.on_handle(&on, &of, "take", vec![from, to, size], span)?;
            l.bind_found(found, &of, each.pattern, span)?;
            l.unit_block(each.body).map(|_| ())
        })
    }

    /// Ends the loop when nothing was found, else binds the pattern to the key (of a `seq`: to the value).
    fn bind_found(&mut self, found: Val, of: &Arc<Collection>, pattern: &Pattern, span: Span) -> Low<()> {
        self.break_unless(&found, span)?;
        let mut bytes = found.with(Type::Bytes, found.words[1..].to_vec());
        if of.kind == CollectionKind::Seq {
            let value = self.decode_row(bytes, &of.value, &of.limits, span)?;
            return self.bind_pattern(pattern, value);
        }
        bytes.words[0].bound = Some(key_blocks(&of.key_limits));
        self.bind_key(pattern, &bytes, of)
    }

    /// Ends the loop when there is no next one.
    pub(super) fn break_unless(&mut self, found: &Val, span: Span) -> Low<()> {
        let c = self.load(&found.words[0].clone(), span)?;
        self.open(span)?;
        self.close();
        self.push(Op::If { c });
        self.push(Op::Else);
        self.push(Op::Break);
        self.loops.iter_mut().last().into_iter().for_each(|f| f.breaks = true);
        self.push(Op::End);
        Ok(())
    }

    // --- local lists ---

    /// `var x: list<T>[N]`
    pub(super) fn new_list(&mut self, element: &TypeSyntax, max: u32, span: Span) -> Low<Val> {
        let (element, limits) = self.names.stored(element, self.table)?;
        let constant = |n: u64| Val::new(Type::Int, [Word::constant(n)]);
        let mut list =
            self.helper("list_new", vec![constant(element.width() as u64), constant(max as u64)], false, span)?;
        list.ty = Type::Items(Arc::new(Items { element, limits, max }));
        list.origins.clear();
        list.own = None;
        Ok(list)
    }

    fn raw_list(&self, list: &Val) -> Val {
        list.with(self.table.handle("Items").unwrap_or(Type::Unit), list.words.to_vec())
    }

    /// How many elements.
    pub(super) fn list_len(&mut self, list: &Val, items: &Items, span: Span) -> Low<Val> {
        let mut len = self.helper("Items.len", vec![self.raw_list(list)], false, span)?;
        len.words[0].bound = Some(Poly::constant(items.max as u64));
        len.words[0].natural = true;
        Ok(len)
    }

    pub(super) fn list_method(
        &mut self,
        list: &Val,
        items: &Items,
        name: &Ident,
        args: &[Expr],
        span: Span,
    ) -> Low<Val> {
        match (name.name.as_str(), args) {
            ("push", [value]) => {
                let value = self.expr_as(value, &items.element)?;
                self.check_limits(&value, &items.limits, span)?;
                self.check_alive(&value, span)?;
                let value = self.stable(value, span)?;
                for w in value.words {
                    let args = vec![self.raw_list(list), Val::new(Type::Int, [w])];
                    self.helper("list_push", args, false, span)?;
                }
                Ok(Val::unit())
            }
            ("len", []) => self.list_len(list, items, span),
            _ => Err(Diagnostic::new(Code::NoHelper, span, format!("a list has no such `{}`", name.name))
                .help("there is: push(value), len, `x[i]`, `for v in x`")),
        }
    }

    /// Element `i`; outside the call ends.
    pub(super) fn list_item(&mut self, list: &Val, items: &Items, i: Val, span: Span) -> Low<Val> {
        let width = items.element.width() as u64;
        let constant = |n: u64| Val::new(Type::Int, [Word::constant(n)]);
        let first = if width == 1 { i } else { self.binary(BinOp::Mul, i, constant(width), span)? };
        let mut kinds = Vec::new();
        word_kinds(&items.element, &mut kinds);
        let mut words = Vec::new();
        for (n, is_bytes) in kinds.into_iter().enumerate() {
            let at =
                if n == 0 { first.clone() } else { self.binary(BinOp::Add, first.clone(), constant(n as u64), span)? };
            let val = self.helper("list_get", vec![self.raw_list(list), at], false, span)?;
            words.push(limited(val.words[0].clone(), items.limits.get(n), is_bytes));
        }
        Ok(Val::new(items.element.clone(), words))
    }

    pub(super) fn for_items(&mut self, list: Val, items: &Items, each: Each<'_>) -> Low<()> {
        let span = each.span;
        let len = self.list_len(&list, items, span)?;
        let mut bound = self.in_reg(&len, span)?;
        let mut trips = Poly::constant(items.max as u64);
        if let Some(limit) = each.limit {
            let (r, word) = self.bound(limit)?;
            trips = word.bound.map_or(trips.clone(), |b| b.least(&trips));
            let d = self.reg(span)?;
            self.push(Op::Int { op: IntOp::Min, d, a: bound, b: r });
            bound = d;
        }
        self.looped(bound, trips, Vec::new(), each.exhausted, span, |l, i, _| {
            let i = Val::new(Type::Int, [Word { natural: true, ..Word::at(Loc::Reg(i)) }]);
            let val = l.list_item(&list, items, i, span)?;
            l.bind_pattern(each.pattern, val)?;
            l.unit_block(each.body).map(|_| ())
        })
    }
}

/// Most blocks of a key with these fields.
pub(super) fn key_blocks(limits: &[Limit]) -> Poly {
    let bytes: u64 = limits.iter().map(|l| if let Limit::Bytes(max) = l { 3 + 2 * *max as u64 } else { 9 }).sum();
    Poly::constant(bytes.div_ceil(64))
}
