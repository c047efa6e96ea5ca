//! # Look: the architecture on one page
//!
//! A Redis-protocol server whose data is one large, strongly consistent, versioned blob. Every write
//! is a numbered [`base::Epoch`] in one replicated log; every past epoch can be read; every command is
//! a small function in a bounded language (`commands/redis/*.look`).
//!
//! ```text
//! client ─RESP→ gateway ─chunk→ batch ─entry→ raft ─committed→ apply ─call→ command/lang ─→ store ─dirty pages→ disk
//!                  ▲                                    │
//!                  └────── reply buffer, one a chunk ◄──┘
//! ```
//!
//! The rooms, top to bottom; a room uses only rooms below it (`tests/rooms.rs` checks every
//! `use crate::…` against the table there):
//!
//! | room | owns |
//! |---|---|
//! | [`node`] | wiring of one node, order of start and stop |
//! | [`admin`] | metrics, health, the status page, over HTTP |
//! | [`gateway`] | listeners, connections, sessions, chunks, reads, riders, MULTI queue, native commands |
//! | [`batch`] | batcher, back-pressure, forwarding to the leader, resend after failover |
//! | [`raft`] | openraft types, log-store and state-machine adapters, peer transport, read index |
//! | [`history`] | reads in the past, private replay |
//! | [`apply`] | the loop: epochs, log time, expiry, exactly-once table, digests |
//! | [`command`] | the code table, argument parser, `COMMAND` metadata |
//! | [`lang`] | the Look language: syntax, types, bounds, IR, interpreter, JIT, helpers |
//! | [`store`] | arena, trees, values, roots, window, checkpoint, recovery, transfer |
//! | [`disk`] | Raft log segments, pages in fjall, checksums, chain, high-water record |
//! | [`resp`] | RESP2/RESP3 decode and encode |
//! | [`base`] | ids, clock, limits, the batch format (what log, peers and apply all read) |
//!
//! Rules that never bend: only `apply` changes the store; only `disk` names fjall, only `raft` names
//! openraft, only `lang::jit` names dynasm; from `command` down everything is deterministic; `unsafe`
//! lives in `store::arena`, `lang` (JIT, engines, the helpers' edge) and one system call of `disk::urgent`; `tests/rooms.rs` names the files; a page whose root is published never
//! changes; a write is acknowledged only after it is durable on a quorum and applied.
//!
//! Threads: clients (one fewer than cores), Raft, log, apply, checkpoints, and one that touches memory before apply needs it and
//! merges its pages afterwards. A node with one thread for clients and no address for peers runs Raft on it, too, and writes and
//! applies small batches there: no hand-over is left (`raft/here.rs`, `raft/turns.rs`).
//!
//! Reading order for one SET: `gateway/conn.rs` → `command/args.rs` → `batch/batcher.rs` →
//! `raft/mod.rs` → `disk/log.rs` → `apply/mod.rs` → `commands/redis/string.look` → `store/map.rs`.

pub mod admin;
pub mod apply;
pub mod base;
pub mod batch;
pub mod command;
pub mod disk;
pub mod gateway;
pub mod history;
pub mod lang;
pub mod node;
pub mod raft;
pub mod resp;
pub mod store;
