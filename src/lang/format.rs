//! `look fmt FILE...`: the canonical form of a source.
//!
//! Works on tokens: it keeps every token, its order and whether it begins a line, so that the meaning cannot change, and decides what stands
//! between them: one space or none, indentation by brackets, no blank line twice, comments where they were. A `cost` clause is
//! written anew as it is inferred, so that a reviewer sees cost change in the diff.
//!
//! Why not print the syntax tree: comments and line breaks are the author's, and a tree has neither.

use super::ast::CommandDef;
use super::check::render_all;
use super::diag::{Code, Diagnostic, Span};
use super::lex::{Tok, Token, lex};
use super::module::compile_module;
use super::parse::{CLAUSES, Parser};
use super::parse_expr::RESERVED;
use super::table::Table;
use std::path::Path;

const STEP: usize = 4;
/// What begins a stretch of types.
const ITEMS: [&str; 4] = ["command", "fn", "record", "collection"];

/// The canonical form of a source that parses. Where it declares a cost, it must compile but for that.
pub fn format(source: &str, name: &str, table: &Table) -> Result<String, Vec<Diagnostic>> {
    let source = with_inferred_costs(source, name, table)?;
    let tokens = lex(&source, 0).map_err(|d| vec![d])?;
    Parser::new(&source, 0).and_then(|mut p| p.module()).map_err(|d| vec![d])?;
    let regions = regions(&tokens);
    let mut layout = Layout { source: &source, tokens: &tokens, regions, out: String::new(), open: Vec::new() };
    layout.run();
    same_tokens(&tokens, &layout.out).map_err(|d| vec![d])?;
    Ok(layout.out)
}

/// Formats a file in place, or only `check`s it. Whether it is (or was) not in canonical form; or what to tell.
pub fn format_file(file: &Path, check: bool, table: &Table) -> Result<bool, String> {
    let name = file.display().to_string();
    let told = |e: std::io::Error| std::format!("{name}: {e}\n");
    let source = std::fs::read_to_string(file).map_err(told)?;
    let text = format(&source, &name, table).map_err(|errors| render_all(&errors, &name, &source, table))?;
    let differs = text != source;
    if differs && !check {
        std::fs::write(file, text).map_err(told)?;
    }
    Ok(differs)
}

/// The source with every `cost` clause as it is inferred.
fn with_inferred_costs(source: &str, name: &str, table: &Table) -> Result<String, Vec<Diagnostic>> {
    let syntax = Parser::new(source, 0).and_then(|mut p| p.module()).map_err(|d| vec![d])?;
    let declared: Vec<(&CommandDef, std::ops::Range<usize>)> =
        syntax.commands.iter().filter_map(|c| Some((c, cost_range(source, c)?))).collect();
    if declared.is_empty() {
        return Ok(source.to_owned());
    }
    let mut silent = source.as_bytes().to_vec();
    for (_, range) in &declared {
        silent[range.clone()].iter_mut().filter(|c| **c != b'\n').for_each(|c| *c = b' ');
    }
    let module = compile_module(&String::from_utf8_lossy(&silent), name, table)?;
    let mut text = String::new();
    let mut at = 0;
    for (def, range) in declared {
        let Some(command) = module.commands.iter().find(|c| c.name.eq_ignore_ascii_case(&def.name.name)) else {
            continue;
        };
        text.push_str(&source[at..range.start]);
        text.push_str("cost ");
        text.push_str(&command.cost_text());
        at = range.end;
    }
    text.push_str(&source[at..]);
    Ok(text)
}

/// A command's `cost` clause, from that word to `locs`.
fn cost_range(source: &str, def: &CommandDef) -> Option<std::ops::Range<usize>> {
    let (ops, locs) = def.cost.as_ref()?;
    let start = source[..ops.span.start as usize].rfind("cost")?;
    let end = source[locs.span.end as usize..].find("locs")? + locs.span.end as usize + "locs".len();
    Some(start..end)
}

