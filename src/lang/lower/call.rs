//! Calls: functions (inlined), built-in words, helpers.

use super::super::ast::{FnDef, TypeSyntax};
use super::super::table::{HandleKind, Helper, Kills, Lives, RowAtom, RowPoly};
use super::super::types::Limit;
use super::collections::{entry_blocks, limited};
use super::expr::word_kinds;
use super::flow::{coerce, coercible, mismatch};
use super::*;

impl<'a> Lower<'a> {
    pub(super) fn call(&mut self, name: &Ident, args: &[Expr], span: Span) -> Low<Val> {
        if let Some(def) = self.names.fns.get(name.name.as_str()).copied() {
            return self.inline(def, args, span);
        }
        if !self.table.has(&name.name) {
            self.no_names(args)?;
        }
        let vals = args.iter().map(|a| self.expr(a, None)).collect::<Low<Vec<_>>>()?;
        if let Some(val) = self.built_in(name, &vals, span)? {
            return Ok(val);
        }
        if self.table.has(&name.name) {
            self.check_helper_names(&name.name, &vals, 0, args)?;
            return self.helper(&name.name, vals, false, span);
        }
        // a case constructor, of whatever sum is wanted
        let mut case = Val::unit();
        let mut types = Vec::new();
        for v in vals {
            types.push(v.ty);
            case.words.extend(v.words);
            for o in v.origins {
                if !case.origins.contains(&o) {
                    case.origins.push(o);
                }
            }
        }
        case.ty = Type::Case(name.name.clone(), types);
        Ok(case)
    }

    fn built_in(&mut self, name: &Ident, args: &[Val], span: Span) -> Low<Option<Val>> {
        Ok(Some(match (name.name.as_str(), args) {
            ("n", [list]) if matches!(list.ty, Type::Items(_)) => {
                let Type::Items(items) = list.ty.clone() else { return Ok(None) };
                self.list_len(list, &items, span)?
            }
            ("n", [list]) => {
                // A case without words is no list either
                let (Type::List(_), Some(Loc::Arg(slot))) = (&list.ty, list.words.first().map(|word| word.loc)) else {
                    return Err(Diagnostic::new(
                        Code::Type,
                        span,
                        format!("`n` counts a `rest` parameter or a list, not {}", list.ty),
                    ));
                };
                Val::new(Type::Int, [Word::bounded(Loc::Count(slot), Poly::atom(Atom::Count(slot)))])
            }
            ("min" | "max", [a, b]) => self.extreme(name.name == "min", a.clone(), b.clone(), span)?,
            ("float", [i]) if i.ty == Type::Int => {
                let s = self.in_reg(i, span)?;
                let d = self.reg(span)?;
                self.push(Op::IntToFloat { d, s });
                Val::new(Type::Float, [Word::at(Loc::Reg(d))])
            }
            ("sqrt", [x]) if x.ty == Type::Float => {
                let s = self.in_reg(x, span)?;
                let d = self.reg(span)?;
                self.push(Op::Sqrt { d, s });
                Val::new(Type::Float, [Word::at(Loc::Reg(d))])
            }
            ("some", [v]) => {
                let ty = v.ty.clone().optional();
                coerce(v.clone(), &ty).map_err(|v| mismatch(span, &ty, &v.ty))?
            }
            _ => return Ok(None),
        }))
    }

