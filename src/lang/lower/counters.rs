//! Variables that only count: they begin as a small constant and change by small constants alone. Such a sum cannot overflow, for
//! each step costs operations and a call has far fewer than 2^40 of them; so counting after a write does not ask for an undo
//! journal.

use super::super::ast::*;
use std::collections::BTreeSet;

/// Largest step, and largest start.
const STEP_MAX: u64 = 1 << 20;

/// Names of a body's counters. A name that is a counter in one place and something else in another is none.
pub(super) fn counters(body: &Block) -> BTreeSet<String> {
    let mut found = Found::default();
    found.block(body);
    found.begun.difference(&found.spoiled).cloned().collect()
}

#[derive(Default)]
struct Found {
    begun: BTreeSet<String>,
    spoiled: BTreeSet<String>,
}

fn is_small(e: &Expr) -> bool {
    matches!(e.kind, ExprKind::Int(v) if v.unsigned_abs() <= STEP_MAX)
}

impl Found {
    fn block(&mut self, b: &Block) {
        b.stmts.iter().for_each(|s| self.stmt(s));
    }

    fn stmt(&mut self, s: &Stmt) {
        match &s.kind {
            StmtKind::Var { value: None, .. } => {}
            StmtKind::AssignField { value, .. } => self.expr(value),
            StmtKind::Var { name, value: Some(value), .. } => {
                let set = if is_small(value) { &mut self.begun } else { &mut self.spoiled };
                set.insert(name.name.clone());
                self.expr(value);
            }
            StmtKind::Assign { name, op, value } => {
                if !(is_small(value) && matches!(op, None | Some(BinOp::Add | BinOp::Sub))) {
                    self.spoiled.insert(name.name.clone());
                }
                self.expr(value);
            }
            StmtKind::For { over, limit, body, exhausted, .. } => {
                match over {
                    ForOver::Each(e) => self.expr(e),
                    ForOver::Range(a, b) => {
                        self.expr(a);
                        self.expr(b);
                    }
                }
                limit.iter().for_each(|e| self.expr(e));
                self.block(body);
                exhausted.iter().for_each(|b| self.block(b));
            }
            StmtKind::Repeat { bound, body, exhausted, .. } => {
                self.expr(bound);
                self.block(body);
                exhausted.iter().for_each(|b| self.block(b));
            }
            StmtKind::Let { value, .. } | StmtKind::Expr(value) | StmtKind::Return(Some(value)) => self.expr(value),
            StmtKind::Require { condition, .. } => self.expr(condition),
            StmtKind::Reply(ReplySyntax::Value(e)) => self.expr(e),
            StmtKind::Reply(ReplySyntax::Container { args, body, .. }) => {
                args.iter().for_each(|a| self.expr(a));
                self.block(body);
            }
            StmtKind::Reply(ReplySyntax::Word { args, .. }) => args.iter().for_each(|a| self.expr(a)),
            StmtKind::Break | StmtKind::Wait | StmtKind::Return(None) | StmtKind::Fail(_) => {}
        }
    }

    /// Blocks hide in expressions.
    fn expr(&mut self, e: &Expr) {
        match &e.kind {
            ExprKind::Call { args, .. } | ExprKind::Tuple(args) => args.iter().for_each(|a| self.expr(a)),
            ExprKind::Method { on, args, .. } => {
                self.expr(on);
                args.iter().flatten().for_each(|a| self.expr(a));
            }
            ExprKind::Index { on: a, index: b } | ExprKind::Binary { a, b, .. } => {
                self.expr(a);
                self.expr(b);
            }
            ExprKind::Named { value, .. } | ExprKind::Unary { value, .. } | ExprKind::Is { value, .. } => {
                self.expr(value)
            }
            ExprKind::Ternary { condition, yes, no } => {
                self.expr(condition);
                self.expr(yes);
                self.expr(no);
            }
            ExprKind::Else { value, otherwise } => {
                self.expr(value);
                self.block(otherwise);
            }
            ExprKind::Record { fields, .. } => fields.iter().for_each(|(_, e)| self.expr(e)),
            ExprKind::Range { from, to, .. } => from.iter().chain(to).for_each(|e| self.expr(e)),
            ExprKind::If { condition, yes, no } => {
                self.expr(condition);
                self.block(yes);
                no.iter().for_each(|b| self.block(b));
            }
            ExprKind::Match { on, arms } => {
                self.expr(on);
                for arm in arms {
                    arm.guard.iter().for_each(|g| self.expr(g));
                    self.block(&arm.body);
                }
            }
            ExprKind::Block(b) => self.block(b),
            ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Bytes(_)
            | ExprKind::Bool(_)
            | ExprKind::None
            | ExprKind::Name(_) => {}
        }
    }
}
