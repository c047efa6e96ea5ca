//! # The argument parser
//!
//! Driven by a command's [`Grammar`]: turns the arguments of one request into the words of a call. Every syntax, arity and range
//! error is answered here, before anything costs an epoch. Syntax errors win over values that are wrong, as in Redis, whose
//! commands look for their options before they read numbers.

use crate::base::KeyHasher;
use crate::base::batch::ChunkBuilder;
use crate::base::words::{BytesWord, ListWord};
use crate::lang::grammar::{Alternative, Grammar, Param, ParamKind, Shape};
use crate::lang::helpers::number;
use crate::resp::Request;

pub const SYNTAX: &str = "ERR syntax error";
pub const NOT_INT: &str = "ERR value is not an integer or out of range";
pub const NOT_FLOAT: &str = "ERR value is not a valid float";

/// What is wrong with the arguments: the text of the error reply.
pub type ArgError = Vec<u8>;

/// `name` is the command's full name, lower case, `|` before a subcommand.
pub fn arity_error(name: &str) -> ArgError {
    format!("ERR wrong number of arguments for '{name}' command").into_bytes()
}

/// The command's own text, or the general one.
pub fn wrong_arity(grammar: &Grammar, name: &str) -> ArgError {
    grammar.errors.arity.as_ref().map_or_else(|| arity_error(name), |text| text.as_bytes().to_vec())
}

/// `container` is its upper- or lower-case name.
pub fn unknown_subcommand(word: &[u8], container: &str) -> ArgError {
    let shown = word.split(|&b| b == 0).next().unwrap_or_default();
    let tail = format!("'. Try {} HELP.", container.to_ascii_uppercase());
    [b"ERR unknown subcommand '", &shown[..shown.len().min(128)], tail.as_bytes()].concat()
}

/// `text` with the argument in the place of `%s`, byte for byte up to a NUL: Redis's texts are C strings.
pub fn with_argument(text: &str, argument: &[u8]) -> ArgError {
    let shown = argument.split(|&b| b == 0).next().unwrap_or_default();
    match text.split_once("%s") {
        Some((before, after)) => [before.as_bytes(), shown, after.as_bytes()].concat(),
        None => text.as_bytes().to_vec(),
    }
}

/// Appends the words of one call (between `builder.begin` and `builder.end`). `args` are the arguments behind the command's name.
pub fn parse(
    grammar: &Grammar,
    name: &str,
    args: Request<'_>,
    hasher: &KeyHasher,
    builder: &mut ChunkBuilder,
) -> Result<(), ArgError> {
    builder.zeros(grammar.fixed_words as usize);
    let mut p = Parser { grammar, name, args, next: 0, hasher, builder, value_error: None };
    let mut next = 0;
    while let Some(param) = grammar.params.get(next) {
        if param.options > 0 {
            let behind = next + param.options as usize;
            p.options(&grammar.params[next..behind])?;
            next = behind;
        } else {
            p.param(param)?;
            next += 1;
        }
    }
    if p.next < args.len() {
        return Err(p.leftover());
    }
    match p.value_error.take() {
        Some(text) => Err(text),
        None => Ok(()),
    }
}

struct Parser<'a> {
    grammar: &'a Grammar,
    name: &'a str,
    args: Request<'a>,
    next: usize,
    hasher: &'a KeyHasher,
    builder: &'a mut ChunkBuilder,
    /// The first wrong value; answered when the syntax turned out right.
    value_error: Option<ArgError>,
}

impl<'a> Parser<'a> {
    fn left(&self) -> usize {
        self.args.len() - self.next
    }

    fn arity(&self) -> ArgError {
        wrong_arity(self.grammar, self.name)
    }

    fn syntax(&self) -> ArgError {
        let text = self.grammar.errors.syntax.as_deref().unwrap_or(SYNTAX);
        with_argument(text, self.args.arg(self.next))
    }