    /// A function's body in place of its call: there is no recursion, so it always ends.
    fn inline(&mut self, def: &'a FnDef, args: &[Expr], span: Span) -> Low<Val> {
        if self.inlining.contains(&def.name.name.as_str()) {
            return Err(Diagnostic::new(Code::Misplaced, span, format!("`{}` calls itself", def.name.name))
                .help("functions are inlined; there is no recursion: use a bounded loop"));
        }
        if args.len() != def.params.len() {
            let wanted = def.params.len();
            return Err(Diagnostic::new(Code::Type, span, format!("`{}` takes {wanted} arguments", def.name.name)));
        }
        check_names(args, def.params.iter().map(|p| p.0.name.as_str()))?;
        let mut bound = Vec::new();
        for (arg, (param, ty)) in args.iter().zip(&def.params) {
            let wanted = self.param_type(ty)?;
            let val = match wanted {
                Some(wanted) => {
                    let val = self.expr_as(arg, &wanted)?;
                    self.within(val, &self.names.promised(ty, self.table)?, arg.span)?
                }
                None => self.expr(arg, None)?,
            };
            bound.push((param.name.clone(), Binding::Let(val)));
        }
        let result = def.result.as_ref().map(|t| self.names.resolve(t, self.table)).transpose()?;
        let outer = std::mem::replace(&mut self.scope, bound);
        let counters = std::mem::replace(&mut self.counters, super::counters::counters(&def.body));
        let (line, loops) = (self.line, std::mem::take(&mut self.loops));
        self.inlining.push(&def.name.name);
        let body = returns_as_values(&def.body);
        let val = self.block(&body, result.as_ref());
        self.inlining.pop();
        self.loops = loops;
        self.line = line;
        self.scope = outer;
        self.counters = counters;
        let val = val?;
        match &result {
            Some(ty) => {
                let val = coerce(val, ty).map_err(|v| mismatch(def.body.span, ty, &v.ty))?;
                let limits = def.result.as_ref().map(|t| self.names.promised(t, self.table)).transpose()?;
                self.within(val, &limits.unwrap_or_default(), span)
            }
            None if val.is_never() => Ok(val),
            None => Ok(Val::unit()),
        }
    }

    /// The value, which from here on is known to be within its limits: what is outside of them ends the call.
    fn within(&mut self, mut val: Val, limits: &[Limit], span: Span) -> Low<Val> {
        for (word, limit) in val.words.iter().zip(limits) {
            if let (Loc::Const(c), Limit::Int { min, max }) = (word.loc, limit)
                && !(min..=max).contains(&&(c as i64))
            {
                let text = format!("{} is not within {min}..={max}", c as i64);
                return Err(Diagnostic::new(Code::Type, span, text));
            }
        }
        self.check_limits(&val, limits, span)?;
        for (word, limit) in val.words.iter_mut().zip(limits).filter(|(_, limit)| **limit != Limit::None) {
            let known = limited(word.clone(), Some(limit), matches!(limit, Limit::Bytes(_)));
            let bound = match (&word.bound, &known.bound) {
                (Some(a), Some(b)) => Some(a.least(b)),
                (a, b) => a.clone().or_else(|| b.clone()),
            };
            *word = Word { bound, natural: word.natural || known.natural, ..word.clone() };
        }
        Ok(val)
    }

    /// None: a `rest` list of the caller (`list` as a type).
    fn param_type(&self, ty: &TypeSyntax) -> Low<Option<Type>> {
        match &ty.kind {
            TypeSyntaxKind::Named(n) if n == "list" => Ok(None),
            _ => self.names.resolve(ty, self.table).map(Some),
        }
    }

