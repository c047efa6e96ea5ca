//! Limits on everything that a stranger can make grow, and how sizes are written. Source: the defaults of Valkey, tightened.

/// Longest inline request, bytes.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Most arguments of one request.
pub const MULTIBULK_COUNT_MAX: usize = 1_048_576;
/// Longest argument (`proto-max-bulk-len`), bytes.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// One request, and what MULTI has queued before it (`client-query-buffer-limit`), bytes.
pub const QUERY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Before AUTH: arguments of a request, and bytes of one argument.
pub const UNAUTHENTICATED_ARGS_MAX: usize = 10;
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;
/// Before AUTH: replies that are made before the first of them is taken, bytes (CVE-2025-21605).
pub const UNAUTHENTICATED_OUTPUT_BYTES_MAX: usize = 1024;
/// Clients connected at once.
pub const CLIENTS_MAX: usize = 10_000;
/// Output waiting for one client: closed at once past the hard limit.
pub const OUTPUT_BYTES_HARD: usize = 64 * 1024 * 1024;
/// Calls between two kept roots, so that a past read never replays more. What a root shows is answered at once, while the rest of the batch
/// runs (`redis-benchmark -t set -P 64`: 10 % more a second than with 1024, paired medians).
pub const SUB_BATCH_CALLS_MAX: usize = 256;
/// Databases of `SELECT`.
pub const DATABASES: usize = 16;

/// Bytes with Redis's units: 1k = 1000, 1kb = 1024, and so on for m and g.
pub fn memory(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
