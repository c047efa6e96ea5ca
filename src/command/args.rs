//! # The argument parser
//!
//! Driven by a command's [`Grammar`]: turns the argument ranges of one request into the words of a call. Every syntax,
//! arity and range error is answered here, before anything costs an epoch. Syntax errors win over values that are wrong, as in
//! Redis, whose commands look for their options before they read numbers.

use crate::base::KeyHasher;
use crate::base::batch::ChunkBuilder;
use crate::base::words::{BytesWord, ListWord};
use crate::lang::grammar::{Case, Element, Grammar, Kind, Param, Scalar};
use crate::resp::number::parse_int;

pub use crate::resp::Arg;

/// Where a call's bytes are found when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Copied into the chunk's blob (the call travels).
    Blob,
    /// Left in the request buffer, which is the blob of the call (a read that runs at once).
    Request,
}

pub const SYNTAX: &str = "ERR syntax error";
pub const NOT_INT: &str = "ERR value is not an integer or out of range";
pub const NOT_FLOAT: &str = "ERR value is not a valid float";

/// What is wrong with the arguments: the text of the error reply.
pub type ArgError = String;

/// `ERR wrong number of arguments …`; `name` is the command's full name, lower case, `|` before a subcommand.
pub fn arity_error(name: &str) -> ArgError {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// Appends the words of one call (between `builder.begin` and `builder.end`). `args` are those after the command's name.
pub fn parse(
    grammar: &Grammar,
    name: &str,
    buffer: &[u8],
    args: &[Arg],
    place: Place,
    hasher: &KeyHasher,
    builder: &mut ChunkBuilder,
) -> Result<(), ArgError> {
    let base = builder.open_words();
    for _ in 0..grammar.fixed_words {
        builder.word(0);
    }
    let mut p = Parser { grammar, name, buffer, args, next: 0, place, hasher, builder, base, value_error: None };
    let mut params = &grammar.params[..];
    while let Some(param) = params.first() {
        let options = params.iter().take_while(|p| matches!(p.kind, Kind::Flag(_) | Kind::Opt(_))).count();
        if options > 0 {
            p.options(&params[..options])?;
            params = &params[options..];
        } else {
            p.param(param)?;
            params = &params[1..];
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
    buffer: &'a [u8],
    args: &'a [Arg],
    next: usize,
    place: Place,
    hasher: &'a KeyHasher,
    builder: &'a mut ChunkBuilder,
    base: usize,
    /// The first wrong value; answered when the syntax turned out right.
    value_error: Option<ArgError>,
}

impl<'a> Parser<'a> {
    fn bytes_of(&self, arg: Arg) -> &'a [u8] {
        self.buffer.get(arg.at as usize..arg.at as usize + arg.len as usize).unwrap_or_default()
    }

    fn left(&self) -> usize {
        self.args.len() - self.next
    }

    fn arity(&self) -> ArgError {
        self.grammar.errors.arity.clone().unwrap_or_else(|| arity_error(self.name))
    }

    fn syntax(&self) -> ArgError {
        match &self.grammar.errors.syntax {
            Some(text) => match self.args.get(self.next) {
                Some(&arg) => text.replace("%s", &String::from_utf8_lossy(self.bytes_of(arg))),
                None => text.clone(),
            },
            None => SYNTAX.into(),
        }
    }

    /// Arguments that no parameter takes: a command with options answers a syntax error, one without an arity error.
    fn leftover(&self) -> ArgError {
        let optional = |k: &Kind| matches!(k, Kind::Flag(_) | Kind::Opt(_) | Kind::Optional(_) | Kind::Cases { .. });
        if self.grammar.params.iter().any(|p| optional(&p.kind)) { self.syntax() } else { self.arity() }
    }

    fn set(&mut self, slot: usize, word: u64) {
        self.builder.set_word(self.base + slot, word);
    }

    fn param(&mut self, param: &Param) -> Result<(), ArgError> {
        let slot = param.slot as usize;
        match &param.kind {
            Kind::One(scalar) => {
                if self.left() == 0 {
                    return Err(self.arity());
                }
                self.fields(std::slice::from_ref(scalar), slot)
            }
            Kind::Optional(fields) => match self.left() {
                0 => Ok(()),
                n if n < fields.len() => Err(self.syntax()),
                _ => {
                    self.set(slot, 1);
                    self.fields(fields, slot + 1)
                }
            },
            Kind::Cases { cases, optional } => match self.left() {
                0 if *optional => Ok(()),
                0 => Err(self.arity()),
                _ => {
                    let Some(tag) = self.case_here(cases) else { return Err(self.syntax()) };
                    self.case(cases, tag, slot)
                }
            },
            Kind::Rest { element, min, max } => self.rest(element, *min, *max, slot),
            Kind::Flag(_) | Kind::Opt(_) => self.options(std::slice::from_ref(param)),
        }
    }

    /// Flags and alternatives in any order, until an argument is none of them.
    fn options(&mut self, options: &[Param]) -> Result<(), ArgError> {
        while let Some(&arg) = self.args.get(self.next) {
            let word = self.bytes_of(arg);
            let mut taken = false;
            for option in options {
                let slot = option.slot as usize;
                match &option.kind {
                    Kind::Flag(name) if word.eq_ignore_ascii_case(name.as_bytes()) => self.take_flag(slot, &mut taken),
                    Kind::Opt(cases) => {
                        let Some(tag) = self.case_here(cases) else { continue };
                        let before =
                            self.builder.words[self.builder.words.len() - self.builder.open_words() + self.base + slot];
                        let repeats_word = before == tag as u64 && cases[tag - 1].fields.is_empty();
                        if before != 0 && !repeats_word {
                            return Err(self.syntax());
                        }
                        self.case(cases, tag, slot)?;
                        taken = true;
                    }
                    _ => continue,
                }
                if taken {
                    break;
                }
            }
            if !taken {
                break;
            }
        }
        Ok(())
    }

    fn take_flag(&mut self, slot: usize, taken: &mut bool) {
        self.set(slot, 1);
        self.next += 1;
        *taken = true;
    }

    /// The number (1 …) of the case whose word stands here.
    fn case_here(&self, cases: &[Case]) -> Option<usize> {
        let word = self.bytes_of(*self.args.get(self.next)?);
        cases.iter().position(|c| word.eq_ignore_ascii_case(c.word.as_bytes())).map(|i| i + 1)
    }

    /// Takes the word and payload of case `tag` into the words at `slot`.
    fn case(&mut self, cases: &[Case], tag: usize, slot: usize) -> Result<(), ArgError> {
        let fields = &cases[tag - 1].fields;
        if self.left() < 1 + fields.len() {
            return Err(self.syntax());
        }
        self.next += 1;
        self.set(slot, tag as u64);
        self.fields(fields, slot + 1)
    }

    fn fields(&mut self, fields: &[Scalar], mut slot: usize) -> Result<(), ArgError> {
        for field in fields {
            let words = self.scalar(field)?;
            self.set(slot, words[0]);
            if field.width() == 2 {
                self.set(slot + 1, words[1]);
            }
            slot += field.width();
        }
        Ok(())
    }

    fn rest(&mut self, element: &Element, min: u32, max: Option<u32>, slot: usize) -> Result<(), ArgError> {
        let first = self.builder.open_words();
        let mut count = 0u32;
        match element {
            Element::Fields(fields) => {
                let left = self.left();
                if !left.is_multiple_of(fields.len()) {
                    return Err(self.leftover());
                }
                for _ in 0..left / fields.len() {
                    for field in fields {
                        let words = self.scalar(field)?;
                        self.builder.word(words[0]);
                        if field.width() == 2 {
                            self.builder.word(words[1]);
                        }
                    }
                    count += 1;
                }
            }
            Element::Cases(cases) => {
                while self.left() > 0 {
                    let Some(tag) = self.case_here(cases) else { return Err(self.syntax()) };
                    let at = self.builder.open_words() - self.base;
                    for _ in 0..element.width() {
                        self.builder.word(0);
                    }
                    self.case(cases, tag, at)?;
                    count += 1;
                }
            }
        }
        if count < min {
            return Err(if self.args.is_empty() || count == 0 { self.arity() } else { self.leftover() });
        }
        if max.is_some_and(|max| count > max) {
            return Err(self.leftover());
        }
        self.set(slot, ListWord::new((first - self.base) as u32, count).0);
        Ok(())
    }

    /// Takes one argument; wrong values are noted, wrong words are syntax errors.
    fn scalar(&mut self, scalar: &Scalar) -> Result<[u64; 2], ArgError> {
        let Some(&arg) = self.args.get(self.next) else { return Err(self.syntax()) };
        let bytes = self.bytes_of(arg);
        let words = match scalar {
            Scalar::Key { max } => {
                self.check_len(bytes, *max);
                [self.place_bytes(arg, bytes).0, self.hasher.hash(bytes)]
            }
            Scalar::Bytes { max } => {
                self.check_len(bytes, *max);
                [self.place_bytes(arg, bytes).0, 0]
            }
            Scalar::Int { min, max, not_int, range } => [self.int(bytes, *min, *max, not_int, range) as u64, 0],
            Scalar::Float { not_float } => [self.float(bytes, not_float).to_bits(), 0],
            Scalar::Word(words) => match words.iter().position(|w| bytes.eq_ignore_ascii_case(w.as_bytes())) {
                Some(i) => [i as u64 + 1, 0],
                None => return Err(self.syntax()),
            },
        };
        self.next += 1;
        Ok(words)
    }

    fn place_bytes(&mut self, arg: Arg, bytes: &[u8]) -> BytesWord {
        match self.place {
            Place::Blob => self.builder.bytes(bytes),
            Place::Request => BytesWord::argument(arg.at, arg.len),
        }
    }

    fn note(&mut self, text: &str, bytes: &[u8]) {
        if self.value_error.is_none() {
            self.value_error = Some(text.replace("%s", &String::from_utf8_lossy(bytes)));
        }
    }

    fn check_len(&mut self, bytes: &[u8], max: Option<u32>) {
        if let Some(max) = max.filter(|&max| bytes.len() > max as usize) {
            self.note(&format!("ERR argument of {} bytes is longer than {max}", bytes.len()), bytes);
        }
    }

    fn int(&mut self, bytes: &[u8], min: i64, max: i64, not_int: &Option<String>, range: &Option<String>) -> i64 {
        let grammar = self.grammar;
        match parse_int(bytes) {
            Some(n) if (min..=max).contains(&n) => n,
            Some(_) => {
                let text = range.as_ref().or(grammar.errors.range.as_ref()).map_or(NOT_INT, |s| s);
                self.note(text, bytes);
                0
            }
            None => {
                let text = not_int.as_ref().or(grammar.errors.not_int.as_ref()).map_or(NOT_INT, |s| s);
                self.note(text, bytes);
                0
            }
        }
    }

    fn float(&mut self, bytes: &[u8], not_float: &Option<String>) -> f64 {
        match parse_float(bytes) {
            Some(x) => x,
            None => {
                let text = not_float.as_ref().or(self.grammar.errors.not_float.as_ref()).map_or(NOT_FLOAT, |s| s);
                self.note(text, bytes);
                0.0
            }
        }
    }
}

/// A float as Redis's `strtod` check takes it: no blanks, `inf` in any case, hexadecimal too; never NaN.
pub fn parse_float(bytes: &[u8]) -> Option<f64> {
    crate::lang::helpers::number::float(bytes)
}

/// Fewest and most arguments after the name; None = no upper limit.
pub fn count_range(grammar: &Grammar) -> (usize, Option<usize>) {
    let longest = |cases: &[Case]| cases.iter().map(|c| 1 + c.fields.len()).max().unwrap_or(0);
    let shortest = |cases: &[Case]| cases.iter().map(|c| 1 + c.fields.len()).min().unwrap_or(0);
    grammar.params.iter().fold((0, Some(0)), |(min, max), param| {
        let (low, high) = match &param.kind {
            Kind::One(_) => (1, Some(1)),
            Kind::Optional(fields) => (0, Some(fields.len())),
            Kind::Cases { cases, optional } => (if *optional { 0 } else { shortest(cases) }, Some(longest(cases))),
            Kind::Flag(_) => (0, Some(1)),
            // The same word again is legal, so options have no upper limit of their own.
            Kind::Opt(_) => (0, None),
            Kind::Rest { element: Element::Fields(f), min, max } => {
                (*min as usize * f.len(), max.map(|m| m as usize * f.len()))
            }
            Kind::Rest { element: Element::Cases(c), min, .. } => (*min as usize * shortest(c), None),
        };
        (min + low, max.zip(high).map(|(a, b)| a + b))
    })
}

/// Where the keys lie among a call's words: calls `f(bytes, hash)` for each.
pub fn for_each_key(grammar: &Grammar, word: impl Fn(usize) -> u64, mut f: impl FnMut(BytesWord, u64)) {
    let mut fields_at = |fields: &[Scalar], mut at: usize| {
        for field in fields {
            if matches!(field, Scalar::Key { .. }) {
                f(BytesWord(word(at)), word(at + 1));
            }
            at += field.width();
        }
    };
    for param in &grammar.params {
        let slot = param.slot as usize;
        match &param.kind {
            Kind::One(s) => fields_at(std::slice::from_ref(s), slot),
            Kind::Optional(fields) if word(slot) != 0 => fields_at(fields, slot + 1),
            Kind::Cases { cases, .. } | Kind::Opt(cases) => {
                if let Some(case) = (word(slot) as usize).checked_sub(1).and_then(|i| cases.get(i)) {
                    fields_at(&case.fields, slot + 1);
                }
            }
            Kind::Rest { element, .. } => {
                let list = ListWord(word(slot));
                for i in 0..list.count() {
                    let at = list.first_word() + i * element.width();
                    match element {
                        Element::Fields(fields) => fields_at(fields, at),
                        Element::Cases(cases) => {
                            if let Some(case) = (word(at) as usize).checked_sub(1).and_then(|i| cases.get(i)) {
                                fields_at(&case.fields, at + 1);
                            }
                        }
                    }
                }
            }
            Kind::Optional(_) | Kind::Flag(_) => {}
        }
    }
}

/// Words of a whole call beyond its fixed part never start below it: what [`for_each_key`] may index.
pub fn fits(grammar: &Grammar, words: usize, word: impl Fn(usize) -> u64) -> bool {
    words >= grammar.fixed_words as usize
        && grammar.params.iter().all(|param| match &param.kind {
            Kind::Rest { element, .. } => {
                let list = ListWord(word(param.slot as usize));
                list.count() == 0 || list.first_word() + list.count() * element.width() <= words
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::GatewayId;
    use crate::lang::grammar::ErrorTexts;

    fn case(word: &str, fields: Vec<Scalar>) -> Case {
        Case { word: word.into(), fields }
    }
    fn int(min: i64, range: Option<&str>) -> Scalar {
        Scalar::Int { min, max: i64::MAX, not_int: None, range: range.map(Into::into) }
    }

    fn set() -> Grammar {
        let expire = Some("ERR invalid expire time in 'set' command");
        Grammar::new(
            vec![
                ("key".into(), Kind::One(Scalar::Key { max: None })),
                ("value".into(), Kind::One(Scalar::Bytes { max: None })),
                ("cond".into(), Kind::Opt(vec![case("NX", vec![]), case("XX", vec![])])),
                ("GET".into(), Kind::Flag("GET".into())),
                ("exp".into(), Kind::Opt(vec![case("EX", vec![int(1, expire)]), case("KEEPTTL", vec![])])),
            ],
            ErrorTexts::default(),
        )
    }

    fn words(grammar: &Grammar, request: &str) -> Result<Vec<u64>, String> {
        let args: Vec<Arg> = request
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(|w| Arg { at: (w.as_ptr() as usize - request.as_ptr() as usize) as u32, len: w.len() as u32 })
            .collect();
        let mut b = ChunkBuilder::default();
        b.begin(1, 0);
        parse(grammar, "set", request.as_bytes(), &args, Place::Blob, &KeyHasher::new(1), &mut b)?;
        assert!(b.end());
        let chunk = b.finish(GatewayId(1), 1, 1);
        let call = chunk.calls().next().unwrap();
        assert!(fits(grammar, call.words.len(), |i| call.words.get(i)));
        Ok(call.words.iter().collect())
    }

    #[test]
    fn options_come_in_any_order_and_lie_where_the_grammar_says() {
        let w = words(&set(), "k v ex 10 GET nx").unwrap();
        assert_eq!(&w[3..], [1, 1, 1, 10]);
        assert_eq!(&words(&set(), "k v KEEPTTL XX").unwrap()[3..], [2, 0, 2, 0]);
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
        let pair = vec![Scalar::Key { max: None }, Scalar::Bytes { max: None }];
        let rest = Kind::Rest { element: Element::Fields(pair), min: 1, max: None };
        let mset = Grammar::new(vec![("pairs".into(), rest)], ErrorTexts::default());
        let w = words(&mset, "a 1 b 2").unwrap();
        assert_eq!((ListWord(w[0]).first_word(), ListWord(w[0]).count(), w.len()), (1, 2, 7));
        let mut hashes = vec![];
        for_each_key(&mset, |i| w[i], |_, hash| hashes.push(hash));
        assert_eq!(hashes, [b"a", b"b"].map(|k| KeyHasher::new(1).hash(k)));
        assert!(words(&mset, "a 1 b").unwrap_err().starts_with("ERR wrong number"));
        assert_eq!(count_range(&mset), (2, None));
        assert_eq!(count_range(&set()), (2, None));
    }
}
