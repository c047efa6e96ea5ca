//! Statements, loops and replies.

use super::super::ir::{IntOp, Rel};
use super::super::table::HandleKind;
use super::expr::forget_int_bounds;
use super::flow::{coerce, mismatch};
use super::items::Each;
use super::*;

impl<'a> Lower<'a> {
    /// A block in a scope of its own; its last expression is its value.
    pub(super) fn block(&mut self, block: &Block, expect: Option<&Type>) -> Low<Val> {
        let scope = self.scope.len();
        let mut val = Val::unit();
        for (i, stmt) in block.stmts.iter().enumerate() {
            if val.is_never() {
                return Err(Diagnostic::new(Code::Misplaced, stmt.span, "this is never reached"));
            }
            let last = i + 1 == block.stmts.len();
            val = self.stmt(stmt, last, expect)?;
        }
        self.scope.truncate(scope);
        Ok(val)
    }

    /// A block whose value nobody wants.
    pub(super) fn unit_block(&mut self, block: &Block) -> Low<Val> {
        let val = self.block(block, None)?;
        match val.ty {
            Type::Never => Ok(val),
            // an unknown word is a mistake, not a value to drop
            Type::Case(..) => Err(mismatch(block.stmts.last().map_or(block.span, |s| s.span), &Type::Int, &val.ty)),
            _ => Ok(Val::unit()),
        }
    }

    fn stmt(&mut self, stmt: &Stmt, last: bool, expect: Option<&Type>) -> Low<Val> {
        self.at(stmt.span);
        let first_free = self.next_reg;
        let mut val = Val::unit();
        match &stmt.kind {
            StmtKind::Let { pattern, value } => {
                let v = self.expr(value, None)?;
                if v.is_never() {
                    return Ok(v);
                }
                if let (Type::Case(name, payload), false) = (&v.ty, matches!(value.kind, ExprKind::None))
                    && payload.is_empty()
                {
                    return Err(Diagnostic::new(
                        Code::UnknownName,
                        value.span,
                        format!("nothing here is called `{name}`"),
                    ));
                }
                let v = if self.is_var(&v) { self.copy(v, value.span)? } else { v };
                self.bind_pattern(pattern, v)?;
                return Ok(val);
            }
            StmtKind::Var { name, ty, value } => {
                self.var(name, ty.as_ref(), value.as_ref())?;
                return Ok(val);
            }
            StmtKind::Assign { name, op, value } => self.assign(name, *op, value)?,
            StmtKind::AssignField { on, field, op, value, more } => self.assign_field(on, field, *op, value, *more)?,
            StmtKind::For { pattern, over, limit, body, exhausted } => {
                self.for_loop(pattern, over, limit.as_ref(), body, exhausted.as_ref(), stmt.span)?;
            }
            StmtKind::Repeat { bound, counter, body, exhausted } => {
                self.repeat(bound, counter.as_ref(), body, exhausted.as_ref(), stmt.span)?;
            }
            StmtKind::Break => {
                let killed = self.killed.clone();
                let Some(frame) = self.loops.last_mut() else {
                    return Err(Diagnostic::new(Code::Misplaced, stmt.span, "`break` outside a loop"));
                };
                frame.breaks = true;
                frame.broke_with.extend(killed);
                self.push(Op::Break);
                return Ok(Val::never());
            }
            StmtKind::Return(value) => {
                if !self.inlining.is_empty() {
                    return Err(Diagnostic::new(
                        Code::Misplaced,
                        stmt.span,
                        "a function returns only at the end of a branch",
                    )
                    .help("give the value as the last expression, or put the rest into `else`"));
                }
                if let Some(v) = value {
                    return Err(
                        Diagnostic::new(Code::Type, v.span, "a command gives no value").help("`reply …; return`")
                    );
                }
                self.push(Op::Return);
                return Ok(Val::never());
            }
            StmtKind::Fail(text) => {
                let text = self.text_of(text)?;
                self.push(Op::Fail { text });
                return Ok(Val::never());
            }
            StmtKind::Wait => {
                self.wait(stmt.span)?;
                return Ok(Val::never());
            }
            StmtKind::Require { condition, text } => self.require(condition, text)?,
            StmtKind::Reply(reply) => self.reply_stmt(reply, stmt.span)?,
            StmtKind::Expr(e) => {
                val = if last { self.expr(e, expect)? } else { self.expr(e, None)? };
                if last {
                    return Ok(val);
                }
                if matches!(val.ty, Type::Case(..)) {
                    return Err(mismatch(e.span, &Type::Int, &val.ty));
                }
            }
        }
        self.next_reg = first_free;
        Ok(if val.is_never() { val } else { Val::unit() })
    }

