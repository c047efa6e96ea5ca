//! Tokens to syntax tree: items, parameters, types, statements. Expressions are in `parse_expr.rs`.
//!
//! Recursive descent; the first error ends it. Newlines separate statements: an operator on a new line continues the expression
//! before it, except `(`, `[` and `-`.

use super::ast::*;
use super::diag::{Code, Diagnostic, Span};
use super::lex::{Tok, Token, lex};

/// Words that begin a clause of a command's header.
pub(super) const CLAUSES: [&str; 7] = ["group", "since", "complexity", "flags", "cost", "blocks", "errors"];

pub type Parsed<T> = Result<T, Diagnostic>;

/// Deepest nesting of blocks and expressions: the parser recurses.
const DEPTH_MAX: u32 = 64;

pub struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
    /// Records declared so far: `NAME {` makes one.
    pub(super) records: Vec<String>,
}

impl Parser {
    pub fn new(source: &str, file: u16) -> Parsed<Self> {
        Ok(Parser { tokens: lex(source, file)?, at: 0, depth: 0, records: Vec::new() })
    }

    // --- tokens ---

    pub(super) fn peek(&self) -> &Tok {
        &self.tokens[self.at].tok
    }
    pub(super) fn peek_at(&self, ahead: usize) -> &Token {
        &self.tokens[(self.at + ahead).min(self.tokens.len() - 1)]
    }
    pub(super) fn fresh_line(&self) -> bool {
        self.tokens[self.at].fresh_line
    }
    pub(super) fn span(&self) -> Span {
        self.tokens[self.at].span
    }
    pub(super) fn last_span(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].span
    }
    pub(super) fn advance(&mut self) -> Tok {
        let tok = self.tokens[self.at].tok.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        tok
    }
    pub(super) fn is(&self, punct: &str) -> bool {
        matches!(self.peek(), Tok::Punct(p) if *p == punct)
    }
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Tok::Word(w) if w == word)
    }
    pub(super) fn eat(&mut self, punct: &str) -> bool {
        let found = self.is(punct);
        if found {
            self.advance();
        }
        found
    }
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }
    pub(super) fn expect(&mut self, punct: &str) -> Parsed<Span> {
        if self.is(punct) {
            self.advance();
            return Ok(self.last_span());
        }
        Err(self.unexpected(&format!("`{punct}`")))
    }
    pub(super) fn unexpected(&self, wanted: &str) -> Diagnostic {
        let found = match self.peek() {
            Tok::Word(w) => format!("`{w}`"),
            Tok::Punct(p) => format!("`{p}`"),
            Tok::End => "the end of the text".to_owned(),
            Tok::Doc(_) => "a doc comment".to_owned(),
            Tok::Int(_) | Tok::Float(_) => "a number".to_owned(),
            Tok::Bytes(_) => "a string".to_owned(),
        };
        Diagnostic::new(Code::Syntax, self.span(), format!("expected {wanted}, found {found}"))
    }
    pub(super) fn ident(&mut self) -> Parsed<Ident> {
        match self.peek().clone() {
            Tok::Word(name) => {
                let span = self.span();
                self.advance();
                Ok(Ident { name, span })
            }
            _ => Err(self.unexpected("a name")),
        }
    }
    pub(super) fn text(&mut self) -> Parsed<String> {
        match self.peek().clone() {
            Tok::Bytes(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| self.unexpected("a text in UTF-8"))?;
                self.advance();
                Ok(text)
            }
            _ => Err(self.unexpected("a text in double quotes")),
        }
    }
    pub(super) fn signed_int(&mut self) -> Parsed<i64> {
        let negative = self.eat("-");
        match *self.peek() {
            Tok::Int(v) => {
                self.advance();
                Ok(if negative { v.wrapping_neg() } else { v })
            }
            _ => Err(self.unexpected("an integer")),
        }
    }
    fn size(&mut self) -> Parsed<u32> {
        let span = self.span();
        u32::try_from(self.signed_int()?).map_err(|_| Diagnostic::new(Code::Syntax, span, "a size is 0 ..= 4294967295"))
    }
    pub(super) fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == DEPTH_MAX {
            return Err(Diagnostic::new(Code::TooBig, self.span(), "nested too deeply"));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }
    /// `open item , item … close`
    pub(super) fn list<T>(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        self.expect(open)?;
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(item(self)?);
            if !self.eat(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    // --- items ---

    pub fn module(&mut self) -> Parsed<ModuleSyntax> {
        let mut m = ModuleSyntax::default();
        self.skip_docs();
        if self.eat_word("module") {
            m.name = self.dotted()?;
            if self.eat("@") {
                m.version = self.size()?;
            }
        }
        loop {
            let docs = self.docs();
            match self.peek().clone() {
                Tok::End => return Ok(m),
                Tok::Punct(";") => {
                    self.advance();
                }
                Tok::Word(w) => self.item(&w, docs, &mut m)?,
                _ => return Err(self.unexpected("an item (command, fn, const, errors, record, collection)")),
            }
        }
    }

    fn item(&mut self, word: &str, docs: Vec<String>, m: &mut ModuleSyntax) -> Parsed<()> {
        match word {
            "command" | "read" => m.commands.push(self.command(docs)?),
            "fn" => m.fns.push(self.function()?),
            "const" => {
                self.advance();
                let name = self.ident()?;
                self.expect("=")?;
                let value = self.expr()?;
                m.consts.push(ConstDef { name, value });
            }
            "errors" => {
                self.advance();
                let defs = self.texts()?;
                let of_command = |d: &TextDef| d.name.name.starts_with(|c: char| c.is_ascii_lowercase());
                let (own, module): (Vec<_>, Vec<_>) = defs.into_iter().partition(of_command);
                m.texts.extend(module);
                if let Some(first) = own.first() {
                    let span = first.name.span;
                    let command = m.commands.last_mut().ok_or_else(|| {
                        Diagnostic::new(Code::Misplaced, span, "`errors` of a command stand after the command")
                            .help("texts for `fail` have names in upper case")
                    })?;
                    command.errors.extend(own);
                }
            }
            "use" => {
                self.advance();
                self.dotted()?;
                if self.is("{") {
                    self.list("{", "}", Self::ident)?;
                }
            }
            "record" => {
                self.advance();
                let name = self.ident()?;
                let fields = self.list("{", "}", |p| {
                    let name = p.ident()?;
                    p.expect(":")?;
                    Ok((name, p.ty()?))
                })?;
                self.records.push(name.name.clone());
                m.records.push(RecordDef { name, fields });
            }
            "collection" => {
                self.advance();
                let name = self.ident()?;
                self.expect(":")?;
                let kind = self.ident()?;
                let types = self.angles(|p| {
                    let mut types = vec![p.ty()?];
                    if p.eat(",") {
                        types.push(p.ty()?);
                    }
                    Ok(types)
                })?;
                m.collections.push(CollectionDef { name, kind, types });
            }
            _ => return Err(self.unexpected("an item (command, fn, const, errors, record, collection)")),
        }
        Ok(())
    }

    fn dotted(&mut self) -> Parsed<String> {
        let mut name = self.ident()?.name;
        while self.eat(".") {
            if self.is("{") {
                break;
            }
            name.push('.');
            name.push_str(&self.ident()?.name);
        }
        Ok(name)
    }

    fn docs(&mut self) -> Vec<String> {
        let mut docs = Vec::new();
        while let Tok::Doc(line) = self.peek().clone() {
            docs.push(line);
            self.advance();
        }
        docs
    }
    pub(super) fn skip_docs(&mut self) {
        while matches!(self.peek(), Tok::Doc(_)) {
            self.advance();
        }
    }

    fn texts(&mut self) -> Parsed<Vec<TextDef>> {
        let mut defs = Vec::new();
        loop {
            let name = self.ident()?;
            self.expect("=")?;
            let text = self.text()?;
            defs.push(TextDef { name, text });
            if !self.eat(",") {
                return Ok(defs);
            }
        }
    }

    fn function(&mut self) -> Parsed<FnDef> {
        self.advance();
        let name = self.ident()?;
        let params = self.list("(", ")", |p| {
            let name = p.ident()?;
            p.expect(":")?;
            Ok((name, p.ty()?))
        })?;
        let result = if self.eat("->") { Some(self.ty()?) } else { None };
        let body = self.block()?;
        Ok(FnDef { name, params, result, body })
    }

    fn command(&mut self, docs: Vec<String>) -> Parsed<CommandDef> {
        let read = self.eat_word("read");
        if !self.eat_word("command") {
            return Err(self.unexpected("`command`"));
        }
        let name = self.command_name()?;
        let params = self.list("(", ")", Self::param)?;
        let mut c = CommandDef {
            name,
            read,
            docs,
            params,
            result: String::new(),
            group: String::new(),
            since: String::new(),
            complexity: String::new(),
            flags: None,
            cost: None,
            blocks: None,
            body: Block::default(),
            errors: Vec::new(),
        };
        if self.eat("->") {
            c.result = self.result_text();
        }
        while !self.is("{") {
            self.clause(&mut c)?;
        }
        c.body = self.block()?;
        Ok(c)
    }

    /// `SET`, `OBJECT ENCODING`, `TQ.CLAIM`, or a text for anything else.
    fn command_name(&mut self) -> Parsed<Ident> {
        let span = self.span();
        let mut name = String::new();
        while !self.is("(") {
            let separator = if self.eat(".") { "." } else { " " };
            if !name.is_empty() {
                name.push_str(separator);
            }
            match self.peek() {
                Tok::Bytes(_) => name.push_str(&self.text()?),
                _ => name.push_str(&self.ident()?.name),
            }
        }
        Ok(Ident { name, span: span.to(self.last_span()) })
    }

    /// The reply's type is documentation: kept as text.
    fn result_text(&mut self) -> String {
        let mut text = String::new();
        loop {
            match self.peek() {
                Tok::Word(w) if CLAUSES.contains(&w.as_str()) => return text,
                Tok::Word(w) => text.push_str(w),
                Tok::Punct("{") | Tok::End => return text,
                Tok::Punct(p @ ("|" | ",")) => {
                    text.push_str(if *p == "|" { " | " } else { ", " });
                }
                Tok::Punct(p) => text.push_str(p),
                _ => {}
            }
            self.advance();
        }
    }

    fn clause(&mut self, c: &mut CommandDef) -> Parsed<()> {
        let word = self.ident()?;
        match word.name.as_str() {
            "group" => c.group = self.ident()?.name,
            "since" => c.since = self.text()?,
            "complexity" => c.complexity = self.text()?,
            "flags" => {
                let mut flags = Vec::new();
                while matches!(self.peek(), Tok::Word(w) if !CLAUSES.contains(&w.as_str())) {
                    flags.push(self.ident()?.name);
                }
                c.flags = Some(flags);
            }
            "cost" => c.cost = Some(self.cost()?),
            "blocks" => c.blocks = Some(self.blocks()?),
            _ => {
                return Err(Diagnostic::new(Code::Syntax, word.span, format!("unknown clause `{}`", word.name))
                    .help("clauses: group, since, complexity, flags, cost, blocks on … until …"));
            }
        }
        Ok(())
    }

    /// `blocks on keys until timeout`, after its first word
    fn blocks(&mut self) -> Parsed<(Ident, Ident)> {
        if !self.eat_word("on") {
            return Err(self.unexpected("`on` and the key parameter to wait for"));
        }
        let keys = self.ident()?;
        if !self.eat_word("until") {
            return Err(self.unexpected("`until` and the parameter that says for how long"));
        }
        Ok((keys, self.ident()?))
    }

    fn cost(&mut self) -> Parsed<(PolySyntax, PolySyntax)> {
        let ops = self.poly()?;
        if !self.eat_word("ops") {
            return Err(self.unexpected("`ops`"));
        }
        self.expect(",")?;
        let locs = self.poly()?;
        if !self.eat_word("locs") {
            return Err(self.unexpected("`locs`"));
        }
        Ok((ops, locs))
    }

    /// A sum of products; brackets multiply out.
    pub fn poly(&mut self) -> Parsed<PolySyntax> {
        let start = self.span();
        let mut terms = self.poly_product()?;
        while self.eat("+") {
            terms.extend(self.poly_product()?);
        }
        Ok(PolySyntax { terms, span: start.to(self.last_span()) })
    }

    fn poly_product(&mut self) -> Parsed<Vec<(u64, Vec<AtomSyntax>)>> {
        let mut product = self.poly_factor()?;
        while self.eat("*") {
            let factor = self.poly_factor()?;
            let mut next = Vec::new();
            for (c, atoms) in &product {
                for (d, more) in &factor {
                    next.push((c.saturating_mul(*d), [atoms.clone(), more.clone()].concat()));
                }
            }
            product = next;
        }
        Ok(product)
    }

    fn poly_factor(&mut self) -> Parsed<Vec<(u64, Vec<AtomSyntax>)>> {
        if self.is("(") && self.is_choice() {
            return self.deeper(Self::choice);
        }
        if self.eat("(") {
            let inner = self.deeper(Self::poly)?;
            self.expect(")")?;
            return Ok(inner.terms);
        }
        if let Tok::Int(v) = *self.peek() {
            self.advance();
            return Ok(vec![(v as u64, Vec::new())]);
        }
        let name = self.sized_name()?;
        let atom = if !self.eat("(") {
            AtomSyntax::Name(name)
        } else if name == "min" {
            let a = self.deeper(Self::poly)?;
            self.expect(",")?;
            let b = self.deeper(Self::poly)?;
            AtomSyntax::Least(Box::new([a, b]))
        } else {
            let of = self.sized_name()?;
            return self.expect(")").map(|_| vec![(1, vec![AtomSyntax::Of(name, of)])]);
        };
        if matches!(atom, AtomSyntax::Least(_)) {
            self.expect(")")?;
        }
        Ok(vec![(1, vec![atom])])
    }

    /// `page`, `page.1`
    fn sized_name(&mut self) -> Parsed<String> {
        let mut name = self.ident()?.name;
        while self.eat(".") {
            name.push('.');
            match *self.peek() {
                Tok::Int(v) => {
                    self.advance();
                    name.push_str(&v.to_string());
                }
                _ => name.push_str(&self.ident()?.name),
            }
        }
        Ok(name)
    }

    /// Does `(x < 0 ?` or `(x is 2 ?` stand here?
    fn is_choice(&self) -> bool {
        let condition = |t: &Token| matches!(&t.tok, Tok::Punct("<")) || matches!(&t.tok, Tok::Word(w) if w == "is");
        condition(self.peek_at(2)) || (self.peek_at(2).tok == Tok::Punct(".") && condition(self.peek_at(4)))
    }

    fn choice(&mut self) -> Parsed<Vec<(u64, Vec<AtomSyntax>)>> {
        self.expect("(")?;
        let name = self.sized_name()?;
        let tag = if self.eat("<") {
            self.signed_int()?;
            None
        } else {
            self.advance();
            Some(self.signed_int()? as u64)
        };
        self.expect("?")?;
        let yes = self.poly()?;
        self.expect(":")?;
        let two = Box::new([yes, self.poly()?]);
        self.expect(")")?;
        let atom = match tag {
            None => AtomSyntax::Signed(name, two),
            Some(tag) => AtomSyntax::Chosen(name, tag, two),
        };
        Ok(vec![(1, vec![atom])])
    }

    // --- parameters and types ---

    fn param(&mut self) -> Parsed<ParamSyntax> {
        self.skip_docs();
        let start = self.span();
        let modifier = match self.peek() {
            Tok::Word(w) if !matches!(self.peek_at(1).tok, Tok::Punct(":")) => w.clone(),
            _ => String::new(),
        };
        let (name, kind) = match modifier.as_str() {
            "flag" => {
                self.advance();
                (self.ident()?, ParamSyntaxKind::Flag)
            }
            "opt" => {
                self.advance();
                let name = self.ident()?;
                self.expect(":")?;
                (name, ParamSyntaxKind::Opt(self.alternatives()?))
            }
            "rest" => {
                self.advance();
                let name = self.ident()?;
                self.expect(":")?;
                let element = self.ty()?;
                let (min, max) = if self.is("[") { self.counts()? } else { (0, None) };
                (name, ParamSyntaxKind::Rest { element, min, max })
            }
            _ => {
                let name = self.ident()?;
                self.expect(":")?;
                (name, ParamSyntaxKind::One(self.ty()?))
            }
        };
        let once = matches!(kind, ParamSyntaxKind::Flag | ParamSyntaxKind::Opt(_)) && self.eat_word("once");
        Ok(ParamSyntax { name, kind, once, span: start.to(self.last_span()) })
    }

    /// `[1..]`, `[1..=8]`, `[..=8]`
    fn counts(&mut self) -> Parsed<(u32, Option<u32>)> {
        self.expect("[")?;
        let min = if self.is("..") || self.is("..=") { 0 } else { self.size()? };
        let max = if self.eat("..=") {
            Some(self.size()?)
        } else {
            self.expect("..")?;
            None
        };
        self.expect("]")?;
        Ok((min, max))
    }

    fn alternatives(&mut self) -> Parsed<Vec<AltSyntax>> {
        let mut alts = Vec::new();
        loop {
            let word = self.ident()?;
            let payload = if self.is("(") { self.list("(", ")", Self::ty)? } else { Vec::new() };
            alts.push(AltSyntax { word, payload });
            if !self.eat("|") {
                return Ok(alts);
            }
        }
    }

    pub fn ty(&mut self) -> Parsed<TypeSyntax> {
        self.deeper(|p| {
            let start = p.span();
            let kind = p.base_type()?;
            let mut ty = TypeSyntax { kind, span: start.to(p.last_span()) };
            while p.eat("?") {
                let span = start.to(p.last_span());
                ty = TypeSyntax { kind: TypeSyntaxKind::Optional(Box::new(ty)), span };
            }
            Ok(ty)
        })
    }

    fn base_type(&mut self) -> Parsed<TypeSyntaxKind> {
        if self.is("(") {
            let mut fields = self.list("(", ")", Self::field)?;
            if fields.len() == 1 && fields[0].0.is_none() {
                return Ok(fields.remove(0).1.kind);
            }
            return Ok(TypeSyntaxKind::Tuple(fields));
        }
        let is_case =
            |w: &str| w.chars().all(|c| !c.is_ascii_lowercase()) && w.starts_with(|c: char| c.is_ascii_uppercase());
        if matches!(self.peek(), Tok::Word(w) if is_case(w)) {
            return Ok(TypeSyntaxKind::Alts(self.alternatives()?));
        }
        let name = self.ident()?;
        Ok(match name.name.as_str() {
            "key" => TypeSyntaxKind::Key { max: self.byte_cap()? },
            "bytes" => TypeSyntaxKind::Bytes { max: self.byte_cap()? },
            "int" | "time" | "ms" => {
                let (min, max) = self.int_range()?;
                TypeSyntaxKind::Int { min, max, texts: self.type_texts()? }
            }
            "float" => TypeSyntaxKind::Float { texts: self.type_texts()? },
            "bool" => TypeSyntaxKind::Bool,
            "enum" => TypeSyntaxKind::Enum(self.list("{", "}", Self::ident)?),
            "list" if self.is("<") => {
                let element = Box::new(self.angles(Self::ty)?);
                self.expect("[")?;
                let max = self.size()?;
                self.expect("]")?;
                TypeSyntaxKind::List { element, max }
            }
            _ => TypeSyntaxKind::Named(name.name),
        })
    }

    /// `< … >`
    fn angles<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.expect("<")?;
        let inner = inner(self)?;
        self.expect(">")?;
        Ok(inner)
    }

    fn field(&mut self) -> Parsed<(Option<Ident>, TypeSyntax)> {
        let named = matches!(self.peek_at(1).tok, Tok::Punct(":"));
        let name = if named {
            let name = self.ident()?;
            self.expect(":")?;
            Some(name)
        } else {
            None
        };
        Ok((name, self.ty()?))
    }

    fn byte_cap(&mut self) -> Parsed<Option<u32>> {
        if self.eat("<=") { self.size().map(Some) } else { Ok(None) }
    }

    fn int_range(&mut self) -> Parsed<(Option<i64>, Option<i64>)> {
        let starts = matches!(self.peek(), Tok::Int(_)) || self.is("-");
        let min = if starts { Some(self.signed_int()?) } else { None };
        if self.eat("..=") {
            return Ok((min, Some(self.signed_int()?)));
        }
        if self.eat("..") {
            if matches!(self.peek(), Tok::Int(_)) || self.is("-") {
                return Err(self.unexpected("`..=` before the largest value of a range"));
            }
            return Ok((min, None));
        }
        match min {
            Some(_) => Err(self.unexpected("`..` or `..=` of a range")),
            None => Ok((None, None)),
        }
    }

    fn type_texts(&mut self) -> Parsed<TypeTexts> {
        let mut texts = TypeTexts::default();
        loop {
            if self.eat_word("else") {
                texts.wrong = Some(self.text()?);
            } else if self.eat_word("range") {
                texts.range = Some(self.text()?);
            } else {
                return Ok(texts);
            }
        }
    }

    /// `db.slot(key: key) -> Slot`: a row of the helper table.
    pub fn signature(&mut self) -> Parsed<SignatureSyntax> {
        let mut name = self.ident()?;
        let mut receiver = None;
        if self.eat(".") {
            receiver = Some(std::mem::replace(&mut name, self.ident()?));
        }
        let params = if self.is("(") { Some(self.list("(", ")", Self::field)?) } else { None };
        let result = if self.eat("->") { Some(self.ty()?) } else { None };
        match self.peek() {
            Tok::End => Ok(SignatureSyntax { receiver, name, params, result }),
            _ => Err(self.unexpected("the end of the signature")),
        }
    }

    /// `handle Slot: slot; type Value = none | str(bytes); global db: Db = 0`
    pub fn type_declarations(&mut self) -> Parsed<TypeDeclarations> {
        let mut d = TypeDeclarations::default();
        while !self.at_end() {
            if self.eat(";") {
                continue;
            }
            let word = self.ident()?;
            let name = self.ident()?;
            match word.name.as_str() {
                "handle" => {
                    self.expect(":")?;
                    d.handles.push((name, self.ident()?));
                }
                "type" => {
                    self.expect("=")?;
                    let mut cases = self.cases()?;
                    let all = cases.len();
                    cases.retain(|c| c.0.name != "none");
                    d.sums.push(SumSyntax { name, none: cases.len() != all, cases });
                }
                "global" => {
                    self.expect(":")?;
                    let ty = self.ty()?;
                    self.expect("=")?;
                    d.globals.push((name, ty, self.signed_int()?));
                }
                _ => return Err(Diagnostic::new(Code::Table, word.span, "expected `handle`, `type` or `global`")),
            }
        }
        Ok(d)
    }

    fn cases(&mut self) -> Parsed<Vec<(Ident, Vec<TypeSyntax>)>> {
        Ok(self.alternatives()?.into_iter().map(|a| (a.word, a.payload)).collect())
    }

    pub fn at_end(&self) -> bool {
        matches!(self.peek(), Tok::End)
    }
}

#[derive(Clone, Debug)]
pub struct SignatureSyntax {
    pub receiver: Option<Ident>,
    pub name: Ident,
    /// None: a property.
    pub params: Option<Vec<(Option<Ident>, TypeSyntax)>>,
    pub result: Option<TypeSyntax>,
}
