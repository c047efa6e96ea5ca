//! The commands that come with the server, through the whole front end.

use super::check::render_all;
use super::helpers::table;
use super::module::{Module, compile_module};
use super::verify::{HelperShape, verify};

fn shipped() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/commands/redis");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "look") && !f.ends_with("prelude.look"));
    files.sort();
    files.iter().map(|f| (f.display().to_string(), std::fs::read_to_string(f).unwrap())).collect()
}

fn shape(h: &super::table::Helper) -> HelperShape {
    HelperShape {
        args: h.params.iter().map(|p| p.1.width()).sum::<usize>() as u8,
        results: h.result.width().max(1) as u8,
    }
}

fn compiled() -> Vec<Module> {
    let compile = |(name, source): &(String, String)| match compile_module(source, name, table()) {
        Ok(module) => module,
        Err(errors) => panic!("{}", render_all(&errors, name, source, table())),
    };
    shipped().iter().map(compile).collect()
}

#[test]
fn every_shipped_command_compiles() {
    let mut refused = String::new();
    for (name, source) in shipped() {
        if let Err(errors) = compile_module(&source, &name, table()) {
            refused.push_str(&render_all(&errors, &name, &source, table()));
        }
    }
    assert!(refused.is_empty(), "{refused}");
}

#[test]
fn every_shipped_program_passes_the_verifier() {
    let shapes: Vec<HelperShape> = table().helpers.iter().map(shape).collect();
    let mut refused = String::new();
    for c in compiled().iter().flat_map(|m| &m.commands) {
        if let Err(e) = verify(&c.program, &shapes) {
            refused.push_str(&format!(
                "{}: {e:?} of {:#?}\n",
                c.name,
                c.program.ops.iter().enumerate().collect::<Vec<_>>()
            ));
        }
    }
    assert!(refused.is_empty(), "{refused}");
}

#[test]
fn commands_that_count_after_a_write_need_no_undo_journal() {
    let modules = compiled();
    let undo = |name: &str| {
        let c = modules.iter().flat_map(|m| &m.commands).find(|c| c.name == name);
        c.unwrap_or_else(|| panic!("{name}")).may_abort_after_write
    };
    for name in ["SET", "GET", "INCR", "MSET", "DEL", "SADD", "HSET", "LPUSH", "LPOP"] {
        assert!(!undo(name), "{name}");
    }
    // the new score may be NaN, after earlier pairs were written
    assert!(undo("ZADD"));
}

#[test]
fn words_of_an_argument_follow_the_order_of_declaration() {
    let source = "command T(k: key, n: int ?, flag F, opt e: A(int) | B | C(bytes, key), rest p: (key, float) [1..]) { reply nil }";
    let module = compile_module(source, "t", table()).unwrap_or_else(|e| panic!("{e:?}"));
    let g = &module.commands[0].grammar;
    let layout: Vec<_> = g.params.iter().map(|p| (p.name.as_str(), p.slot, p.words)).collect();
    assert_eq!(layout, [("k", 0, 2), ("n", 2, 2), ("F", 4, 1), ("e", 5, 4), ("p", 9, 1)]);
    assert_eq!((g.fixed_words, g.arity), (10, -4));
}

#[test]
fn a_blocking_command_waits_without_effects_and_says_for_what() {
    let source = "command POP(rest keys: key [1..], timeout: float) -> bytes blocks on keys until timeout group list
        { for k in keys { let s = db.slot(k)\n match s.list { none => { }, some(l) => { emit l.pop_front(); s.close(); return } } }
          wait }";
    let module = compile_module(source, "t", table()).unwrap_or_else(|e| panic!("{e:?}"));
    let c = &module.commands[0];
    assert_eq!(c.blocks, Some(super::Blocks { keys: 0, timeout: 1 }));
    assert_eq!(c.flags[..2], ["write", "blocking"]);
    assert!(c.may_abort_after_write, "what it wrote before it waits is undone");
}

#[test]
fn a_bound_covers_every_branch_and_multiplies_with_every_loop() {
    let source = "read command T(n: int 0..=9, rest keys: key [1..]) {
        for k in keys { repeat n { if n > 3 { emit db.slot(k).value is none ? 1 : 2 } else { emit 1 } } } }";
    let module = compile_module(source, "t", table()).unwrap_or_else(|e| panic!("{e:?}"));
    let ops = module.commands[0].cost.ops.to_string();
    assert!(ops.contains("n($1)*$0"), "{ops}");
    assert!(ops.contains("$0*blocks($1)"), "a key's blocks add up over the list, once for each repetition: {ops}");
}

#[test]
fn a_view_may_be_used_before_the_write_that_ends_it() {
    let source = "command T(key: key) { let s = db.slot(key)\n let old = s.str\n reply old\n s.put(int(1), none) }";
    assert!(compile_module(source, "t", table()).is_ok());
}

