//! Which keys a data directory was written with, checked before anything in it is touched.
//!
//! ```text
//! DIR/ENCRYPTION = "look-encryption-format 1", a line "key <id> <check>" a key, "crc32c <sum>"
//! ```
//! The check of a key is derived from it and does not tell it. A directory is encrypted as a whole from its beginning, or not at all; a key is
//! listed before anything is written with it.

use crate::disk::crc32c;
use crate::disk::seal::{KeyError, Keys, Sealer};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NAME: &str = "ENCRYPTION";
const HEAD: &str = "look-encryption-format 1\n";

#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("the data in {0} is encrypted with key {1}; give --encryption-key-file")]
    NoKeyFile(PathBuf, u32),
    #[error(
        "the data in {0} is not encrypted; to encrypt it, back it up and restore it with --encryption-key-file, or in a cluster start this node empty with it"
    )]
    Plain(PathBuf),
    #[error(
        "the data in {0} is encrypted with key {1}, which the key file does not hold; add it (older keys go below newer ones)"
    )]
    Lacks(PathBuf, u32),
    #[error(
        "key {1} in the key file is not the key {1} with which the data in {0} is encrypted; give the right key file"
    )]
    Wrong(PathBuf, u32),
    #[error("{0}/ENCRYPTION is damaged; restore this directory from a backup, or in a cluster start this node empty")]
    Damaged(PathBuf),
}

/// The sealer for `dir`; none if it is plain and no key file is given. A directory that holds nothing yet becomes encrypted.
pub fn open(dir: &Path, key_file: Option<&Path>) -> Result<Option<Arc<Sealer>>, EncryptionError> {
    let Some(sealer) = inspect(dir, key_file)? else { return Ok(None) };
    let newest = sealer.keys().newest();
    let mut listed = listed(dir)?.unwrap_or_default();
    if !listed.iter().any(|(id, _)| *id == newest) {
        listed.push((newest, sealer.keys().check(newest).unwrap_or(0)));
        write(dir, &listed).map_err(|e| EncryptionError::Io(dir.join(NAME), e))?;
    }
    Ok(Some(sealer))
}

/// The same, and nothing is written.
pub fn inspect(dir: &Path, key_file: Option<&Path>) -> Result<Option<Arc<Sealer>>, EncryptionError> {
    let listed = listed(dir)?;
    let Some(key_file) = key_file else {
        return match listed.and_then(|listed| listed.last().copied()) {
            Some((id, _)) => Err(EncryptionError::NoKeyFile(dir.into(), id)),
            None => Ok(None),
        };
    };
    let keys = Keys::read(key_file)?;
    if listed.is_none() && (dir.join("log").exists() || dir.join("pages").exists()) {
        return Err(EncryptionError::Plain(dir.into()));
    }
    for (id, check) in listed.unwrap_or_default() {
        match keys.check(id) {
            None => return Err(EncryptionError::Lacks(dir.into(), id)),
            Some(found) if found != check => return Err(EncryptionError::Wrong(dir.into(), id)),
            Some(_) => {}
        }
    }
    Ok(Some(Arc::new(Sealer::new(keys)?)))
}

fn listed(dir: &Path) -> Result<Option<Vec<(u32, u64)>>, EncryptionError> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EncryptionError::Io(path, error)),
    };
    let parse = |text: &str| {
        let line = |line: &str| {
            let (id, check) = line.strip_prefix("key ")?.split_once(' ')?;
            Some((id.parse().ok()?, u64::from_str_radix(check, 16).ok()?))
        };
        let keys = text.strip_prefix(HEAD)?.lines().take_while(|line| !line.starts_with("crc32c ")).map(line);
        let keys: Vec<(u32, u64)> = keys.collect::<Option<_>>()?;
        (text_of(&keys) == text && !keys.is_empty()).then_some(keys)
    };
    let keys = String::from_utf8(bytes).ok().and_then(|text| parse(&text));
    keys.map(Some).ok_or_else(|| EncryptionError::Damaged(dir.into()))
}

fn text_of(keys: &[(u32, u64)]) -> String {
    let keys: String = keys.iter().map(|(id, check)| format!("key {id} {check:016x}\n")).collect();
    let body = format!("{HEAD}{keys}");
    let sum = crc32c(body.as_bytes());
    format!("{body}crc32c {sum:08x}\n")
}

fn write(dir: &Path, keys: &[(u32, u64)]) -> io::Result<()> {
    let fresh = dir.join("ENCRYPTION.new");
    let mut file = File::create(&fresh)?;
    file.write_all(text_of(keys).as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(NAME))?;
    File::open(dir)?.sync_all()
}
