//! Tokens to syntax tree: blocks, statements, expressions (precedence climbing), patterns.

use super::ast::*;
use super::diag::{Code, Diagnostic};
use super::lex::Tok;
use super::parse::{Parsed, Parser};

/// Words that begin a statement or separate parts of one: never names.
pub(super) const RESERVED: &[&str] = &[
    "let",
    "var",
    "if",
    "else",
    "match",
    "for",
    "in",
    "limit",
    "repeat",
    "exhausted",
    "break",
    "return",
    "fail",
    "require",
    "wait",
    "reply",
    "emit",
    "is",
    "true",
    "false",
    "none",
];

fn binary(punct: &str) -> Option<(BinOp, u8)> {
    Some(match punct {
        "||" => (BinOp::Or, 1),
        "&&" => (BinOp::And, 2),
        "==" => (BinOp::Eq, 3),
        "!=" => (BinOp::Ne, 3),
        "<" => (BinOp::Lt, 3),
        "<=" => (BinOp::Le, 3),
        ">" => (BinOp::Gt, 3),
        ">=" => (BinOp::Ge, 3),
        "|" => (BinOp::BitOr, 4),
        "^" => (BinOp::BitXor, 5),
        "&" => (BinOp::BitAnd, 6),
        "<<" => (BinOp::Shl, 7),
        ">>" => (BinOp::Shr, 7),
        ">>>" => (BinOp::ShrUnsigned, 7),
        "+" => (BinOp::Add, 8),
        "-" => (BinOp::Sub, 8),
        "*" => (BinOp::Mul, 9),
        "/" => (BinOp::Div, 9),
        "%" => (BinOp::Rem, 9),
        _ => return None,
    })
}
/// Most operators or fields in a row: trees are walked recursively.
const CHAIN_MAX: usize = 128;
/// Binding power of `is`, and of comparisons.
const COMPARE: u8 = 3;

fn assign_op(punct: &str) -> Option<Option<BinOp>> {
    Some(match punct {
        "=" => None,
        "+=" => Some(BinOp::Add),
        "-=" => Some(BinOp::Sub),
        "*=" => Some(BinOp::Mul),
        "/=" => Some(BinOp::Div),
        "%=" => Some(BinOp::Rem),
        "|=" => Some(BinOp::BitOr),
        "&=" => Some(BinOp::BitAnd),
        "^=" => Some(BinOp::BitXor),
        _ => return None,
    })
}

/// Neighbouring changes of one row become one write.
fn join_field_writes(before: &mut [Stmt], next: &Stmt) {
    if let (Some(StmtKind::AssignField { on, more, .. }), StmtKind::AssignField { on: again, .. }) =
        (before.last_mut().map(|s| &mut s.kind), &next.kind)
    {
        *more = on.name == again.name;
    }
}

/// Leaves a placeholder with the same span.
fn take(e: &mut Expr) -> Expr {
    let span = e.span;
    std::mem::replace(e, Expr { kind: ExprKind::None, span })
}

impl Parser {
    pub fn block(&mut self) -> Parsed<Block> {
        self.deeper(|p| {
            let start = p.expect("{")?;
            let mut stmts = Vec::new();
            loop {
                while p.eat(";") {}
                if p.eat("}") {
                    return Ok(Block { stmts, span: start.to(p.last_span()) });
                }
                let next = p.stmt()?;
                join_field_writes(&mut stmts, &next);
                stmts.push(next);
            }
        })
    }

    fn block_of(stmt: Stmt) -> Block {
        Block { span: stmt.span, stmts: vec![stmt] }
    }

    fn stmt(&mut self) -> Parsed<Stmt> {
        let start = self.span();
        let word = match self.peek() {
            Tok::Word(w) => w.clone(),
            _ => String::new(),
        };
        let kind = match word.as_str() {
            "let" => self.let_stmt()?,
            "var" => self.var_stmt()?,
            "for" => self.for_stmt()?,
            "repeat" => self.repeat_stmt()?,
            "break" => {
                self.advance();
                StmtKind::Break
            }
            "return" => {
                self.advance();
                let bare = self.fresh_line() || self.ends_stmt();
                StmtKind::Return(if bare { None } else { Some(self.expr()?) })
            }
            "fail" => {
                self.advance();
                StmtKind::Fail(self.expr_no_else()?)
            }
            "wait" => {
                self.advance();
                StmtKind::Wait
            }
            "require" => {
                self.advance();
                let condition = self.expr_no_else()?;
                if !self.eat_word("else") {
                    return Err(self.unexpected("`else` and the error's text"));
                }
                StmtKind::Require { condition, text: self.expr_no_else()? }
            }
            "reply" | "emit" => {
                self.advance();
                StmtKind::Reply(self.reply()?)
            }
            _ => self.expr_stmt()?,
        };
        Ok(Stmt { kind, span: start.to(self.last_span()) })
    }

