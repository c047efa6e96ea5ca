//! `match` and patterns.

use super::super::ir::Rel;
use super::super::types::Sum;
use super::expr::no_case;
use super::*;

/// What a pattern demands of a value before it binds: conditions, each a bool.
type Demands = Vec<Val>;

impl<'a> Lower<'a> {
    /// Binds a pattern that cannot fail (`let`, `for`).
    pub(super) fn bind_pattern(&mut self, p: &Pattern, val: Val) -> Low<()> {
        match (&p.kind, &val.ty) {
            (PatternKind::Any, _) => {}
            (PatternKind::Name(name), _) => self.bind(name, Binding::Let(val)),
            (PatternKind::Tuple(items), Type::Tuple(types)) if items.len() == types.len() => {
                let mut at = 0;
                for (item, ty) in items.iter().zip(types.clone()) {
                    let part = self.part(&val, ty, at);
                    at += part.words.len();
                    self.bind_pattern(item, part)?;
                }
            }
            (PatternKind::Tuple(items), t) => {
                return Err(Diagnostic::new(Code::Pattern, p.span, format!("{} names for {t}", items.len())));
            }
            _ => {
                return Err(Diagnostic::new(Code::Pattern, p.span, "this pattern may not match")
                    .help("use `match`, or `let … = e else { … }`"));
            }
        }
        Ok(())
    }

    /// Some words of a value, as a value.
    fn part(&self, val: &Val, ty: Type, at: usize) -> Val {
        let words = val.words[at..at + ty.width()].to_vec();
        let mut part = val.with(ty, words);
        if !matches!(part.ty, Type::Handle(..) | Type::Sum(_)) {
            part.own = None;
        }
        part
    }

    pub(super) fn match_expr(&mut self, on: &Expr, arms: &[Arm], expect: Option<&Type>, span: Span) -> Low<Val> {
        let val = self.expr(on, None)?;
        // what an arm binds must not change when the arm assigns to the variable it came from
        let val = if self.is_var(&val) { self.copy(val, on.span)? } else { val };
        self.check_alive(&val, on.span)?;
        match &val.ty {
            Type::Sum(sum) => {
                let sum = sum.clone();
                self.match_sum(&val, &sum, arms, expect, span)
            }
            Type::Int | Type::Bool if arms.iter().all(is_plain_int) => self.match_ints(&val, arms, expect, span),
            Type::Case(name, _) if name != "none" => Err(super::flow::mismatch(on.span, &Type::Int, &val.ty)),
            _ => self.match_chain(&val, arms, 0, expect, span),
        }
    }

    /// One `Switch` over the tag; within a case its arms are tried in order.
    fn match_sum(&mut self, val: &Val, sum: &Sum, arms: &[Arm], expect: Option<&Type>, span: Span) -> Low<Val> {
        let mut tags = Vec::new();
        for p in arms.iter().flat_map(|a| &a.patterns) {
            if let Some(tag) = self.head_tag(p, sum)?
                && !tags.contains(&tag)
            {
                tags.push(tag);
            }
        }
        // absence first: options are mostly not given
        tags.sort_unstable();
        let all = sum.cases.len() as u64 + sum.none as u64;
        let word = val.words[0].clone();
        let s = self.load(&word, span)?;
        self.open(span)?;
        let mut branches = Vec::new();
        for &tag in &tags {
            branches.push(self.branch(span, |l| l.case_arms(val, sum, Some(tag), arms, expect, span))?);
        }
        if (tags.len() as u64) < all {
            branches.push(self.branch(span, |l| l.case_arms(val, sum, None, arms, expect, span))?);
        }
        self.close();
        let bound = if let Loc::Arg(slot) = word.loc { bound_by_choice(slot, &tags, &branches) } else { None };
        let mut joined = self.switch(s, &tags, branches, expect)?;
        if joined.ty == Type::Int
            && let Some(bound) = bound
        {
            joined.words[0].bound = Some(bound);
        }
        Ok(joined)
    }

    fn switch(&mut self, s: Reg, tags: &[u64], mut branches: Vec<Branch>, expect: Option<&Type>) -> Low<Val> {
        let joined = self.join(&mut branches, expect)?;
        // The last of all cases is the default: one branch runs whatever the word is, so what the branches define is defined.
        let tags = &tags[..tags.len().min(branches.len().saturating_sub(1))];
        self.push(Op::Switch { s });
        for (i, b) in branches.into_iter().enumerate() {
            self.push(tags.get(i).map_or(Op::Default, |tag| Op::Case { value: *tag }));
            self.append(b);
        }
        self.push(Op::End);
        Ok(joined)
    }

    /// The case a pattern asks for; None: any.
    fn head_tag(&self, p: &Pattern, sum: &Sum) -> Low<Option<u64>> {
        match &p.kind {
            PatternKind::Any | PatternKind::Tuple(_) => Ok(None),
            PatternKind::Name(name) => Ok(sum.case(name).map(|c| c.0)),
            PatternKind::Case(name, _) => match sum.case(name) {
                Some((tag, _)) => Ok(Some(tag)),
                None => Err(no_case(p.span, name, sum)),
            },
            _ => Err(Diagnostic::new(Code::Pattern, p.span, "this pattern cannot match a value with cases")),
        }
    }

