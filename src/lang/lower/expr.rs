//! Expressions.

use super::super::ir::{BitOp, FloatOp, IntOp, Rel};
use super::super::types::Sum;
use super::flow::{coerce, coercible, mismatch};
use super::*;
use std::sync::Arc;

/// Most operations of a right side of `&&` or `||` that is computed even when it does not matter.
const EAGER_OPS_MAX: usize = 4;

impl<'a> Lower<'a> {
    pub(super) fn expr(&mut self, e: &Expr, expect: Option<&Type>) -> Low<Val> {
        self.at(e.span);
        match &e.kind {
            ExprKind::Int(v) => Ok(Val::new(Type::Int, [Word::constant(*v as u64)])),
            ExprKind::Float(v) => Ok(Val::new(Type::Float, [Word::at(Loc::Const(v.to_bits()))])),
            ExprKind::Bytes(v) => Ok(self.literal(v)),
            ExprKind::Bool(v) => Ok(Val::new(Type::Bool, [Word::constant(*v as u64)])),
            ExprKind::None => Ok(Val::new(Type::Case("none".into(), Vec::new()), [])),
            ExprKind::Name(name) => self.name(name, e.span, expect),
            ExprKind::Call { name, args } => self.call(name, args, e.span),
            ExprKind::Named { value, .. } => self.expr(value, expect),
            ExprKind::Method { on, name, args } => self.method(on, name, args.as_deref(), e.span),
            ExprKind::Index { on, index } => self.index(on, index, e.span),
            ExprKind::Unary { op, value } => self.unary(*op, value, e.span),
            ExprKind::Binary { op: BinOp::And, a, b } => self.short_circuit(a, b, true, e.span),
            ExprKind::Binary { op: BinOp::Or, a, b } => self.short_circuit(a, b, false, e.span),
            ExprKind::Binary { op, a, b } => {
                let a = self.expr(a, None)?;
                let b = self.expr(b, None)?;
                self.binary(*op, a, b, e.span)
            }
            ExprKind::Is { value, case } => {
                let val = self.expr(value, None)?;
                self.is_case(&val, &case.name, case.span)
            }
            ExprKind::Ternary { condition, yes, no } => self.ternary(condition, yes, no, expect, e.span),
            ExprKind::Else { value, otherwise } => self.otherwise(value, otherwise, expect),
            ExprKind::Tuple(items) => self.tuple(items, expect),
            ExprKind::If { condition, yes, no } => self.if_expr(condition, yes, no.as_ref(), expect, e.span),
            ExprKind::Match { on, arms } => self.match_expr(on, arms, expect, e.span),
            ExprKind::Block(block) => self.block(block, expect),
            ExprKind::Record { name, fields } => self.record(name, fields, e.span),
            ExprKind::Range { .. } => Err(Diagnostic::new(Code::Misplaced, e.span, "a range of keys is no value")
                .help("`for key in x.range(a ..= b) limit n { … }`")),
        }
    }

    /// An expression of a known type.
    pub(super) fn expr_as(&mut self, e: &Expr, ty: &Type) -> Low<Val> {
        let val = self.expr(e, Some(ty))?;
        coerce(val, ty).map_err(|v| mismatch(e.span, ty, &v.ty))
    }

    /// A one-word value in a register.
    pub(super) fn in_reg(&mut self, val: &Val, span: Span) -> Low<Reg> {
        self.check_alive(val, span)?;
        match val.words.first() {
            Some(w) => {
                let w = w.clone();
                self.load(&w, span)
            }
            None => Err(Diagnostic::new(Code::Type, span, format!("{} is not a value", val.ty))),
        }
    }

    fn name(&mut self, name: &str, span: Span, expect: Option<&Type>) -> Low<Val> {
        match self.lookup(name) {
            Some(Binding::Let(v) | Binding::Var(v)) => return Ok(v.clone()),
            None => {}
        }
        // a case of the wanted type goes before a collection of that name
        let is_case = matches!(expect, Some(Type::Sum(s)) if s.case(name).is_some());
        if let Some(of) = self.names.collections.get(name).filter(|_| !is_case).cloned() {
            return Ok(self.collection(of));
        }
        if let Some(def) = self.names.consts.get(name) {
            let value = def.value.clone();
            return self.expr(&value, expect);
        }
        if let Some(text) = self.names.texts.get(name) {
            return Ok(self.literal(text.as_bytes()));
        }
        if let Some((ty, word)) = self.table.globals.get(name).cloned() {
            let mut val = Val::new(ty, [Word::constant(word)]);
            val.place = Some(Whose { place: Place::Db, each: None });
            val.own = Some(0);
            return Ok(val);
        }
        if self.table.named(name).any(|h| h.is_property) {
            return self.helper(name, Vec::new(), true, span);
        }
        Ok(Val::new(Type::Case(name.to_owned(), Vec::new()), []))
    }

