//! A module compiled: its commands, each with grammar, program, bounds and effects.

use super::ast::{AtomSyntax, CommandDef, Ident, ModuleSyntax, PolySyntax};
use super::diag::{Code, Diagnostic, Span};
use super::grammar::{Grammar, GrammarErrors, KeySpec, ParamKind, Shape};
use super::ir::Program;
use super::lower::{Effects, LineCost, LineIndex, Low, Lower, Names};
use super::parse::Parser;
use super::poly::{Atom, COLLECTIONS, Cost, Number, Place, Poly};
use super::table::Table;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Module {
    pub name: String,
    pub version: u32,
    pub commands: Vec<Command>,
}

/// One command, ready for the code table.
#[derive(Clone, Debug)]
pub struct Command {
    /// Upper case; subcommands after a space: `OBJECT ENCODING`.
    pub name: String,
    pub summary: String,
    /// The doc comment without summary and examples.
    pub docs: Vec<String>,
    pub group: String,
    pub since: String,
    pub complexity: String,
    /// The reply's type as declared.
    pub reply: String,
    pub grammar: Grammar,
    pub keys: Vec<KeySpec>,
    /// As `COMMAND INFO` names them.
    pub flags: Vec<String>,
    pub effects: Effects,
    pub program: Program,
    pub cost: Cost,
    /// Keys of the module's collections in the system database, by number.
    pub collections: Vec<String>,
    /// What it waits for when it waits.
    pub blocks: Option<Blocks>,
    pub cost_by_line: Vec<LineCost>,
    pub may_abort_after_write: bool,
    pub examples: Vec<Example>,
    /// Line of its declaration.
    pub line: u32,
}

/// `blocks on keys until timeout`: slots of the parameters. The call that waits is proposed again when one of the keys is written;
/// it gives up after so many seconds (a float or int parameter), never at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    pub keys: u16,
    pub timeout: u16,
}

/// `> SET k v` and the reply's lines.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Example {
    pub command: String,
    pub reply: Vec<String>,
}

impl Command {
    pub fn is_write(&self) -> bool {
        self.effects.writes
    }
    /// The parameter that holds this slot, or the collection of that number.
    pub fn name_at(&self, slot: u16) -> String {
        let collection = slot.checked_sub(COLLECTIONS).and_then(|n| self.collections.get(n as usize));
        collection.map_or_else(|| self.grammar.name_at(slot), |key| key.rsplit('.').next().unwrap_or(key).to_owned())
    }
    /// The inferred cost as a `cost` clause writes it.
    pub fn cost_text(&self) -> String {
        let name_of = |slot: u16| self.name_at(slot);
        format!("{} ops, {} locs", self.cost.ops.text(&name_of), self.cost.locs.text(&name_of))
    }
}

impl Grammar {
    /// The parameter that holds this slot.
    pub fn name_at(&self, slot: u16) -> String {
        let owner = self.params.iter().find(|p| p.slot <= slot && slot < p.slot + p.words.max(1));
        match owner {
            Some(p) if p.slot == slot || p.words <= 2 => p.name.clone(),
            Some(p) => format!("{}.{}", p.name, slot - p.slot - 1),
            None => format!("${slot}"),
        }
    }
}

/// Compiles one source text. Every command's first mistake is reported.
pub fn compile_module(source: &str, name: &str, table: &Table) -> Result<Module, Vec<Diagnostic>> {
    let prelude = parse(&table.prelude, 1).map_err(|d| vec![d])?;
    let syntax = parse(source, 0).map_err(|d| vec![d])?;
    let module_name = if syntax.name.is_empty() { name } else { &syntax.name };
    let names = names(&prelude, &syntax, module_name, table).map_err(|d| vec![d])?;
    let lines = [&LineIndex::new(source), &LineIndex::new(&table.prelude)];
    let (mut commands, mut errors) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for def in &syntax.commands {
        if !seen.insert(def.name.name.to_ascii_uppercase()) {
            errors.push(Diagnostic::new(Code::Duplicate, def.name.span, "this command is there already"));
            continue;
        }
        match command(def, table, &names, lines) {
            Ok(c) => commands.push(c),
            Err(d) => errors.push(d),
        }
    }
    if errors.is_empty() {
        let module = if syntax.name.is_empty() { name.to_owned() } else { syntax.name };
        Ok(Module { name: module, version: syntax.version, commands })
    } else {
        Err(errors)
    }
}

