//! Any bytes become a program that verifies; interpreter and machine code must leave the same trail.
#![no_main]

use libfuzzer_sys::fuzz_target;
use look::lang::interp::{self, Prepared};
use look::lang::jit::CodeBuffer;
use look::lang::random::{Bench, SHAPES, program};
use look::lang::verify::check;

fuzz_target!(|bytes: &[u8]| {
    let (seed, bytes) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first as u64, rest));
    let program = check(program(bytes), &SHAPES).expect("made to verify");
    let prepared = Prepared::new(&program);
    let buffer = CodeBuffer::compile(std::slice::from_ref(&program)).expect("executable memory");
    // SAFETY: a Bench's head satisfies programs verified against SHAPES.
    let interpreted = Bench::new(seed).trail(|head| unsafe { interp::run(&prepared, head) });
    // SAFETY: as above.
    let compiled = Bench::new(seed).trail(|head| unsafe { buffer.run(0, head) });
    assert_eq!(compiled, interpreted);
});
