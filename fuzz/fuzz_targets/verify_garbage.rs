//! Bytes from a log or a peer, raw or a damaged program: decoding and verifying never panic, whatever decodes is canonical, and whatever
//! verifies runs alike on both engines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use look::lang::encode::{decode, encode};
use look::lang::interp::{self, Prepared};
use look::lang::jit::CodeBuffer;
use look::lang::random::{self, Bench, SHAPES};
use look::lang::verify::check;

/// The first byte says whether the rest is taken as it is, or made a program whose bytes are then damaged.
fn spoiled(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [kind, a, b, to, second, rest @ ..] if kind & 1 == 1 => {
            let mut bytes = encode(&random::program(rest));
            let at = u16::from_le_bytes([*a, *b]) as usize % bytes.len();
            bytes[at] = *to;
            if kind & 2 == 2 {
                let next = (at + 1) % bytes.len();
                bytes[next] = *second;
            }
            bytes
        }
        [_, rest @ ..] => rest.to_vec(),
        [] => Vec::new(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let bytes = spoiled(bytes);
    let Ok(program) = decode(&bytes) else { return };
    assert_eq!(encode(&program), bytes);
    let Ok(program) = check(program, &SHAPES) else { return };
    if program.arg_slots > 6 {
        return;
    }
    let prepared = Prepared::new(&program);
    let buffer = CodeBuffer::compile(std::slice::from_ref(&program)).expect("executable memory");
    // SAFETY: a Bench's head has at least six argument words and the helpers of SHAPES.
    let interpreted = Bench::new(1).trail(|head| unsafe { interp::run(&prepared, head) });
    // SAFETY: as above.
    let compiled = Bench::new(1).trail(|head| unsafe { buffer.run(0, head) });
    assert_eq!(compiled, interpreted);
});