    fn tuple(&mut self, items: &[Expr], expect: Option<&Type>) -> Low<Val> {
        let wanted = match expect {
            Some(Type::Tuple(t)) if t.len() == items.len() => Some(t.clone()),
            _ => None,
        };
        let mut types = Vec::new();
        let mut all = Val::unit();
        for (i, item) in items.iter().enumerate() {
            let val = match &wanted {
                Some(t) => self.expr_as(item, &t[i])?,
                None => self.expr(item, None)?,
            };
            types.push(val.ty);
            all.words.extend(val.words);
            for o in val.origins {
                if !all.origins.contains(&o) {
                    all.origins.push(o);
                }
            }
        }
        all.ty = Type::Tuple(types);
        Ok(all)
    }

    // --- operators ---

    fn unary(&mut self, op: UnOp, value: &Expr, span: Span) -> Low<Val> {
        let val = self.expr(value, None)?;
        match (op, &val.ty) {
            (UnOp::Not, Type::Bool) => self.not(&val, span),
            (UnOp::Neg, Type::Int) => {
                let zero = Val::new(Type::Int, [Word::constant(0)]);
                self.binary(BinOp::Sub, zero, val, span)
            }
            (UnOp::Neg, Type::Float) => {
                let zero = Val::new(Type::Float, [Word::at(Loc::Const((-0.0f64).to_bits()))]);
                self.binary(BinOp::Sub, zero, val, span)
            }
            (UnOp::BitNot, Type::Int) => {
                let ones = Val::new(Type::Int, [Word::constant(u64::MAX)]);
                self.binary(BinOp::BitXor, val, ones, span)
            }
            (_, t) => Err(Diagnostic::new(Code::Type, span, format!("this operator does not take {t}"))),
        }
    }

    pub(super) fn not(&mut self, val: &Val, span: Span) -> Low<Val> {
        if let Loc::Const(c) = val.words[0].loc {
            return Ok(Val::new(Type::Bool, [Word::constant((c == 0) as u64)]));
        }
        let s = self.in_reg(val, span)?;
        let d = self.reg(span)?;
        self.push(Op::Not { d, s });
        Ok(Val::new(Type::Bool, [Word::at(Loc::Reg(d))]))
    }

    pub(super) fn bool(&mut self, e: &Expr) -> Low<Val> {
        self.expr_as(e, &Type::Bool)
    }

    fn short_circuit(&mut self, a: &Expr, b: &Expr, and: bool, span: Span) -> Low<Val> {
        let left = self.bool(a)?;
        // Before the right side: its registers begin after this one.
        let c = self.in_reg(&left, span)?;
        self.open(span)?;
        let right = self.branch(b.span, |l| l.bool(b));
        self.close();
        let right = right?;
        let cheap = right.ops.len() <= EAGER_OPS_MAX && right.ops.iter().all(|e| is_total(&e.op));
        if cheap {
            self.next_reg = self.next_reg.max(right.top);
            let val = right.val.clone();
            self.ops.extend(right.ops);
            let b = self.in_reg(&val, span)?;
            let d = self.reg(span)?;
            self.push(Op::Bits { op: if and { BitOp::And } else { BitOp::Or }, d, a: c, b });
            return Ok(Val::new(Type::Bool, [Word::at(Loc::Reg(d))]));
        }
        let constant = self.branch(span, |_| Ok(Val::new(Type::Bool, [Word::constant(!and as u64)])))?;
        let branches = if and { [right, constant] } else { [constant, right] };
        self.if_else(c, branches, Some(&Type::Bool))
    }