    /// Arguments that no parameter takes, or too few: a command with optional parts answers a syntax error, one without an arity error.
    fn leftover(&self) -> ArgError {
        let optional =
            |p: &Param| p.options > 0 || matches!(&p.kind, ParamKind::One(Shape::Optional(_) | Shape::Words(_)));
        if self.grammar.params.iter().any(optional) { self.syntax() } else { self.arity() }
    }

    fn set(&mut self, at: usize, word: u64) {
        self.builder.set_word(at, word);
    }

    fn param(&mut self, param: &Param) -> Result<(), ArgError> {
        let reserved = param.reserved as usize;
        match &param.kind {
            ParamKind::One(Shape::Optional(inner)) => {
                if self.left() > reserved {
                    self.present(inner, param.slot as usize)
                } else {
                    Ok(())
                }
            }
            ParamKind::One(shape) => {
                if self.left() < reserved + param.least as usize {
                    return Err(self.arity());
                }
                self.shape(shape, param.slot as usize)
            }
            ParamKind::Rest { element, min, max } => self.rest(element, *min, *max, param.slot as usize, reserved),
            ParamKind::Flag { .. } | ParamKind::Options(_) => self.options(std::slice::from_ref(param)),
        }
    }

    /// Flags and options in any order, until an argument is none of them. The same word again counts last, unless the option is
    /// `once`; two different words of one option do not go together.
    fn options(&mut self, options: &[Param]) -> Result<(), ArgError> {
        'next: while self.left() > 0 {
            let word = self.args.arg(self.next);
            for option in options {
                let at = option.slot as usize;
                match &option.kind {
                    ParamKind::Flag { word: name } if word.eq_ignore_ascii_case(name.as_bytes()) => {
                        if option.once && self.builder.get_word(at) != 0 {
                            return Err(self.syntax());
                        }
                        self.set(at, 1);
                        self.next += 1;
                        continue 'next;
                    }
                    ParamKind::Options(alternatives) => {
                        let Some(i) = position(alternatives, word) else { continue };
                        let before = self.builder.get_word(at);
                        if before != 0 && (option.once || before != i as u64 + 1) {
                            return Err(self.syntax());
                        }
                        self.alternative(alternatives, i, at)?;
                        continue 'next;
                    }
                    _ => {}
                }
            }
            break;
        }
        Ok(())
    }

    /// Takes the word here, which is that of alternative `i`, and its payload.
    fn alternative(&mut self, alternatives: &[Alternative], i: usize, at: usize) -> Result<(), ArgError> {
        let payload = &alternatives[i].payload;
        if self.left() < 1 + payload.iter().map(|s| s.arguments().0 as usize).sum::<usize>() {
            return Err(self.syntax());
        }
        self.next += 1;
        self.set(at, i as u64 + 1);
        self.shapes(payload, at + 1)
    }

    fn shapes(&mut self, shapes: &[Shape], mut at: usize) -> Result<(), ArgError> {
        for shape in shapes {
            self.shape(shape, at)?;
            at += shape.words() as usize;
        }
        Ok(())
    }

    /// An optional argument that is there.
    fn present(&mut self, inner: &Shape, at: usize) -> Result<(), ArgError> {
        if matches!(inner, Shape::Words(_)) {
            return self.shape(inner, at);
        }
        if self.left() < inner.arguments().0 as usize {
            return Err(self.syntax());
        }
        self.set(at, 1);
        self.shape(inner, at + 1)
    }

    fn rest(
        &mut self,
        element: &Shape,
        min: u32,
        max: Option<u32>,
        slot: usize,
        reserved: usize,
    ) -> Result<(), ArgError> {
        let first = self.builder.open_words();
        let words = element.words() as usize;
        let mut count = 0u32;
        while self.left() > reserved {
            // a word with too few arguments behind it is a syntax error, which `shape` finds
            let short = self.left() - reserved < element.arguments().0 as usize;
            if short && !matches!(element, Shape::Words(_)) {
                return Err(self.leftover());
            }
            let at = self.builder.open_words();
            for _ in 0..words {
                self.builder.word(0);
            }
            self.shape(element, at)?;
            count += 1;
        }
        if count < min || max.is_some_and(|max| count > max) {
            return Err(self.leftover());
        }
        self.set(slot, ListWord::new(first as u32, count).0);
        Ok(())
    }

    /// Takes the arguments of one shape; wrong values are noted, wrong words are syntax errors.
    fn shape(&mut self, shape: &Shape, at: usize) -> Result<(), ArgError> {
        match shape {
            Shape::Words(alternatives) => match position(alternatives, self.args.arg(self.next)) {
                Some(i) => self.alternative(alternatives, i, at),
                None => Err(self.syntax()),
            },
            Shape::Tuple(fields) => self.shapes(fields, at),
            Shape::Optional(inner) => {
                if self.left() > 0 {
                    self.present(inner, at)
                } else {
                    Ok(())
                }
            }
            _ if self.left() == 0 => Err(self.syntax()),
            _ => {
                self.scalar(shape, at);
                self.next += 1;
                Ok(())
            }
        }
    }

    fn scalar(&mut self, shape: &Shape, at: usize) {
        let bytes = self.args.arg(self.next);
        match shape {
            Shape::Key { max } => {
                self.check_len(bytes, *max);
                let word = self.builder.bytes(bytes);
                self.set(at, word.0);
                let hash = self.hasher.hash(bytes);
                self.set(at + 1, hash);
            }
            Shape::Bytes { max } => {
                self.check_len(bytes, *max);
                let word = self.builder.bytes(bytes);
                self.set(at, word.0);
            }
            Shape::Int { min, max, texts } => {
                let errors = &self.grammar.errors;
                match number::int(bytes) {
                    Some(n) if (*min..=*max).contains(&n) => self.set(at, n as u64),
                    Some(_) => self.note(&[&texts.range, &texts.wrong, &errors.range], NOT_INT, bytes),
                    None => self.note(&[&texts.wrong, &errors.not_int], NOT_INT, bytes),
                }
            }
            Shape::Float { texts } => match number::float(bytes) {
                Some(x) => self.set(at, x.to_bits()),
                None => self.note(&[&texts.wrong, &self.grammar.errors.not_float], NOT_FLOAT, bytes),
            },
            Shape::Words(_) | Shape::Tuple(_) | Shape::Optional(_) => {}
        }
    }

    /// Notes a wrong value under the first text there is.
    fn note(&mut self, texts: &[&Option<String>], general: &str, bytes: &[u8]) {
        if self.value_error.is_none() {
            let text = texts.iter().find_map(|t| t.as_deref()).unwrap_or(general);
            self.value_error = Some(with_argument(text, bytes));
        }
    }

    fn check_len(&mut self, bytes: &[u8], max: Option<u32>) {
        if let Some(max) = max.filter(|&max| bytes.len() > max as usize) {
            self.note(&[], &format!("ERR argument of {} bytes is longer than {max}", bytes.len()), bytes);
        }
    }
}

