//! Diagnostics as data: a stable code, a message, where, and how to mend it. Drawn for the command line by `annotate-snippets`,
//! in one line for RESP.

use std::fmt;

/// A stretch of source text, in bytes. `file` 0 is the module, 1 the prelude.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub start: u32,
    pub end: u32,
    pub file: u16,
}

impl Span {
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end), file: self.file }
    }
    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Stable numbers of rejections. Texts may change, codes do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Code {
    /// the text is not Look
    Syntax = 1,
    /// a name that nothing declares
    UnknownName = 2,
    /// a value of another type is wanted here
    Type = 3,
    /// no row of the helper table fits
    NoHelper = 4,
    /// a pattern that cannot match, or cases left out
    Pattern = 5,
    /// the same name, word or clause twice
    Duplicate = 6,
    /// a name that cannot be written
    Immutable = 7,
    /// recursion, or a construct out of place
    Misplaced = 8,
    /// a view or slot that a write has killed
    Killed = 9,
    /// a `read command` that writes
    Effect = 10,
    /// more registers, nesting or words than a program may have
    TooBig = 11,
    /// a loop or a helper's work without a provable bound
    Unbounded = 12,
    /// the declared cost does not dominate the inferred one
    Cost = 13,
    /// known to the language, not to this version
    Unsupported = 14,
    /// a row of the helper table is wrong
    Table = 15,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C{:03}", *self as u32)
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// One rejection.
#[derive(Clone, PartialEq, Debug)]
pub struct Diagnostic {
    pub code: Code,
    pub message: String,
    pub span: Span,
    /// What stands under the carets.
    pub note: String,
    pub labels: Vec<Label>,
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Diagnostic { code, message: message.into(), span, note: String::new(), labels: Vec::new(), help: None }
    }
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.note = text.into();
        self
    }
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// As rustc draws it, without colours. `name` is the file's name, `source` its text.
    pub fn render(&self, name: &str, source: &str) -> String {
        use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
        let clip = |s: Span| {
            let start =
                (0..=s.range().start.min(source.len())).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0);
            // up to the end of the character that it lies in
            start..(s.range().end..source.len()).find(|at| source.is_char_boundary(*at)).unwrap_or(source.len())
        };
        let code = self.code.to_string();
        let mut snippet = Snippet::source(source).path(name);
        snippet = snippet.annotation(AnnotationKind::Primary.span(clip(self.span)).label(&self.note));
        for l in self.labels.iter().filter(|l| l.span.file == self.span.file) {
            snippet = snippet.annotation(AnnotationKind::Context.span(clip(l.span)).label(&l.text));
        }
        let mut group = Group::with_title(Level::ERROR.primary_title(&self.message).id(&code)).element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        Renderer::plain().render(&[group])
    }

    /// For an error reply: no line breaks.
    pub fn one_line(&self, source: &str) -> String {
        let (line, column) = line_column(source, self.span.start);
        let mut text = format!("{} at {line}:{column}: {}", self.code, self.message);
        for part in [&self.note, self.help.as_ref().unwrap_or(&String::new())] {
            if !part.is_empty() {
                text.push_str("; ");
                text.push_str(part);
            }
        }
        text.replace(['\r', '\n'], " ")
    }
}

/// 1-based line and column (in bytes) of a place.
pub fn line_column(source: &str, at: u32) -> (u32, u32) {
    let before = &source.as_bytes()[..(at as usize).min(source.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() as u32 + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() as u32 + 1;
    (line, column)
}
