//! Branches and their joins: each branch is lowered into a buffer of its own; once all are known their common type is, and moves
//! into shared registers are appended to each.

use super::super::types::Sum;
use super::*;
use std::sync::Arc;

impl<'a> Lower<'a> {
    /// Lowers into a separate buffer, in a scope and register range of its own.
    pub(super) fn branch(&mut self, span: Span, f: impl FnOnce(&mut Self) -> Low<Val>) -> Low<Branch> {
        let outer = std::mem::take(&mut self.ops);
        let (scope, killed, first) = (self.scope.len(), self.killed.clone(), self.next_reg);
        let val = f(self);
        let named = val.as_ref().is_ok_and(|v| self.is_var(v));
        self.scope.truncate(scope);
        let ops = std::mem::replace(&mut self.ops, outer);
        let killed = std::mem::replace(&mut self.killed, killed);
        let top = std::mem::replace(&mut self.next_reg, first);
        Ok(Branch { ops, val: val?, killed, span, top, named })
    }

    /// Is a word of it the register of a variable?
    pub(super) fn is_var(&self, val: &Val) -> bool {
        let vars = self.scope.iter().filter_map(|(_, b)| match b {
            Binding::Var(v) => Some(v),
            // its fields can be changed
            Binding::Let(v) if matches!(v.ty, Type::Row { loaded: true, .. }) => Some(v),
            Binding::Let(_) => None,
        });
        let mut regs = vars.flat_map(|v| &v.words).map(|w| w.loc);
        regs.any(|r| val.words.iter().any(|w| w.loc == r))
    }

    /// Gives all branches one type and, where they have a value, moves it into registers of its own.
    /// Registers that the branches used are not given out again, so that moves cannot overwrite what others still read.
    pub(super) fn join(&mut self, branches: &mut [Branch], expect: Option<&Type>) -> Low<Val> {
        let mut ty: Option<Type> = None;
        for b in branches.iter().filter(|b| !b.val.is_never()) {
            ty = Some(match ty {
                None => b.val.ty.clone(),
                Some(t) => unify(&t, &b.val.ty).ok_or_else(|| mismatch(b.span, &t, &b.val.ty))?,
            });
        }
        let mut killed = BTreeMap::new();
        for b in branches.iter().filter(|b| !b.val.is_never()) {
            killed.extend(b.killed.iter().map(|(k, v)| (*k, *v)));
        }
        if ty.is_some() {
            self.killed = killed;
        }
        let Some(mut ty) = ty else { return Ok(Val::never()) };
        if let Some(want) = expect
            && (ty != Type::Unit || branches.iter().all(|b| b.val.ty != Type::Unit))
        {
            ty = want.clone();
        }
        if ty == Type::Unit {
            return Ok(Val::unit());
        }
        self.next_reg = branches.iter().map(|b| b.top).max().unwrap_or(0).max(self.next_reg);
        let mut joined: Option<Val> = None;
        let mut dest = Vec::new();
        for b in branches.iter_mut().filter(|b| !b.val.is_never()) {
            let val = coerce(b.val.clone(), &ty).map_err(|v| mismatch(b.span, &ty, &v.ty))?;
            if dest.is_empty() {
                for _ in 0..val.words.len() {
                    dest.push(self.reg(b.span)?);
                }
            }
            std::mem::swap(&mut self.ops, &mut b.ops);
            self.check_alive(&val, b.span)?;
            self.move_into(&dest, &val, !b.named);
            std::mem::swap(&mut self.ops, &mut b.ops);
            joined = Some(match joined {
                None => val,
                Some(j) => both(j, val),
            });
        }
        let mut val = joined.unwrap_or_else(Val::unit);
        for (w, d) in val.words.iter_mut().zip(&dest) {
            w.loc = Loc::Reg(*d);
        }
        Ok(val)
    }

