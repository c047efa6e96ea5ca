//! # encode: a program as canonical bytes
//!
//! What the log and checkpoints carry, and what [`identity`] hashes. Every program has exactly one encoding: fields of
//! fixed width, little-endian, in the order of declaration, nothing optional but by a count or a flag before it.
//!
//! ```text
//! "LIR" version:u8 | regs:u8 arg_slots:u16 | on_overflow on_div_zero on_nan: u16 each, ffff = none
//! n:u32 n × (len:u32 bytes)   literals       n:u32 n × (len:u32 utf-8)   texts
//! n:u32 n × operation (tag:u8, operands)     n × line:u32
//! ```
//!
//! Decoding never panics and never allocates more than the input's own length times a constant. It checks form only;
//! [`super::verify`] checks meaning.

use super::ir::{BitOp, FloatOp, IntOp, Op, Program, Rel};

const MAGIC: &[u8; 4] = b"LIR\x01";
const NO_TEXT: u16 = u16::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not a program of a known version")]
    Magic,
    #[error("the program ends in the middle")]
    Short,
    #[error("bytes follow the program")]
    Trailing,
    #[error("operation tag {0} is unknown")]
    Tag(u8),
    #[error("operand {0} is unknown")]
    Operand(u8),
    #[error("an error text is not UTF-8")]
    Text,
}

/// The 128-bit name of a program: equal programs, equal names, on every machine.
pub fn identity(program: &Program) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&encode(program))
}

pub fn encode(program: &Program) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + program.ops.len() * 12);
    out.extend_from_slice(MAGIC);
    out.push(program.regs);
    put_u16(&mut out, program.arg_slots);
    for text in [program.on_overflow, program.on_div_zero, program.on_nan] {
        put_u16(&mut out, text.unwrap_or(NO_TEXT));
    }
    put_len(&mut out, program.literals.len());
    for literal in &program.literals {
        put_bytes(&mut out, literal);
    }
    put_len(&mut out, program.texts.len());
    for text in &program.texts {
        put_bytes(&mut out, text.as_bytes());
    }
    put_len(&mut out, program.ops.len());
    for op in &program.ops {
        put_op(&mut out, op);
    }
    for line in &program.lines {
        out.extend_from_slice(&line.to_le_bytes());
    }
    out
}

fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    assert!(len <= u32::MAX as usize, "a program's part of over 4 GiB");
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match *op {
        Op::Const { d, value } => {
            out.extend_from_slice(&[0, d]);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Op::Mov { d, s } => out.extend_from_slice(&[1, d, s]),
        Op::Arg { d, slot } => {
            out.extend_from_slice(&[2, d]);
            put_u16(out, slot);
        }
        Op::Elem { d, slot, index, width, field } => {
            out.extend_from_slice(&[3, d, index, width, field]);
            put_u16(out, slot);
        }
        Op::Count { d, slot } => {
            out.extend_from_slice(&[4, d]);
            put_u16(out, slot);
        }
        Op::Result { d, index } => out.extend_from_slice(&[5, d, index]),
        Op::Int { op, d, a, b } => out.extend_from_slice(&[6, op as u8, d, a, b]),
        Op::Float { op, d, a, b } => out.extend_from_slice(&[7, op as u8, d, a, b]),
        Op::Bits { op, d, a, b } => out.extend_from_slice(&[8, op as u8, d, a, b]),
        Op::CmpInt { rel, d, a, b } => out.extend_from_slice(&[9, rel as u8, d, a, b]),
        Op::CmpFloat { rel, d, a, b } => out.extend_from_slice(&[10, rel as u8, d, a, b]),
        Op::Not { d, s } => out.extend_from_slice(&[11, d, s]),
        Op::IntToFloat { d, s } => out.extend_from_slice(&[12, d, s]),
        Op::Select { d, c, a, b } => out.extend_from_slice(&[13, d, c, a, b]),
        Op::Call { d, helper, n, args } => {
            out.extend_from_slice(&[14, d, n]);
            put_u16(out, helper);
            // Words past `n` mean nothing and must not give one program two names.
            out.extend_from_slice(&args[..(n as usize).min(4)]);
        }
        Op::If { c } => out.extend_from_slice(&[15, c]),
        Op::Else => out.push(16),
        Op::Switch { s } => out.extend_from_slice(&[17, s]),
        Op::Case { value } => {
            out.push(18);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Op::Default => out.push(19),
        Op::Loop { counter, bound } => out.extend_from_slice(&[20, counter, bound]),
        Op::Break => out.push(21),
        Op::End => out.push(22),
        Op::Fail { text } => {
            out.push(23);
            put_u16(out, text);
        }
        Op::Return => out.push(24),
        Op::Sqrt { d, s } => out.extend_from_slice(&[25, d, s]),
    }
}

pub fn decode(bytes: &[u8]) -> Result<Program, DecodeError> {
    let mut input = Input { rest: bytes };
    if bytes.len() < MAGIC.len() || &input.array::<4>()? != MAGIC {
        return Err(DecodeError::Magic);
    }
    let regs = input.u8()?;
    let arg_slots = input.u16()?;
    let on_overflow = input.text_number()?;
    let on_div_zero = input.text_number()?;
    let on_nan = input.text_number()?;
    let literals = input.list(4, |input| Ok(input.bytes()?.to_vec()))?;
    let texts = input.list(4, Input::text)?;
    let ops = input.list(1, Input::op)?;
    let mut lines = Vec::with_capacity(ops.len());
    for _ in 0..ops.len() {
        lines.push(input.u32()?);
    }
    match input.rest.is_empty() {
        true => Ok(Program { ops, regs, arg_slots, literals, texts, on_overflow, on_div_zero, on_nan, lines }),
        false => Err(DecodeError::Trailing),
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*head)
    }
    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }
    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()? as usize;
        self.take(len)
    }
    fn text(&mut self) -> Result<String, DecodeError> {
        Ok(std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Text)?.to_owned())
    }
    fn text_number(&mut self) -> Result<Option<u16>, DecodeError> {
        Ok(Some(self.u16()?).filter(|&text| text != NO_TEXT))
    }

    /// A counted list whose items take at least `least` bytes each, so that a false count cannot make us allocate.
    fn list<T>(
        &mut self,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / least {
            return Err(DecodeError::Short);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn op(&mut self) -> Result<Op, DecodeError> {
        let tag = self.u8()?;
        Ok(match tag {
            0 => Op::Const { d: self.u8()?, value: self.u64()? },
            1 => Op::Mov { d: self.u8()?, s: self.u8()? },
            2 => Op::Arg { d: self.u8()?, slot: self.u16()? },
            3 => {
                let [d, index, width, field] = self.array()?;
                Op::Elem { d, slot: self.u16()?, index, width, field }
            }
            4 => Op::Count { d: self.u8()?, slot: self.u16()? },
            5 => Op::Result { d: self.u8()?, index: self.u8()? },
            6 => {
                let [op, d, a, b] = self.array()?;
                Op::Int { op: operand(INT_OPS, op)?, d, a, b }
            }
            7 => {
                let [op, d, a, b] = self.array()?;
                Op::Float { op: operand(FLOAT_OPS, op)?, d, a, b }
            }
            8 => {
                let [op, d, a, b] = self.array()?;
                Op::Bits { op: operand(BIT_OPS, op)?, d, a, b }
            }
            9 => {
                let [rel, d, a, b] = self.array()?;
                Op::CmpInt { rel: operand(RELS, rel)?, d, a, b }
            }
            10 => {
                let [rel, d, a, b] = self.array()?;
                Op::CmpFloat { rel: operand(RELS, rel)?, d, a, b }
            }
            11 => Op::Not { d: self.u8()?, s: self.u8()? },
            12 => Op::IntToFloat { d: self.u8()?, s: self.u8()? },
            13 => {
                let [d, c, a, b] = self.array()?;
                Op::Select { d, c, a, b }
            }
            14 => self.call()?,
            15 => Op::If { c: self.u8()? },
            16 => Op::Else,
            17 => Op::Switch { s: self.u8()? },
            18 => Op::Case { value: self.u64()? },
            19 => Op::Default,
            20 => Op::Loop { counter: self.u8()?, bound: self.u8()? },
            21 => Op::Break,
            22 => Op::End,
            23 => Op::Fail { text: self.u16()? },
            24 => Op::Return,
            25 => Op::Sqrt { d: self.u8()?, s: self.u8()? },
            _ => return Err(DecodeError::Tag(tag)),
        })
    }

    fn call(&mut self) -> Result<Op, DecodeError> {
        let [d, n] = self.array()?;
        let helper = self.u16()?;
        if n > 4 {
            return Err(DecodeError::Operand(n));
        }
        let mut args = [0; 4];
        args[..n as usize].copy_from_slice(self.take(n as usize)?);
        Ok(Op::Call { d, helper, n, args })
    }
}

pub(super) const INT_OPS: &[IntOp] =
    &[IntOp::Add, IntOp::Sub, IntOp::Mul, IntOp::Div, IntOp::Rem, IntOp::Min, IntOp::Max];
pub(super) const FLOAT_OPS: &[FloatOp] =
    &[FloatOp::Add, FloatOp::Sub, FloatOp::Mul, FloatOp::Div, FloatOp::Min, FloatOp::Max];
pub(super) const BIT_OPS: &[BitOp] = &[BitOp::And, BitOp::Or, BitOp::Xor, BitOp::Shl, BitOp::Shr, BitOp::ShrUnsigned];
pub(super) const RELS: &[Rel] = &[Rel::Eq, Rel::Ne, Rel::Lt, Rel::Le, Rel::Gt, Rel::Ge];

/// The case with that number; the tables stand in the order of declaration.
fn operand<T: Copy>(all: &[T], number: u8) -> Result<T, DecodeError> {
    all.get(number as usize).copied().ok_or(DecodeError::Operand(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Program {
        let mut ops = vec![
            Op::Const { d: 0, value: u64::MAX },
            Op::Elem { d: 1, slot: 3, index: 0, width: 2, field: 1 },
            Op::Call { d: 2, helper: 300, n: 2, args: [0, 1, 0, 0] },
            Op::Select { d: 1, c: 0, a: 1, b: 2 },
            Op::Switch { s: 0 },
            Op::Case { value: 7 },
            Op::Default,
            Op::End,
            Op::Fail { text: 0 },
            Op::Sqrt { d: 1, s: 0 },
        ];
        ops.extend(INT_OPS.iter().map(|&op| Op::Int { op, d: 1, a: 0, b: 0 }));
        ops.extend(FLOAT_OPS.iter().map(|&op| Op::Float { op, d: 1, a: 0, b: 0 }));
        ops.extend(BIT_OPS.iter().map(|&op| Op::Bits { op, d: 1, a: 0, b: 0 }));
        ops.extend(
            RELS.iter().flat_map(|&rel| [Op::CmpInt { rel, d: 1, a: 0, b: 0 }, Op::CmpFloat { rel, d: 1, a: 0, b: 0 }]),
        );
        let lines = (0..ops.len() as u32).collect();
        Program {
            ops,
            regs: 3,
            arg_slots: 4,
            literals: vec![b"lit\0".to_vec(), vec![]],
            texts: vec!["ERR x".into()],
            on_nan: Some(0),
            lines,
            ..Program::default()
        }
    }

    #[test]
    fn a_program_survives_its_bytes() {
        let program = sample();
        assert_eq!(decode(&encode(&program)), Ok(program));
    }

    #[test]
    fn identity_is_fixed_across_builds_and_machines() {
        assert_eq!(format!("{:032x}", identity(&Program::default())), EMPTY_IDENTITY);
        let mut other = sample();
        other.ops[0] = Op::Const { d: 0, value: 0 };
        assert_ne!(identity(&other), identity(&sample()));
    }
    const EMPTY_IDENTITY: &str = "9f0b79b5314588d97db66327b5e7e315";

    #[test]
    fn unused_call_words_do_not_change_the_identity() {
        let mut other = sample();
        other.ops[2] = Op::Call { d: 2, helper: 300, n: 2, args: [0, 1, 9, 9] };
        assert_eq!(identity(&other), identity(&sample()));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encode(&sample());
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len}");
        }
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(decode(&long), Err(DecodeError::Trailing));
    }

    proptest! {
        /// Whatever decodes encodes to the same bytes: there is no second spelling.
        #[test]
        fn damaged_bytes_are_refused_or_canonical(at in 0usize..400, to in any::<u8>(), second in any::<u8>()) {
            let mut bytes = encode(&sample());
            let len = bytes.len();
            bytes[at % len] = to;
            bytes[(at * 7 + 1) % len] = second;
            if let Ok(program) = decode(&bytes) {
                prop_assert_eq!(encode(&program), bytes);
            }
        }
        #[test]
        fn garbage_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&MAGIC[..], &tail].concat());
        }
    }
}