    /// The arms that fit `tag` (None: all tags without arms of their own), in order, until one cannot fail.
    fn case_arms(
        &mut self,
        val: &Val,
        sum: &Sum,
        tag: Option<u64>,
        arms: &[Arm],
        expect: Option<&Type>,
        span: Span,
    ) -> Low<Val> {
        for (i, arm) in arms.iter().enumerate() {
            for p in &arm.patterns {
                let head = self.head_tag(p, sum)?;
                if head.is_some() && head != tag {
                    continue;
                }
                self.at(arm.span);
                let mut demands = Demands::new();
                if let PatternKind::Case(name, items) = &p.kind {
                    self.bind_payload(val, sum, name, items, p.span, &mut demands)?;
                } else if let (PatternKind::Name(name), None) = (&p.kind, head) {
                    self.bind(name, Binding::Let(val.clone()));
                }
                if demands.is_empty() && arm.guard.is_none() {
                    return self.block(&arm.body, expect);
                }
                let rest = &arms[i + 1..];
                return self.guarded(demands, arm, expect, |l| l.case_arms(val, sum, tag, rest, expect, span));
            }
        }
        let left_out = match tag {
            Some(0) => "none".to_owned(),
            Some(t) => sum.cases[t as usize - 1].0.clone(),
            None => {
                let named = |n: &str| arms.iter().flat_map(|a| &a.patterns).any(|p| head_name(p) == Some(n));
                let mut names: Vec<&str> = sum.cases.iter().map(|c| c.0.as_str()).filter(|n| !named(n)).collect();
                if sum.none && !named("none") {
                    names.push("none");
                }
                names.join(", ")
            }
        };
        Err(Diagnostic::new(Code::Pattern, span, format!("this match leaves out: {left_out}"))
            .help("add the cases, or `_ => …`"))
    }

    fn bind_payload(
        &mut self,
        val: &Val,
        sum: &Sum,
        name: &str,
        items: &[Pattern],
        span: Span,
        demands: &mut Demands,
    ) -> Low<()> {
        let payload = sum.case(name).map(|c| c.1.to_vec()).unwrap_or_default();
        if items.len() != payload.len() && !items.is_empty() {
            return Err(Diagnostic::new(Code::Pattern, span, format!("`{name}` holds {} values", payload.len())));
        }
        let mut at = 1;
        for (item, ty) in items.iter().zip(payload) {
            let part = self.part(val, ty, at);
            at += part.words.len();
            self.demand(item, part, demands)?;
        }
        Ok(())
    }

    /// Binds a pattern that may fail; its conditions go to `demands`.
    fn demand(&mut self, p: &Pattern, val: Val, demands: &mut Demands) -> Low<()> {
        match (&p.kind, val.ty.clone()) {
            (PatternKind::Name(name), Type::Sum(sum)) if sum.case(name).is_some() => {
                demands.push(self.is_case(&val, name, p.span)?);
            }
            (PatternKind::Case(name, items), Type::Sum(sum)) => {
                demands.push(self.is_case(&val, name, p.span)?);
                self.bind_payload(&val, &sum, name, items, p.span, demands)?;
            }
            (PatternKind::Int(v), Type::Int) => {
                let want = Val::new(Type::Int, [Word::constant(*v as u64)]);
                demands.push(self.binary(BinOp::Eq, val, want, p.span)?);
            }
            (PatternKind::Bool(v), Type::Bool) => {
                let demand = if *v { val } else { self.not(&val, p.span)? };
                demands.push(demand);
            }
            (PatternKind::Bytes(v), t) if t.is_bytes() => {
                let want = self.literal(v);
                demands.push(self.binary(BinOp::Eq, val, want, p.span)?);
            }
            (PatternKind::Tuple(items), Type::Tuple(types)) if items.len() == types.len() => {
                let mut at = 0;
                for (item, ty) in items.iter().zip(types) {
                    let part = self.part(&val, ty, at);
                    at += part.words.len();
                    self.demand(item, part, demands)?;
                }
            }
            (PatternKind::Any | PatternKind::Name(_), _) => self.bind_pattern(p, val)?,
            (_, t) => {
                return Err(Diagnostic::new(Code::Pattern, p.span, format!("this pattern cannot match {t}")));
            }
        }
        Ok(())
    }

