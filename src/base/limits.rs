//! Limits on everything that a stranger can make grow. Source: the defaults of Valkey, tightened.

/// Longest inline request, bytes.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Most arguments of one request.
pub const MULTIBULK_COUNT_MAX: usize = 1_048_576;
/// Longest argument (`proto-max-bulk-len`), bytes.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Before AUTH: arguments of a request, and bytes of one argument.
pub const UNAUTHENTICATED_ARGS_MAX: usize = 10;
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;
/// Clients connected at once.
pub const CLIENTS_MAX: usize = 10_000;
/// Output waiting for one client: closed at once past the hard limit.
pub const OUTPUT_BYTES_HARD: usize = 64 * 1024 * 1024;
/// Epochs between two kept roots, so that a past read never replays more.
pub const SUB_BATCH_CALLS_MAX: usize = 1024;
/// Databases of `SELECT`.
pub const DATABASES: usize = 16;
