//! # resp: the Redis protocol as bytes in, bytes out
//!
//! Owns the request decoder ([`decode`]), the reply encoder ([`reply`]) and the decimal forms of numbers that
//! replies are made of ([`number`]). Promises: never I/O, never an allocation by an announced length, no CR or
//! LF inside a line reply whatever text it is given. Knows only `base`.

pub mod decode;
pub mod number;
pub mod reply;

pub use decode::{Arg, Decoder, Limits, ProtocolError, Request};
pub use reply::{Mark, ReplyBuf, Version};
