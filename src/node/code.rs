//! The code table as the gateway sees it.

use crate::base::KeyHasher;
use crate::base::batch::ChunkBuilder;
use crate::command::{Command, Named, Table};
use crate::command::{access, args};
use crate::gateway::backend::{Argument, Code, CommandId, Description, KeyAt, KeySpec, ParseError, Route};
use crate::lang::grammar::{Alternative, KeyEnd, Param, ParamKind, Shape};
use crate::lang::poly::{Nothing, Poly, Stored};
use crate::node::reads::Sizes;
use crate::resp::{ReplyBuf, Request};
use crate::store::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct NodeCode {
    pub table: Arc<Table>,
    pub hasher: KeyHasher,
    /// `max-write-cost`: most operations of one write.
    pub max_write_cost: Arc<AtomicU64>,
    /// By rank of the first word, which is what a `CommandId` is.
    routes: Vec<Route>,
}

impl NodeCode {
    pub fn new(table: Arc<Table>, hasher: KeyHasher, max_write_cost: Arc<AtomicU64>) -> NodeCode {
        let routes = table.names().iter().zip(0..).map(|((_, named), rank)| route(&table, named, rank)).collect();
        NodeCode { table, hasher, max_write_cost, routes }
    }

    fn named(&self, id: CommandId) -> &(String, Named) {
        &self.table.names()[id.0 as usize]
    }

    /// The command that a request means, and how many words its name has.
    fn resolve(&self, id: CommandId, request: Request<'_>) -> Result<(&Command, usize), ParseError> {
        match self.named(id) {
            (_, Named::Command(number)) => Ok((&self.table[*number], 1)),
            (container, Named::Container(all)) => {
                if request.len() < 2 {
                    return Err(ParseError(args::arity_error(container).into()));
                }
                let word = request.arg(1);
                match self.table.subcommand(all, word) {
                    Some(number) => Ok((&self.table[number], 2)),
                    None => Err(ParseError(args::unknown_subcommand(word, container).into())),
                }
            }
        }
    }

    fn check_arity(&self, command: &Command, request: Request<'_>) -> Result<(), ParseError> {
        let (have, want) = (request.len() as i32, command.grammar.arity);
        let fits = if want >= 0 { have == want } else { have >= -want };
        if fits {
            return Ok(());
        }
        Err(ParseError(args::wrong_arity(&command.grammar, &command.name).into()))
    }

    fn parse_call(
        &self,
        command: &Command,
        request: Request<'_>,
        db: u8,
        into: &mut ChunkBuilder,
    ) -> Result<(), ParseError> {
        into.begin(command.handler, db);
        args::parse(&command.grammar, &command.name, request, &self.hasher, into)
            .map_err(|text| ParseError(text.into()))?;
        if command.write && !command.always_cheap {
            self.check_bound(command, into.open_call_words(), &Nothing)?;
        }
        if into.end() { Ok(()) } else { Err(ParseError(b"ERR too many arguments in one command".into())) }
    }

    /// Refuses a write whose bound is above `max-write-cost`.
    pub fn check_bound(&self, command: &Command, words: &[u64], stored: &dyn Stored) -> Result<(), ParseError> {
        let bound = command.cost.ops.eval(words, stored);
        let max = self.max_write_cost();
        if bound <= max {
            return Ok(());
        }
        let term = dominant_term(command, &command.cost.ops, words, stored);
        Err(ParseError(
            format!(
                "ERR '{}' may take {bound} operations, max-write-cost is {max}; most of them are {term}",
                command.name
            )
            .into_bytes()
            .into(),
        ))
    }

    /// `LOOK.EXPLAIN` with sizes from `state`.
    pub fn explain<R: Read>(&self, id: CommandId, request: Request<'_>, db: u8, state: &R, out: &mut ReplyBuf) {
        let mut call = ChunkBuilder::default();
        let command = match self.resolve(id, request) {
            Ok((command, words)) => {
                call.begin(command.handler, db);
                match args::parse(&command.grammar, &command.name, request.skip(words), &self.hasher, &mut call) {
                    Ok(()) => command,
                    Err(text) => return out.error(text),
                }
            }
            Err(ParseError(text)) => return out.error(text.as_ref()),
        };
        let words = call.open_call_words();
        let stored = Sizes { state, db, blob: &call.blob, grammar: &command.grammar, collections: &[] };
        let mut lines = vec![
            format!("command: {}", command.name),
            format!("bound ops: {}", poly_text(command, &command.cost.ops)),
            format!("bound locs: {}", poly_text(command, &command.cost.locs)),
            format!(
                "for these arguments: {} ops, {} locs",
                command.cost.ops.eval(words, &stored),
                command.cost.locs.eval(words, &stored)
            ),
        ];
        lines.extend(command.lines.iter().map(|l| format!("line {}: {}", l.0, l.1)));
        out.array(lines.len());
        lines.iter().for_each(|line| out.bulk(line.as_bytes()));
    }
}

