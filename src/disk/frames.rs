//! Frames: keyed bytes one after the other in a stream, each with its checksum. What checkpoint transfer and backups are made of.
//!
//! ```text
//! frame = key u64 | bytes u32 | crc32c u32 over key and bytes | bytes
//! ```

const HEADER: usize = 16;

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, key: u64, bytes: &[u8]) {
    out.extend_from_slice(&key.to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum(key, bytes).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Key and bytes of the frame at the front of `stream`, and what follows it. `Ok(None)`: not all of it is here.
#[allow(clippy::type_complexity)]
pub fn take(stream: &[u8]) -> Result<Option<(u64, &[u8], &[u8])>, &'static str> {
    let Some((header, body)) = stream.split_at_checked(HEADER) else { return Ok(None) };
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |all, &byte| all << 8 | byte as u64);
    let (key, len) = (word(&header[..8]), word(&header[8..12]) as usize);
    let Some((bytes, rest)) = body.split_at_checked(len) else { return Ok(None) };
    match checksum(key, bytes).to_le_bytes() == header[12..] {
        true => Ok(Some((key, bytes, rest))),
        false => Err("a frame's checksum does not match"),
    }
}

fn checksum(key: u64, bytes: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&key.to_le_bytes());
    digest.update(bytes);
    digest.finalize() as u32
}
