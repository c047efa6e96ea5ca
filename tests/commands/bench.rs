//! A table of compiled commands over one writer: arguments in, reply bytes out, without log, Raft or gateway.

use crate::common::show;
use look::base::batch::ChunkBuilder;
use look::base::{Epoch, KeyHasher};
use look::command::args;
use look::lang::engine::{Code, Engine};
use look::lang::env::{Call, Ended, Env};
use look::lang::helpers;
use look::lang::module::compile_module;
use look::lang::verify::{HelperShape, check};
use look::resp::{Arg, ReplyBuf, Request, Version};
use look::store::{self, Writer};
use std::collections::BTreeMap;
use std::path::Path;

/// Log time at which examples run.
pub const START_MS: i64 = 1_700_000_000_000;

pub struct Bench {
    commands: BTreeMap<String, (usize, look::lang::module::Command)>,
    code: Code,
    env: Env,
    writer: Writer,
    hasher: KeyHasher,
    /// Log time of the next call.
    pub now: i64,
    pub version: Version,
    calls: u64,
    /// Ops and locs of the newest call, and what they might have been at most; both 0 of one that was refused.
    pub spent: (u64, u64),
    pub bound: (u64, u64),
}

/// Every command of a folder of `commands`, compiled.
pub fn commands_of(folder: &str) -> Vec<look::lang::module::Command> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("commands").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|f| f.expect("a file").path()).collect();
    files.sort();
    let mut commands = Vec::new();
    for file in files.iter().filter(|f| !f.ends_with("prelude.look")) {
        let source = std::fs::read_to_string(file).expect("a source");
        let name = file.display().to_string();
        match compile_module(&source, &name, helpers::table()) {
            Ok(module) => commands.extend(module.commands),
            Err(all) => {
                let text: Vec<String> = all.iter().map(|d| d.render(&name, &source)).collect();
                panic!("{}", text.join("\n"));
            }
        }
    }
    commands
}

fn shapes() -> Vec<HelperShape> {
    let width = |h: &look::lang::table::Helper| HelperShape {
        args: h.params.iter().map(|p| p.1.width()).sum::<usize>() as u8,
        results: h.result.width().max(1) as u8,
    };
    helpers::table().helpers.iter().map(width).collect()
}

impl Bench {
    /// With the commands of Redis and of the examples.
    pub fn new(engine: Engine) -> Bench {
        Bench::with(engine, Vec::new())
    }

    /// And these.
    pub fn with(engine: Engine, more: Vec<look::lang::module::Command>) -> Bench {
        let commands = [commands_of("redis"), commands_of("examples"), more].concat();
        let shapes = shapes();
        let verified: Vec<_> = commands
            .iter()
            .map(|c| check(c.program.clone(), &shapes).unwrap_or_else(|e| panic!("{}: {e}", c.name)))
            .collect();
        let code = Code::build(engine, &verified);
        assert_eq!(code.engine(), engine, "{:?}", code.refused());
        let hasher = KeyHasher::new(7);
        let (_, writer) = store::create().expect("a store");
        Bench {
            commands: commands.into_iter().enumerate().map(|(i, c)| (c.name.to_ascii_lowercase(), (i, c))).collect(),
            code,
            env: Env::new(hasher),
            writer,
            hasher,
            now: START_MS,
            version: Version::Resp2,
            calls: 0,
            spent: (0, 0),
            bound: (0, 0),
        }
    }

    /// Is there a program for these words?
    pub fn knows(&self, words: &[Vec<u8>]) -> bool {
        self.found(words).is_some()
    }

    /// How many words name the command, and which it is.
    fn found(&self, words: &[Vec<u8>]) -> Option<(usize, &(usize, look::lang::module::Command))> {
        let lower = |w: &[u8]| String::from_utf8_lossy(w).to_ascii_lowercase();
        let first = lower(&words[0]);
        let both = words.get(1).map(|w| format!("{first} {}", lower(w)));
        match both.and_then(|b| self.commands.get(&b)) {
            Some(found) => Some((2, found)),
            None => self.commands.get(&first).map(|found| (1, found)),
        }
    }