fn route(table: &Table, named: &Named, rank: u32) -> Route {
    let (all, arity) = match named {
        Named::Command(number) => (std::slice::from_ref(number), table[*number].grammar.arity),
        Named::Container(all) => (&all[..], -2),
    };
    let write = all.iter().any(|n| table[*n].write);
    let fast = all.iter().all(|n| table[*n].fast);
    let weighs_stored = all.iter().any(|n| table[*n].weighs_stored);
    Route { id: CommandId(rank), write, arity, fast, weighs_stored }
}

/// The text of the term that is worth most for these words.
fn dominant_term(command: &Command, poly: &Poly, words: &[u64], stored: &dyn Stored) -> String {
    let value = |term: &Poly| term.eval(words, stored);
    let terms = poly.terms().iter().map(|(atoms, n)| {
        let mut term = Poly::default();
        term.add_term(atoms, *n);
        term
    });
    terms.max_by_key(value).map_or_else(|| "0".into(), |term| poly_text(command, &term))
}

/// A polynomial with the names of the command's parameters.
pub fn poly_text(command: &Command, poly: &Poly) -> String {
    poly.text(&|slot| {
        let param = command.grammar.params.iter().rev().find(|p| p.slot <= slot);
        param.map_or_else(|| format!("word{slot}"), |p| p.name.clone())
    })
}

impl Code for NodeCode {
    fn version(&self) -> u64 {
        self.table.version()
    }

    #[inline]
    fn lookup(&self, name: &[u8]) -> Option<Route> {
        Some(self.routes[self.table.lookup(name)? as usize])
    }

    #[inline]
    fn parse(&self, id: CommandId, request: Request<'_>, db: u8, into: &mut ChunkBuilder) -> Result<(), ParseError> {
        let (command, words) = self.resolve(id, request)?;
        self.check_arity(command, request)?;
        let blob = into.blob.len();
        let parsed = self.parse_call(command, request.skip(words), db, into);
        if parsed.is_err() {
            into.cancel(blob);
        }
        parsed
    }

    fn commands(&self) -> Vec<CommandId> {
        self.routes.iter().map(|route| route.id).collect()
    }

    fn describe(&self, id: CommandId) -> Description {
        match self.named(id) {
            (_, Named::Command(number)) => describe(&self.table[*number]),
            (name, Named::Container(all)) => {
                let subcommands: Vec<Description> = all.iter().map(|n| describe(&self.table[*n])).collect();
                let first = subcommands.first().cloned().unwrap_or_default();
                Description {
                    name: name.clone(),
                    arity: -2,
                    categories: vec!["slow".into()],
                    summary: format!("A container for {name} commands."),
                    since: first.since,
                    group: first.group,
                    complexity: "Depends on subcommand.".into(),
                    subcommands,
                    ..Description::default()
                }
            }
        }
    }

    fn name(&self, id: CommandId, request: Request<'_>) -> &str {
        self.resolve(id, request).map_or(&self.named(id).0, |(command, _)| &command.name)
    }