    pub(super) fn binary(&mut self, op: BinOp, a: Val, b: Val, span: Span) -> Low<Val> {
        use BinOp::*;
        if matches!(op, Eq | Ne | Lt | Le | Gt | Ge) {
            return self.compare(op, a, b, span);
        }
        let known = bound_of(op, &a, &b);
        let both = (a.ty.clone(), b.ty.clone());
        let (x, y) = match both {
            (Type::Int, Type::Int) | (Type::Float, Type::Float) => (self.in_reg(&a, span)?, self.in_reg(&b, span)?),
            (x, y) => return Err(operands(span, &x, &y)),
        };
        let d = self.reg(span)?;
        let float = both.0 == Type::Float;
        let ir = match op {
            Add if float => Op::Float { op: FloatOp::Add, d, a: x, b: y },
            Sub if float => Op::Float { op: FloatOp::Sub, d, a: x, b: y },
            Mul if float => Op::Float { op: FloatOp::Mul, d, a: x, b: y },
            Div if float => Op::Float { op: FloatOp::Div, d, a: x, b: y },
            Add => Op::Int { op: IntOp::Add, d, a: x, b: y },
            Sub => Op::Int { op: IntOp::Sub, d, a: x, b: y },
            Mul => Op::Int { op: IntOp::Mul, d, a: x, b: y },
            Div => Op::Int { op: IntOp::Div, d, a: x, b: y },
            Rem if !float => Op::Int { op: IntOp::Rem, d, a: x, b: y },
            BitAnd if !float => Op::Bits { op: BitOp::And, d, a: x, b: y },
            BitOr if !float => Op::Bits { op: BitOp::Or, d, a: x, b: y },
            BitXor if !float => Op::Bits { op: BitOp::Xor, d, a: x, b: y },
            Shl if !float => Op::Bits { op: BitOp::Shl, d, a: x, b: y },
            Shr if !float => Op::Bits { op: BitOp::Shr, d, a: x, b: y },
            ShrUnsigned if !float => Op::Bits { op: BitOp::ShrUnsigned, d, a: x, b: y },
            _ => return Err(operands(span, &both.0, &both.1)),
        };
        self.push(ir);
        Ok(Val::new(both.0, [Word { loc: Loc::Reg(d), ..known }]))
    }

    fn compare(&mut self, op: BinOp, a: Val, b: Val, span: Span) -> Low<Val> {
        let rel = match op {
            BinOp::Eq => Rel::Eq,
            BinOp::Ne => Rel::Ne,
            BinOp::Lt => Rel::Lt,
            BinOp::Le => Rel::Le,
            BinOp::Gt => Rel::Gt,
            _ => Rel::Ge,
        };
        if a.ty.is_bytes() && b.ty.is_bytes() {
            return self.compare_bytes(rel, a, b, span);
        }
        let ordered = a.ty == b.ty && matches!(a.ty, Type::Int | Type::Float);
        let equal =
            matches!(rel, Rel::Eq | Rel::Ne) && (a.ty == Type::Bool && b.ty == Type::Bool || same_tags(&a.ty, &b.ty));
        if !ordered && !equal {
            return Err(operands(span, &a.ty, &b.ty));
        }
        let (x, y) = (self.in_reg(&a, span)?, self.in_reg(&b, span)?);
        let d = self.reg(span)?;
        self.push(match a.ty {
            Type::Float => Op::CmpFloat { rel, d, a: x, b: y },
            _ => Op::CmpInt { rel, d, a: x, b: y },
        });
        Ok(Val::new(Type::Bool, [Word::at(Loc::Reg(d))]))
    }

    fn compare_bytes(&mut self, rel: Rel, a: Val, b: Val, span: Span) -> Low<Val> {
        if matches!(rel, Rel::Eq | Rel::Ne) {
            let equal = self.helper("bytes.eq", vec![a, b], false, span)?;
            return if rel == Rel::Eq { Ok(equal) } else { self.not(&equal, span) };
        }
        let order = self.helper("bytes.cmp", vec![a, b], false, span)?;
        let x = self.in_reg(&order, span)?;
        let y = self.load(&Word::constant(0), span)?;
        let d = self.reg(span)?;
        self.push(Op::CmpInt { rel, d, a: x, b: y });
        Ok(Val::new(Type::Bool, [Word::at(Loc::Reg(d))]))
    }

    /// `min`, `max` of two ints or floats.
    pub(super) fn extreme(&mut self, least: bool, a: Val, b: Val, span: Span) -> Low<Val> {
        let (x, y) = (self.in_reg(&a, span)?, self.in_reg(&b, span)?);
        let d = self.reg(span)?;
        let (wa, wb) = (&a.words[0], &b.words[0]);
        match (&a.ty, &b.ty) {
            (Type::Int, Type::Int) => {
                let op = if least { IntOp::Min } else { IntOp::Max };
                self.push(Op::Int { op, d, a: x, b: y });
            }
            (Type::Float, Type::Float) => {
                let op = if least { FloatOp::Min } else { FloatOp::Max };
                self.push(Op::Float { op, d, a: x, b: y });
            }
            (t, u) => return Err(operands(span, t, u)),
        }
        let bound = match (&wa.bound, &wb.bound) {
            (Some(p), Some(q)) if least => Some(p.least(q)),
            (Some(p), None) | (None, Some(p)) if least => Some(p.clone()),
            (Some(p), Some(q)) => Some(p.clone().max(q)),
            _ => None,
        };
        let natural = if least { wa.natural && wb.natural } else { wa.natural || wb.natural };
        Ok(Val::new(a.ty.clone(), [Word { bound, natural, ..Word::at(Loc::Reg(d)) }]))
    }