fn position(alternatives: &[Alternative], word: &[u8]) -> Option<usize> {
    alternatives.iter().position(|a| word.eq_ignore_ascii_case(a.word.as_bytes()))
}

/// Calls `f` with every key of a call: the number of its parameter among those that hold keys, its bytes word and its hash.
pub fn for_each_key(grammar: &Grammar, word: &impl Fn(usize) -> u64, f: &mut impl FnMut(usize, BytesWord, u64)) {
    for (number, param) in grammar.params.iter().filter(|p| p.holds_key()).enumerate() {
        let slot = param.slot as usize;
        let f = &mut |word, hash| f(number, word, hash);
        match &param.kind {
            ParamKind::One(shape) => keys_of(shape, slot, word, f),
            ParamKind::Options(alternatives) => keys_of_alternatives(alternatives, slot, word, f),
            ParamKind::Rest { element, .. } => {
                let list = ListWord(word(slot));
                for i in 0..list.count() {
                    keys_of(element, list.first_word() + i * element.words() as usize, word, f);
                }
            }
            ParamKind::Flag { .. } => {}
        }
    }
}

fn keys_of(shape: &Shape, at: usize, word: &impl Fn(usize) -> u64, f: &mut impl FnMut(BytesWord, u64)) {
    match shape {
        Shape::Key { .. } => f(BytesWord(word(at)), word(at + 1)),
        Shape::Words(alternatives) => keys_of_alternatives(alternatives, at, word, f),
        Shape::Tuple(fields) => keys_of_fields(fields, at, word, f),
        Shape::Optional(inner) if matches!(**inner, Shape::Words(_)) => keys_of(inner, at, word, f),
        Shape::Optional(inner) if word(at) != 0 => keys_of(inner, at + 1, word, f),
        _ => {}
    }
}