    /// `if demands && guard { body } else { rest }`
    fn guarded(
        &mut self,
        demands: Demands,
        arm: &Arm,
        expect: Option<&Type>,
        rest: impl FnOnce(&mut Self) -> Low<Val>,
    ) -> Low<Val> {
        let mut all: Option<Reg> = None;
        for d in demands {
            let r = self.in_reg(&d, arm.span)?;
            all = Some(self.and(all, r, arm.span)?);
        }
        if let Some(guard) = &arm.guard {
            let g = self.bool(guard)?;
            let r = self.in_reg(&g, guard.span)?;
            all = Some(self.and(all, r, arm.span)?);
        }
        let Some(c) = all else { return self.block(&arm.body, expect) };
        self.open(arm.span)?;
        let yes = self.branch(arm.span, |l| l.block(&arm.body, expect))?;
        let no = self.branch(arm.span, rest)?;
        self.close();
        self.if_else(c, [yes, no], expect)
    }

    fn and(&mut self, a: Option<Reg>, b: Reg, span: Span) -> Low<Reg> {
        let Some(a) = a else { return Ok(b) };
        let d = self.reg(span)?;
        self.push(Op::Bits { op: super::super::ir::BitOp::And, d, a, b });
        Ok(d)
    }

    fn match_ints(&mut self, val: &Val, arms: &[Arm], expect: Option<&Type>, span: Span) -> Low<Val> {
        let s = self.in_reg(val, span)?;
        self.open(span)?;
        let (mut tags, mut branches, mut default) = (Vec::new(), Vec::new(), None);
        for arm in arms {
            for p in &arm.patterns {
                let tag = match p.kind {
                    PatternKind::Int(v) => v as u64,
                    PatternKind::Bool(v) => v as u64,
                    _ => {
                        default = default.or(Some(arm));
                        continue;
                    }
                };
                if !tags.contains(&tag) {
                    tags.push(tag);
                    branches.push(self.branch(arm.span, |l| l.block(&arm.body, expect))?);
                }
            }
        }
        match default {
            Some(arm) => branches.push(self.branch(arm.span, |l| l.block(&arm.body, expect))?),
            None if val.ty == Type::Bool && tags.len() == 2 => {}
            None => {
                return Err(Diagnostic::new(Code::Pattern, span, "this match leaves values out").help("add `_ => …`"));
            }
        }
        self.close();
        self.switch(s, &tags, branches, expect)
    }

    /// Anything else: arm by arm.
    fn match_chain(&mut self, val: &Val, arms: &[Arm], from: usize, expect: Option<&Type>, span: Span) -> Low<Val> {
        let Some(arm) = arms.get(from) else {
            return Err(Diagnostic::new(Code::Pattern, span, "this match leaves values out").help("add `_ => …`"));
        };
        self.at(arm.span);
        let mut any: Option<Reg> = None;
        let mut demands = Demands::new();
        for p in &arm.patterns {
            let mut own = Demands::new();
            self.demand(p, val.clone(), &mut own)?;
            if arm.patterns.len() == 1 {
                demands = own;
                break;
            }
            let mut all = None;
            for d in own {
                let r = self.in_reg(&d, p.span)?;
                all = Some(self.and(all, r, p.span)?);
            }
            if let (Some(a), Some(r)) = (any, all) {
                let d = self.reg(p.span)?;
                self.push(Op::Bits { op: super::super::ir::BitOp::Or, d, a, b: r });
                any = Some(d);
            } else {
                any = any.or(all);
            }
        }
        if let Some(r) = any {
            demands.push(Val::new(Type::Bool, [Word::at(Loc::Reg(r))]));
        }
        if demands.is_empty() && arm.guard.is_none() {
            return self.block(&arm.body, expect);
        }
        self.guarded(demands, arm, expect, |l| l.match_chain(val, arms, from + 1, expect, span))
    }

    /// Register = (a == b), for other files of this folder.
    pub(super) fn equals(&mut self, rel: Rel, a: Reg, b: Reg, span: Span) -> Low<Reg> {
        let d = self.reg(span)?;
        self.push(Op::CmpInt { rel, d, a, b });
        Ok(d)
    }
}

/// The bound of an int that a match over an argument gives: that of the branch which the argument chooses. The branches of `tags`,
/// then perhaps the one of all others.
fn bound_by_choice(slot: u16, tags: &[u64], branches: &[Branch]) -> Option<Poly> {
    let of = |b: &Branch| match &b.val {
        v if v.is_never() => Some(Poly::default()),
        Val { ty: Type::Int, words, .. } => words[0].bound.clone(),
        _ => None,
    };
    let mut bound = of(branches.last()?)?;
    for (tag, b) in tags.iter().zip(branches).take(branches.len() - 1).rev() {
        bound = Poly::chosen(slot, *tag, &of(b)?, &bound);
    }
    Some(bound)
}

fn is_plain_int(arm: &Arm) -> bool {
    let plain = |p: &Pattern| matches!(p.kind, PatternKind::Int(_) | PatternKind::Bool(_) | PatternKind::Any);
    arm.guard.is_none() && arm.patterns.iter().all(plain)
}

fn head_name(p: &Pattern) -> Option<&str> {
    match &p.kind {
        PatternKind::Name(n) | PatternKind::Case(n, _) => Some(n),
        _ => None,
    }
}