    fn text_of(&mut self, e: &Expr) -> Low<u16> {
        let text = match &e.kind {
            ExprKind::Bytes(b) => Some(b.clone()),
            ExprKind::Name(name) => match self.lookup(name) {
                Some(_) => None,
                None => match (self.names.texts.get(name.as_str()), self.names.consts.get(name.as_str())) {
                    (Some(t), _) => Some(t.as_bytes().to_vec()),
                    (None, Some(ConstDef { value: Expr { kind: ExprKind::Bytes(b), .. }, .. })) => Some(b.clone()),
                    _ => None,
                },
            },
            _ => None,
        };
        let text = text.and_then(|t| String::from_utf8(t).ok()).ok_or_else(|| {
            Diagnostic::new(Code::UnknownName, e.span, "an error text is a string or a name from `errors`")
        })?;
        Ok(self.text_number(&text))
    }

    fn require(&mut self, condition: &Expr, text: &Expr) -> Low<()> {
        let val = self.bool(condition)?;
        let c = self.in_reg(&val, condition.span)?;
        self.at(condition.span);
        let text = self.text_of(text)?;
        self.open(condition.span)?;
        self.close();
        self.push(Op::If { c });
        self.push(Op::Else);
        self.push(Op::Fail { text });
        self.push(Op::End);
        Ok(())
    }

    /// Ends the call without effects or reply; it is proposed again when one of its keys was written.
    fn wait(&mut self, span: Span) -> Low<()> {
        if !self.blocks {
            return Err(Diagnostic::new(
                Code::Misplaced,
                span,
                "`wait` in a command that does not say what it waits for",
            )
            .help("declare it in the header: `blocks on key until timeout`"));
        }
        self.waits = true;
        self.helper("wait", Vec::new(), false, span)?;
        self.push(Op::Return);
        Ok(())
    }

    // --- variables ---

    pub(super) fn copy(&mut self, val: Val, span: Span) -> Low<Val> {
        let mut copy = val.clone();
        for w in &mut copy.words {
            if let Loc::Reg(s) = w.loc {
                let d = self.reg(span)?;
                self.push(Op::Mov { d, s });
                w.loc = Loc::Reg(d);
            }
        }
        Ok(copy)
    }

    fn var(&mut self, name: &Ident, ty: Option<&TypeSyntax>, value: Option<&Expr>) -> Low<()> {
        let first_free = self.next_reg;
        let list =
            ty.and_then(
                |t| if let TypeSyntaxKind::List { element, max } = &t.kind { Some((element, *max)) } else { None },
            );
        let Some(value) = value.filter(|_| list.is_none()) else {
            let Some((element, max)) = list.filter(|_| value.is_none()) else {
                return Err(
                    Diagnostic::new(Code::Type, name.span, "a list begins empty").help("`var x: list<int>[16]`")
                );
            };
            // which list the name means never changes
            let list = self.new_list(element, max, name.span)?;
            self.bind(&name.name, Binding::Let(list));
            return Ok(());
        };
        let val = match ty {
            Some(t) => {
                let ty = self.names.resolve(t, self.table)?;
                self.expr_as(value, &ty)?
            }
            None => self.expr(value, None)?,
        };
        if matches!(
            val.ty,
            Type::Case(..)
                | Type::Unit
                | Type::Never
                | Type::List(_)
                | Type::Items(_)
                | Type::Collection(_)
                | Type::Row { .. }
        ) {
            return Err(Diagnostic::new(Code::Type, value.span, format!("a variable cannot begin as {}", val.ty))
                .help("say its type: `var x: int? = none`"));
        }
        let fresh = matches!(val.words.first().map(|w| w.loc), Some(Loc::Reg(r)) if r as usize >= first_free);
        let mut dest = Vec::new();
        for _ in 0..val.words.len() {
            dest.push(self.reg(name.span)?);
        }
        check_joined(&val, value.span)?;
        self.check_alive(&val, value.span)?;
        self.move_into(&dest, &val, fresh);
        let mut var = val;
        for (w, d) in var.words.iter_mut().zip(dest) {
            // what is known holds only until the first assignment, which may be in a loop
            *w = Word::at(Loc::Reg(d));
        }
        self.bind(&name.name, Binding::Var(var));
        Ok(())
    }