fn parse(source: &str, file: u16) -> Low<ModuleSyntax> {
    Parser::new(source, file)?.module()
}

fn names<'a>(prelude: &'a ModuleSyntax, module: &'a ModuleSyntax, name: &'a str, table: &Table) -> Low<Names<'a>> {
    let (records, collections) = (BTreeMap::new(), BTreeMap::new());
    let mut names = Names {
        module: name,
        records,
        collections,
        consts: BTreeMap::new(),
        texts: BTreeMap::new(),
        fns: BTreeMap::new(),
    };
    for m in [prelude, module] {
        let mut own: BTreeMap<&str, Span> = BTreeMap::new();
        let mut declare = |name: &'a super::ast::Ident| match own.insert(&name.name, name.span) {
            Some(before) => {
                Err(Diagnostic::new(Code::Duplicate, name.span, format!("`{}` is declared twice", name.name))
                    .label(before, "first here"))
            }
            None => Ok(()),
        };
        for r in &m.records {
            declare(&r.name)?;
            names.declare_record(r, table)?;
        }
        for c in &m.collections {
            declare(&c.name)?;
            names.declare_collection(c, table)?;
        }
        for c in &m.consts {
            declare(&c.name)?;
            names.consts.insert(&c.name.name, c);
        }
        for t in &m.texts {
            declare(&t.name)?;
            names.texts.insert(&t.name.name, &t.text);
        }
        for f in &m.fns {
            declare(&f.name)?;
            names.fns.insert(&f.name.name, f);
        }
    }
    Ok(names)
}

fn command(def: &CommandDef, table: &Table, names: &Names<'_>, lines: [&LineIndex; 2]) -> Low<Command> {
    let mut grammar = Grammar::of(def)?;
    grammar.errors = grammar_errors(def)?;
    let blocks = def.blocks.as_ref().map(|b| blocks(b, &grammar)).transpose()?;
    let (finished, effects) = Lower::new(table, names, lines, &grammar).command(def)?;
    let mut program = finished.program;
    program.arg_slots = grammar.fixed_words;
    if def.read && effects.writes {
        return Err(Diagnostic::new(Code::Effect, def.name.span, "a `read command` does not write")
            .note("its body changes state")
            .help("drop `read`, or the write"));
    }
    let name = def.name.name.to_ascii_uppercase();
    let mut of_module: Vec<_> = names.collections.values().collect();
    of_module.sort_by_key(|c| c.number);
    let collections: Vec<String> = of_module.iter().map(|c| super::lower::system_key(names.module, &c.name)).collect();
    check_cost(def, &grammar, names, &finished.cost)?;
    let (summary, docs, examples) = documentation(&def.docs);
    let flags = def.flags.clone().unwrap_or_else(|| derived_flags(effects, blocks.is_some(), &finished.cost));
    Ok(Command {
        keys: grammar.keys(name.split(' ').count() as u32),
        summary,
        docs,
        group: def.group.clone(),
        since: def.since.clone(),
        complexity: def.complexity.clone(),
        reply: def.result.clone(),
        flags,
        effects,
        program,
        blocks,
        collections,
        cost: finished.cost,
        cost_by_line: finished.by_line,
        may_abort_after_write: finished.may_abort_after_write,
        examples,
        line: lines[0].line(def.name.span.start),
        name,
        grammar,
    })
}