    /// `value is CASE`
    pub(super) fn is_case(&mut self, val: &Val, case: &str, span: Span) -> Low<Val> {
        if let Type::Case(name, _) = &val.ty {
            let found = if case == "some" { name != "none" } else { name == case };
            return Ok(Val::new(Type::Bool, [Word::constant(found as u64)]));
        }
        let Type::Sum(sum) = &val.ty else {
            return Err(Diagnostic::new(Code::Type, span, format!("{} has no cases", val.ty)));
        };
        let (rel, tag) = match sum.case(case) {
            Some((tag, _)) => (Rel::Eq, tag),
            None if case == "some" && sum.none => (Rel::Ne, 0),
            None => return Err(no_case(span, case, sum)),
        };
        self.check_alive(val, span)?;
        let word = val.words[0].clone();
        let a = self.load(&word, span)?;
        let b = self.load(&Word::constant(tag), span)?;
        let d = self.reg(span)?;
        self.push(Op::CmpInt { rel, d, a, b });
        Ok(Val::new(Type::Bool, [Word::at(Loc::Reg(d))]))
    }

    /// `value.case`: the payload if it is that case.
    pub(super) fn project(&mut self, val: &Val, case: &str, span: Span) -> Low<Option<Val>> {
        let Type::Sum(sum) = &val.ty else { return Ok(None) };
        let Some((_, payload)) = sum.case(case) else { return Ok(None) };
        if payload.is_empty() {
            return Ok(None);
        }
        let inner = if payload.len() == 1 { payload[0].clone() } else { Type::Tuple(payload.to_vec()) };
        let width = inner.width();
        let tag = self.is_case(val, case, span)?;
        let words = tag.words.into_iter().chain(val.words[1..1 + width].iter().cloned());
        let ty = Type::Sum(Arc::new(Sum { none: true, cases: vec![("some".into(), vec![inner])], ..Sum::default() }));
        Ok(Some(val.with(ty, words)))
    }

    // --- choices ---

    fn ternary(&mut self, c: &Expr, yes: &Expr, no: &Expr, expect: Option<&Type>, span: Span) -> Low<Val> {
        let sign_of = self.sign_test(c);
        let condition = self.bool(c)?;
        let c = self.in_reg(&condition, c.span)?;
        self.open(span)?;
        let a = self.branch(yes.span, |l| l.expr(yes, expect))?;
        let b = self.branch(no.span, |l| l.expr(no, expect))?;
        self.close();
        let bound_by_sign = sign_of.and_then(|of| match (&a.val, &b.val) {
            (Val { ty: Type::Int, words: p, .. }, Val { ty: Type::Int, words: q, .. }) => {
                Some(Poly::signed(of, p[0].bound.as_ref()?, q[0].bound.as_ref()?))
            }
            _ => None,
        });
        let mut val = self.choose_value(c, a, b, expect, span)?;
        if bound_by_sign.is_some() {
            val.words[0].bound = bound_by_sign;
        }
        Ok(val)
    }

    /// `argument < 0`: which.
    fn sign_test(&self, c: &Expr) -> Option<Number> {
        let ExprKind::Binary { op: BinOp::Lt, a, b } = &c.kind else { return None };
        match (&a.kind, &b.kind) {
            (ExprKind::Name(name), ExprKind::Int(0)) => match self.lookup(name)? {
                Binding::Let(Val { ty: Type::Int, words, .. }) => words[0].is,
                _ => None,
            },
            _ => None,
        }
    }