    fn ends_stmt(&self) -> bool {
        self.is("}") || self.is(";") || self.is(",") || self.at_end()
    }

    fn let_stmt(&mut self) -> Parsed<StmtKind> {
        self.advance();
        let pattern = self.pattern()?;
        self.expect("=")?;
        Ok(StmtKind::Let { pattern, value: self.expr()? })
    }

    fn var_stmt(&mut self) -> Parsed<StmtKind> {
        self.advance();
        let name = self.ident()?;
        let ty = if self.eat(":") { Some(self.ty()?) } else { None };
        let is_list = matches!(&ty, Some(t) if matches!(t.kind, TypeSyntaxKind::List { .. }));
        if is_list && !self.is("=") {
            return Ok(StmtKind::Var { name, ty, value: None });
        }
        self.expect("=")?;
        Ok(StmtKind::Var { name, ty, value: Some(self.expr()?) })
    }

    fn for_stmt(&mut self) -> Parsed<StmtKind> {
        self.advance();
        let pattern = self.pattern()?;
        if !self.eat_word("in") {
            return Err(self.unexpected("`in`"));
        }
        let first = self.expr_no_else()?;
        let over = if self.eat("..") { ForOver::Range(first, self.expr_no_else()?) } else { ForOver::Each(first) };
        let limit = if self.eat_word("limit") { Some(self.expr_no_else()?) } else { None };
        let body = self.block()?;
        let exhausted = self.exhausted()?;
        Ok(StmtKind::For { pattern, over, limit, body, exhausted })
    }

    fn repeat_stmt(&mut self) -> Parsed<StmtKind> {
        self.advance();
        let bound = self.expr_no_else()?;
        let counter = if self.eat_word("as") { Some(self.ident()?) } else { None };
        let body = self.block()?;
        let exhausted = self.exhausted()?;
        Ok(StmtKind::Repeat { bound, counter, body, exhausted })
    }

    fn exhausted(&mut self) -> Parsed<Option<Block>> {
        if self.eat_word("exhausted") { self.block().map(Some) } else { Ok(None) }
    }

    fn reply(&mut self) -> Parsed<ReplySyntax> {
        if let Tok::Word(w) = self.peek().clone()
            && !RESERVED.contains(&w.as_str())
        {
            match self.peek_at(1).tok {
                Tok::Bytes(_) => {
                    let word = self.ident()?;
                    let args = vec![self.primary()?];
                    return Ok(ReplySyntax::Word { word, args });
                }
                Tok::Punct("{") => {
                    let word = self.ident()?;
                    return Ok(ReplySyntax::Container { word, args: Vec::new(), body: self.block()? });
                }
                _ => {}
            }
        }
        let value = self.expr()?;
        match value.kind {
            ExprKind::Call { name: word, args } if self.is("{") && !self.fresh_line() => {
                Ok(ReplySyntax::Container { word, args, body: self.block()? })
            }
            _ => Ok(ReplySyntax::Value(value)),
        }
    }

    /// `name . field OP=`
    fn field_assign(&self) -> Option<Option<BinOp>> {
        match (self.peek(), &self.peek_at(1).tok, &self.peek_at(2).tok, &self.peek_at(3).tok) {
            (Tok::Word(w), Tok::Punct("."), Tok::Word(_), Tok::Punct(p)) if !RESERVED.contains(&w.as_str()) => {
                assign_op(p)
            }
            _ => None,
        }
    }

    fn expr_stmt(&mut self) -> Parsed<StmtKind> {
        if let Some(op) = self.field_assign() {
            let on = self.ident()?;
            self.advance();
            let field = self.ident()?;
            self.advance();
            return Ok(StmtKind::AssignField { on, field, op, value: self.expr()?, more: false });
        }
        if let (Tok::Word(w), Tok::Punct(p)) = (self.peek().clone(), self.peek_at(1).tok.clone())
            && let Some(op) = assign_op(p)
            && !RESERVED.contains(&w.as_str())
        {
            let name = self.ident()?;
            self.advance();
            return Ok(StmtKind::Assign { name, op, value: self.expr()? });
        }
        let is_block = self.is_word("if") || self.is_word("match") || self.is("{");
        Ok(StmtKind::Expr(if is_block { self.primary()? } else { self.expr()? }))
    }

    // --- expressions ---

