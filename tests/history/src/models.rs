//! Models of Redis types, small enough to be right by looking at them.

use crate::{Checked, Model, Operation, Outcome, linear, witness};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One string value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegisterOp {
    Get,
    Set(Arc<str>),
    /// INCRBY; fails on what is no number, and changes nothing then.
    Incr(i64),
    Append(Arc<str>),
    Del,
}

impl RegisterOp {
    /// The inline request that asks it of register `key`.
    pub fn request(&self, key: u32) -> String {
        match self {
            RegisterOp::Get => format!("GET k:{key}"),
            RegisterOp::Set(value) => format!("SET k:{key} {value}"),
            RegisterOp::Incr(by) => format!("INCRBY k:{key} {by}"),
            RegisterOp::Append(tail) => format!("APPEND k:{key} {tail}"),
            RegisterOp::Del => format!("DEL k:{key}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegisterReply {
    Ok,
    Nil,
    Text(Arc<str>),
    Int(i64),
    /// An error that Redis gives for these arguments in this state (not a refusal by the cluster).
    Error,
}

impl Model for Register {
    type State = Option<Arc<str>>;
    type Op = RegisterOp;
    type Reply = RegisterReply;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(&self, state: &mut Self::State, op: &RegisterOp) -> RegisterReply {
        match op {
            RegisterOp::Get => state.clone().map_or(RegisterReply::Nil, RegisterReply::Text),
            RegisterOp::Set(value) => {
                *state = Some(value.clone());
                RegisterReply::Ok
            }
            RegisterOp::Incr(by) => {
                let now = state.as_deref().map_or(Ok(0), str::parse::<i64>);
                let Some(sum) = now.ok().and_then(|n| n.checked_add(*by)) else { return RegisterReply::Error };
                *state = Some(sum.to_string().into());
                RegisterReply::Int(sum)
            }
            RegisterOp::Append(tail) => {
                let whole = format!("{}{tail}", state.as_deref().unwrap_or_default());
                let len = whole.len() as i64;
                *state = Some(whole.into());
                RegisterReply::Int(len)
            }
            RegisterOp::Del => RegisterReply::Int(i64::from(state.take().is_some())),
        }
    }

    fn writes(&self, op: &RegisterOp) -> bool {
        !matches!(op, RegisterOp::Get)
    }
}

/// One object of a model; an operation is a list of calls that take effect together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Together<M>(pub M);

impl<M: Model> Model for Together<M> {
    type State = M::State;
    type Op = Vec<M::Op>;
    type Reply = Vec<M::Reply>;

    fn initial(&self) -> M::State {
        self.0.initial()
    }
    fn step(&self, state: &mut M::State, calls: &Self::Op) -> Self::Reply {
        calls.iter().map(|op| self.0.step(state, op)).collect()
    }
    fn writes(&self, calls: &Self::Op) -> bool {
        calls.iter().any(|op| self.0.writes(op))
    }
}

/// Many objects of one model under numbers; an operation is a list of calls that take effect together (MULTI, or one call).
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys<M>(pub M);

impl<M: Model> Model for Keys<M> {
    type State = BTreeMap<u32, M::State>;
    type Op = Vec<(u32, M::Op)>;
    type Reply = Vec<M::Reply>;

    fn initial(&self) -> Self::State {
        BTreeMap::new()
    }

    fn step(&self, state: &mut Self::State, calls: &Self::Op) -> Self::Reply {
        let step = |(key, op): &(u32, M::Op)| {
            let object = state.entry(*key).or_insert_with(|| self.0.initial());
            self.0.step(object, op)
        };
        calls.iter().map(step).collect()
    }

    fn writes(&self, calls: &Self::Op) -> bool {
        calls.iter().any(|(_, op)| self.0.writes(op))
    }
    fn touches(&self, calls: &Self::Op) -> Vec<u32> {
        calls.iter().map(|(key, _)| *key).collect()
    }
}

/// Calls on numbered registers that take effect together, and their replies.
pub type Calls = Vec<(u32, RegisterOp)>;
pub type Replies = Vec<RegisterReply>;

/// Both checks of a history on numbered registers; reads of the past are for the witness. (Not generic, so that they are compiled
/// with this package's optimisation.)
pub fn check_registers(
    operations: &[Operation<Calls, Replies>],
    of_the_past: &[Operation<Calls, Replies>],
) -> [(&'static str, Checked); 2] {
    let all = operations.iter().chain(of_the_past);
    [("linear", linear_registers(operations)), ("witness", witness::check(&Keys(Register), all))]
}

/// The black-box check, key by key. A transaction is seen on each of its keys by itself.
pub fn linear_registers(operations: &[Operation<Calls, Replies>]) -> Checked {
    linear::check_keys(&Together(Register), operations.iter().flat_map(per_key))
}

type OnOneKey = Operation<Vec<RegisterOp>, Replies>;

fn per_key(operation: &Operation<Calls, Replies>) -> Vec<(u32, OnOneKey)> {
    let mut keys: BTreeMap<u32, (Vec<RegisterOp>, Replies)> = BTreeMap::new();
    for (i, (key, op)) in operation.op.iter().enumerate() {
        let (ops, replies) = keys.entry(*key).or_default();
        ops.push(op.clone());
        if let Outcome::Ok(all) = &operation.outcome {
            replies.extend(all.get(i).cloned());
        }
    }
    let one = |(key, (op, replies))| {
        let outcome = match operation.outcome {
            Outcome::Ok(_) => Outcome::Ok(replies),
            Outcome::Fail => Outcome::Fail,
            Outcome::Unknown => Outcome::Unknown,
        };
        let Operation { client, called, returned, epoch, .. } = *operation;
        (key, Operation { client, op, called, returned, outcome, epoch })
    };
    keys.into_iter().map(one).collect()
}
