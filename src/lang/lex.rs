//! Source text to tokens with spans. Knows literals and punctuation, no grammar.

use super::diag::{Code, Diagnostic, Span};

#[derive(Clone, PartialEq, Debug)]
pub enum Tok {
    Word(String),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
    /// Operators and brackets, longest first.
    Punct(&'static str),
    /// A doc comment's line, without `///` and one space.
    Doc(String),
    End,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub tok: Tok,
    pub span: Span,
    /// First on its line: a statement may begin here.
    pub fresh_line: bool,
}

const PUNCT: &[&str] = &[
    "..=", ">>>", "..", "=>", "->", "==", "!=", "<=", ">=", "&&", "||", "<<", ">>", "+=", "-=", "*=", "/=", "%=", "|=",
    "&=", "^=", "(", ")", "{", "}", "[", "]", "<", ">", "=", "+", "-", "*", "/", "%", "!", "~", "&", "|", "^", "?",
    ":", ",", ";", ".", "@",
];

/// Splits `source` into tokens; the last is [`Tok::End`].
pub fn lex(source: &str, file: u16) -> Result<Vec<Token>, Diagnostic> {
    Lexer { text: source.as_bytes(), source, at: 0, file, fresh_line: true, out: Vec::new() }.run()
}

struct Lexer<'a> {
    text: &'a [u8],
    source: &'a str,
    at: usize,
    file: u16,
    fresh_line: bool,
    out: Vec<Token>,
}

impl Lexer<'_> {
    fn run(mut self) -> Result<Vec<Token>, Diagnostic> {
        loop {
            self.skip_blank();
            let start = self.at;
            let Some(&c) = self.text.get(start) else {
                self.push(Tok::End, start);
                return Ok(self.out);
            };
            match c {
                b'/' if self.rest().starts_with("//") => self.comment(start),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.word(start),
                b'0'..=b'9' => self.number(start)?,
                b'"' => self.string(start)?,
                b'\'' => self.char(start)?,
                _ => self.punct(start)?,
            }
        }
    }

    fn rest(&self) -> &str {
        self.source.get(self.at..).unwrap_or("")
    }
    fn span(&self, start: usize) -> Span {
        Span { start: start as u32, end: self.at as u32, file: self.file }
    }
    fn push(&mut self, tok: Tok, start: usize) {
        let token = Token { tok, span: self.span(start), fresh_line: self.fresh_line };
        self.fresh_line = false;
        self.out.push(token);
    }
    fn error(&self, start: usize, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Code::Syntax, self.span(start), message)
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.text.get(self.at).filter(|c| c.is_ascii_whitespace()) {
            self.fresh_line |= *c == b'\n';
            self.at += 1;
        }
    }

    fn comment(&mut self, start: usize) {
        let line = self.rest().split('\n').next().unwrap_or("").to_owned();
        self.at += line.len();
        let doc = line.strip_prefix("///").filter(|d| !d.starts_with('/'));
        if let Some(doc) = doc {
            let doc = doc.strip_prefix(' ').unwrap_or(doc).trim_end().to_owned();
            self.push(Tok::Doc(doc), start);
        }
    }

    fn word(&mut self, start: usize) {
        while self.text.get(self.at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_') {
            self.at += 1;
        }
        self.push(Tok::Word(self.source[start..self.at].to_owned()), start);
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_') {
            self.at += 1;
        }
    }

    fn number(&mut self, start: usize) -> Result<(), Diagnostic> {
        self.digits();
        let next_is_digit = self.text.get(self.at + 1).is_some_and(u8::is_ascii_digit);
        if self.text.get(self.at) == Some(&b'.') && next_is_digit {
            self.at += 1;
            self.digits();
            let text = self.source[start..self.at].replace('_', "");
            let value = text.parse().map_err(|_| self.error(start, "this is not a number"))?;
            self.push(Tok::Float(value), start);
            return Ok(());
        }
        let text = self.source[start..self.at].replace('_', "");
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'K') => (&text[..text.len() - 1], 1i64 << 10),
            Some(b'M') => (&text[..text.len() - 1], 1 << 20),
            Some(b'G') => (&text[..text.len() - 1], 1 << 30),
            _ => (&text[..], 1),
        };
        let plain = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(|v| v as i64),
            // the magnitude of i64::MIN, for `-9223372036854775808`
            None => digits.parse::<u64>().ok().filter(|v| *v <= 1 << 63).map(|v| v as i64),
        };
        let value = plain.and_then(|v| if unit == 1 { Some(v) } else { v.checked_mul(unit) });
        let value = value.ok_or_else(|| self.error(start, "this integer does not fit 64 bits"))?;
        self.push(Tok::Int(value), start);
        Ok(())
    }

    fn string(&mut self, start: usize) -> Result<(), Diagnostic> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.text.get(self.at) {
                None | Some(b'\n') => return Err(self.error(start, "this string has no end")),
                Some(b'"') => break,
                Some(b'\\') => bytes.push(self.escape()?),
                Some(c) => {
                    bytes.push(*c);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        self.push(Tok::Bytes(bytes), start);
        Ok(())
    }

    fn char(&mut self, start: usize) -> Result<(), Diagnostic> {
        self.at += 1;
        let value = match self.text.get(self.at) {
            Some(b'\\') => self.escape()?,
            Some(c) => {
                self.at += 1;
                *c
            }
            None => 0,
        };
        if self.text.get(self.at) != Some(&b'\'') {
            return Err(self.error(start, "a character literal is one byte between quotes"));
        }
        self.at += 1;
        self.push(Tok::Int(value as i64), start);
        Ok(())
    }

    /// One escape, `\` included.
    fn escape(&mut self) -> Result<u8, Diagnostic> {
        let start = self.at;
        let c = self.text.get(start + 1).copied().unwrap_or(b' ');
        self.at = (start + 2).min(self.text.len());
        Ok(match c {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let hex = self.source.get(self.at..self.at + 2).and_then(|h| u8::from_str_radix(h, 16).ok());
                let value = hex.ok_or_else(|| self.error(start, "`\\x` takes two hexadecimal digits"))?;
                self.at += 2;
                value
            }
            b'"' | b'\'' | b'\\' => c,
            _ => return Err(self.error(start, "unknown escape").help("known: \\n \\r \\t \\0 \\xNN \\\" \\' \\\\")),
        })
    }

    fn punct(&mut self, start: usize) -> Result<(), Diagnostic> {
        match PUNCT.iter().find(|p| self.rest().starts_with(**p)) {
            Some(p) => {
                self.at += p.len();
                self.push(Tok::Punct(p), start);
                Ok(())
            }
            None => {
                self.at += self.rest().chars().next().map_or(1, char::len_utf8);
                Err(self.error(start, "this character has no meaning here"))
            }
        }
    }
}