    /// One of two values; without a branch when both are at hand.
    fn choose_value(&mut self, c: Reg, a: Branch, b: Branch, expect: Option<&Type>, span: Span) -> Low<Val> {
        if a.ops.is_empty() && b.ops.is_empty() && a.val.ty == b.val.ty && a.val.words.len() == 1 {
            self.check_alive(&a.val, a.span)?;
            self.check_alive(&b.val, b.span)?;
            let x = self.load(&a.val.words[0], span)?;
            let y = self.load(&b.val.words[0], span)?;
            let d = self.reg(span)?;
            self.push(Op::Select { d, c, a: x, b: y });
            let mut both = [a, b];
            let mut val = both[0].val.clone();
            let joined = std::mem::take(&mut both[1].val.words);
            val.words[0].loc = Loc::Reg(d);
            val.words[0].natural &= joined[0].natural;
            val.words[0].is = None;
            val.words[0].bound = match (val.words[0].bound.take(), &joined[0].bound) {
                (Some(p), Some(q)) => Some(p.max(q)),
                _ => None,
            };
            for o in &both[1].val.origins {
                if !val.origins.contains(o) {
                    val.origins.push(*o);
                }
            }
            return Ok(val);
        }
        self.if_else(c, [a, b], expect)
    }

    fn if_expr(&mut self, c: &Expr, yes: &Block, no: Option<&Block>, expect: Option<&Type>, span: Span) -> Low<Val> {
        let condition = self.bool(c)?;
        let c = self.in_reg(&condition, c.span)?;
        self.open(span)?;
        let expect = if no.is_some() { expect } else { None };
        let a = self.branch(yes.span, |l| if no.is_some() { l.block(yes, expect) } else { l.unit_block(yes) })?;
        let b = match no {
            Some(no) => self.branch(no.span, |l| l.block(no, expect))?,
            None => self.branch(span, |_| Ok(Val::unit()))?,
        };
        self.close();
        self.if_else(c, [a, b], expect)
    }

    /// `value else otherwise`
    fn otherwise(&mut self, value: &Expr, otherwise: &Block, expect: Option<&Type>) -> Low<Val> {
        let val = self.expr(value, None)?;
        let Some(inner) = val.ty.inner() else {
            return Err(Diagnostic::new(Code::Type, value.span, format!("`else` unwraps a `T?`, this is {}", val.ty)));
        };
        self.check_alive(&val, value.span)?;
        let tag = val.words[0].clone();
        let c = self.load(&tag, value.span)?;
        let payload = val.with(inner.clone(), val.words[1..].iter().cloned());
        self.open(otherwise.span)?;
        let b = self.branch(otherwise.span, |l| l.block(otherwise, Some(expect.unwrap_or(&inner))));
        self.close();
        let b = b?;
        if b.val.is_never() {
            self.push(Op::If { c });
            self.push(Op::Else);
            self.append(b);
            self.push(Op::End);
            return Ok(payload);
        }
        if b.val.ty == Type::Unit {
            return Err(Diagnostic::new(Code::Type, otherwise.span, "this block gives no value and does not leave")
                .help("end it with `return`, `fail`, `break` or a value"));
        }
        let a = self.branch(value.span, |_| Ok(payload))?;
        self.if_else(c, [a, b], expect.filter(|t| coercible(&inner, t)))
    }

    /// `list[i]`: traps outside.
    fn index(&mut self, on: &Expr, index: &Expr, span: Span) -> Low<Val> {
        let list = self.expr(on, None)?;
        if let Type::Items(items) = list.ty.clone() {
            let i = self.expr_as(index, &Type::Int)?;
            return self.list_item(&list, &items, i, span);
        }
        let Type::List(element) = list.ty.clone() else {
            return Err(Diagnostic::new(Code::Type, on.span, format!("{} cannot be indexed", list.ty)));
        };
        let Loc::Arg(slot) = list.words[0].loc else { return Ok(Val::never()) };
        let i = self.expr_as(index, &Type::Int)?;
        let i = self.in_reg(&i, index.span)?;
        let width = element.width() as u8;
        let mut words: SmallVec<[Word; 2]> = SmallVec::new();
        for field in 0..width {
            let d = self.reg(span)?;
            self.push_noted(Op::Elem { d, slot, index: i, width, field }, Note::MayTrap);
            words.push(Word::bounded(Loc::Reg(d), self.everything.clone()));
            words[field as usize].natural = false;
        }
        let mut val = Val::new((*element).clone(), words);
        forget_int_bounds(&mut val);
        val.place = list.place;
        Ok(val)
    }
}

/// Bounds of elements count blocks; an int among them has none.
pub(super) fn forget_int_bounds(val: &mut Val) {
    let mut kinds = Vec::new();
    word_kinds(&val.ty, &mut kinds);
    for (w, is_bytes) in val.words.iter_mut().zip(kinds) {
        if !is_bytes {
            w.bound = None;
        }
    }
}