    pub(super) fn method(&mut self, on: &Expr, name: &Ident, args: Option<&[Expr]>, span: Span) -> Low<Val> {
        if let ExprKind::Name(receiver) = &on.kind
            && self.lookup(receiver).is_none()
            && !self.table.globals.contains_key(receiver)
            && self.table.has(&format!("{receiver}.{}", name.name))
        {
            let vals = args.unwrap_or(&[]).iter().map(|a| self.expr(a, None)).collect::<Low<Vec<_>>>()?;
            let full = format!("{receiver}.{}", name.name);
            self.check_helper_names(&full, &vals, 0, args.unwrap_or(&[]))?;
            return self.helper(&full, vals, args.is_none(), span);
        }
        let val = self.expr(on, None)?;
        if matches!(val.ty, Type::Collection(_) | Type::Row { .. } | Type::Items(_)) {
            self.no_names(args.unwrap_or(&[]))?;
        }
        match val.ty.clone() {
            Type::Collection(of) => return self.collection_method(&val, &of, name, args.unwrap_or(&[]), span),
            Type::Row { of, .. } => return self.row_method(&val, &of, name, args, span),
            Type::Items(items) => return self.list_method(&val, &items, name, args.unwrap_or(&[]), span),
            Type::Record(_) if args.is_none() => return self.field(&val, &name.name, span),
            _ => {}
        }
        if args.is_none()
            && let Some(projected) = self.project(&val, &name.name, span)?
        {
            return Ok(projected);
        }
        let prefixes: Vec<String> = match &val.ty {
            Type::Key => vec!["key".into(), "bytes".into()],
            Type::Case(n, _) if n != "none" => return Err(mismatch(on.span, &Type::Bytes, &val.ty)),
            t => vec![t.to_string()],
        };
        let mut vals = vec![val];
        for a in args.unwrap_or(&[]) {
            vals.push(self.expr(a, None)?);
        }
        for prefix in &prefixes {
            let full = format!("{prefix}.{}", name.name);
            if self.fits(&full, &vals) {
                self.check_helper_names(&full, &vals, 1, args.unwrap_or(&[]))?;
                return self.helper(&full, vals, args.is_none(), span);
            }
        }
        let full = format!("{}.{}", prefixes[prefixes.len() - 1], name.name);
        let inner = vals[0].ty.inner();
        self.helper(&full, vals, args.is_none(), span).map_err(|d| match inner {
            Some(inner) => d.help(format!("this may be none: unwrap it first (`e else …`, `match`) to get {inner}")),
            None => d,
        })
    }

    /// The names that arguments are given, against those of the helper's parameters; the first `skip` have none.
    fn check_helper_names(&self, helper: &str, vals: &[Val], skip: usize, args: &[Expr]) -> Low<()> {
        match self.choose(helper, vals) {
            Some(h) => check_names(args, h.params.iter().skip(skip).map(|p| &*p.0)),
            None => self.no_names(args),
        }
    }

    fn no_names(&self, args: &[Expr]) -> Low<()> {
        match args.iter().find(|a| matches!(a.kind, ExprKind::Named { .. })) {
            Some(a) => Err(Diagnostic::new(Code::Misplaced, a.span, "these arguments have no names")
                .help("functions and helpers have named parameters; cases, lists and collections take values alone")),
            None => Ok(()),
        }
    }

    fn fits(&self, name: &str, args: &[Val]) -> bool {
        self.choose(name, args).is_some() || self.spread(name, args).is_some_and(|(n, a)| self.choose(&n, &a).is_some())
    }