#[test]
fn examples_and_summary_come_from_the_doc_comment() {
    let modules = compiled();
    let set = modules.iter().flat_map(|m| &m.commands).find(|c| c.name == "SET").unwrap();
    assert!(!set.summary.is_empty() && !set.examples.is_empty());
    assert!(set.examples[0].command.starts_with("SET "));
    assert!(!set.examples[0].reply.is_empty());
}

/// Sources with tokens dropped, doubled, exchanged or replaced: the front end answers or refuses, and what it accepts passes the
/// verifier.
#[test]
fn damaged_sources_are_refused_or_give_programs_that_verify() {
    let shapes: Vec<HelperShape> = table().helpers.iter().map(shape).collect();
    let sources = shipped();
    let (mut accepted, mut seed) = (0, 0x1009_u64);
    let mut random = |below: usize| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (crate::base::mix64(seed) % below as u64) as usize
    };
    for _ in 0..2000 {
        let (name, source) = &sources[random(sources.len())];
        // one command of the file, so that a mutant's fate does not hang on the others
        let commands: Vec<&str> = source.split("\n///").collect();
        let mut tokens: Vec<&str> =
            commands[random(commands.len())].split_inclusive([' ', '\n', '(', ')', '.']).collect();
        for _ in 0..1 + random(3) {
            if tokens.is_empty() {
                break;
            }
            let (a, b) = (random(tokens.len()), random(tokens.len()));
            match random(4) {
                0 => {
                    tokens.remove(a);
                }
                1 => tokens.insert(a, tokens[b]),
                2 => tokens.swap(a, b),
                _ => tokens[a] = tokens[b],
            }
        }
        let mutant = format!("///{}", tokens.concat());
        for c in compile_module(&mutant, name, table()).iter().flat_map(|m| &m.commands) {
            accepted += 1;
            if let Err(e) = verify(&c.program, &shapes) {
                panic!("{e:?} in the program of\n{mutant}");
            }
        }
    }
    assert!(accepted > 20, "only {accepted} mutants were still programs: the test looks at nothing");
}

#[test]
fn a_range_costs_what_it_asks_for_and_not_the_whole_list() {
    use super::poly::{Place, Stored};
    struct Million;
    impl Stored for Million {
        fn len(&self, _: Place, _: &[u64]) -> u64 {
            1_000_000
        }
        fn total(&self, _: Place, _: &[u64]) -> u64 {
            1_000_000
        }
        fn longest(&self, _: Place, _: &[u64]) -> u64 {
            1
        }
    }
    let modules = compiled();
    let bound = |name: &str, from: i64, to: i64| {
        let c = modules.iter().flat_map(|m| &m.commands).find(|c| c.name == name).unwrap();
        c.cost.ops.eval(&[0, 0, from as u64, to as u64], &Million)
    };
    assert!(bound("LRANGE", 0, 99) < 10_000, "{}", bound("LRANGE", 0, 99));
    assert!(bound("LRANGE", 0, -1) > 1_000_000, "{}", bound("LRANGE", 0, -1));
}

#[test]
fn a_range_of_a_sorted_set_costs_what_its_ends_or_its_limit_ask_for() {
    use super::poly::{Place, Stored};
    /// A million members; the last index as the request spells it.
    struct Million(i64);
    impl Stored for Million {
        fn len(&self, _: Place, _: &[u64]) -> u64 {
            1_000_000
        }
        fn total(&self, _: Place, _: &[u64]) -> u64 {
            1_000_000
        }
        fn longest(&self, _: Place, _: &[u64]) -> u64 {
            1
        }
        fn number(&self, slot: u16, _: &[u64]) -> Option<i64> {
            (slot == 3).then_some(self.0)
        }
    }
    let modules = compiled();
    let zrange = modules.iter().flat_map(|m| &m.commands).find(|c| c.name == "ZRANGE").unwrap();
    let slots: Vec<_> = zrange.grammar.params.iter().map(|p| (p.name.as_str(), p.slot)).collect();
    assert_eq!(slots[..6], [("key", 0), ("start", 2), ("stop", 3), ("by", 4), ("REV", 5), ("page", 6)]);
    let bound = |stop: i64, by: u64, limit: Option<i64>| {
        let (tag, count) = limit.map_or((0, 0), |n| (1, n as u64));
        zrange.cost.ops.eval(&[0, 0, 0, 0, by, 0, tag, 0, count, 1], &Million(stop))
    };
    let whole = 1_000_000;
    assert!(bound(9, 0, None) < 2_000, "index range: {}", bound(9, 0, None));
    assert!(bound(-1, 0, None) > whole && bound(1_000_000, 0, None) > whole, "to the end");
    assert!(bound(9, 1, Some(10)) < 2_000, "LIMIT: {}", bound(9, 1, Some(10)));
    assert!(bound(9, 1, None) > whole, "scores without LIMIT: the index says nothing");
    assert!(bound(9, 1, Some(-1)) > whole, "LIMIT 0 -1 is none");
}