    fn assign(&mut self, name: &Ident, op: Option<BinOp>, value: &Expr) -> Low<()> {
        let var = match self.lookup(&name.name) {
            Some(Binding::Var(v)) => v.clone(),
            Some(_) => {
                return Err(Diagnostic::new(Code::Immutable, name.span, format!("`{}` cannot be changed", name.name))
                    .help("declare it with `var`"));
            }
            None => {
                return Err(Diagnostic::new(
                    Code::UnknownName,
                    name.span,
                    format!("there is no variable `{}`", name.name),
                ));
            }
        };
        let first_free = self.next_reg;
        let val = match op {
            Some(op) => {
                let b = self.expr(value, None)?;
                let sum = self.binary(op, var.clone(), b, name.span.to(value.span))?;
                if self.counters.contains(&name.name)
                    && let Some(last) = self.ops.last_mut()
                {
                    last.note = Note::Counts;
                }
                sum
            }
            None => self.expr(value, Some(&var.ty))?,
        };
        if val.is_never() {
            return Ok(());
        }
        let val = coerce(val, &var.ty).map_err(|v| mismatch(value.span, &var.ty, &v.ty))?;
        check_joined(&val, value.span)?;
        self.check_alive(&val, value.span)?;
        let dest: Vec<Reg> =
            var.words.iter().filter_map(|w| if let Loc::Reg(r) = w.loc { Some(r) } else { None }).collect();
        let overlaps = val.words.iter().any(|w| matches!(w.loc, Loc::Reg(r) if dest.contains(&r)));
        let val = if overlaps && dest.len() > 1 { self.copy(val, value.span)? } else { val };
        let fresh = matches!(val.words.first().map(|w| w.loc), Some(Loc::Reg(r)) if r as usize >= first_free);
        self.move_into(&dest, &val, fresh);
        if let Some((_, Binding::Var(v))) = self.scope.iter_mut().rev().find(|b| b.0 == name.name) {
            for o in val.origins {
                if !v.origins.contains(&o) {
                    v.origins.push(o);
                }
            }
            if v.own != val.own {
                v.own = None;
            }
        }
        Ok(())
    }

    // --- loops ---

    fn unbounded(&self, span: Span) -> Diagnostic {
        Diagnostic::new(Code::Unbounded, span, "this loop has no provable bound")
            .note("nothing says how large this can be")
            .help("bound it by a constant, an integer argument, a count or a length: `min(x, 100)`")
    }

    /// `Loop` around what `body` emits. `wholes`: what the shares that the body used add up to.
    pub(super) fn looped(
        &mut self,
        bound: Reg,
        trips: Poly,
        mut wholes: Vec<(u8, Poly)>,
        exhausted: Option<&Block>,
        span: Span,
        body: impl FnOnce(&mut Self, Reg, u16) -> Low<()>,
    ) -> Low<()> {
        let counter = self.reg(span)?;
        let number = self.loop_count;
        self.loop_count += 1;
        self.open(span)?;
        self.loops.push(LoopFrame {
            first_origin: self.origins.len() as OriginId,
            uses: Vec::new(),
            broke_with: BTreeMap::new(),
            breaks: false,
        });
        let wrote = self.wrote;
        self.inside.push(number);
        let branch = self.branch(span, |l| {
            body(l, counter, number)?;
            Ok(Val::unit())
        });
        let frame = self.loops.pop();
        self.inside.pop();
        self.close();
        let branch = branch?;
        let frame = frame.ok_or_else(|| self.unbounded(span))?;
        for (o, used) in frame.uses {
            if let Some(&by) = branch.killed.get(&o)
                && !self.killed.contains_key(&o)
            {
                return Err(self.killed_error(o, by, used).note("used here, again in the next turn of the loop"));
            }
        }
        self.check_carried(frame.first_origin, &branch.killed)?;
        self.killed.extend(branch.killed.iter().map(|(k, v)| (*k, *v)));
        self.killed.extend(frame.broke_with);
        let grew = self.wrote && !wrote;
        wholes.push((EACH_GROWN, if grew { trips.times(&self.everything) } else { Poly::default() }));
        self.push_noted(Op::Loop { counter, bound }, Note::Loop { trips, number, wholes });
        self.append(branch);
        self.push(Op::End);
        if let Some(block) = exhausted {
            self.exhausted(counter, bound, frame.breaks, block, span)?;
        }
        Ok(())
    }

