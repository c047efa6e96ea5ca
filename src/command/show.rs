//! The argument parser's inverse: the arguments of a call, for people who look at slow ones. Options come in the order of the
//! declaration, whatever order they were given in.

use super::Command;
use crate::base::words::{BytesWord, ListWord};
use crate::lang::grammar::{Alternative, ParamKind, Shape};

/// The call as a request, its name first.
pub fn request(command: &Command, words: &[u64], blob: &[u8]) -> Vec<Vec<u8>> {
    let name = command.name.split('|').map(|word| word.to_ascii_uppercase().into_bytes());
    let mut call = Call { words, blob, out: name.collect() };
    for param in &command.grammar.params {
        let at = param.slot as usize;
        match &param.kind {
            ParamKind::One(shape) => call.shape(shape, at),
            ParamKind::Flag { word } if call.word(at) != 0 => call.out.push(word.clone().into_bytes()),
            ParamKind::Flag { .. } => {}
            ParamKind::Options(alternatives) => call.alternative(alternatives, at),
            ParamKind::Rest { element, .. } => {
                let list = ListWord(call.word(at));
                (0..list.count()).for_each(|i| call.shape(element, list.first_word() + i * element.words() as usize));
            }
        }
    }
    call.out
}

struct Call<'a> {
    words: &'a [u64],
    blob: &'a [u8],
    out: Vec<Vec<u8>>,
}

impl Call<'_> {
    fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }

    fn alternative(&mut self, alternatives: &[Alternative], at: usize) {
        let chosen = (self.word(at) as usize).checked_sub(1).and_then(|i| alternatives.get(i));
        if let Some(chosen) = chosen {
            self.out.push(chosen.word.clone().into_bytes());
            self.shapes(&chosen.payload, at + 1);
        }
    }

    fn shapes(&mut self, shapes: &[Shape], mut at: usize) {
        for shape in shapes {
            self.shape(shape, at);
            at += shape.words() as usize;
        }
    }

    fn shape(&mut self, shape: &Shape, at: usize) {
        match shape {
            Shape::Int { .. } => self.out.push((self.word(at) as i64).to_string().into_bytes()),
            Shape::Float { .. } => self.out.push(f64::from_bits(self.word(at)).to_string().into_bytes()),
            Shape::Bytes { .. } | Shape::Key { .. } => {
                let word = BytesWord(self.word(at));
                let bytes = self.blob.get(word.offset()..word.offset() + word.len());
                self.out.push(bytes.unwrap_or_default().to_vec());
            }
            Shape::Words(alternatives) => self.alternative(alternatives, at),
            Shape::Tuple(fields) => self.shapes(fields, at),
            Shape::Optional(inner) if matches!(**inner, Shape::Words(_)) => self.shape(inner, at),
            Shape::Optional(inner) if self.word(at) != 0 => self.shape(inner, at + 1),
            Shape::Optional(_) => {}
        }
    }
}
