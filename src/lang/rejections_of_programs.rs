//! Rejections of what programs declare: records, collections, local lists. As `rejections.rs`.

use super::rejections::refused;
use expect_test::expect;

#[test]
fn stored_bytes_without_a_maximum() {
    refused(
        r##"record R { a: bytes }"##,
        expect![[r#"
        error[C012]: stored bytes need a maximum
         --> test.look:1:15
          |
        1 | record R { a: bytes }
          |               ^^^^^ nothing says how large this can be
          |
          = help: `bytes<=64K`: what reads it has a provable bound then"#]],
    );
}

#[test]
fn a_record_used_before_it_is_declared() {
    refused(
        r##"collection c : map<int, R>"##,
        expect![[r#"
        error[C014]: this type cannot be stored yet
         --> test.look:1:25
          |
        1 | collection c : map<int, R>
          |                         ^
          |
          = help: int, float, bool, bytes<=N, enum{…}, tuples, records and `T?` of them can"#]],
    );
}

#[test]
fn a_range_inside_an_optional_field() {
    refused(
        r##"record R { a: int 0..=5? }"##,
        expect![[r#"
        error[C014]: a range inside `T?` cannot be stored yet
         --> test.look:1:15
          |
        1 | record R { a: int 0..=5? }
          |               ^^^^^^^^^
          |
          = help: leave out the range, or give absence a value of its own"#]],
    );
}

#[test]
fn a_constant_outside_of_a_parameters_range() {
    refused(
        r##"fn f(n: int 0..=5) -> int { n }
read command X() -> int { reply f(9) }"##,
        expect![[r#"
            error[C003]: 9 is not within 0..=5
             --> test.look:2:35
              |
            2 | read command X() -> int { reply f(9) }
              |                                   ^"#]],
    );
}

#[test]
fn a_limit_inside_an_optional_parameter() {
    refused(
        r##"fn f(n: bytes<=5?) -> int { 1 }
read command X(b: bytes) -> int { reply f(b) }"##,
        expect![[r#"
            error[C014]: a limit inside `T?` of a function is not checked
             --> test.look:1:9
              |
            1 | fn f(n: bytes<=5?) -> int { 1 }
              |         ^^^^^^^^^
              |
              = help: leave out the limit, or unwrap the value and give it to a parameter that is always there"#]],
    );
}

#[test]
fn an_argument_under_another_parameters_name() {
    refused(
        r##"fn f(a: int, b: int) -> int { a - b }
read command X() -> int { reply f(b: 1, a: 2) }"##,
        expect![[r#"
            error[C002]: the parameter in this place is not called `b`
             --> test.look:2:35
              |
            2 | read command X() -> int { reply f(b: 1, a: 2) }
              |                                   ^
              |
              = help: it is `a`; arguments keep the order of the parameters"#]],
    );
}

#[test]
fn a_helpers_parameter_under_a_wrong_name() {
    refused(
        r##"read command X(text: bytes) -> array<bytes> { reply array { for w in text.words(min: 3) limit 9 { emit w } } }"##,
        expect![[r#"
            error[C002]: the parameter in this place is not called `min`
             --> test.look:1:81
              |
            1 | read command X(text: bytes) -> array<bytes> { reply array { for w in text.words(min: 3) limit 9 { emit w } } }
              |                                                                                 ^^^
              |
              = help: it is `max`; arguments keep the order of the parameters"#]],
    );
}

#[test]
fn a_name_where_arguments_have_none() {
    refused(
        r##"read command X(a: int) -> int { reply max(a: a, b: 1) }"##,
        expect![[r#"
        error[C008]: these arguments have no names
         --> test.look:1:43
          |
        1 | read command X(a: int) -> int { reply max(a: a, b: 1) }
          |                                           ^^^^
          |
          = help: functions and helpers have named parameters; cases, lists and collections take values alone"#]],
    );
}

#[test]
fn the_words_of_a_text_without_a_limit() {
    refused(
        r##"read command X(text: bytes) -> array<bytes> { reply array { for w in text.words(9) { emit w } } }"##,
        expect![[r#"
            error[C012]: this loop has no provable bound
             --> test.look:1:70
              |
            1 | read command X(text: bytes) -> array<bytes> { reply array { for w in text.words(9) { emit w } } }
              |                                                                      ^^^^^^^^^^^^^ this may hold any number of entries
              |
              = help: add `limit <constant, bounded int argument or length>`, or use `repeat N … exhausted` with a cursor"#]],
    );
}

#[test]
fn a_collection_of_an_unknown_kind() {
    refused(
        r##"collection c : heap<int>"##,
        expect![[r#"
        error[C002]: there is no collection `heap`
         --> test.look:1:16
          |
        1 | collection c : heap<int>
          |                ^^^^
          |
          = help: map<K, V>, omap<K, V>, set<K>, oset<K>, seq<V>"#]],
    );
}

#[test]
fn a_map_without_a_value() {
    refused(
        r##"collection c : map<int>"##,
        expect![[r#"
        error[C003]: `map` takes 2 types
         --> test.look:1:16
          |
        1 | collection c : map<int>
          |                ^^^"#]],
    );
}

#[test]
fn a_key_without_an_order() {
    refused(
        r##"record R { a: int }
collection c : set<R>"##,
        expect![[r#"
            error[C014]: this type cannot be stored yet
             --> test.look:2:20
              |
            2 | collection c : set<R>
              |                    ^
              |
              = help: int, float, bool, bytes<=N, enum{…}, tuples, records and `T?` of them can"#]],
    );
}

#[test]
fn a_local_list_as_a_stored_type() {
    refused(
        r##"record R { a: list<int>[4] }"##,
        expect![[r#"
        error[C014]: this type cannot be stored yet
         --> test.look:1:15
          |
        1 | record R { a: list<int>[4] }
          |               ^^^^^^^^^^^^
          |
          = help: int, float, bool, bytes<=N, enum{…}, tuples, records and `T?` of them can"#]],
    );
}

#[test]
fn a_collection_loop_without_limit() {
    refused(
        r##"collection c : oset<(q: bytes<=8, id: int)>
command A(q: bytes<=8) { for (_, id) in c.range((q, MIN) ..= (q, MAX)) { emit id } }"##,
        expect![[r#"
            error[C012]: this loop has no provable bound
             --> test.look:2:26
              |
            2 | command A(q: bytes<=8) { for (_, id) in c.range((q, MIN) ..= (q, MAX)) { emit id } }
              |                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ `c` may hold any number of entries
              |
              = help: add `limit <constant, bounded int argument or length>`"#]],
    );
}

#[test]
fn a_range_of_a_collection_without_order() {
    refused(
        r##"collection c : map<int, int>
command A() { for k in c.range(1 ..= 5) limit 5 { emit k } }"##,
        expect![[r#"
            error[C014]: c cannot be looped over in this way
             --> test.look:2:15
              |
            2 | command A() { for k in c.range(1 ..= 5) limit 5 { emit k } }
              |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: `for key in x.range(a ..= b) limit n` of an omap or oset, `for value in x limit n` of a seq, `for (key, value) in x limit n` of a map, `for key in x limit n` of a set; the last two in no order"#]],
    );
}

#[test]
fn a_loop_over_a_map_that_does_not_say_what_to_call_the_value() {
    refused(
        r##"collection c : map<int, int>
command A() { for k in c limit 5 { emit k } }"##,
        expect![[r#"
            error[C005]: a map gives pairs of key and value
             --> test.look:2:19
              |
            2 | command A() { for k in c limit 5 { emit k } }
              |                   ^
              |
              = help: `for (key, value) in x limit n`; `_` for what is not wanted"#]],
    );
}

#[test]
fn a_loop_over_a_set_without_limit() {
    refused(
        r##"collection c : set<int>
command A() { for k in c { emit k } }"##,
        expect![[r#"
            error[C012]: this loop has no provable bound
             --> test.look:2:15
              |
            2 | command A() { for k in c { emit k } }
              |               ^^^^^^^^^^^^^^^^^^^^^ `c` may hold any number of entries
              |
              = help: add `limit <constant, bounded int argument or length>`"#]],
    );
}

#[test]
fn a_map_that_is_written_while_it_is_looped_over() {
    refused(
        r##"collection c : map<int, int>
command A() { for (k, v) in c limit 5 { c.put(k, v + 1) } }"##,
        expect![[r#"
            error[C009]: this iterator is used after a write that may have moved what it points to
             --> test.look:2:15
              |
            2 | command A() { for (k, v) in c limit 5 { c.put(k, v + 1) } }
              |               ^^^^^^^^^^^^^^^^^^^^^^^^^^---------------^^
              |               |                         |
              |               |                         this write ends it
              |               used here, again in the next turn of the loop
              |               the iterator was taken here
              |
              = help: use it before the write, or look it up again after it"#]],
    );
}

#[test]
fn a_collection_that_is_written_while_it_is_looped_over() {
    refused(
        r##"collection c : oset<int>
command A() { for k in c.range(..) limit 5 { c.remove(k) } }"##,
        expect![[r#"
            error[C009]: this iterator is used after a write that may have moved what it points to
             --> test.look:2:15
              |
            2 | command A() { for k in c.range(..) limit 5 { c.remove(k) } }
              |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^-----------^^
              |               |                              |
              |               |                              this write ends it
              |               used here, again in the next turn of the loop
              |               the iterator was taken here
              |
              = help: use it before the write, or look it up again after it"#]],
    );
}

#[test]
fn a_method_that_a_collection_does_not_have() {
    refused(
        r##"collection c : set<int>
command A() { c.put(1, 2) }"##,
        expect![[r#"
            error[C004]: c, a set, has no such `put`
             --> test.look:2:15
              |
            2 | command A() { c.put(1, 2) }
              |               ^^^^^^^^^^^
              |
              = help: there is: len, insert(key), has(key), remove(key); `for key in it limit n`"#]],
    );
}

#[test]
fn a_field_that_a_record_does_not_have() {
    refused(
        r##"record R { a: int }
collection c : map<int, R>
command A() { let r = c.slot(1).must
 r.b = 2 }"##,
        expect![[r#"
            error[C014]: this type cannot be stored yet
             --> test.look:2:25
              |
            2 | collection c : map<int, R>
              |                         ^
              |
              = help: int, float, bool, bytes<=N, enum{…}, tuples, records and `T?` of them can"#]],
    );
}

#[test]
fn a_field_of_a_row_that_may_not_be_there() {
    refused(
        r##"record R { a: int }
collection c : map<int, R>
command A() { reply c.slot(1).a }"##,
        expect![[r#"
            error[C014]: this type cannot be stored yet
             --> test.look:2:25
              |
            2 | collection c : map<int, R>
              |                         ^
              |
              = help: int, float, bool, bytes<=N, enum{…}, tuples, records and `T?` of them can"#]],
    );
}

#[test]
fn a_record_with_a_field_left_out() {
    refused(
        r##"record R { a: int, b: int }
collection c : map<int, R>
command A() { c.put(1, R { a: 1 }) }"##,
        expect![[r#"
            error[C014]: this type cannot be stored yet
             --> test.look:2:25
              |
            2 | collection c : map<int, R>
              |                         ^
              |
              = help: int, float, bool, bytes<=N, enum{…}, tuples, records and `T?` of them can"#]],
    );
}

#[test]
fn a_range_of_keys_as_a_value() {
    refused(
        r##"command A() { reply "x".slice(1 .. 2) }"##,
        expect![[r#"
        error[C008]: a range of keys is no value
         --> test.look:1:31
          |
        1 | command A() { reply "x".slice(1 .. 2) }
          |                               ^^^^^^
          |
          = help: `for key in x.range(a ..= b) limit n { … }`"#]],
    );
}

#[test]
fn a_list_with_a_first_value() {
    refused(
        r##"command A() { var x: list<int>[4] = 1 }"##,
        expect![[r#"
        error[C003]: a list begins empty
         --> test.look:1:19
          |
        1 | command A() { var x: list<int>[4] = 1 }
          |                   ^
          |
          = help: `var x: list<int>[16]`"#]],
    );
}

#[test]
fn a_read_command_that_writes_a_collection() {
    refused(
        r##"collection c : map<int, int>
read command A() { c.put(1, 1)
 reply 1 }"##,
        expect![[r#"
            error[C010]: a `read command` does not write
             --> test.look:2:14
              |
            2 | read command A() { c.put(1, 1)
              |              ^ its body changes state
              |
              = help: drop `read`, or the write"#]],
    );
}

#[test]
fn a_declared_cost_below_a_collections_depth() {
    refused(
        r##"collection c : map<int, int>
read command A() cost 500 ops, 13 locs { reply c.get(1) else 0 }"##,
        expect![[r#"
            error[C013]: the declared locs are less than the body may take
             --> test.look:2:32
              |
            2 | read command A() cost 500 ops, 13 locs { reply c.get(1) else 0 }
              |                                ^^ depth(c): declared 0, needs 1
              |
              = help: cost 101 ops, 13 + depth(c) locs"#]],
    );
}
