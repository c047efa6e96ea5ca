//! What a server says of the registers of `history::models`.

use super::Reply;
use history::models::{RegisterOp as Op, RegisterReply};

/// A reply as the model names it. None: a refusal.
pub fn modelled(op: &Op, reply: &Reply) -> Option<RegisterReply> {
    Some(match (op, reply) {
        (_, Reply::Simple(text)) if text == b"OK" => RegisterReply::Ok,
        (_, Reply::Int(n)) => RegisterReply::Int(*n),
        (_, Reply::Bulk(text)) => RegisterReply::Text(String::from_utf8_lossy(text).into()),
        (_, Reply::NilBulk) => RegisterReply::Nil,
        (Op::Incr(_), Reply::Error(text)) if text.starts_with(b"ERR value is not an integer") => RegisterReply::Error,
        _ => return None,
    })
}