/// For each word: may it be bytes?
pub(super) fn word_kinds(ty: &Type, out: &mut Vec<bool>) {
    match ty {
        Type::Bytes => out.push(true),
        Type::Key => out.extend([true, false]),
        Type::Tuple(fields) => fields.iter().for_each(|f| word_kinds(f, out)),
        Type::Record(r) => r.fields.iter().for_each(|f| word_kinds(&f.1, out)),
        Type::Sum(s) => {
            out.push(false);
            let first = out.len();
            out.resize(first + s.payload_width(), false);
            for (_, payload) in &s.cases {
                let mut words = Vec::new();
                payload.iter().for_each(|p| word_kinds(p, &mut words));
                for (i, w) in words.into_iter().enumerate() {
                    out[first + i] |= w;
                }
            }
        }
        t => out.resize(out.len() + t.width(), false),
    }
}

/// What arithmetic knows of its result; `loc` is filled in by the caller.
fn bound_of(op: BinOp, a: &Val, b: &Val) -> Word {
    let mut word = Word::at(Loc::Const(0));
    let (Some(x), Some(y)) = (a.words.first(), b.words.first()) else { return word };
    let natural = x.natural && y.natural;
    let constant = |w: &Word| match w.loc {
        Loc::Const(c) => Some(c as i64),
        _ => None,
    };
    match op {
        BinOp::Add => {
            word.natural = natural;
            if let (Some(p), Some(q)) = (&x.bound, &y.bound) {
                word.bound = Some(p.clone().plus(q));
            } else if let (Some(p), true) = (&x.bound, constant(y).is_some_and(|c| c < 0)) {
                word.bound = Some(p.clone());
            }
        }
        BinOp::Sub if y.natural => word.bound = x.bound.clone(),
        BinOp::Sub => {
            if let (Some(p), Some(c)) = (&x.bound, constant(y).filter(|c| *c < 0)) {
                word.bound = Some(p.clone().plus(&Poly::constant(c.unsigned_abs())));
            }
        }
        BinOp::Mul if natural => {
            word.natural = true;
            if let (Some(p), Some(q)) = (&x.bound, &y.bound) {
                word.bound = Some(p.times(q));
            }
        }
        BinOp::Div | BinOp::Shr | BinOp::ShrUnsigned if natural => {
            word.natural = true;
            word.bound = x.bound.clone();
        }
        BinOp::Rem => {
            word.natural = x.natural;
            word.bound =
                constant(y).filter(|c| *c != i64::MIN).map(|c| Poly::constant(c.unsigned_abs().saturating_sub(1)));
        }
        BinOp::BitAnd if x.natural || y.natural => {
            word.natural = true;
            word.bound = if y.natural { y.bound.clone() } else { x.bound.clone() };
        }
        _ => {}
    }
    word
}

/// Can run without being wanted: no trap, no call, no structure.
fn is_total(op: &Op) -> bool {
    match op {
        Op::Const { .. }
        | Op::Mov { .. }
        | Op::Arg { .. }
        | Op::Count { .. }
        | Op::Bits { .. }
        | Op::CmpInt { .. }
        | Op::CmpFloat { .. }
        | Op::Not { .. }
        | Op::IntToFloat { .. }
        | Op::Select { .. } => true,
        Op::Int { op, .. } => matches!(op, IntOp::Min | IntOp::Max),
        _ => false,
    }
}

fn same_tags(a: &Type, b: &Type) -> bool {
    matches!((a, b), (Type::Sum(x), Type::Sum(y)) if x.cases == y.cases && x.payload_width() == 0)
}

fn operands(span: Span, a: &Type, b: &Type) -> Diagnostic {
    let unknown = |t: &Type| matches!(t, Type::Case(n, p) if p.is_empty() && n != "none");
    if unknown(a) {
        return mismatch(span, b, a);
    }
    if unknown(b) {
        return mismatch(span, a, b);
    }
    Diagnostic::new(Code::Type, span, format!("this operator does not take {a} and {b}"))
        .help("there are no implicit conversions: `float(i)` makes a float of an int; `x is CASE` tests a case")
}

pub(super) fn no_case(span: Span, case: &str, sum: &Sum) -> Diagnostic {
    let mut names: Vec<&str> = sum.cases.iter().map(|c| c.0.as_str()).collect();
    if sum.none {
        names.push("none");
    }
    Diagnostic::new(Code::Pattern, span, format!("there is no case `{case}` here"))
        .help(format!("cases: {}", names.join(", ")))
}