    /// A variable from before a loop must not take a view that dies in one turn into the next.
    fn check_carried(&self, first: OriginId, killed: &BTreeMap<OriginId, Span>) -> Low<()> {
        let vars = self.scope.iter().filter_map(|(_, b)| match b {
            Binding::Var(v) => Some(v),
            Binding::Let(_) => None,
        });
        for &o in vars.flat_map(|v| &v.origins).filter(|o| **o >= first) {
            if let Some(&by) = killed.get(&o) {
                let taken = self.origins[o as usize].span;
                return Err(self.killed_error(o, by, taken).note("kept in a variable for the next turn of the loop"));
            }
        }
        Ok(())
    }

    /// The block that runs when no `break` ended the loop: the counter has reached the bound then.
    fn exhausted(&mut self, counter: Reg, bound: Reg, breaks: bool, block: &Block, span: Span) -> Low<()> {
        if !breaks {
            return self.unit_block(block).map(|_| ());
        }
        let c = self.equals(Rel::Ge, counter, bound, span)?;
        self.open(span)?;
        let yes = self.branch(block.span, |l| l.unit_block(block))?;
        let no = self.branch(span, |_| Ok(Val::unit()))?;
        self.close();
        self.if_else(c, [yes, no], None)?;
        Ok(())
    }

    pub(super) fn bound(&mut self, e: &Expr) -> Low<(Reg, Word)> {
        let val = self.expr_as(e, &Type::Int)?;
        let word = val.words[0].clone();
        if word.bound.is_none() {
            return Err(self.unbounded(e.span));
        }
        let r = self.in_reg(&val, e.span)?;
        // the bound is compared after the loop as well: a variable may have changed by then
        let r = if self.is_var(&val) { self.copied(r, e.span)? } else { r };
        Ok((r, word))
    }
    fn copied(&mut self, s: Reg, span: Span) -> Low<Reg> {
        let d = self.reg(span)?;
        self.push(Op::Mov { d, s });
        Ok(d)
    }

    fn repeat(
        &mut self,
        bound: &Expr,
        counter: Option<&Ident>,
        body: &Block,
        exhausted: Option<&Block>,
        span: Span,
    ) -> Low<()> {
        let (r, word) = self.bound(bound)?;
        let trips = word.bound.clone().unwrap_or_default();
        let top = word.bound;
        self.looped(r, trips, Vec::new(), exhausted, span, |l, i, _| {
            if let Some(name) = counter {
                let index = Word { bound: top, natural: true, ..Word::at(Loc::Reg(i)) };
                l.bind(&name.name, Binding::Let(Val::new(Type::Int, [index])));
            }
            l.unit_block(body).map(|_| ())
        })
    }

