//! The commands that come with the server, through the whole front end.

use super::check::render_all;
use super::helpers::table;
use super::module::{Module, compile_module};

fn shipped() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/commands/redis");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "look") && !f.ends_with("prelude.look"));
    files.sort();
    files.iter().map(|f| (f.display().to_string(), std::fs::read_to_string(f).unwrap())).collect()
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
    use super::verify::{HelperShape, verify};
    let shape = |h: &super::table::Helper| HelperShape {
        args: h.params.iter().map(|p| p.1.width()).sum::<usize>() as u8,
        results: h.result.width().max(1) as u8,
    };
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
    let source =
        "command T(k: key, n: int ?, flag F, opt e: A(int) | B | C(bytes, key), rest p: (key, float) [1..]) { reply nil }";
    let module = compile_module(source, "t", table()).unwrap_or_else(|e| panic!("{e:?}"));
    let g = &module.commands[0].grammar;
    let layout: Vec<_> = g.params.iter().map(|p| (p.name.as_str(), p.slot, p.words)).collect();
    assert_eq!(layout, [("k", 0, 2), ("n", 2, 2), ("F", 4, 1), ("e", 5, 4), ("p", 9, 1)]);
    assert_eq!((g.fixed_words, g.arity), (10, -4));
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