    pub(super) fn choose(&self, name: &str, args: &[Val]) -> Option<&'a Helper> {
        self.table
            .named(name)
            .find(|h| h.params.len() == args.len() && h.params.iter().zip(args).all(|(p, a)| coercible(&a.ty, &p.1)))
    }

    /// `slot.put(str(v), due)` means the row `Slot.put_str(v, due)`.
    fn spread(&self, name: &str, args: &[Val]) -> Option<(String, Vec<Val>)> {
        let at = args.iter().position(|a| matches!(a.ty, Type::Case(..)))?;
        let Type::Case(case, types) = &args[at].ty else { return None };
        let mut all = args[..at].to_vec();
        let mut first = 0;
        for ty in types {
            let words = args[at].words[first..first + ty.width()].to_vec();
            first += ty.width();
            all.push(args[at].with(ty.clone(), words));
        }
        all.extend_from_slice(&args[at + 1..]);
        Some((format!("{name}_{case}"), all))
    }

    /// Calls the first row of this name that fits.
    pub(super) fn helper(&mut self, name: &str, args: Vec<Val>, property: bool, span: Span) -> Low<Val> {
        if let Some(h) = self.choose(name, &args) {
            return self.emit_call(h, args, span);
        }
        if let Some((name, args)) = self.spread(name, &args)
            && let Some(h) = self.choose(&name, &args)
        {
            return self.emit_call(h, args, span);
        }
        let unknown = args.iter().find_map(|a| match &a.ty {
            Type::Case(n, p) if p.is_empty() && n != "none" => Some(n.clone()),
            _ => None,
        });
        let types: Vec<String> = args.iter().map(|a| a.ty.to_string()).collect();
        let rows: Vec<&str> = self.table.named(name).map(|h| h.signature).collect();
        let d = match (rows.is_empty(), unknown) {
            (false, Some(n)) => Diagnostic::new(Code::UnknownName, span, format!("nothing here is called `{n}`")),
            (true, _) if property && args.len() == 1 => Diagnostic::new(
                Code::NoHelper,
                span,
                format!("{} has no `{}`", types[0], name.rsplit('.').next().unwrap_or(name)),
            ),
            _ => Diagnostic::new(Code::NoHelper, span, format!("no helper `{name}` takes ({})", types.join(", "))),
        };
        Err(if rows.is_empty() { d } else { d.help(format!("there is: {}", rows.join("; "))) })
    }

    fn emit_call(&mut self, h: &'a Helper, args: Vec<Val>, span: Span) -> Low<Val> {
        let mut vals = Vec::new();
        for (arg, (_, ty)) in args.iter().zip(&h.params) {
            self.check_alive(arg, span)?;
            vals.push(coerce(arg.clone(), ty).map_err(|v| mismatch(span, ty, &v.ty))?);
        }
        let mut regs = [0; 4];
        let mut n = 0;
        for w in vals.iter().flat_map(|v| v.words.clone()) {
            regs[n] = self.load(&w, span)?;
            n += 1;
        }
        let d = self.reg(span)?;
        let whose = self.place_of_receiver(h, &args);
        let ops = self.row_cost(&h.ops, h, &vals, whose, span)?;
        let locs = self.row_cost(&h.locs, h, &vals, whose, span)?;
        let result_bound = self.result_bound(h, &vals, whose, span)?;
        let joined = vals.iter().flat_map(|v| &v.words).any(|w| w.joined);
        self.check_stored(h, whose, joined, span)?;
        self.wrote |= self.lets_grow(h, whose);
        self.effects.add(h.effect);
        let writes = matches!(h.effect, Effect::Trim | Effect::Write);
        let pure = h.effect == Effect::Pure && h.has_receiver && !h.fails && h.result != Type::Unit;
        let note = Note::Call { ops, locs, writes, fails: h.fails, pure };
        self.push_noted(Op::Call { d, helper: h.number, n: n as u8, args: regs }, note);
        self.kill(h, &args, span);
        self.call_result(h, &args, &vals, d, result_bound, span)
    }

    fn call_result(
        &mut self,
        h: &Helper,
        args: &[Val],
        vals: &[Val],
        d: Reg,
        bytes_bound: Option<Poly>,
        span: Span,
    ) -> Low<Val> {
        let width = h.result.width();
        let mut words: SmallVec<[Word; 2]> = SmallVec::new();
        let mut kinds = Vec::new();
        word_kinds(&h.result, &mut kinds);
        let spelled = self.spelled(h, vals);
        for (i, is_bytes) in kinds.iter().enumerate().take(width) {
            let r = if i == 0 { d } else { self.reg(span)? };
            if i > 0 {
                self.push(Op::Result { d: r, index: i as u8 });
            }
            let mut word = Word::at(Loc::Reg(r));
            word.joined = *is_bytes && (h.joins || vals.iter().flat_map(|v| &v.words).any(|w| w.joined));
            if *is_bytes || h.bound.is_some() {
                word.bound = bytes_bound.clone();
                word.natural = h.bound.is_some() && !is_bytes;
                if let Some(of) = spelled {
                    // the tag is not the number, and the number may be negative
                    word.natural = i == 0;
                    word.is = (i == 1).then_some(of);
                }
            }
            words.push(word);
        }
        let mut val = Val::new(h.result.clone(), words);
        val.place = self.result_place(h, args);
        let parent = args.first().filter(|_| h.has_receiver).and_then(|a| a.own).unwrap_or(0);
        if let Some(kind) = self.handle_kind(&h.result) {
            let kind = match kind {
                HandleKind::Slot => OriginKind::Slot,
                HandleKind::Collection => OriginKind::Collection,
                HandleKind::Iterator => OriginKind::Iterator,
            };
            let o = self.origin(kind, parent, span);
            val.origins.push(o);
            val.own = Some(o);
        } else if kinds.iter().any(|k| *k) {
            match h.lives {
                Lives::Call => {}
                Lives::Page => {
                    let o = self.origin(OriginKind::View, parent, span);
                    val.origins.push(o);
                }
                Lives::Arguments => {
                    for o in args.iter().flat_map(|a| &a.origins) {
                        let is_view = self.origins[*o as usize].kind == OriginKind::View;
                        if is_view && !val.origins.contains(o) {
                            val.origins.push(*o);
                        }
                    }
                }
            }
        }
        Ok(val)
    }

    /// Bytes joined from others may be stored once, and then nothing read any more: what is read, joined and stored again doubles in every
    /// turn, and bounds speak of what was stored before the call.
    fn check_stored(&mut self, h: &Helper, whose: Option<Whose>, joined: bool, span: Span) -> Low<()> {
        let refuse = |message: &str, help: &str| {
            Err(Diagnostic::new(Code::Unbounded, span, message).note("nothing says how long it may be").help(help))
        };
        let mut kinds = Vec::new();
        word_kinds(&h.result, &mut kinds);
        let of_module = matches!(whose, Some(Whose { place: Place::Collection(_), .. }));
        let reads = h.effect == Effect::Read && whose.is_some() && !of_module && kinds.contains(&true);
        if reads && self.wrote_joined {
            return refuse("this is read after joined bytes were stored", "read it before");
        }
        if joined && self.lets_grow(h, whose) {
            if !self.inside.is_empty() {
                return refuse("joined bytes are stored in a loop", "store them once, after the loop");
            }
            self.wrote_joined = true;
        }
        Ok(())
    }

    fn handle_kind(&self, ty: &Type) -> Option<HandleKind> {
        match ty {
            Type::Handle(n, _) => Some(self.table.handles[*n as usize].kind),
            _ => ty.inner().and_then(|t| self.handle_kind(&t)),
        }
    }

    /// Whose `len` and `depth` a row means: the receiver's; for a lookup of an entry, the collection it looks into.
    fn place_of_receiver(&self, h: &Helper, args: &[Val]) -> Option<Whose> {
        if h.has_receiver { args.first().and_then(|a| a.place) } else { None }
    }

    /// Whose value a result is: the key's that was looked up in a database, else the receiver's.
    fn result_place(&self, h: &Helper, args: &[Val]) -> Option<Whose> {
        let key = args.iter().zip(&h.params).find(|(_, p)| p.1 == Type::Key).and_then(|(a, _)| a.place);
        key.or_else(|| self.place_of_receiver(h, args))
    }

    /// The argument that spells a result, if the row says so and it is one of the call's.
    fn spelled(&self, h: &Helper, vals: &[Val]) -> Option<Number> {
        match h.bound.as_deref() {
            Some([(1, atoms)]) => match atoms[..] {
                [RowAtom::Text(i)] => match vals[i as usize].words[0].loc {
                    Loc::Arg(slot) => Some(Number::Text(slot)),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn result_bound(&self, h: &Helper, vals: &[Val], whose: Option<Whose>, span: Span) -> Low<Option<Poly>> {
        let spells = h.bound.iter().flatten().flat_map(|t| &t.1).any(|a| matches!(a, RowAtom::Text(_)));
        if spells && self.spelled(h, vals).is_none() {
            return Ok(None);
        }
        if let Some(bound) = &h.bound {
            return self.row_cost(bound, h, vals, whose, span).map(Some);
        }
        let sum_of_arguments = || {
            let mut sum = Poly::constant(1);
            for (v, (_, ty)) in vals.iter().zip(&h.params) {
                if ty.is_bytes() {
                    sum.add(&self.blocks(v));
                }
            }
            sum
        };
        let receiver = h.params.first().filter(|_| h.has_receiver);
        let of_collection = receiver.and_then(|p| self.handle_kind(&p.1)).is_some_and(|k| k != HandleKind::Slot);
        Ok(match (h.effect, whose) {
            (Effect::Pure, _) if of_collection => Some(self.everything.clone()),
            (Effect::Pure, _) | (_, None) => Some(sum_of_arguments()),
            (_, Some(w)) => Some(self.stored_blocks(if of_collection { self.longest(w) } else { w.len() }, w)),
        })
    }

    /// The bound of stored bytes: what it was before the call, and what the call itself may have stored. Of a collection of the module it is
    /// the declared one.
    fn stored_blocks(&self, mut blocks: Poly, whose: Whose) -> Poly {
        if matches!(whose.place, Place::Collection(_)) {
            return blocks;
        }
        if self.wrote {
            return blocks.plus(&self.everything);
        }
        self.inside.iter().for_each(|l| blocks.add_term(&[Atom::Each(*l, EACH_GROWN)], 1));
        blocks
    }

    /// Blocks of the longest element: of a collection of the module as declared.
    fn longest(&self, whose: Whose) -> Poly {
        match whose.place {
            Place::Collection(n) => match self.names.collections.values().find(|c| c.number == n) {
                Some(of) => entry_blocks(of),
                None => self.everything.clone(),
            },
            place => Poly::atom(Atom::Longest(place)),
        }
    }

    /// Does this call let something in the keyspace grow? Opening a collection only looks it up.
    fn lets_grow(&self, h: &Helper, whose: Option<Whose>) -> bool {
        let of_module = matches!(whose, Some(Whose { place: Place::Collection(_), .. }));
        h.effect == Effect::Write && !of_module && self.handle_kind(&h.result).is_none()
    }

    pub(super) fn blocks(&self, val: &Val) -> Poly {
        val.words.first().and_then(|w| w.bound.clone()).unwrap_or_else(|| self.everything.clone())
    }

    /// A row's polynomial for these arguments.
    fn row_cost(&self, row: &RowPoly, h: &Helper, vals: &[Val], whose: Option<Whose>, span: Span) -> Low<Poly> {
        let db = Whose { place: Place::Db, each: None };
        let receiver = h.params.first().filter(|_| h.has_receiver);
        let on_slot = receiver.and_then(|p| self.handle_kind(&p.1)) == Some(HandleKind::Slot);
        let mut cost = Poly::default();
        for (n, atoms) in row {
            let mut term = Poly::constant(*n);
            for atom in atoms {
                term = term.times(&match atom {
                    RowAtom::Blocks(i) => self.blocks(&vals[*i as usize]),
                    RowAtom::Text(i) => match vals[*i as usize].words[0].loc {
                        Loc::Arg(slot) => Poly::atom(Atom::Text(slot)),
                        _ => self.everything.clone(),
                    },
                    RowAtom::Int(i) => match &vals[*i as usize].words[0].bound {
                        Some(bound) => bound.clone(),
                        None => {
                            return Err(Diagnostic::new(
                                Code::Unbounded,
                                span,
                                "this call's work has no provable bound",
                            )
                            .note(format!("nothing says how large `{}` can be", h.params[*i as usize].0))
                            .help("bound it by a constant, an integer argument, a count or a length: `min(x, 100)`"));
                        }
                    },
                    RowAtom::Len => whose.unwrap_or(db).len(),
                    RowAtom::Total => whose.unwrap_or(db).total(),
                    RowAtom::Longest => self.stored_blocks(self.longest(whose.unwrap_or(db)), whose.unwrap_or(db)),
                    // a slot lies in the database; what it holds has a depth of its own once it is opened
                    RowAtom::Depth if on_slot => db.depth(),
                    RowAtom::Depth => whose.unwrap_or(db).depth(),
                });
            }
            cost.add(&term);
        }
        Ok(cost)
    }

    /// A write ends the views, and perhaps the slots, of the collection it changes; what it was called on lives.
    fn kill(&mut self, h: &Helper, args: &[Val], span: Span) {
        if h.kills == Kills::Nothing {
            return;
        }
        let receiver = args.first().filter(|_| h.has_receiver).and_then(|a| a.own).unwrap_or(0);
        let collection = match self.origins[receiver as usize].kind {
            OriginKind::Slot => self.origins[receiver as usize].parent,
            _ => receiver,
        };
        for o in 1..self.origins.len() as OriginId {
            let kind = self.origins[o as usize].kind;
            let spared = o == receiver || self.descends(receiver, o);
            let mortal = match kind {
                OriginKind::View | OriginKind::Iterator => true,
                OriginKind::Slot | OriginKind::Collection => h.kills == Kills::Slots,
            };
            if mortal && !spared && self.descends(o, collection) {
                self.killed.entry(o).or_insert(span);
            }
        }
    }
}

/// Arguments keep their order: a name says what one is, and must be that of the parameter in its place.
fn check_names<'n>(args: &[Expr], mut params: impl Iterator<Item = &'n str>) -> Low<()> {
    for arg in args {
        let param = params.next();
        if let ExprKind::Named { name, .. } = &arg.kind
            && param != Some(name.name.as_str())
        {
            let text = format!("the parameter in this place is not called `{}`", name.name);
            let error = Diagnostic::new(Code::UnknownName, name.span, text);
            return Err(match param {
                Some(param) => error.help(format!("it is `{param}`; arguments keep the order of the parameters")),
                None => error,
            });
        }
    }
    Ok(())
}

/// `return e` at the end of a branch is the branch's value; `if c { … return e } rest` is `if c { … e } else { rest }`.
fn returns_as_values(block: &Block) -> Block {
    let mut stmts = block.stmts.clone();
    for i in 0..stmts.len() {
        let rest_follows = i + 1 < stmts.len();
        if let StmtKind::Expr(Expr { kind: ExprKind::If { yes, no: no @ None, .. }, .. }) = &mut stmts[i].kind
            && rest_follows
            && matches!(yes.stmts.last().map(|s| &s.kind), Some(StmtKind::Return(_)))
        {
            let _ = (yes, no);
            let rest = stmts.split_off(i + 1);
            if let StmtKind::Expr(Expr { kind: ExprKind::If { no, .. }, .. }) = &mut stmts[i].kind {
                *no = Some(Block { stmts: rest, span: block.span });
            }
            break;
        }
    }
    if let Some(last) = stmts.last_mut() {
        match &mut last.kind {
            StmtKind::Return(value) => {
                let value = value.take();
                last.kind = match value {
                    Some(v) => StmtKind::Expr(v),
                    None => StmtKind::Expr(Expr { kind: ExprKind::Block(Block::default()), span: last.span }),
                };
            }
            StmtKind::Expr(Expr { kind: ExprKind::If { yes, no, .. }, .. }) => {
                *yes = returns_as_values(yes);
                *no = no.as_ref().map(returns_as_values);
            }
            StmtKind::Expr(Expr { kind: ExprKind::Match { arms, .. }, .. }) => {
                for arm in arms {
                    arm.body = returns_as_values(&arm.body);
                }
            }
            _ => {}
        }
    }
    Block { stmts, span: block.span }
}