fn blocks((keys, timeout): &(Ident, Ident), grammar: &Grammar) -> Low<Blocks> {
    let slot = |name: &Ident, wanted: &str, fits: fn(&ParamKind) -> bool| match grammar
        .params
        .iter()
        .find(|p| p.name == name.name)
    {
        Some(p) if fits(&p.kind) => Ok(p.slot),
        Some(_) => Err(Diagnostic::new(Code::Type, name.span, format!("`{}` is not {wanted}", name.name))),
        None => Err(Diagnostic::new(Code::UnknownName, name.span, format!("there is no parameter `{}`", name.name))),
    };
    let is_key = |k: &ParamKind| {
        matches!(k, ParamKind::One(Shape::Key { .. }) | ParamKind::Rest { element: Shape::Key { .. }, .. })
    };
    let is_time = |k: &ParamKind| matches!(k, ParamKind::One(Shape::Int { .. } | Shape::Float { .. }));
    Ok(Blocks { keys: slot(keys, "a key or a list of keys", is_key)?, timeout: slot(timeout, "a number", is_time)? })
}

fn grammar_errors(def: &CommandDef) -> Low<GrammarErrors> {
    let mut errors = GrammarErrors::default();
    for e in &def.errors {
        let text = Some(e.text.clone());
        match e.name.name.as_str() {
            "syntax" => errors.syntax = text,
            "arity" => errors.arity = text,
            "not_int" => errors.not_int = text,
            "not_float" => errors.not_float = text,
            "range" => errors.range = text,
            "overflow" | "div_zero" | "nan" | "broken_index" => {}
            other => {
                return Err(Diagnostic::new(
                    Code::UnknownName,
                    e.name.span,
                    format!("a command has no error `{other}`"),
                )
                .help("overflow, div_zero, nan, broken_index; of the argument parser: syntax, arity, not_int, not_float, range"));
            }
        }
    }
    Ok(errors)
}

/// `readonly`/`write`, `denyoom`, `fast` as Redis means them: fast = no work that grows with counts or lengths.
fn derived_flags(effects: Effects, blocking: bool, cost: &Cost) -> Vec<String> {
    let mut flags = Vec::new();
    flags.push(if effects.writes { "write" } else { "readonly" }.to_owned());
    if effects.grows {
        flags.push("denyoom".to_owned());
    }
    if blocking {
        flags.push("blocking".to_owned());
    }
    let grows =
        |a: &Atom| matches!(a, Atom::Count(_) | Atom::Int(_) | Atom::BlocksAll { .. } | Atom::Len(_) | Atom::Total(_));
    if !cost.ops.terms().iter().any(|t| t.0.iter().any(grows)) {
        flags.push("fast".to_owned());
    }
    flags
}

/// Summary, further text, examples.
fn documentation(lines: &[String]) -> (String, Vec<String>, Vec<Example>) {
    let (mut summary, mut docs, mut examples) = (String::new(), Vec::new(), Vec::<Example>::new());
    let mut in_example = false;
    for line in lines {
        if let Some(command) = line.strip_prefix("> ") {
            examples.push(Example { command: command.trim().to_owned(), reply: Vec::new() });
            in_example = true;
        } else if line.is_empty() {
            in_example = false;
        } else if in_example {
            if let Some(e) = examples.last_mut() {
                e.reply.push(line.clone());
            }
        } else if summary.is_empty() {
            summary = line.clone();
        } else {
            docs.push(line.clone());
        }
    }
    (summary, docs, examples)
}

// --- declared costs ---

fn check_cost(def: &CommandDef, grammar: &Grammar, names: &Names<'_>, inferred: &Cost) -> Low<()> {
    let Some((ops, locs)) = &def.cost else { return Ok(()) };
    for (what, declared, found) in [("ops", ops, &inferred.ops), ("locs", locs, &inferred.locs)] {
        let excess = found.excess(&declared_poly(declared, grammar, names)?);
        if excess.is_empty() {
            continue;
        }
        let name_of = |slot: u16| match names.collections.values().find(|c| slot == COLLECTIONS + c.number) {
            Some(c) => c.name.clone(),
            None => grammar.name_at(slot),
        };
        let mut table = String::new();
        for (atoms, needs, has) in &excess {
            let mut term = Poly::default();
            term.add_term(atoms, 1);
            let term = if atoms.is_empty() { "constant".to_owned() } else { term.text(&name_of) };
            table.push_str(&format!(
                "{}{term}: declared {has}, needs {needs}",
                if table.is_empty() { "" } else { "; " }
            ));
        }
        return Err(Diagnostic::new(
            Code::Cost,
            declared.span,
            format!("the declared {what} are less than the body may take"),
        )
        .note(table)
        .help(format!("cost {} ops, {} locs", inferred.ops.text(&name_of), inferred.locs.text(&name_of))));
    }
    Ok(())
}