    /// Runs one command line in database 0.
    pub fn run(&mut self, words: &[Vec<u8>]) -> Vec<u8> {
        self.calls += 1;
        (self.spent, self.bound) = ((0, 0), (0, 0));
        let mut reply = ReplyBuf::new(self.version);
        let (program, command, builder) = match self.parsed(words) {
            Ok(parsed) => parsed,
            Err(text) => {
                reply.error(text);
                return reply.into_bytes();
            }
        };
        let call = self.call(program, &builder, u64::MAX);
        self.bound = self.bound_of(&command, &call);
        self.writer.set_epoch(Epoch(self.calls));
        self.writer.mark();
        match self.env.write(&self.code, &call, &mut self.writer, &mut reply) {
            Ended::Done => self.writer.commit(),
            _ => self.writer.rollback(),
        }
        self.spent = (self.env.ops(), self.env.locs());
        let ((ops, locs), (ops_max, locs_max)) = (self.spent, self.bound);
        assert!(
            ops <= ops_max && locs <= locs_max,
            "{}: spent {:?}, bound {:?}: {}",
            show(words),
            self.spent,
            self.bound,
            command.cost_text()
        );
        reply.into_bytes()
    }

    /// Runs a reading command line with so much patience (see [`Call::patience`]).
    pub fn read(&mut self, words: &[Vec<u8>], patience: u64) -> (Ended, Vec<u8>) {
        let (program, _, builder) = self.parsed(words).unwrap_or_else(|e| panic!("{e}"));
        let call = self.call(program, &builder, patience);
        let mut reply = ReplyBuf::new(self.version);
        let ended = self.env.read(&self.code, &call, &self.writer, &mut reply);
        (ended, reply.into_bytes())
    }

    fn call<'a>(&self, program: usize, builder: &'a ChunkBuilder, patience: u64) -> Call<'a> {
        Call {
            program,
            db: 0,
            words: &builder.words[1..],
            blob: &builder.blob,
            now: self.now,
            epoch: Epoch(self.calls),
            seed: self.calls,
            patience,
        }
    }

    fn parsed(&self, words: &[Vec<u8>]) -> Result<(usize, look::lang::module::Command, ChunkBuilder), String> {
        let mut source = Vec::new();
        let mut spans = Vec::new();
        for word in words {
            spans.push(Arg { at: source.len() as u32, len: word.len() as u32 });
            source.extend_from_slice(word);
        }
        let first = String::from_utf8_lossy(&words[0]).to_ascii_lowercase();
        let (name_words, (program, command)) = self.found(words).unwrap_or_else(|| panic!("no command {first}"));
        let arity = command.grammar.arity;
        let len = words.len() as i32;
        if (arity >= 0 && len != arity) || len < -arity {
            return Err(String::from_utf8_lossy(&args::arity_error(&first)).into_owned());
        }
        let mut builder = ChunkBuilder::default();
        builder.begin(1, 0);
        let request = Request::new(&source, &spans).skip(name_words);
        args::parse(&command.grammar, &first, request, &self.hasher, &mut builder)
            .map_err(|text| String::from_utf8_lossy(&text).into_owned())?;
        Ok((*program, command.clone(), builder))
    }

    /// What the call may cost at most, by what is stored now.
    fn bound_of(&self, command: &look::lang::Command, call: &Call<'_>) -> (u64, u64) {
        let stored = look::node::reads::Sizes {
            state: &self.writer,
            db: call.db,
            blob: call.blob,
            grammar: &command.grammar,
            collections: &command.collections,
        };
        (command.cost.ops.eval(call.words, &stored), command.cost.locs.eval(call.words, &stored))
    }
}