fn keys_of_fields(fields: &[Shape], mut at: usize, word: &impl Fn(usize) -> u64, f: &mut impl FnMut(BytesWord, u64)) {
    for field in fields {
        keys_of(field, at, word, f);
        at += field.words() as usize;
    }
}

fn keys_of_alternatives(
    alternatives: &[Alternative],
    at: usize,
    word: &impl Fn(usize) -> u64,
    f: &mut impl FnMut(BytesWord, u64),
) {
    if let Some(alternative) = (word(at) as usize).checked_sub(1).and_then(|i| alternatives.get(i)) {
        keys_of_fields(&alternative.payload, at + 1, word, f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::GatewayId;
    use crate::lang::grammar::{GrammarErrors, Texts};
    use crate::resp::Decoder;

    fn word(word: &str, payload: Vec<Shape>) -> Alternative {
        Alternative { word: word.into(), payload }
    }

    fn grammar(params: Vec<(&str, ParamKind)>) -> Grammar {
        let mut g = Grammar { params: vec![], fixed_words: 0, arity: 0, errors: GrammarErrors::default() };
        for (name, kind) in params {
            let words = match &kind {
                ParamKind::One(shape) => shape.words(),
                ParamKind::Options(alternatives) => Shape::Words(alternatives.clone()).words(),
                _ => 1,
            };
            g.add(name, words, kind, false);
        }
        g
    }

    fn set() -> Grammar {
        let texts = Texts { wrong: None, range: Some("ERR invalid expire time in 'set' command".into()) };
        let seconds = Shape::Int { min: 1, max: i64::MAX, texts };
        grammar(vec![
            ("key", ParamKind::One(Shape::Key { max: None })),
            ("value", ParamKind::One(Shape::Bytes { max: None })),
            ("cond", ParamKind::Options(vec![word("NX", vec![]), word("XX", vec![])])),
            ("GET", ParamKind::Flag { word: "GET".into() }),
            ("exp", ParamKind::Options(vec![word("EX", vec![seconds]), word("KEEPTTL", vec![])])),
        ])
    }

    fn words(grammar: &Grammar, request: &str) -> Result<Vec<u64>, String> {
        let line = format!("{request}\r\n");
        let mut decoder = Decoder::default();
        decoder.next(line.as_bytes()).unwrap();
        let mut b = ChunkBuilder::default();
        b.begin(1, 0);
        parse(grammar, "set", decoder.request(line.as_bytes()), &KeyHasher::new(1), &mut b)
            .map_err(|text| String::from_utf8_lossy(&text).into_owned())?;
        assert!(b.end());
        let chunk = b.finish(GatewayId(1), 1, 1);
        Ok(chunk.calls().flat_map(|c| c.words.iter()).collect())
    }

    #[test]
    fn options_come_in_any_order_and_lie_where_the_grammar_says() {
        let w = words(&set(), "k v ex 10 GET nx").unwrap();
        assert_eq!(&w[3..], [1, 1, 1, 10]);
        assert_eq!(&words(&set(), "k v KEEPTTL XX XX").unwrap()[3..], [2, 0, 2, 0]);
    }

    #[test]
    fn a_word_of_a_once_option_is_not_said_twice() {
        let mut g = set();
        g.params.iter_mut().for_each(|p| p.once = true);
        assert_eq!(words(&g, "k v XX GET").unwrap()[3..5], [2, 1]);
        assert_eq!(words(&g, "k v XX XX").unwrap_err(), SYNTAX);
        assert_eq!(words(&g, "k v GET GET").unwrap_err(), SYNTAX);
    }

    #[test]
    fn the_errors_are_redis_own() {
        let error = |r| words(&set(), r).unwrap_err();
        assert_eq!(error("k"), "ERR wrong number of arguments for 'set' command");
        assert_eq!(error("k v NX XX"), SYNTAX);
        assert_eq!(error("k v EX"), SYNTAX);
        assert_eq!(error("k v EX 1 KEEPTTL"), SYNTAX);
        assert_eq!(error("k v EX a"), NOT_INT);
        assert_eq!(error("k v EX 0"), "ERR invalid expire time in 'set' command");
        assert_eq!(error("k v EX a WHAT"), SYNTAX, "syntax errors win over values");
    }

    #[test]
    fn a_list_argument_names_its_elements_and_its_keys() {
        let pair = Shape::Tuple(vec![Shape::Key { max: None }, Shape::Bytes { max: None }]);
        let mset = grammar(vec![("pairs", ParamKind::Rest { element: pair, min: 1, max: None })]);
        let w = words(&mset, "a 1 b 2").unwrap();
        assert_eq!((ListWord(w[0]).first_word(), ListWord(w[0]).count(), w.len()), (1, 2, 7));
        let mut hashes = vec![];
        for_each_key(&mset, &|i| w[i], &mut |_, _, hash| hashes.push(hash));
        assert_eq!(hashes, [b"a", b"b"].map(|k| KeyHasher::new(1).hash(k)));
        assert!(words(&mset, "a 1 b").unwrap_err().starts_with("ERR wrong number"));
    }

    #[test]
    fn words_and_options_turn_wrong_counts_into_syntax_errors() {
        let step = Shape::Words(vec![word("GET", vec![Shape::Bytes { max: None }, Shape::Bytes { max: None }])]);
        let steps = grammar(vec![("steps", ParamKind::Rest { element: step, min: 0, max: None })]);
        assert_eq!(words(&steps, "GET u8").unwrap_err(), SYNTAX);
        assert_eq!(words(&steps, "WHAT").unwrap_err(), SYNTAX);
        let pair = Shape::Tuple(vec![Shape::Float { texts: Texts::default() }, Shape::Bytes { max: None }]);
        let zadd = grammar(vec![
            ("NX", ParamKind::Flag { word: "NX".into() }),
            ("pairs", ParamKind::Rest { element: pair, min: 1, max: None }),
        ]);
        assert_eq!(words(&zadd, "NX").unwrap_err(), SYNTAX);
        assert_eq!(words(&zadd, "NX 1").unwrap_err(), SYNTAX);
    }

    #[test]
    fn a_list_leaves_later_parameters_what_they_need() {
        let key = Shape::Key { max: None };
        let timeout = Shape::Int { min: 0, max: 9, texts: Texts::default() };
        let blpop = grammar(vec![
            ("keys", ParamKind::Rest { element: key, min: 1, max: None }),
            ("timeout", ParamKind::One(timeout)),
        ]);
        let w = words(&blpop, "a b 7").unwrap();
        assert_eq!((ListWord(w[0]).count(), w[1]), (2, 7));
    }
}
