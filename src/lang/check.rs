//! `look check FILE...`: verify sources and print their bounds.

use super::diag::Diagnostic;
use super::module::{Command, Module, compile_module};
use super::table::Table;
use std::fmt::Write;
use std::path::Path;

/// What `look check` has to say.
pub struct Checked {
    /// Text for the terminal.
    pub text: String,
    /// Files that were refused.
    pub refused: usize,
}

/// Checks each file by itself.
pub fn check_files<P: AsRef<Path>>(files: &[P], table: &Table) -> Checked {
    let mut checked = Checked { text: String::new(), refused: 0 };
    for file in files {
        let name = file.as_ref().display().to_string();
        match std::fs::read_to_string(file) {
            Ok(source) => checked.add(&name, &source, table),
            Err(e) => {
                checked.refused += 1;
                let _ = writeln!(checked.text, "{name}: {e}");
            }
        }
    }
    checked
}

impl Checked {
    fn add(&mut self, name: &str, source: &str, table: &Table) {
        match compile_module(source, name, table) {
            Ok(module) => self.text.push_str(&bounds(&module, name)),
            Err(errors) => {
                self.refused += 1;
                self.text.push_str(&render_all(&errors, name, source, table));
            }
        }
    }
}

/// All diagnostics of a module as rustc would draw them.
pub fn render_all(errors: &[Diagnostic], name: &str, source: &str, table: &Table) -> String {
    let mut text = String::new();
    for e in errors {
        let drawn = if e.span.file == 1 { e.render("prelude", &table.prelude) } else { e.render(name, source) };
        let _ = writeln!(text, "{drawn}\n");
    }
    text
}

/// A line for each command: effects, then its two polynomials.
fn bounds(module: &Module, name: &str) -> String {
    let mut text = format!("{name}: module {} @ {}, {} commands\n", module.name, module.version, module.commands.len());
    for c in &module.commands {
        let _ = writeln!(text, "  {:<18} {:<9} cost {}", c.name, effect(c), c.cost_text());
    }
    text
}

fn effect(c: &Command) -> &'static str {
    match (c.effects.writes, c.may_abort_after_write) {
        (true, true) => "write+undo",
        (true, false) => "write",
        (false, _) => "read",
    }
}
