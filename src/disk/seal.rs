//! Encryption at rest: AES-256-GCM for payloads of the log, pages, root records and backups.
//!
//! ```text
//! key file = lines of "id key", newest first: id from 1 to 4294967295, key 64 hexadecimal digits; '#' begins a comment
//! sealed   = ciphertext | tag (16) | count u64 | salt (16) | key id u32 | "LKE1"
//! ```
//!
//! **No nonce is used twice.** GCM loses everything when one nonce serves two messages under one key, and places on disk *are* written
//! twice: a torn tail of the log is overwritten at the next start, segments are recycled, page numbers that a crash lost are given again. So
//! no nonce is made from a place. Each start of a process (each [`Sealer`]) draws a salt of 128 random bits and derives a key of its own
//! from key and salt with HKDF-SHA256. Under that derived key the nonce is a counter that only this `Sealer` advances, one atomic step a
//! message, and that is nowhere stored to go on from. Two messages share key and nonce only if two starts draw the same salt: after 2^32
//! starts under one key, with a chance below 2^-64. A directory that was copied or rolled back is no danger, because its next start draws
//! a new salt; only a machine whose *memory* is snapshotted and resumed twice would repeat itself, and must not be. A counter of 64
//! bits does not come round. And the derived keys keep the data under each far below what GCM bears: 2^40 blocks (16 TiB) in one life of
//! a process give a distinguisher an advantage of 2^-48.
//!
//! What the bytes are and where they belong (kind, log, term and index of an entry; number of a page) is authenticated with them, so that
//! no sealed bytes pass for others. An older version of the same place can be put back by whoever writes to the disk: encryption at rest
//! keeps secrets, it does not guard against an attacker who replaces whole files by their past.
//!
//! Not hidden: lengths, times of writing, numbers of pages, terms and indexes. Votes hold no data and stay plain. Checksums and the log's
//! chain are over the sealed bytes, so that they tell nothing of what is inside, and damage is found without a key.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that sealing adds.
pub const TRAILER_BYTES: usize = 48;
const TAG_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const MAGIC: &[u8; 4] = b"LKE1";
/// Derived keys kept for reading what earlier starts wrote.
const OPENED_MAX: usize = 256;

type KeyId = u32;
type Secret = [u8; 32];

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {0}: {1}; check the path given to --encryption-key-file")]
    Unreadable(PathBuf, std::io::Error),
    #[error("the key file {0} can be read by other users; run: chmod 600 {0}")]
    Public(PathBuf),
    #[error(
        "{0}, line {1}: {2}; a line is a number and 64 hexadecimal digits, as `echo \"1 $(openssl rand -hex 32)\"` makes it"
    )]
    Line(PathBuf, usize, &'static str),
    #[error("the operating system gives no random bits")]
    Random,
}

/// Why sealed bytes are not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("not encrypted, where everything should be")]
    Plain,
    #[error("encrypted with key {0}, which the key file does not hold")]
    NoKey(KeyId),
    #[error("cannot be decrypted: it was changed, or key {0} is another one")]
    Broken(KeyId),
}

/// The keys of a key file, newest first.
#[derive(Clone)]
pub struct Keys(Vec<(KeyId, Secret)>);

impl Keys {
    pub fn read(path: &Path) -> Result<Keys, KeyError> {
        let unreadable = |e| KeyError::Unreadable(path.into(), e);
        if std::fs::metadata(path).map_err(unreadable)?.mode() & 0o077 != 0 {
            return Err(KeyError::Public(path.into()));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Keys::parse(&text).map_err(|(line, what)| KeyError::Line(path.into(), line, what))
    }

    fn parse(text: &str) -> Result<Keys, (usize, &'static str)> {
        let mut keys: Vec<(KeyId, Secret)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (id, hex) = line.split_once(char::is_whitespace).ok_or((number, "a number and a key are wanted"))?;
            let id = id.parse::<KeyId>().ok().filter(|id| *id > 0).ok_or((number, "the key's number is none"))?;
            if keys.iter().any(|(known, _)| *known == id) {
                return Err((number, "the key's number is taken"));
            }
            keys.push((id, parse_hex(hex.trim()).ok_or((number, "the key is not 64 hexadecimal digits"))?));
        }
        if keys.is_empty() { Err((1, "there is no key")) } else { Ok(Keys(keys)) }
    }