    fn for_loop(
        &mut self,
        pattern: &Pattern,
        over: &ForOver,
        limit: Option<&Expr>,
        body: &Block,
        exhausted: Option<&Block>,
        span: Span,
    ) -> Low<()> {
        match over {
            ForOver::Range(from, to) => self.for_range(pattern, from, to, limit, body, exhausted, span),
            ForOver::Each(e) => {
                let each = Each { pattern, limit, body, exhausted, span };
                if let Some((of, word, keys)) = self.looped_collection(e) {
                    return self.for_collection(of, word, keys, each);
                }
                let val = self.expr(e, None)?;
                match val.ty.clone() {
                    Type::Items(items) => self.for_items(val, &items, each),
                    Type::List(element) => self.for_list(pattern, val, &element, limit, body, exhausted, span),
                    Type::Handle(n, _) if self.table.handles[n as usize].kind == HandleKind::Iterator => {
                        self.for_iterator(pattern, val, limit, body, exhausted, e.span)
                    }
                    t => Err(Diagnostic::new(Code::Type, e.span, format!("{t} cannot be looped over"))
                        .help("loops run over `rest` parameters, lists, collections, iterators, and ranges `a .. b`")),
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn for_list(
        &mut self,
        pattern: &Pattern,
        list: Val,
        element: &Type,
        limit: Option<&Expr>,
        body: &Block,
        exhausted: Option<&Block>,
        span: Span,
    ) -> Low<()> {
        let Loc::Arg(slot) = list.words[0].loc else { return Ok(()) };
        let width = element.width() as u8;
        let mut trips = Poly::atom(Atom::Count(slot));
        let mut bound = self.reg(span)?;
        self.push(Op::Count { d: bound, slot });
        if let Some(limit) = limit {
            let (r, word) = self.bound(limit)?;
            trips = word.bound.unwrap_or(trips);
            let d = self.reg(span)?;
            self.push(Op::Int { op: IntOp::Min, d, a: bound, b: r });
            bound = d;
        }
        let mut kinds = Vec::new();
        super::expr::word_kinds(element, &mut kinds);
        let fields =
            kinds.iter().enumerate().filter(|(_, is_bytes)| **is_bytes).fold(0u32, |m, (i, _)| m | 1 << i.min(31));
        let mut wholes = vec![(EACH_BLOCKS, Poly::atom(Atom::BlocksAll { slot, width, fields }))];
        if let Some(w) = list.place {
            wholes.push((EACH_LEN, Poly::atom(Atom::Len(w.place))));
            wholes.push((EACH_TOTAL, Poly::atom(Atom::Total(w.place))));
        }
        self.looped(bound, trips, wholes, exhausted, span, |l, index, number| {
            let share = Poly::atom(Atom::Each(number, EACH_BLOCKS));
            let words = (0..width)
                .map(|field| Word { bound: Some(share.clone()), ..Word::at(Loc::Elem { slot, index, width, field }) });
            let mut val = Val::new(element.clone(), words);
            forget_int_bounds(&mut val);
            val.place = list.place.map(|w| Whose { each: Some(number), ..w });
            l.bind_pattern(pattern, val)?;
            l.unit_block(body).map(|_| ())
        })
    }

    /// Bound, then `next` at the head of each turn; no next element breaks.
    fn for_iterator(
        &mut self,
        pattern: &Pattern,
        it: Val,
        limit: Option<&Expr>,
        body: &Block,
        exhausted: Option<&Block>,
        span: Span,
    ) -> Low<()> {
        let Some(limit) = limit else {
            return Err(Diagnostic::new(Code::Unbounded, span, "this loop has no provable bound")
                .note("this may hold any number of entries")
                .help("add `limit <constant, bounded int argument or length>`, or use `repeat N … exhausted` with a cursor"));
        };
        let (bound, word) = self.bound(limit)?;
        let trips = word.bound.unwrap_or_default();
        let it = match it.words[0].loc {
            Loc::Reg(_) if !self.is_var(&it) => it,
            _ => {
                let r = self.in_reg(&it, span)?;
                let words = [Word::at(Loc::Reg(r))];
                it.with(it.ty.clone(), words)
            }
        };
        let next = format!("{}.next", it.ty);
        let wholes = vec![(EACH_ITEM, self.items_blocks(&next, &it, &trips, span)?)];
        self.looped(bound, trips, wholes, exhausted, span, |l, _, number| {
            let mut item = l.helper(&next, vec![it.clone()], true, span)?;
            let Some(inner) = item.ty.inner() else {
                return Err(Diagnostic::new(Code::NoHelper, span, format!("`{next}` does not give a `T?`")));
            };
            let share = Poly::atom(Atom::Each(number, EACH_ITEM));
            item.words.iter_mut().filter(|w| w.bound.is_some()).for_each(|w| w.bound = Some(share.clone()));
            l.break_unless(&item, span)?;
            let mut val = item.with(inner, item.words[1..].iter().cloned());
            forget_int_bounds(&mut val);
            l.bind_pattern(pattern, val)?;
            l.unit_block(body).map(|_| ())
        })
    }

    /// Blocks of all that a loop's iterator gives: as many times the longest, or the whole collection.
    fn items_blocks(&self, next: &str, it: &Val, trips: &Poly, span: Span) -> Low<Poly> {
        let args = std::slice::from_ref(it);
        let Some(row) = self.choose(next, args) else { return Ok(trips.clone()) };
        let each = self.result_bound(row, args, it.place, span)?.unwrap_or_else(|| self.everything.clone());
        let all = trips.times(&each);
        Ok(match it.place {
            Some(whose) if row.bound.is_none() && !self.wrote => {
                let total = whose.total();
                if *trips == whose.len() { total } else { all.least(&total) }
            }
            _ => all,
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn for_range(
        &mut self,
        pattern: &Pattern,
        from: &Expr,
        to: &Expr,
        limit: Option<&Expr>,
        body: &Block,
        exhausted: Option<&Block>,
        span: Span,
    ) -> Low<()> {
        let a = self.expr_as(from, &Type::Int)?;
        let a = if self.is_var(&a) { self.copy(a, from.span)? } else { a };
        let b = self.expr_as(to, &Type::Int)?;
        let starts_at_zero = a.words[0].loc == Loc::Const(0);
        let count = if starts_at_zero { b } else { self.binary(BinOp::Sub, b, a.clone(), span)? };
        let mut word = count.words[0].clone();
        let mut bound = self.in_reg(&count, span)?;
        if self.is_var(&count) {
            bound = self.copied(bound, span)?;
        }
        if let Some(limit) = limit {
            let (r, w) = self.bound(limit)?;
            let d = self.reg(span)?;
            self.push(Op::Int { op: IntOp::Min, d, a: bound, b: r });
            (bound, word) = (d, w);
        }
        let Some(trips) = word.bound else { return Err(self.unbounded(to.span)) };
        self.looped(bound, trips, Vec::new(), exhausted, span, |l, i, _| {
            let counter = Val::new(Type::Int, [Word { natural: true, ..Word::at(Loc::Reg(i)) }]);
            let val = if starts_at_zero { counter } else { l.binary(BinOp::Add, a, counter, span)? };
            l.bind_pattern(pattern, val)?;
            l.unit_block(body).map(|_| ())
        })
    }

    // --- replies ---

    fn count_emit(&mut self, span: Span) -> Low<()> {
        if let Some(Some(r)) = self.emitted.last().copied() {
            let b = self.load(&Word::constant(1), span)?;
            self.push_noted(Op::Int { op: IntOp::Add, d: r, a: r, b }, Note::Counts);
        }
        Ok(())
    }

    fn reply_stmt(&mut self, reply: &ReplySyntax, span: Span) -> Low<()> {
        self.count_emit(span)?;
        match reply {
            ReplySyntax::Value(e) => self.reply_expr(e),
            ReplySyntax::Word { word, args } => self.reply_word(word, args).map(|_| ()),
            ReplySyntax::Container { word, args, body } => {
                let open = args.is_empty() && word.name == "array";
                if !open {
                    self.reply_word(word, args)?;
                    self.emitted.push(None);
                    let done = self.unit_block(body);
                    self.emitted.pop();
                    return done.map(|_| ());
                }
                let counter = self.reg(span)?;
                self.push(Op::Const { d: counter, value: 0 });
                let mark = self.helper("reply_open", Vec::new(), false, word.span)?;
                self.emitted.push(Some(counter));
                let done = self.unit_block(body);
                self.emitted.pop();
                done?;
                let count = Val::new(Type::Int, [Word::at(Loc::Reg(counter))]);
                self.helper("reply_close", vec![mark, count], false, word.span).map(|_| ())
            }
        }
    }

    fn reply_word(&mut self, word: &Ident, args: &[Expr]) -> Low<Val> {
        let args = args.iter().map(|a| self.expr(a, None)).collect::<Low<Vec<_>>>()?;
        self.helper(&format!("reply_{}", word.name), args, false, word.span)
    }

    /// Branch by branch, so that each answers in its own type.
    fn reply_expr(&mut self, e: &Expr) -> Low<()> {
        self.at(e.span);
        let reply_block = |value: &Expr| Block {
            span: value.span,
            stmts: vec![Stmt { span: value.span, kind: StmtKind::Reply(ReplySyntax::Value(value.clone())) }],
        };
        match &e.kind {
            ExprKind::Ternary { condition, yes, no } => {
                let kind =
                    ExprKind::If { condition: condition.clone(), yes: reply_block(yes), no: Some(reply_block(no)) };
                self.uncounted(&Expr { kind, span: e.span })
            }
            ExprKind::If { condition, yes, no: Some(no) } => {
                let kind =
                    ExprKind::If { condition: condition.clone(), yes: reply_tail(yes), no: Some(reply_tail(no)) };
                self.uncounted(&Expr { kind, span: e.span })
            }
            ExprKind::Match { on, arms } => {
                let arms = arms.iter().map(|a| Arm { body: reply_tail(&a.body), ..a.clone() }).collect();
                self.uncounted(&Expr { kind: ExprKind::Match { on: on.clone(), arms }, span: e.span })
            }
            ExprKind::Name(name) if self.lookup(name).is_none() && self.table.has(&format!("reply_{name}")) => {
                self.reply_word(&Ident { name: name.clone(), span: e.span }, &[]).map(|_| ())
            }
            ExprKind::Call { name, args }
                if self.lookup(&name.name).is_none()
                    && !self.names.fns.contains_key(name.name.as_str())
                    && self.table.has(&format!("reply_{}", name.name)) =>
            {
                self.reply_word(name, args).map(|_| ())
            }
            ExprKind::None => self.helper("reply_nil", Vec::new(), false, e.span).map(|_| ()),
            _ => {
                let val = self.expr(e, None)?;
                self.reply_val(val, e.span)
            }
        }
    }

    /// A statement whose inner `reply` has been counted already.
    fn uncounted(&mut self, e: &Expr) -> Low<()> {
        self.emitted.push(None);
        let done = self.expr(e, None);
        self.emitted.pop();
        done.map(|_| ())
    }

    fn reply_val(&mut self, val: Val, span: Span) -> Low<()> {
        let row = match &val.ty {
            Type::Int => "reply_int",
            Type::Bytes | Type::Key => "reply_bytes",
            Type::Float => "reply_double",
            Type::Bool => "reply_bool",
            Type::Never => return Ok(()),
            Type::Tuple(types) => {
                let n = Val::new(Type::Int, [Word::constant(types.len() as u64)]);
                self.helper("reply_array", vec![n], false, span)?;
                let mut at = 0;
                for ty in types.clone() {
                    let width = ty.width();
                    let part = val.with(ty, val.words[at..at + width].to_vec());
                    at += width;
                    self.reply_val(part, span)?;
                }
                return Ok(());
            }
            Type::Sum(s) if s.name.is_empty() && s.none && s.cases.len() == 1 => {
                let inner = s.cases[0].1.clone();
                let inner = if inner.len() == 1 { inner[0].clone() } else { Type::Tuple(inner) };
                self.check_alive(&val, span)?;
                let tag = val.words[0].clone();
                let c = self.load(&tag, span)?;
                self.open(span)?;
                let payload = val.with(inner, val.words[1..].to_vec());
                let yes = self.branch(span, |l| l.reply_val(payload, span).map(|_| Val::unit()))?;
                let no = self.branch(span, |l| l.helper("reply_nil", Vec::new(), false, span))?;
                self.close();
                return self.if_else(c, [yes, no], None).map(|_| ());
            }
            Type::Sum(_) if self.table.has("reply_value") => "reply_value",
            t => return Err(mismatch(span, &Type::Bytes, t)),
        };
        self.helper(row, vec![val], false, span).map(|_| ())
    }
}

/// The block with its last expression replied.
fn reply_tail(block: &Block) -> Block {
    let mut block = block.clone();
    if let Some(last) = block.stmts.last_mut()
        && let StmtKind::Expr(e) = &last.kind
    {
        last.kind = StmtKind::Reply(ReplySyntax::Value(e.clone()));
    }
    block
}

/// What a variable holds is no longer than all that the call can see; joined again in every turn of a loop, it would double in each.
fn check_joined(val: &Val, span: Span) -> Low<()> {
    if !val.words.iter().any(|w| w.joined) {
        return Ok(());
    }
    Err(Diagnostic::new(Code::Unbounded, span, "a variable cannot hold joined bytes")
        .note("nothing says how long it may be")
        .help("keep them in a `let`, or reply or store them here"))
}
