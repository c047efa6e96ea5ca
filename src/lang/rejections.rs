//! Every rejection, drawn as the command line draws it. `UPDATE_EXPECT=1 cargo test` rewrites the drawings.

use super::check::render_all;
use super::helpers::table;
use super::module::compile_module;
use expect_test::{Expect, expect};

pub(super) fn refused(source: &str, wanted: Expect) {
    let errors = match compile_module(source, "test", table()) {
        Ok(_) => panic!("this is accepted:\n{source}"),
        Err(errors) => errors,
    };
    wanted.assert_eq(render_all(&errors, "test.look", source, table()).trim_end());
}

#[test]
fn an_unknown_character() {
    refused(
        r##"command A() { $ }"##,
        expect![[r#"
            error[C001]: this character has no meaning here
             --> test.look:1:15
              |
            1 | command A() { $ }
              |               ^"#]],
    );
}

#[test]
fn a_string_without_end() {
    refused(
        r##"command A() { reply "abc }
"##,
        expect![[r#"
            error[C001]: this string has no end
             --> test.look:1:21
              |
            1 | command A() { reply "abc }
              |                     ^^^^^^"#]],
    );
}

#[test]
fn an_integer_too_large() {
    refused(
        r##"command A() { reply 99999999999999999999 }"##,
        expect![[r#"
            error[C001]: this integer does not fit 64 bits
             --> test.look:1:21
              |
            1 | command A() { reply 99999999999999999999 }
              |                     ^^^^^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn an_unknown_escape() {
    refused(
        r##"command A() { reply "\q" }"##,
        expect![[r#"
            error[C001]: unknown escape
             --> test.look:1:22
              |
            1 | command A() { reply "\q" }
              |                      ^^
              |
              = help: known: \n \r \t \0 \xNN \" \' \\"#]],
    );
}

#[test]
fn a_missing_bracket() {
    refused(
        r##"command A(key: key { reply nil }"##,
        expect![[r#"
            error[C001]: expected `)`, found `{`
             --> test.look:1:20
              |
            1 | command A(key: key { reply nil }
              |                    ^"#]],
    );
}

#[test]
fn an_unknown_item() {
    refused(
        r##"func a() { }"##,
        expect![[r#"
            error[C001]: expected an item (command, fn, const, errors, record, collection), found `func`
             --> test.look:1:1
              |
            1 | func a() { }
              | ^^^^"#]],
    );
}

#[test]
fn an_unknown_clause() {
    refused(
        r##"command A() colour red { reply nil }"##,
        expect![[r#"
            error[C001]: unknown clause `colour`
             --> test.look:1:13
              |
            1 | command A() colour red { reply nil }
              |             ^^^^^^
              |
              = help: clauses: group, since, complexity, flags, cost, blocks on … until …"#]],
    );
}

#[test]
fn an_exclusive_range_in_a_type() {
    refused(
        r##"command A(n: int 0..5) { reply n }"##,
        expect![[r#"
            error[C001]: expected `..=` before the largest value of a range, found a number
             --> test.look:1:21
              |
            1 | command A(n: int 0..5) { reply n }
              |                     ^"#]],
    );
}

#[test]
fn nesting_without_end() {
    refused(
        r##"command A() { reply ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((1)))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))) }"##,
        expect![[r#"
            error[C011]: nested too deeply
             --> test.look:1:53
              |
            1 | command A() { reply ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))))))))))...
              |                                                     ^"#]],
    );
}

#[test]
fn an_endless_chain() {
    refused(
        r##"command A() { reply 1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1 }"##,
        expect![[r#"
            error[C011]: this expression is too long
             --> test.look:1:278
              |
            1 | ...+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1...
              |                                                                    ^
              |
              = help: name parts of it with `let`"#]],
    );
}

#[test]
fn an_unknown_name() {
    refused(
        r##"read command A(key: key) { reply nosuch }"##,
        expect![[r#"
            error[C002]: nothing here is called `nosuch`
             --> test.look:1:34
              |
            1 | read command A(key: key) { reply nosuch }
              |                                  ^^^^^^"#]],
    );
}

#[test]
fn an_unknown_type() {
    refused(
        r##"fn f(x: Thing) -> int { 1 }
command A() { reply f(1) }"##,
        expect![[r#"
            error[C002]: there is no type `Thing`
             --> test.look:1:9
              |
            1 | fn f(x: Thing) -> int { 1 }
              |         ^^^^^"#]],
    );
}

#[test]
fn an_unknown_helper() {
    refused(
        r##"read command A(key: key) { reply db.slot(key).colour }"##,
        expect![[r#"
            error[C004]: Slot has no `colour`
             --> test.look:1:34
              |
            1 | read command A(key: key) { reply db.slot(key).colour }
              |                                  ^^^^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn a_helper_with_other_types() {
    refused(
        r##"read command A(key: key) { reply key.at("x") }"##,
        expect![[r#"
            error[C004]: no helper `bytes.at` takes (key, bytes)
             --> test.look:1:34
              |
            1 | read command A(key: key) { reply key.at("x") }
              |                                  ^^^^^^^^^^^
              |
              = help: there is: bytes.at(i: int) -> int"#]],
    );
}

#[test]
fn a_method_on_an_optional() {
    refused(
        r##"read command A(key: key) { reply db.slot(key).str.len }"##,
        expect![[r#"
            error[C004]: bytes? has no `len`
             --> test.look:1:34
              |
            1 | read command A(key: key) { reply db.slot(key).str.len }
              |                                  ^^^^^^^^^^^^^^^^^^^^
              |
              = help: this may be none: unwrap it first (`e else …`, `match`) to get bytes"#]],
    );
}

#[test]
fn operands_of_two_types() {
    refused(
        r##"read command A(n: int, x: float) { reply n + x }"##,
        expect![[r#"
            error[C003]: this operator does not take int and float
             --> test.look:1:42
              |
            1 | read command A(n: int, x: float) { reply n + x }
              |                                          ^^^^^
              |
              = help: there are no implicit conversions: `float(i)` makes a float of an int; `x is CASE` tests a case"#]],
    );
}

#[test]
fn a_condition_that_is_no_bool() {
    refused(
        r##"read command A(n: int) { if n { reply 1 } }"##,
        expect![[r#"
            error[C003]: expected bool, found int
             --> test.look:1:29
              |
            1 | read command A(n: int) { if n { reply 1 } }
              |                             ^"#]],
    );
}

#[test]
fn branches_of_two_types() {
    refused(
        r##"read command A(n: int) { let x = n > 0 ? 1 : "no"
 reply x }"##,
        expect![[r#"
            error[C003]: expected int, found bytes
             --> test.look:1:46
              |
            1 | read command A(n: int) { let x = n > 0 ? 1 : "no"
              |                                              ^^^^"#]],
    );
}

#[test]
fn an_unknown_case() {
    refused(
        r##"command A(opt c: NX | XX) { if c is YY { reply 1 } }"##,
        expect![[r#"
            error[C005]: there is no case `YY` here
             --> test.look:1:37
              |
            1 | command A(opt c: NX | XX) { if c is YY { reply 1 } }
              |                                     ^^
              |
              = help: cases: NX, XX, none"#]],
    );
}

#[test]
fn a_case_left_out() {
    refused(
        r##"read command A(key: key) { match db.slot(key).value { none => reply nil, str(s) => reply s } }"##,
        expect![[r#"
            error[C005]: this match leaves out: int, list, set, hash, zset, stream
             --> test.look:1:28
              |
            1 | read command A(key: key) { match db.slot(key).value { none => reply nil, str(s) => reply s } }
              |                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: add the cases, or `_ => …`"#]],
    );
}

#[test]
fn an_int_match_without_default() {
    refused(
        r##"read command A(n: int) { match n { 1 => reply 1, 2 => reply 2 } }"##,
        expect![[r#"
            error[C005]: this match leaves values out
             --> test.look:1:26
              |
            1 | read command A(n: int) { match n { 1 => reply 1, 2 => reply 2 } }
              |                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: add `_ => …`"#]],
    );
}

#[test]
fn a_pattern_with_too_many_names() {
    refused(
        r##"read command A(rest p: (bytes, int) [1..]) { for (a, b, c) in p { reply a } }"##,
        expect![[r#"
            error[C005]: 3 names for (bytes, int)
             --> test.look:1:50
              |
            1 | read command A(rest p: (bytes, int) [1..]) { for (a, b, c) in p { reply a } }
              |                                                  ^^^^^^^^^"#]],
    );
}

#[test]
fn a_let_that_may_not_match() {
    refused(
        r##"command A(n: int ?) { let some(x) = n
 reply x }"##,
        expect![[r#"
            error[C005]: this pattern may not match
             --> test.look:1:27
              |
            1 | command A(n: int ?) { let some(x) = n
              |                           ^^^^^^^
              |
              = help: use `match`, or `let … = e else { … }`"#]],
    );
}

#[test]
fn a_parameter_twice() {
    refused(
        r##"command A(a: int, a: int) { reply a }"##,
        expect![[r#"
            error[C006]: the parameter `a` is there already
             --> test.look:1:19
              |
            1 | command A(a: int, a: int) { reply a }
              |                   ^"#]],
    );
}

#[test]
fn a_word_twice() {
    refused(
        r##"command A(opt c: NX | NX) { reply nil }"##,
        expect![[r#"
            error[C006]: the word `NX` is there already
             --> test.look:1:23
              |
            1 | command A(opt c: NX | NX) { reply nil }
              |                       ^^"#]],
    );
}

#[test]
fn a_command_twice() {
    refused(
        r##"command A() { reply nil }
command A() { reply nil }"##,
        expect![[r#"
            error[C006]: this command is there already
             --> test.look:2:9
              |
            2 | command A() { reply nil }
              |         ^"#]],
    );
}

#[test]
fn a_function_twice() {
    refused(
        r##"fn f() -> int { 1 }
fn f() -> int { 2 }
command A() { reply f() }"##,
        expect![[r#"
            error[C006]: `f` is declared twice
             --> test.look:2:4
              |
            1 | fn f() -> int { 1 }
              |    - first here
            2 | fn f() -> int { 2 }
              |    ^"#]],
    );
}

#[test]
fn two_rests() {
    refused(
        r##"command A(rest a: int [1..], rest b: int [1..]) { reply nil }"##,
        expect![[r#"
            error[C006]: a command has at most one `rest`
             --> test.look:1:30
              |
            1 | command A(rest a: int [1..], rest b: int [1..]) { reply nil }
              |                              ^^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn an_assignment_to_let() {
    refused(
        r##"command A() { let x = 1
 x = 2
 reply x }"##,
        expect![[r#"
            error[C007]: `x` cannot be changed
             --> test.look:2:2
              |
            2 |  x = 2
              |  ^
              |
              = help: declare it with `var`"#]],
    );
}

#[test]
fn an_assignment_to_nothing() {
    refused(
        r##"command A() { x = 2 }"##,
        expect![[r#"
            error[C002]: there is no variable `x`
             --> test.look:1:15
              |
            1 | command A() { x = 2 }
              |               ^"#]],
    );
}

#[test]
fn a_variable_without_type() {
    refused(
        r##"command A() { var x = none
 reply nil }"##,
        expect![[r#"
            error[C003]: a variable cannot begin as none
             --> test.look:1:23
              |
            1 | command A() { var x = none
              |                       ^^^^
              |
              = help: say its type: `var x: int? = none`"#]],
    );
}

#[test]
fn recursion() {
    refused(
        r##"fn f(n: int) -> int { f(n) }
command A(n: int) { reply f(n) }"##,
        expect![[r#"
            error[C008]: `f` calls itself
             --> test.look:1:23
              |
            1 | fn f(n: int) -> int { f(n) }
              |                       ^^^^
              |
              = help: functions are inlined; there is no recursion: use a bounded loop"#]],
    );
}

#[test]
fn return_inside_a_function() {
    refused(
        r##"fn f(n: int) -> int { repeat 3 { return 1 }
 n }
command A(n: int) { reply f(n) }"##,
        expect![[r#"
            error[C008]: a function returns only at the end of a branch
             --> test.look:1:34
              |
            1 | fn f(n: int) -> int { repeat 3 { return 1 }
              |                                  ^^^^^^^^
              |
              = help: give the value as the last expression, or put the rest into `else`"#]],
    );
}

#[test]
fn break_outside_a_loop() {
    refused(
        r##"command A() { break }"##,
        expect![[r#"
            error[C008]: `break` outside a loop
             --> test.look:1:15
              |
            1 | command A() { break }
              |               ^^^^^"#]],
    );
}

#[test]
fn code_after_return() {
    refused(
        r##"command A() { return
 reply nil }"##,
        expect![[r#"
            error[C008]: this is never reached
             --> test.look:2:2
              |
            2 |  reply nil }
              |  ^^^^^^^^^"#]],
    );
}

#[test]
fn an_error_text_that_is_none() {
    refused(
        r##"command A() { fail nosuch }"##,
        expect![[r#"
            error[C002]: an error text is a string or a name from `errors`
             --> test.look:1:20
              |
            1 | command A() { fail nosuch }
              |                    ^^^^^^"#]],
    );
}

#[test]
fn a_view_used_after_a_write() {
    refused(
        r##"command A(key: key) {
  let slot = db.slot(key)
  let old = slot.str
  slot.put(int(1), none)
  reply old
}"##,
        expect![[r#"
            error[C009]: this view is used after a write that may have moved what it points to
             --> test.look:5:9
              |
            3 |   let old = slot.str
              |             -------- the view was taken here
            4 |   slot.put(int(1), none)
              |   ---------------------- this write ends it
            5 |   reply old
              |         ^^^ used here
              |
              = help: use it before the write, or look it up again after it"#]],
    );
}

#[test]
fn a_view_used_in_the_next_turn_of_a_loop() {
    refused(
        r##"command A(key: key, rest keys: key [1..]) {
  let old = db.slot(key).str
  for k in keys {
    reply old
    db.slot(k).put(int(1), none)
  }
}"##,
        expect![[r#"
            error[C009]: this view is used after a write that may have moved what it points to
             --> test.look:4:11
              |
            2 |   let old = db.slot(key).str
              |             ---------------- the view was taken here
            3 |   for k in keys {
            4 |     reply old
              |           ^^^ used here, again in the next turn of the loop
            5 |     db.slot(k).put(int(1), none)
              |     ---------------------------- this write ends it
              |
              = help: use it before the write, or look it up again after it"#]],
    );
}

#[test]
fn an_iterator_over_what_is_written() {
    refused(
        r##"command A(key: key) {
  let s = db.slot(key).open_set()
  for m in s.iter limit 10 { s.remove(m) }
  reply nil
}"##,
        expect![[r#"
            error[C009]: this iterator is used after a write that may have moved what it points to
             --> test.look:3:12
              |
            3 |   for m in s.iter limit 10 { s.remove(m) }
              |            ^^^^^^            ----------- this write ends it
              |            |
              |            used here, again in the next turn of the loop
              |            the iterator was taken here
              |
              = help: use it before the write, or look it up again after it"#]],
    );
}

#[test]
fn a_read_command_that_writes() {
    refused(
        r##"read command A(key: key) { db.slot(key).put(int(1), none)
 reply ok }"##,
        expect![[r#"
            error[C010]: a `read command` does not write
             --> test.look:1:14
              |
            1 | read command A(key: key) { db.slot(key).put(int(1), none)
              |              ^ its body changes state
              |
              = help: drop `read`, or the write"#]],
    );
}

#[test]
fn nesting_beyond_the_machine() {
    refused(
        r##"command A(n: int) {
if n > 0 { if n > 1 { if n > 2 { if n > 3 { if n > 4 { if n > 5 { if n > 6 { if n > 7 { if n > 8 { reply n } } } } } } } } }
}"##,
        expect![[r#"
            error[C011]: nested more than 8 deep
             --> test.look:2:89
              |
            2 | if n > 0 { if n > 1 { if n > 2 { if n > 3 { if n > 4 { if n > 5 { if n > 6 { if n > 7 { if n > 8 { reply n } } } } } } } } }
              |                                                                                         ^^^^^^^^^^^^^^^^^^^^
              |
              = help: a long `else if` chain nests; a `match` does not"#]],
    );
}

#[test]
fn a_loop_over_a_collection_without_limit() {
    refused(
        r##"read command A(key: key) { let s = db.slot(key).set else { reply nil; return }
 for m in s.iter { reply m } }"##,
        expect![[r#"
            error[C012]: this loop has no provable bound
             --> test.look:2:11
              |
            2 |  for m in s.iter { reply m } }
              |           ^^^^^^ this may hold any number of entries
              |
              = help: add `limit <constant, bounded int argument or length>`, or use `repeat N … exhausted` with a cursor"#]],
    );
}

#[test]
fn a_limit_without_bound() {
    refused(
        r##"read command A(key: key) { var n = 3
 n += 1
 repeat n { } reply n }"##,
        expect![[r#"
            error[C012]: this loop has no provable bound
             --> test.look:3:9
              |
            3 |  repeat n { } reply n }
              |         ^ nothing says how large this can be
              |
              = help: bound it by a constant, an integer argument, a count or a length: `min(x, 100)`"#]],
    );
}

#[test]
fn a_cost_that_is_too_low() {
    refused(
        r##"read command A(rest keys: key [1..]) cost 10 + n(keys) ops, 5 locs { for k in keys { emit db.slot(k).str } }"##,
        expect![[r#"
            error[C013]: the declared ops are less than the body may take
             --> test.look:1:43
              |
            1 | read command A(rest keys: key [1..]) cost 10 + n(keys) ops, 5 locs { for k in keys { emit db.slot(k).str } }
              |                                           ^^^^^^^^^^^^ n(keys): declared 1, needs 41; blocks(keys): declared 0, needs 1; len(keys): declared 0, needs 1
              |
              = help: cost 2 + 41*n(keys) + blocks(keys) + len(keys) ops, n(keys) + n(keys)*depth(db) locs"#]],
    );
}

#[test]
fn a_cost_that_names_nothing() {
    refused(
        r##"read command A(key: key) cost 10 + n(other) ops, 5 locs { reply nil }"##,
        expect![[r#"
            error[C002]: a cost cannot name `other`
             --> test.look:1:31
              |
            1 | read command A(key: key) cost 10 + n(other) ops, 5 locs { reply nil }
              |                               ^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn a_wait_without_a_key_to_wait_for() {
    refused(
        r##"command A(k: key) { wait }"##,
        expect![[r#"
            error[C008]: `wait` in a command that does not say what it waits for
             --> test.look:1:21
              |
            1 | command A(k: key) { wait }
              |                     ^^^^
              |
              = help: declare it in the header: `blocks on key until timeout`"#]],
    );
}

#[test]
fn a_blocking_command_that_never_waits() {
    refused(
        r##"command A(k: key, t: float) blocks on k until t { reply nil }"##,
        expect![[r#"
            error[C008]: this command blocks, but nothing in its body waits
             --> test.look:1:39
              |
            1 | command A(k: key, t: float) blocks on k until t { reply nil }
              |                                       ^
              |
              = help: `wait` ends the call until the key is written; or drop the clause"#]],
    );
}

#[test]
fn a_command_that_blocks_on_something_that_is_no_key() {
    refused(
        r##"command A(k: bytes, t: float) blocks on k until t { wait }"##,
        expect![[r#"
            error[C003]: `k` is not a key or a list of keys
             --> test.look:1:41
              |
            1 | command A(k: bytes, t: float) blocks on k until t { wait }
              |                                         ^"#]],
    );
}

#[test]
fn a_blocking_command_without_its_end() {
    refused(
        r##"command A(k: key) blocks on k { wait }"##,
        expect![[r#"
            error[C001]: expected `until` and the parameter that says for how long, found `{`
             --> test.look:1:31
              |
            1 | command A(k: key) blocks on k { wait }
              |                               ^"#]],
    );
}

#[test]
fn an_error_of_no_command() {
    refused(
        r##"errors overflow = "ERR x""##,
        expect![[r#"
            error[C008]: `errors` of a command stand after the command
             --> test.look:1:8
              |
            1 | errors overflow = "ERR x"
              |        ^^^^^^^^
              |
              = help: texts for `fail` have names in upper case"#]],
    );
}

#[test]
fn an_unknown_trap() {
    refused(
        r##"command A() { reply nil }
errors hunger = "ERR x""##,
        expect![[r#"
            error[C002]: a command has no error `hunger`
             --> test.look:2:8
              |
            2 | errors hunger = "ERR x"
              |        ^^^^^^
              |
              = help: overflow, div_zero, nan, broken_index; of the argument parser: syntax, arity, not_int, not_float, range"#]],
    );
}

#[test]
fn a_bool_argument() {
    refused(
        r##"command A(b: bool) { reply nil }"##,
        expect![[r#"
            error[C003]: an argument cannot have this type
             --> test.look:1:14
              |
            1 | command A(b: bool) { reply nil }
              |              ^^^^
              |
              = help: arguments are key, bytes, int, float, words (A | B), tuples and `T?` of them; a bool is a `flag`"#]],
    );
}

#[test]
fn a_variable_that_carries_a_dead_view_into_the_next_turn() {
    refused(
        r##"command A(first: bytes, rest keys: key [1..]) {
  var last = first
  for k in keys {
    reply last
    let slot = db.slot(k)
    last = slot.str else ""
    slot.put(int(1), none)
  }
}"##,
        expect![[r#"
            error[C009]: this view is used after a write that may have moved what it points to
             --> test.look:6:12
              |
            6 |     last = slot.str else ""
              |            ^^^^^^^^
              |            |
              |            kept in a variable for the next turn of the loop
              |            the view was taken here
            7 |     slot.put(int(1), none)
              |     ---------------------- this write ends it
              |
              = help: use it before the write, or look it up again after it"#]],
    );
}

/// Found by the fuzz target `look_source`: the span of an escape ended inside a character, and drawing it panicked.
#[test]
fn a_mistake_that_ends_inside_a_character_is_drawn() {
    refused(
        "command A() { reply \"\\é\" }",
        expect![[r#"
        error[C001]: unknown escape
         --> test.look:1:22
          |
        1 | command A() { reply "\é" }
          |                      ^^
          |
          = help: known: \n \r \t \0 \xNN \" \' \\"#]],
    );
}

#[test]
fn a_variable_that_doubles_itself() {
    refused(
        r##"command A(a: bytes) -> int { var x = a; repeat 20 { x = x.concat(x) }; reply x.len }"##,
        expect![[r#"
            error[C012]: a variable cannot hold joined bytes
             --> test.look:1:57
              |
            1 | command A(a: bytes) -> int { var x = a; repeat 20 { x = x.concat(x) }; reply x.len }
              |                                                         ^^^^^^^^^^^ nothing says how long it may be
              |
              = help: keep them in a `let`, or reply or store them here"#]],
    );
}

#[test]
fn a_value_that_doubles_itself_through_the_store() {
    refused(
        r##"command A(k: key) { repeat 20 { let x = db.slot(k).str else ""; db.slot(k).put(str(x.concat(x)), none) }; reply ok }"##,
        expect![[r#"
            error[C012]: joined bytes are stored in a loop
             --> test.look:1:65
              |
            1 | command A(k: key) { repeat 20 { let x = db.slot(k).str else ""; db.slot(k).put(str(x.concat(x)), none) }; reply ok }
              |                                                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ nothing says how long it may be
              |
              = help: store them once, after the loop"#]],
    );
}

#[test]
fn joined_bytes_read_again_after_they_were_stored() {
    refused(
        r##"command A(k: key, a: bytes) { db.slot(k).put(str(a.concat(a)), none); reply db.slot(k).str else "" }"##,
        expect![[r#"
            error[C012]: this is read after joined bytes were stored
             --> test.look:1:77
              |
            1 | command A(k: key, a: bytes) { db.slot(k).put(str(a.concat(a)), none); reply db.slot(k).str else "" }
              |                                                                             ^^^^^^^^^^^^^^ nothing says how long it may be
              |
              = help: read it before"#]],
    );
}