    /// The key that everything new is sealed with.
    pub fn newest(&self) -> KeyId {
        self.0[0].0
    }

    /// What tells a key from others without telling the key; none if there is no such key.
    pub fn check(&self, id: KeyId) -> Option<u64> {
        let mut bytes = [0; 32];
        derive(self.secret(id)?, b"", b"look key check", &mut bytes)?;
        Some(u64::from_le_bytes(*bytes.first_chunk()?))
    }

    fn secret(&self, id: KeyId) -> Option<&Secret> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, secret)| secret)
    }

    fn derived(&self, id: KeyId, salt: &[u8]) -> Option<LessSafeKey> {
        let mut bytes = [0; 32];
        derive(self.secret(id)?, salt, b"look encryption at rest 1", &mut bytes)?;
        UnboundKey::new(&AES_256_GCM, &bytes).ok().map(LessSafeKey::new)
    }
}

fn parse_hex(text: &str) -> Option<Secret> {
    let digits = text.as_bytes();
    let mut secret = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks(2)) {
        let digit = |d: u8| (d as char).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(secret)
}

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

fn derive(secret: &Secret, salt: &[u8], purpose: &[u8], out: &mut [u8; 32]) -> Option<()> {
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(&[purpose], Bytes32).ok()?.fill(out).ok()
}

fn nonce(count: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&count.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// A process's start, as what it sealed names it: its key, and the salt that it drew.
type Start = (KeyId, [u8; SALT_BYTES]);

/// Seals and opens, under keys of this start. Shared by everything that one process writes.
pub struct Sealer {
    keys: Keys,
    salt: [u8; SALT_BYTES],
    key: LessSafeKey,
    count: AtomicU64,
    /// Derived keys of this and earlier starts, by key id and salt.
    opened: Mutex<HashMap<Start, Arc<LessSafeKey>>>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(key {})", self.keys.newest())
    }
}

impl Sealer {
    pub fn new(keys: Keys) -> Result<Sealer, KeyError> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| KeyError::Random)?;
        let key = keys.derived(keys.newest(), &salt).ok_or(KeyError::Random)?;
        Ok(Sealer { keys, salt, key, count: AtomicU64::new(0), opened: Mutex::default() })
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Encrypts in place. `place` says what the bytes are and where they belong; the trailer goes behind them.
    pub fn seal(&self, place: &[u8], bytes: &mut [u8]) -> Result<[u8; TRAILER_BYTES], SealError> {
        let (id, count) = (self.keys.newest(), self.count.fetch_add(1, Ordering::Relaxed));
        let tag = self.key.seal_in_place_separate_tag(nonce(count), Aad::from(place), bytes);
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..16].copy_from_slice(tag.map_err(|_| SealError::Broken(id))?.as_ref());
        trailer[16..24].copy_from_slice(&count.to_le_bytes());
        trailer[24..40].copy_from_slice(&self.salt);
        trailer[40..44].copy_from_slice(&id.to_le_bytes());
        trailer[44..].copy_from_slice(MAGIC);
        Ok(trailer)
    }

    /// The same for bytes that are kept with their trailer.
    pub fn seal_vec(&self, place: &[u8], mut bytes: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let trailer = self.seal(place, &mut bytes)?;
        bytes.extend_from_slice(&trailer);
        Ok(bytes)
    }

    /// What was sealed for that place.
    pub fn open(&self, place: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let at = sealed.len().checked_sub(TRAILER_BYTES).ok_or(SealError::Plain)?;
        let trailer = <[u8; TRAILER_BYTES]>::try_from(&sealed[at..]).map_err(|_| SealError::Plain)?;
        if &trailer[44..] != MAGIC {
            return Err(SealError::Plain);
        }
        let count = trailer[16..24].iter().rev().fold(0, |all, &byte| all << 8 | byte as u64);
        let id = trailer[40..44].iter().rev().fold(0, |all, &byte| all << 8 | byte as KeyId);
        let salt = <[u8; SALT_BYTES]>::try_from(&trailer[24..40]).map_err(|_| SealError::Plain)?;
        let key = self.derived(id, salt).ok_or(SealError::NoKey(id))?;
        let opened = key.open_in_place(nonce(count), Aad::from(place), &mut sealed[..at + TAG_BYTES]);
        opened.map_err(|_| SealError::Broken(id))?;
        sealed.truncate(at);
        Ok(sealed)
    }

    fn derived(&self, id: KeyId, salt: [u8; SALT_BYTES]) -> Option<Arc<LessSafeKey>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = opened.get(&(id, salt)) {
            return Some(key.clone());
        }
        if opened.len() >= OPENED_MAX {
            opened.clear();
        }
        let key = Arc::new(self.keys.derived(id, &salt)?);
        opened.insert((id, salt), key.clone());
        Some(key)
    }
}