    /// Copies a value's words. When nothing else names a `fresh` value, the operation that made it writes to its destination.
    pub(super) fn move_into(&mut self, dest: &[Reg], val: &Val, fresh: bool) {
        for (d, w) in dest.iter().zip(&val.words) {
            if let (Loc::Reg(s), [_], Some(last)) = (w.loc, dest, self.ops.last_mut())
                && fresh
                && retarget(&mut last.op, s, *d)
            {
                continue;
            }
            self.load_into(*d, w.loc);
        }
    }

    pub(super) fn append(&mut self, b: Branch) {
        self.ops.extend(b.ops);
    }

    /// `If c … Else … End`
    pub(super) fn if_else(&mut self, c: Reg, mut branches: [Branch; 2], expect: Option<&Type>) -> Low<Val> {
        let val = self.join(&mut branches, expect)?;
        let [yes, no] = branches;
        self.push(Op::If { c });
        self.append(yes);
        if !no.ops.is_empty() {
            self.push(Op::Else);
            self.append(no);
        }
        self.push(Op::End);
        Ok(val)
    }
}

/// Makes an operation that defines `from` define `to`.
fn retarget(op: &mut Op, from: Reg, to: Reg) -> bool {
    let d = match op {
        Op::Const { d, .. }
        | Op::Mov { d, .. }
        | Op::Arg { d, .. }
        | Op::Elem { d, .. }
        | Op::Count { d, .. }
        | Op::Int { d, .. }
        | Op::Float { d, .. }
        | Op::Bits { d, .. }
        | Op::CmpInt { d, .. }
        | Op::CmpFloat { d, .. }
        | Op::Not { d, .. }
        | Op::IntToFloat { d, .. }
        | Op::Sqrt { d, .. }
        | Op::Select { d, .. }
        | Op::Call { d, .. } => d,
        _ => return false,
    };
    let fits = *d == from;
    if fits {
        *d = to;
    }
    fits
}

fn both(a: Val, b: Val) -> Val {
    let mut val = a;
    for (w, v) in val.words.iter_mut().zip(b.words) {
        w.natural &= v.natural;
        w.joined |= v.joined;
        w.is = w.is.filter(|is| v.is == Some(*is));
        w.bound = match (w.bound.take(), v.bound) {
            (Some(x), Some(y)) => Some(x.max(&y)),
            _ => None,
        };
    }
    for o in b.origins {
        if !val.origins.contains(&o) {
            val.origins.push(o);
        }
    }
    if val.own != b.own {
        val.own = None;
    }
    if val.place != b.place {
        val.place = val.place.or(b.place).filter(|_| val.place.is_none() || b.place.is_none());
    }
    val
}

pub(super) fn mismatch(span: Span, wanted: &Type, found: &Type) -> Diagnostic {
    if let Type::Case(name, payload) = found
        && payload.is_empty()
        && name != "none"
        && !matches!(wanted, Type::Sum(_) | Type::Case(..))
    {
        return Diagnostic::new(Code::UnknownName, span, format!("nothing here is called `{name}`"));
    }
    Diagnostic::new(Code::Type, span, format!("expected {wanted}, found {found}"))
}