/// What is about to be written must be what was read.
fn same_tokens(tokens: &[Token], text: &str) -> Result<(), Diagnostic> {
    let again = lex(text, 0)?;
    // whether the end begins a line says nothing
    let differs =
        |(a, b): &(&Token, &Token)| a.tok != b.tok || (a.fresh_line != b.fresh_line && !matches!(a.tok, Tok::End));
    let first = tokens.iter().zip(&again).find(differs);
    if tokens.len() == again.len() && first.is_none() {
        return Ok(());
    }
    let span = first.map_or(Span::default(), |(a, _)| a.span);
    Err(Diagnostic::new(Code::Syntax, span, "the formatter would change what this says; nothing was written"))
}

/// What a stretch of tokens is: punctuation is spaced by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Region {
    Code,
    Type,
    Cost,
}

/// The region of every token. Headers, records and collections are types, but for clauses; so is what stands behind `var x:`.
fn regions(tokens: &[Token]) -> Vec<Region> {
    let mut regions = vec![Region::Code; tokens.len()];
    let is = |i: usize, p: &str| matches!(tokens.get(i).map(|t| &t.tok), Some(Tok::Punct(q)) if *q == p);
    let word = |i: usize| match tokens.get(i).map(|t| &t.tok) {
        Some(Tok::Word(w)) => w.as_str(),
        _ => "",
    };
    let mut depth = 0usize;
    let mut i = 0;
    while i < tokens.len() {
        let item = depth == 0 && ITEMS.contains(&word(i));
        if item && word(i) == "record" {
            let end = (i..tokens.len()).find(|&j| is(j, "{")).unwrap_or(i);
            i = body(tokens, end, &mut regions);
        } else if item {
            i = header(tokens, i, &mut regions);
        } else if word(i) == "var" && is(i + 2, ":") {
            i += 2;
            while i < tokens.len() && !is(i, "=") && !is(i, ";") && !tokens[i].fresh_line {
                regions[i] = Region::Type;
                i += 1;
            }
        } else {
            depth += is(i, "{") as usize;
            depth = depth.saturating_sub(is(i, "}") as usize);
            i += 1;
        }
    }
    regions
}