    pub fn expr(&mut self) -> Parsed<Expr> {
        let mut value = self.expr_no_else()?;
        while self.eat_word("else") {
            let otherwise = if self.is("{") {
                self.block()?
            } else if matches!(self.peek(), Tok::Word(w) if matches!(w.as_str(), "fail" | "return" | "break" | "reply"))
            {
                Self::block_of(self.stmt()?)
            } else {
                let e = self.expr_no_else()?;
                Self::block_of(Stmt { span: e.span, kind: StmtKind::Expr(e) })
            };
            let span = value.span.to(self.last_span());
            value = Expr { kind: ExprKind::Else { value: Box::new(value), otherwise }, span };
        }
        Ok(value)
    }

    pub(super) fn expr_no_else(&mut self) -> Parsed<Expr> {
        self.deeper(|p| {
            let condition = p.binary(1)?;
            if !p.eat("?") {
                return Ok(condition);
            }
            let yes = p.expr_no_else()?;
            p.expect(":")?;
            let no = p.expr_no_else()?;
            let span = condition.span.to(no.span);
            let kind = ExprKind::Ternary { condition: Box::new(condition), yes: Box::new(yes), no: Box::new(no) };
            Ok(Expr { kind, span })
        })
    }

    fn binary(&mut self, least: u8) -> Parsed<Expr> {
        let mut a = self.unary()?;
        for _ in 0..CHAIN_MAX {
            if self.is_word("is") && COMPARE >= least {
                self.advance();
                let case = self.ident()?;
                let span = a.span.to(case.span);
                a = Expr { kind: ExprKind::Is { value: Box::new(a), case }, span };
                continue;
            }
            let Tok::Punct(p) = *self.peek() else { return Ok(a) };
            let Some((op, power)) = binary(p) else { return Ok(a) };
            if power < least || (op == BinOp::Sub && self.fresh_line()) {
                return Ok(a);
            }
            self.advance();
            let b = self.deeper(|p| p.binary(power + 1))?;
            let span = a.span.to(b.span);
            a = Expr { kind: ExprKind::Binary { op, a: Box::new(a), b: Box::new(b) }, span };
        }
        Err(self.too_long())
    }

    fn too_long(&self) -> Diagnostic {
        Diagnostic::new(Code::TooBig, self.span(), "this expression is too long").help("name parts of it with `let`")
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let op = match self.peek() {
            Tok::Punct("-") => UnOp::Neg,
            Tok::Punct("!") => UnOp::Not,
            Tok::Punct("~") => UnOp::BitNot,
            _ => return self.postfix(),
        };
        self.advance();
        let value = self.deeper(Self::unary)?;
        let span = start.to(value.span);
        if let (UnOp::Neg, ExprKind::Int(v)) = (op, &value.kind) {
            return Ok(Expr { kind: ExprKind::Int(v.wrapping_neg()), span });
        }
        if let (UnOp::Neg, ExprKind::Float(v)) = (op, &value.kind) {
            return Ok(Expr { kind: ExprKind::Float(-v), span });
        }
        Ok(Expr { kind: ExprKind::Unary { op, value: Box::new(value) }, span })
    }

    /// `e`, `name: e`, or a range of keys.
    fn argument(&mut self) -> Parsed<Expr> {
        if !matches!(self.peek(), Tok::Word(_)) || self.peek_at(1).tok != Tok::Punct(":") {
            return self.range();
        }
        let name = self.ident()?;
        self.expect(":")?;
        let value = Box::new(self.deeper(Self::expr)?);
        Ok(Expr { span: name.span.to(value.span), kind: ExprKind::Named { name, value } })
    }

    fn postfix(&mut self) -> Parsed<Expr> {
        let mut e = self.primary()?;
        for _ in 0..CHAIN_MAX {
            let kind = if self.eat(".") {
                let name = self.ident()?;
                let args =
                    if self.is("(") && !self.fresh_line() { Some(self.list("(", ")", Self::argument)?) } else { None };
                ExprKind::Method { on: Box::new(take(&mut e)), name, args }
            } else if self.is("[") && !self.fresh_line() {
                self.advance();
                let index = self.expr()?;
                self.expect("]")?;
                ExprKind::Index { on: Box::new(take(&mut e)), index: Box::new(index) }
            } else {
                return Ok(e);
            };
            e = Expr { span: e.span.to(self.last_span()), kind };
        }
        Err(self.too_long())
    }