/// `place` from words.
pub fn place(kind: &[u8; 8], words: [u64; 3]) -> [u8; 32] {
    let mut place = [0; 32];
    place[..8].copy_from_slice(kind);
    for (word, bytes) in words.iter().zip(place[8..].chunks_mut(8)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Keys {
        Keys::parse(text).unwrap()
    }

    fn key(id: u32, digit: char) -> String {
        format!("{id} {}\n", digit.to_string().repeat(64))
    }

    #[test]
    fn sealed_bytes_open_at_their_place_with_their_key_only() {
        let first = Sealer::new(keys(&key(1, 'a'))).unwrap();
        let sealed = first.seal_vec(b"here", b"a secret".to_vec()).unwrap();
        assert!(!sealed.windows(8).any(|w| w == b"a secret"));
        assert_eq!(first.open(b"here", sealed.clone()).unwrap(), b"a secret");
        assert_eq!(first.open(b"there", sealed.clone()), Err(SealError::Broken(1)));
        let later = Sealer::new(keys(&(key(2, 'b') + &key(1, 'a')))).unwrap();
        assert_eq!(later.open(b"here", sealed.clone()).unwrap(), b"a secret");
        assert_eq!(Sealer::new(keys(&key(1, 'b'))).unwrap().open(b"here", sealed.clone()), Err(SealError::Broken(1)));
        assert_eq!(Sealer::new(keys(&key(2, 'a'))).unwrap().open(b"here", sealed.clone()), Err(SealError::NoKey(1)));
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(first.open(b"here", bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn no_two_messages_share_salt_and_count() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..20 {
            let sealer = Sealer::new(keys(&key(1, 'a'))).unwrap();
            for _ in 0..50 {
                let sealed = sealer.seal_vec(b"same", b"same".to_vec()).unwrap();
                assert!(seen.insert(sealed[sealed.len() - 32..sealed.len() - 8].to_vec()));
            }
        }
    }

    #[test]
    fn a_key_file_is_taken_whole_or_not() {
        let good = format!("# rotated in May\n{}\n{}", key(7, '0'), key(3, 'F'));
        assert_eq!(keys(&good).newest(), 7);
        assert_ne!(keys(&good).check(7), keys(&good).check(3));
        for bad in ["", "# nothing\n", "1\n", "0 aa\n", "1 xyz\n", &(key(1, 'a') + &key(1, 'b')), &key(1, 'g')] {
            assert!(Keys::parse(bad).is_err(), "{bad}");
        }
    }
}