/// Marks from `{` to the `}` that closes it; where to go on.
fn body(tokens: &[Token], from: usize, regions: &mut [Region]) -> usize {
    let mut depth = 0;
    for i in from..tokens.len() {
        regions[i] = Region::Type;
        match tokens[i].tok {
            Tok::Punct("{") => depth += 1,
            Tok::Punct("}") if depth == 1 => return i + 1,
            Tok::Punct("}") => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Marks a header up to its body's `{`, or a collection up to the end of its line.
fn header(tokens: &[Token], from: usize, regions: &mut [Region]) -> usize {
    let mut region = Region::Type;
    let mut depth = 0usize;
    let collection = matches!(&tokens[from].tok, Tok::Word(w) if w == "collection");
    let mut i = from;
    while i < tokens.len() {
        let is_call = matches!(tokens.get(i + 1).map(|t| &t.tok), Some(Tok::Punct("(")));
        let enumerated = i > 0 && matches!(&tokens[i - 1].tok, Tok::Word(w) if w == "enum");
        match &tokens[i].tok {
            // `blocks` is also a size of a cost
            Tok::Word(w) if depth == 0 && CLAUSES.contains(&w.as_str()) && !is_call => {
                region = if w == "cost" { Region::Cost } else { Region::Code };
            }
            Tok::Word(w) if collection && i > from && depth == 0 && tokens[i].fresh_line && !w.is_empty() => return i,
            Tok::Doc(_) | Tok::End => return i,
            Tok::Punct("{") if depth == 0 && !enumerated => return i,
            Tok::Punct("{" | "(") => depth += 1,
            Tok::Punct("}" | ")") => depth = depth.saturating_sub(1),
            _ => {}
        }
        regions[i] = region;
        i += 1;
    }
    i
}

/// A bracket that is open.
struct Open {
    /// Of the line that it stands on.
    indent: usize,
    is_block: bool,
    /// Of an `enum`: no spaces inside.
    tight: bool,
    /// First word of the statement at hand.
    statement: String,
    /// `?` that wait for their `:`.
    ternaries: usize,
}

struct Layout<'a> {
    source: &'a str,
    tokens: &'a [Token],
    regions: Vec<Region>,
    out: String,
    open: Vec<Open>,
}

fn punct(token: &Token) -> &'static str {
    if let Tok::Punct(p) = token.tok { p } else { "" }
}
fn word(token: &Token) -> &str {
    if let Tok::Word(w) = &token.tok { w } else { "" }
}
fn is_operator(p: &str) -> bool {
    !matches!(p, "" | "(" | ")" | "[" | "]" | "{" | "}" | "," | ";" | "." | "@" | "!" | "~")
}

impl Layout<'_> {
    fn run(&mut self) {
        let top = Open { indent: 0, is_block: true, tight: false, statement: String::new(), ternaries: 0 };
        self.open.push(top);
        let mut at = 0;
        let mut indent = 0;
        for i in 0..self.tokens.len() {
            let token = &self.tokens[i];
            self.gap(at, token.span.start as usize);
            at = token.span.end as usize;
            if matches!(token.tok, Tok::End) {
                break;
            }
            let tight_close = matches!(punct(token), "}" if self.open.last().is_some_and(|o| o.tight));
            if token.fresh_line {
                indent = self.indent(i);
                self.out.push_str(&" ".repeat(indent));
            } else if i > 0 && !tight_close && self.spaced(i) {
                self.out.push(' ');
            }
            self.out.push_str(self.source[token.span.start as usize..token.span.end as usize].trim_end());
            self.step(i, indent);
        }
        while self.out.ends_with(char::is_whitespace) {
            self.out.pop();
        }
        self.out.push('\n');
    }

    /// Comments and line ends between two tokens.
    fn gap(&mut self, from: usize, to: usize) {
        let gap = &self.source[from..to];
        let inside = self.inside();
        for (n, line) in gap.split('\n').enumerate() {
            let (line, last) = (line.trim(), n == gap.matches('\n').count());
            if n > 0 && last && line.is_empty() {
                break;
            }
            if n == 0 {
                if !line.is_empty() {
                    // behind what stands on the line, if anything does
                    self.out.push_str(if self.out.is_empty() || self.out.ends_with('\n') { "" } else { "  " });
                    self.out.push_str(line);
                }
                if !last && !self.out.is_empty() {
                    self.out.push('\n');
                }
            } else if line.is_empty() {
                if !self.out.is_empty() && !self.out.ends_with("\n\n") {
                    self.out.push('\n');
                }
            } else {
                self.out.push_str(&" ".repeat(inside));
                self.out.push_str(line);
                self.out.push('\n');
            }
        }
    }

    /// Where lines inside the innermost bracket begin.
    fn inside(&self) -> usize {
        if self.open.len() == 1 { 0 } else { self.open.last().map_or(0, |o| o.indent + STEP) }
    }

    /// Where the line that token `i` begins is to begin.
    fn indent(&self, i: usize) -> usize {
        let closes = |t: &Token| matches!(punct(t), ")" | "]" | "}");
        let line = self.tokens[i..].iter().enumerate().take_while(|(n, t)| *n == 0 || !t.fresh_line);
        let closers = line.take_while(|(_, t)| closes(t)).count();
        if closers > 0 {
            return self.open.get(self.open.len().saturating_sub(closers)).map_or(0, |o| o.indent);
        }
        let Some(innermost) = self.open.last() else { return 0 };
        let goes_on = innermost.is_block && self.goes_on(i, innermost);
        self.inside() + if goes_on { STEP } else { 0 }
    }

    /// Does the line at token `i` continue the statement before it?
    fn goes_on(&self, i: usize, innermost: &Open) -> bool {
        let Some(before) = i.checked_sub(1).map(|b| &self.tokens[b]) else { return false };
        let token = &self.tokens[i];
        let (p, w) = (punct(token), word(token));
        if matches!(before.tok, Tok::Doc(_)) || matches!(token.tok, Tok::Doc(_)) || punct(before) == "{" {
            return false;
        }
        match w {
            "else" | "exhausted" => return !matches!(innermost.statement.as_str(), "if" | "for" | "repeat" | "else"),
            "limit" => return true,
            w if self.open.len() == 1 && CLAUSES.contains(&w) && w != "errors" => return true,
            _ => {}
        }
        let top = self.open.len() == 1;
        if top && self.regions[i] == Region::Type {
            return !ITEMS.contains(&w);
        }
        let after = punct(before);
        let operator = is_operator(after) && self.regions[i - 1] != Region::Type;
        (is_operator(p) && p != "-") || p == "." || operator || (after == "," && top)
    }

    /// A space between token `i` and the one before it, on one line?
    fn spaced(&self, i: usize) -> bool {
        let (a, b) = (&self.tokens[i - 1], &self.tokens[i]);
        let (pa, pb) = (punct(a), punct(b));
        let region = self.regions[i];
        let is_type = region == Region::Type;
        let name = matches!(a.tok, Tok::Word(_)) && !RESERVED.contains(&word(a)) && !matches!(word(a), "as");
        match (pa, pb) {
            (_, "," | ";" | ")" | "]" | ".") | ("(" | "[" | "." | "!" | "~", _) => false,
            ("-", _) if self.is_unary(i - 1) => false,
            (">", ">") => true,
            ("<" | "<=", _) | (_, "<" | ">" | "<=") if is_type => false,
            (_, "(") => !(name || pa == ")" || pa == "]"),
            (_, "[") if is_type => pa != ">",
            (_, "[") => !(name || pa == ")" || pa == "]"),
            (_, "{") if word(a) == "enum" => false,
            ("{", _) if self.open.last().is_some_and(|o| o.tight) => false,
            (_, ":") => !is_type && self.open.last().is_some_and(|o| o.ternaries > 0),
            (_, "?") if is_type => !(matches!(a.tok, Tok::Word(_)) || matches!(pa, ">" | ")" | "}")),
            (_, ".." | "..=") if is_type => matches!(a.tok, Tok::Word(_)),
            ("..=", _) if is_type => false,
            ("..", _) if is_type => !matches!(b.tok, Tok::Int(_)),
            ("*", _) | (_, "*") if region == Region::Cost => false,
            _ => true,
        }
    }

    /// Is the `-` at token `i` a sign?
    fn is_unary(&self, i: usize) -> bool {
        let token = &self.tokens[i];
        let Some(before) = i.checked_sub(1).map(|b| &self.tokens[b]) else { return true };
        self.regions[i] == Region::Type
            || token.fresh_line
            || RESERVED.contains(&word(before))
            || !matches!(punct(before), "" | ")" | "]" | "}")
    }

    /// Keeps account of brackets and statements.
    fn step(&mut self, i: usize, indent: usize) {
        let token = &self.tokens[i];
        let starts = i == 0
            || matches!(punct(&self.tokens[i - 1]), "{" | ";" | "=>")
            || (token.fresh_line && self.open.last().is_some_and(|o| o.is_block && !self.goes_on(i, o)));
        if let (true, Some(innermost)) = (starts, self.open.last_mut())
            && !matches!(word(token), "else" | "exhausted")
        {
            word(token).clone_into(&mut innermost.statement);
            innermost.ternaries = 0;
        }
        match punct(token) {
            p @ ("(" | "[" | "{") => {
                let tight = p == "{" && i > 0 && word(&self.tokens[i - 1]) == "enum";
                let is_block = p == "{" && self.regions[i] != Region::Type;
                self.open.push(Open { indent, is_block, tight, statement: String::new(), ternaries: 0 });
            }
            ")" | "]" | "}" if self.open.len() > 1 => drop(self.open.pop()),
            p @ ("?" | ":") if self.regions[i] != Region::Type => {
                if let Some(o) = self.open.last_mut() {
                    o.ternaries = if p == "?" { o.ternaries + 1 } else { o.ternaries.saturating_sub(1) };
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::helpers::table;
    use super::*;
    use crate::base::mix64;
    use expect_test::expect;

    fn formatted(source: &str) -> String {
        format(source, "test.look", table())
            .unwrap_or_else(|e| panic!("{}", render_all(&e, "test.look", source, table())))
    }

    fn shipped() -> Vec<(String, String)> {
        ["redis", "examples"]
            .iter()
            .flat_map(|folder| {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("commands").join(folder);
                std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path())
            })
            .map(|file| (file.display().to_string(), std::fs::read_to_string(&file).unwrap()))
            .collect()
    }

    /// Everything between two tokens that a text may have without meaning something else.
    fn disarranged(source: &str, seed: u64) -> String {
        let tokens = lex(source, 0).unwrap();
        let (mut text, mut at, mut draw) = (String::new(), 0, seed);
        for token in tokens {
            let gap = &source[at..token.span.start as usize];
            draw = mix64(draw);
            let blanks = [" ", "  ", "\t", "     "][draw as usize % 4];
            for (n, line) in gap.split('\n').enumerate() {
                text.push_str(if n > 0 { "\n" } else { "" });
                text.push_str(if gap.is_empty() { "" } else { blanks });
                text.push_str(line.trim());
            }
            text.push_str(if gap.is_empty() || gap.ends_with('\n') { "" } else { blanks });
            text.push_str(&source[token.span.start as usize..token.span.end as usize]);
            at = token.span.end as usize;
        }
        text
    }

    #[test]
    fn shipped_sources_are_in_canonical_form() {
        for (name, source) in shipped() {
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(&name, formatted(&source)).unwrap();
            } else {
                assert!(formatted(&source) == source, "{name}: run `look fmt`");
            }
        }
    }

    #[test]
    fn the_form_hangs_on_no_blank_and_keeps_meaning_and_comments() {
        for (seed, (name, source)) in (0..40).flat_map(|seed| shipped().into_iter().map(move |s| (seed, s))) {
            let text = formatted(&disarranged(&source, seed));
            assert!(text == formatted(&source), "{name}, seed {seed}");
            assert!(formatted(&text) == text, "{name}: not stable");
            let comments = |s: &str| s.matches("//").count();
            assert_eq!(comments(&text), comments(&source), "{name}");
            if seed == 0 && !name.ends_with("prelude.look") {
                let program = |s: &str| {
                    let module = compile_module(s, &name, table()).unwrap_or_else(|e| panic!("{e:?}"));
                    module.commands.into_iter().map(|c| (c.cost_text(), c.program.ops)).collect::<Vec<_>>()
                };
                assert!(program(&text) == program(&source), "{name} means something else");
            }
        }
    }

    /// Sources with tokens dropped, doubled, exchanged: what still parses keeps its tokens, and its form is stable.
    #[test]
    fn damaged_sources_keep_their_tokens() {
        let (mut formatted_ones, mut seed) = (0, 77u64);
        let mut random = |below: usize| {
            seed = mix64(seed);
            seed as usize % below
        };
        let sources = shipped();
        for _ in 0..3000 {
            let (name, source) = &sources[random(sources.len())];
            let mut pieces: Vec<&str> = source.split("\n///").collect();
            let piece = pieces.swap_remove(random(pieces.len()));
            let mut words: Vec<&str> = piece.split_inclusive([' ', '\n', '(', ')', '.', '-']).collect();
            for _ in 0..1 + random(3) {
                if words.is_empty() {
                    break;
                }
                let (a, b) = (random(words.len()), random(words.len()));
                match random(3) {
                    0 => words[a] = words[b],
                    1 => words.swap(a, b),
                    _ => words.insert(a, words[b]),
                }
            }
            let mutant = std::format!("///{}", words.concat());
            // `format` itself compares the tokens; it refuses what does not parse
            let Ok(text) = format(&mutant, name, table()) else {
                let parses = Parser::new(&mutant, 0).and_then(|mut p| p.module()).is_ok();
                assert!(!parses || mutant.contains("cost"), "refused:\n{mutant}");
                continue;
            };
            formatted_ones += 1;
            assert!(format(&text, name, table()).is_ok_and(|again| again == text), "not stable:\n{text}");
        }
        assert!(formatted_ones > 300, "INVALID: {formatted_ones} mutants parsed");
    }

    #[test]
    fn a_form_of_everything() {
        let source = r#"
module   m@1   // the first


record R{a:bytes<=64,b:int 0..=5,s:enum{x,y}}
collection  c : map < (q : bytes<=8 , id:int) , R >
errors BAD="ERR bad",
 WORSE = "ERR worse"
fn f(n:int 0..=9)->int 1..{ n+1 }
/// Does it.
read command X.Y(key:key,n:int 0.. else "ERR no" ?,opt e:A(int)|B,rest p:(float,bytes)[1..])
->array<(int , bytes)>|nil
group m since "1"
cost 1 ops,1 locs
{
// about x
let x=-n.a-1 ;  var y:int?=none
if x<0&&!(y is some){ reply a?b:-1 }   // why
else { for k in 0..n limit 5{emit k}
 }
    match e{none=>fail BAD,
  A(i)=>{ y=some(i)
}
}
}
"#;
        // it parses, and does not compile: no cost is inferred
        let refused = format(source, "m", table()).unwrap_err();
        assert!(!refused.is_empty());
        let source = source.replace("cost 1 ops,1 locs\n", "");
        expect![[r#"
            module m @ 1  // the first

            record R { a: bytes<=64, b: int 0..=5, s: enum{x, y} }
            collection c: map<(q: bytes<=8, id: int), R>
            errors BAD = "ERR bad",
                WORSE = "ERR worse"
            fn f(n: int 0..=9) -> int 1.. { n + 1 }
            /// Does it.
            read command X.Y(key: key, n: int 0.. else "ERR no" ?, opt e: A(int) | B, rest p: (float, bytes) [1..])
                -> array<(int, bytes)> | nil
                group m since "1"
            {
                // about x
                let x = -n.a - 1; var y: int? = none
                if x < 0 && !(y is some) { reply a ? b : -1 }  // why
                else { for k in 0 .. n limit 5 { emit k }
                }
                match e { none => fail BAD,
                    A(i) => { y = some(i)
                    }
                }
            }
        "#]]
        .assert_eq(&formatted(&source));
    }

    #[test]
    fn a_declared_cost_becomes_the_inferred_one() {
        let source = "read command T(key: key, rest p: (int, bytes) [1..])\n    cost 1 ops, 99 + n(p) locs\n{ let h = db.slot(key).hash else { reply nil; return }\n  for (f, v) in h.iter() limit h.len { emit v } }\n";
        let text = formatted(source);
        expect![[r#"
            read command T(key: key, rest p: (int, bytes) [1..])
                cost 70 + blocks(key) + 24*len(key) + total(key) ops, 2 + len(key) + depth(db) locs
            { let h = db.slot(key).hash else { reply nil; return }
                for (f, v) in h.iter() limit h.len { emit v } }
        "#]]
        .assert_eq(&text);
        assert!(compile_module(&text, "t", table()).is_ok(), "what is written is taken");
    }

    #[test]
    fn every_inferred_cost_can_be_declared() {
        for (name, source) in shipped().iter().filter(|(name, _)| !name.ends_with("prelude.look")) {
            let module = compile_module(source, name, table()).unwrap_or_else(|e| panic!("{e:?}"));
            let mut declared = source.clone();
            for c in module.commands.iter().rev() {
                let at = source.lines().map(|l| l.len() + 1).take(c.line as usize - 1).sum::<usize>();
                let group = at + source[at..].find(" group ").unwrap();
                declared.insert_str(group, &std::format!(" cost {}", c.cost_text()));
            }
            if let Err(e) = compile_module(&declared, name, table()) {
                panic!("{}", render_all(&e, name, &declared, table()));
            }
        }
    }
}