    pub(super) fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let kind = match self.peek().clone() {
            Tok::Int(v) => {
                self.advance();
                ExprKind::Int(v)
            }
            Tok::Float(v) => {
                self.advance();
                ExprKind::Float(v)
            }
            Tok::Bytes(v) => {
                self.advance();
                ExprKind::Bytes(v)
            }
            Tok::Punct("(") => self.paren()?,
            Tok::Punct("{") => ExprKind::Block(self.block()?),
            Tok::Word(w) => self.word_expr(&w)?,
            _ => return Err(self.unexpected("an expression")),
        };
        Ok(Expr { kind, span: start.to(self.last_span()) })
    }

    fn paren(&mut self) -> Parsed<ExprKind> {
        let mut items = self.list("(", ")", |p| p.deeper(Self::expr))?;
        Ok(if items.len() == 1 { items.remove(0).kind } else { ExprKind::Tuple(items) })
    }

    fn word_expr(&mut self, word: &str) -> Parsed<ExprKind> {
        match word {
            "true" | "false" => {
                self.advance();
                return Ok(ExprKind::Bool(word == "true"));
            }
            "none" => {
                self.advance();
                return Ok(ExprKind::None);
            }
            "if" => return self.if_expr(),
            "match" => return self.match_expr(),
            w if RESERVED.contains(&w) => return Err(self.unexpected("an expression")),
            _ => {}
        }
        let name = self.ident()?;
        if self.is("{") && self.records.contains(&name.name) {
            let fields = self.list("{", "}", |p| {
                let field = p.ident()?;
                let value = if p.eat(":") {
                    p.deeper(Self::expr)?
                } else {
                    Expr { kind: ExprKind::Name(field.name.clone()), span: field.span }
                };
                Ok((field, value))
            })?;
            return Ok(ExprKind::Record { name, fields });
        }
        if self.is("(") && !self.fresh_line() {
            let args = self.list("(", ")", Self::argument)?;
            return Ok(ExprKind::Call { name, args });
        }
        Ok(ExprKind::Name(name.name))
    }

    /// An argument: an expression, or a range of keys.
    fn range(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let from = if self.is("..") || self.is("..=") { None } else { Some(Box::new(self.expr()?)) };
        let inclusive = self.is("..=");
        if !self.eat("..") && !self.eat("..=") {
            return from.map(|e| *e).ok_or_else(|| self.unexpected("an expression"));
        }
        let to = if self.is(")") || self.is(",") { None } else { Some(Box::new(self.expr()?)) };
        Ok(Expr { kind: ExprKind::Range { from, to, inclusive }, span: start.to(self.last_span()) })
    }

    fn if_expr(&mut self) -> Parsed<ExprKind> {
        self.advance();
        let condition = Box::new(self.expr_no_else()?);
        let yes = self.block()?;
        let no = if !self.eat_word("else") {
            None
        } else if self.is_word("if") {
            let start = self.span();
            let kind = self.deeper(Self::if_expr)?;
            let span = start.to(self.last_span());
            Some(Self::block_of(Stmt { span, kind: StmtKind::Expr(Expr { kind, span }) }))
        } else {
            Some(self.block()?)
        };
        Ok(ExprKind::If { condition, yes, no })
    }

    fn match_expr(&mut self) -> Parsed<ExprKind> {
        self.advance();
        let on = Box::new(self.expr_no_else()?);
        self.expect("{")?;
        let mut arms = Vec::new();
        loop {
            while self.eat(",") || self.eat(";") {}
            if self.eat("}") {
                return Ok(ExprKind::Match { on, arms });
            }
            arms.push(self.arm()?);
        }
    }

    fn arm(&mut self) -> Parsed<Arm> {
        let start = self.span();
        let mut patterns = vec![self.pattern()?];
        while self.eat("|") {
            patterns.push(self.pattern()?);
        }
        let guard = if self.eat_word("if") { Some(self.expr_no_else()?) } else { None };
        self.expect("=>")?;
        let body = if self.is("{") { self.block()? } else { Self::block_of(self.deeper(Self::stmt)?) };
        Ok(Arm { patterns, guard, body, span: start.to(self.last_span()) })
    }

    fn pattern(&mut self) -> Parsed<Pattern> {
        let start = self.span();
        let kind = match self.peek().clone() {
            Tok::Int(_) | Tok::Punct("-") => PatternKind::Int(self.signed_int()?),
            Tok::Bytes(v) => {
                self.advance();
                PatternKind::Bytes(v)
            }
            Tok::Punct("(") => PatternKind::Tuple(self.deeper(|p| p.list("(", ")", Self::pattern))?),
            Tok::Word(w) => {
                self.advance();
                match w.as_str() {
                    "_" => PatternKind::Any,
                    "true" | "false" => PatternKind::Bool(w == "true"),
                    "none" => PatternKind::Case(w, Vec::new()),
                    _ if RESERVED.contains(&w.as_str()) => {
                        return Err(Diagnostic::new(Code::Syntax, start, format!("`{w}` is reserved")));
                    }
                    _ if self.is("(") => PatternKind::Case(w, self.deeper(|p| p.list("(", ")", Self::pattern))?),
                    _ => PatternKind::Name(w),
                }
            }
            _ => return Err(self.unexpected("a pattern")),
        };
        Ok(Pattern { kind, span: start.to(self.last_span()) })
    }
}