fn declared_poly(p: &PolySyntax, grammar: &Grammar, names: &Names<'_>) -> Low<Poly> {
    let mut poly = Poly::default();
    for (n, atoms) in &p.terms {
        let mut term = Vec::new();
        for a in atoms {
            term.push(declared_atom(a, grammar, names, p.span)?);
        }
        poly.add_term(&term, *n);
    }
    Ok(poly)
}

fn declared_atom(a: &AtomSyntax, grammar: &Grammar, names: &Names<'_>, span: Span) -> Low<Atom> {
    use super::grammar::ParamKind;
    let unknown = |name: &str| Diagnostic::new(Code::UnknownName, span, format!("a cost cannot name `{name}`"));
    let both = |two: &[PolySyntax; 2]| -> Low<[Poly; 2]> {
        Ok([declared_poly(&two[0], grammar, names)?, declared_poly(&two[1], grammar, names)?])
    };
    let slot_of = |name: &str| match declared_atom(&AtomSyntax::Name(name.to_owned()), grammar, names, span)? {
        Atom::Int(slot) => Ok(Number::Word(slot)),
        Atom::Text(slot) => Ok(Number::Text(slot)),
        _ => Err(unknown(name)),
    };
    let (of, name) = match a {
        AtomSyntax::Of(of, name) => (of.as_str(), name.as_str()),
        AtomSyntax::Name(name) => ("", name.as_str()),
        AtomSyntax::Least(two) => {
            let mut two = both(two)?;
            two.sort();
            return Ok(Atom::Least(Arc::new(two)));
        }
        AtomSyntax::Signed(name, two) => return Ok(Atom::Signed(slot_of(name)?, Arc::new(both(two)?))),
        AtomSyntax::Chosen(name, tag, two) => {
            let tagged = grammar.params.iter().find(|p| p.name == *name).ok_or_else(|| unknown(name))?;
            let [this, other] = both(two)?;
            return Ok(Atom::Chosen(tagged.slot, *tag, Arc::new([other, this])));
        }
    };
    let stored = |place| match of {
        "depth" => Some(Atom::Depth(place)),
        "len" => Some(Atom::Len(place)),
        "total" => Some(Atom::Total(place)),
        "longest" => Some(Atom::Longest(place)),
        _ => None,
    };
    if name == "db" {
        return stored(Place::Db).ok_or_else(|| unknown(of));
    }
    if let Some(collection) = names.collections.get(name) {
        return stored(Place::Collection(collection.number)).ok_or_else(|| unknown(name));
    }
    let (base, field) = match name.split_once('.') {
        Some((base, field)) => (base, field.parse::<u16>().ok()),
        None => (name, None),
    };
    let p = grammar.params.iter().find(|p| p.name == base).ok_or_else(|| unknown(name))?;
    let is_key = matches!(p.kind, ParamKind::One(Shape::Key { .. }));
    let slot = match field {
        Some(field) => p.slot + 1 + field,
        // behind the tag: the one value that the option or what is optional holds
        None if p.words == 2 && !is_key => p.slot + 1,
        None => p.slot,
    };
    let list = match &p.kind {
        ParamKind::Rest { element, .. } => Some(element),
        _ => None,
    };
    Ok(match (of, list) {
        ("n", Some(_)) => Atom::Count(slot),
        ("blocks", Some(e)) => Atom::BlocksAll { slot, width: e.words() as u8, fields: e.bytes_fields() },
        ("blocks", None) => Atom::Blocks(slot),
        ("", None) if field.is_none() && matches!(p.kind, ParamKind::One(Shape::Bytes { .. })) => Atom::Text(slot),
        ("", None) => Atom::Int(slot),
        (_, Some(_)) => return stored(Place::Keys(slot)).ok_or_else(|| unknown(name)),
        (_, None) => return stored(Place::Key(slot)).ok_or_else(|| unknown(name)),
    })
}