/// The one type of two branches.
fn unify(a: &Type, b: &Type) -> Option<Type> {
    let none = |t: &Type| matches!(t, Type::Case(n, p) if n == "none" && p.is_empty());
    match (a, b) {
        _ if a == b => Some(a.clone()),
        // no value in one branch: nobody can want the others'
        (Type::Unit, t) | (t, Type::Unit) => (none(t) || !matches!(t, Type::Case(..))).then_some(Type::Unit),
        (Type::Key, Type::Bytes) | (Type::Bytes, Type::Key) => Some(Type::Bytes),
        (Type::Case(..), Type::Case(..)) if !none(a) && !none(b) => {
            let sum = Sum { cases: vec![as_case(a)?, as_case(b)?], ..Sum::default() };
            Some(Type::Sum(Arc::new(sum)))
        }
        (Type::Case(n, p), t) | (t, Type::Case(n, p)) => match t {
            Type::Sum(s) if s.case(n).is_some_and(|(_, payload)| payload.len() == p.len()) => Some(t.clone()),
            Type::Sum(s) if n == "none" => Some(Type::Sum(s.clone()).optional()),
            Type::Case(m, q) if n == "none" => {
                Some(Type::Sum(Arc::new(Sum { none: true, cases: vec![(m.clone(), q.clone())], ..Sum::default() })))
            }
            Type::Sum(_) | Type::Unit => None,
            _ if n == "none" => Some(t.clone().optional()),
            _ => None,
        },
        (t, Type::Sum(_)) if coercible(t, b) => Some(b.clone()),
        (Type::Sum(_), t) if coercible(t, a) => Some(a.clone()),
        (Type::Tuple(x), Type::Tuple(y)) if x.len() == y.len() => {
            x.iter().zip(y).map(|(p, q)| unify(p, q)).collect::<Option<_>>().map(Type::Tuple)
        }
        _ => None,
    }
}

fn as_case(t: &Type) -> Option<(String, Vec<Type>)> {
    match t {
        Type::Case(n, p) => Some((n.clone(), p.clone())),
        _ => None,
    }
}

pub(super) fn coercible(from: &Type, to: &Type) -> bool {
    if from == to || *from == Type::Never {
        return true;
    }
    match (from, to) {
        (Type::Key, Type::Bytes) => true,
        (Type::Case(n, p), Type::Sum(s)) => {
            s.case(n).is_some_and(|(_, want)| p.len() == want.len() && p.iter().zip(want).all(|(a, b)| coercible(a, b)))
        }
        (Type::Sum(a), Type::Sum(b)) if a.cases == b.cases && (b.none || !a.none) => true,
        (t, Type::Sum(_)) => to.inner().is_some_and(|inner| !matches!(t, Type::Sum(_)) && coercible(t, &inner)),
        (Type::Tuple(a), Type::Tuple(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| coercible(x, y)),
        _ => false,
    }
}

/// The same value with the wanted type; only words are arranged. Gives the value back when it does not fit.
pub(super) fn coerce(val: Val, to: &Type) -> Result<Val, Box<Val>> {
    if !coercible(&val.ty, to) {
        return Err(Box::new(val));
    }
    if val.ty == *to {
        return Ok(val);
    }
    let words = arrange(&val.ty, &val.words, to);
    Ok(Val { ty: to.clone(), words, ..val })
}

fn arrange(from: &Type, words: &[Word], to: &Type) -> SmallVec<[Word; 2]> {
    if from == to {
        return words.iter().cloned().collect();
    }
    let tagged = |tag: u64, payload: SmallVec<[Word; 2]>| {
        let mut all: SmallVec<[Word; 2]> = SmallVec::new();
        all.push(Word::constant(tag));
        all.extend(payload);
        all.resize(to.width(), Word::constant(0));
        all
    };
    match (from, to) {
        (Type::Key, Type::Bytes) => words[..1].iter().cloned().collect(),
        (Type::Case(n, p), Type::Sum(s)) => {
            let (tag, want) = s.case(n).unwrap_or((0, &[]));
            tagged(tag, arrange_all(p, words, want))
        }
        (Type::Sum(_), Type::Sum(_)) => words.iter().cloned().collect(),
        (Type::Tuple(a), Type::Tuple(b)) => arrange_all(a, words, b),
        (t, _) => match to.inner() {
            Some(inner) => tagged(1, arrange(t, words, &inner)),
            None => words.iter().cloned().collect(),
        },
    }
}

fn arrange_all(from: &[Type], words: &[Word], to: &[Type]) -> SmallVec<[Word; 2]> {
    let mut out = SmallVec::new();
    let mut at = 0;
    for (a, b) in from.iter().zip(to) {
        out.extend(arrange(a, &words[at..at + a.width()], b));
        at += a.width();
    }
    out
}
