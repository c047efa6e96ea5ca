//! How commands access their keys, as `COMMAND INFO` and `COMMAND GETKEYSANDFLAGS` tell it: one entry per key parameter.
//! Source: the key specifications of Redis 7.2's command table. A command that is not named here reads all of them, or reads and updates.

/// `RO`, `RW`, `OW` (overwrites without reading), `RM` (removes), and what for.
pub type Access = &'static [&'static str];

const READ: Access = &["RO", "access"];
/// Looks at nothing but whether it is there, its type or its length.
const LOOK: Access = &["RO"];
const INSERT: Access = &["RW", "insert"];
const UPDATE: Access = &["RW", "update"];
const ACCESS_UPDATE: Access = &["RW", "access", "update"];
const ACCESS_DELETE: Access = &["RW", "access", "delete"];
const DELETE: Access = &["RW", "delete"];
const REMOVE: Access = &["RM", "delete"];
const OVERWRITE: Access = &["OW", "update"];
const CREATE: Access = &["OW", "insert"];

/// Access to the key parameter number `spec` of a command.
pub fn of(name: &str, write: bool, spec: usize) -> Access {
    match name {
        "exists" | "type" | "strlen" | "llen" | "scard" | "hlen" | "touch" | "sismember" => LOOK,
        name if name.starts_with("object|") => LOOK,
        "append" | "lpush" | "rpush" | "sadd" => INSERT,
        "setrange" | "expire" | "expireat" | "pexpire" | "pexpireat" | "persist" | "hset" | "zadd" => UPDATE,
        "getdel" | "lpop" | "rpop" | "spop" | "zpopmin" | "move" => ACCESS_DELETE,
        "srem" | "hdel" | "zrem" => DELETE,
        "del" | "unlink" => REMOVE,
        "mset" | "setex" | "psetex" | "restore" => OVERWRITE,
        "msetnx" | "setnx" => CREATE,
        "rename" => [ACCESS_DELETE, OVERWRITE][spec.min(1)],
        "renamenx" => [ACCESS_DELETE, CREATE][spec.min(1)],
        "copy" => [READ, OVERWRITE][spec.min(1)],
        "bitop" => [OVERWRITE, READ][spec.min(1)],
        _ if write => ACCESS_UPDATE,
        _ => READ,
    }
}

/// Access of one request, where the arguments decide: SET reads only with GET.
pub fn of_request<'a>(name: &str, write: bool, spec: usize, mut options: impl Iterator<Item = &'a [u8]>) -> Access {
    match name {
        "set" if !options.any(|o| o.eq_ignore_ascii_case(b"GET")) => OVERWRITE,
        _ => of(name, write, spec),
    }
}
