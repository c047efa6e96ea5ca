//! Engines only; the front end and the helpers have no machine code of their own.

#[path = "../../../src/lang/encode.rs"]
pub mod encode;
#[path = "../../../src/lang/engine.rs"]
pub mod engine;
#[path = "../../../src/lang/flow.rs"]
pub mod flow;
#[path = "../../../src/lang/interp.rs"]
pub mod interp;
#[path = "../../../src/lang/ir.rs"]
pub mod ir;
#[path = "../../../src/lang/jit/mod.rs"]
pub mod jit;
#[path = "../../../src/lang/machine.rs"]
pub mod machine;
#[path = "../../../src/lang/random.rs"]
pub mod random;
#[path = "../../../src/lang/verify.rs"]
pub mod verify;