    fn call_keys<'a>(
        &self,
        id: CommandId,
        request: Request<'_>,
        call: &'a ChunkBuilder,
        visit: &mut dyn FnMut(&'a [u8], &'static [&'static str]),
    ) {
        let Ok((command, name_words)) = self.resolve(id, request) else { return };
        let words = call.open_call_words();
        args::for_each_key(&command.grammar, &|i| words.get(i).copied().unwrap_or(0), &mut |number, word, _| {
            let options = request.iter().skip(name_words + 2);
            let access = access::of_request(&command.name, command.write, number, options);
            visit(call.blob.get(word.offset()..word.offset() + word.len()).unwrap_or_default(), access);
        });
    }

    fn keys(&self, id: CommandId, request: Request<'_>) -> Option<Vec<KeyAt>> {
        let (command, words) = self.resolve(id, request).ok()?;
        if self.check_arity(command, request).is_err() {
            return Some(Vec::new());
        }
        let mut keys = Vec::new();
        for (number, spec) in command.grammar.keys(words as u32).iter().enumerate() {
            let options = request.iter().skip(words + 2);
            let flags = access::of_request(&command.name, command.write, number, options).to_vec();
            let last = if spec.last == KeyEnd::Same { spec.first as usize } else { request.len() - 1 };
            let positions = (spec.first as usize..=last).step_by(spec.step as usize);
            keys.extend(positions.map(|position| KeyAt { position, flags: flags.clone() }));
        }
        (!keys.is_empty()).then_some(keys)
    }

    fn max_write_cost(&self) -> u64 {
        self.max_write_cost.load(Ordering::Relaxed)
    }
}

fn describe(command: &Command) -> Description {
    let name_words = if command.name.contains('|') { 2 } else { 1 };
    let specs = command.grammar.keys(name_words);
    let last = |end: KeyEnd, first: u32| if end == KeyEnd::Same { first as i32 } else { -1 };
    let (first_key, last_key, key_step) = specs
        .first()
        .map_or((0, 0, 0), |s| (s.first as i32, specs.last().map_or(0, |l| last(l.last, l.first)), s.step as i32));
    let flags = &command.docs.flags;
    Description {
        name: command.name.clone(),
        arity: command.grammar.arity,
        flags: flags.clone(),
        first_key,
        last_key,
        key_step,
        categories: categories(command),
        tips: Vec::new(),
        key_specs: specs
            .iter()
            .enumerate()
            .map(|(number, s)| KeySpec {
                flags: access::of(&command.name, command.write, number).iter().map(|&f| f.to_owned()).collect(),
                begin: s.first as i32,
                last: if s.last == KeyEnd::Same { 0 } else { -1 },
                step: s.step as i32,
                limit: 0,
            })
            .collect(),
        subcommands: Vec::new(),
        summary: command.docs.summary.clone(),
        since: command.docs.since.clone(),
        group: command.docs.group.clone(),
        complexity: command.docs.complexity.clone(),
        arguments: command.grammar.params.iter().map(|p| argument(p, &specs)).collect(),
    }
}

/// What Redis 7.2 calls `@dangerous` without it being a command's flag.
const DANGEROUS: [&str; 7] = ["flushall", "flushdb", "keys", "restore", "sort", "sort_ro", "swapdb"];

/// ACL categories, in Redis's order: by group, then by flags.
fn categories(command: &Command) -> Vec<String> {
    let mut all = Vec::new();
    let has = |flag: &str| command.docs.flags.iter().any(|f| f == flag);
    if matches!(command.docs.group.as_str(), "generic" | "server") {
        all.push("keyspace");
    }
    all.push(if command.write { "write" } else { "read" });
    match command.docs.group.as_str() {
        "sorted_set" => all.push("sortedset"),
        group @ ("string" | "bitmap" | "list" | "set" | "hash" | "stream") => all.push(group),
        _ => {}
    }
    all.push(if has("fast") { "fast" } else { "slow" });
    if has("blocking") {
        all.push("blocking");
    }
    if DANGEROUS.contains(&command.name.as_str()) {
        all.push("dangerous");
    }
    all.into_iter().map(str::to_owned).collect()
}

fn argument(param: &Param, specs: &[crate::lang::grammar::KeySpec]) -> Argument {
    let key_spec = specs.iter().position(|s| s.param == param.slot).map(|i| i as u32);
    let mut argument = match &param.kind {
        ParamKind::One(shape) => of_shape(&param.name, shape),
        ParamKind::Flag { word } => token(&param.name.to_lowercase(), word),
        ParamKind::Options(alternatives) => Argument { optional: true, ..one_of(&param.name, alternatives) },
        ParamKind::Rest { element, min, .. } => {
            Argument { multiple: true, optional: *min == 0, ..of_shape(&param.name, element) }
        }
    };
    if matches!(param.kind, ParamKind::Flag { .. }) {
        argument.optional = true;
    }
    set_key_spec(&mut argument, key_spec);
    argument
}

fn set_key_spec(argument: &mut Argument, spec: Option<u32>) {
    if argument.kind == "key" {
        argument.key_spec = spec;
    }
    argument.arguments.iter_mut().for_each(|a| set_key_spec(a, spec));
}

fn token(name: &str, word: &str) -> Argument {
    Argument { name: name.into(), kind: "pure-token".into(), token: Some(word.into()), ..Argument::default() }
}

fn one_of(name: &str, alternatives: &[Alternative]) -> Argument {
    let each = |a: &Alternative| match a.payload.as_slice() {
        [] => token(&a.word.to_lowercase(), &a.word),
        [one] => Argument { token: Some(a.word.clone()), ..of_shape(&a.word.to_lowercase(), one) },
        many => Argument {
            name: a.word.to_lowercase(),
            kind: "block".into(),
            token: Some(a.word.clone()),
            arguments: many.iter().enumerate().map(|(i, s)| of_shape(&format!("arg{i}"), s)).collect(),
            ..Argument::default()
        },
    };
    match alternatives {
        [one] => each(one),
        many => Argument {
            name: name.into(),
            kind: "oneof".into(),
            arguments: many.iter().map(each).collect(),
            ..Argument::default()
        },
    }
}

fn of_shape(name: &str, shape: &Shape) -> Argument {
    let simple = |kind: &str| Argument { name: name.into(), kind: kind.into(), ..Argument::default() };
    match shape {
        Shape::Int { .. } => simple("integer"),
        Shape::Float { .. } => simple("double"),
        Shape::Bytes { .. } => simple("string"),
        Shape::Key { .. } => simple("key"),
        Shape::Words(alternatives) => one_of(name, alternatives),
        Shape::Tuple(fields) => Argument {
            arguments: fields.iter().enumerate().map(|(i, s)| of_shape(&format!("{name}{i}"), s)).collect(),
            ..simple("block")
        },
        Shape::Optional(inner) => Argument { optional: true, ..of_shape(name, inner) },
    }
}
