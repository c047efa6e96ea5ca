//! DUMP and RESTORE payloads: Redis's RDB encoding of one value, then two bytes of format version and a CRC-64.
//!
//! Written: strings (also as integers) and the plain encodings of collections, which every Redis since 4 reads. Read: everything that
//! Redis 7.2 writes for strings, lists, sets, hashes and sorted sets, and the older encodings it still reads (ziplist, intset).

use super::number;
use crate::store::tree;
use crate::store::{Arena, Value, map, rope};

/// Version that payloads are marked with: Redis refuses those above its own, and 10 is Redis 7.0's. Nothing written here is newer.
const VERSION_WRITTEN: u16 = 10;
/// Newest version read: Redis 7.2's.
const VERSION_READ: u16 = 11;
/// A decoded payload may be this much larger than the longest string, no more (LZF announces lengths).
const DECODED_MAX: usize = crate::base::limits::BULK_BYTES_MAX;

mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET_BINARY: u8 = 5;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const SET_LISTPACK: u8 = 20;
}

/// Why a payload is refused; the texts are Redis's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("ERR DUMP payload version or checksum are wrong")]
    Envelope,
    #[error("ERR Bad data format")]
    Content,
}

/// A decoded value.
#[derive(Clone, Debug, PartialEq)]
pub enum Restored {
    Str(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(Vec<Vec<u8>>),
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
    Zset(Vec<(Vec<u8>, f64)>),
}

/// Appends the payload of a value.
pub fn dump(arena: &Arena, value: Value<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    match value {
        Value::Int(i) => {
            out.push(kind::STRING);
            write_int(i, out);
        }
        Value::Str(s) => {
            out.push(kind::STRING);
            write_string(s, out);
        }
        Value::Rope(r) => {
            out.push(kind::STRING);
            write_len(r.len, out);
            rope::read(arena, r, 0, r.len, |piece| out.extend_from_slice(piece));
        }
        Value::List(c) => {
            header(kind::LIST, c.len, out);
            let mut cursor = tree::Cursor::at(arena, &c.tree(0), 0);
            while let Some(item) = cursor.next(arena) {
                write_string(item, out);
            }
        }
        Value::Set(c) => {
            header(kind::SET, c.len, out);
            each(arena, &c.map(), |member, _| write_string(member, out));
        }
        Value::Hash(c) => {
            header(kind::HASH, c.len, out);
            each(arena, &c.map(), |field, value| {
                write_string(field, out);
                write_string(value, out);
            });
        }
        Value::Zset(c) => {
            header(kind::ZSET_BINARY, c.len, out);
            // Highest first, as Redis writes them: it inserts faster that way.
            let mut cursor = tree::Cursor::at(arena, &c.tree(1), c.len);
            while let Some(item) = cursor.prev(arena) {
                let (score, member) = tree::split_score(item);
                write_string(member, out);
                out.extend_from_slice(&score.to_le_bytes());
            }
        }
        // Streams are a later issue; no key holds one.
        Value::Stream(_) => header(kind::LIST, 0, out),
    }
    out.extend_from_slice(&VERSION_WRITTEN.to_le_bytes());
    let sum = crc64(&out[start..]);
    out.extend_from_slice(&sum.to_le_bytes());
}

fn header(kind: u8, len: u64, out: &mut Vec<u8>) {
    out.push(kind);
    write_len(len, out);
}

fn each(arena: &Arena, map: &map::MapRoot, mut show: impl FnMut(&[u8], &[u8])) {
    let mut cursor = map::Cursor::new(arena, map, 0);
    while let Some(item) = cursor.next(arena) {
        show(item.key, item.value);
    }
}

fn write_len(len: u64, out: &mut Vec<u8>) {
    match len {
        0..64 => out.push(len as u8),
        64..16384 => out.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        16384..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
}

fn write_string(s: &[u8], out: &mut Vec<u8>) {
    match number::int(s) {
        Some(i) if s.len() <= 11 && i32::try_from(i).is_ok() => write_int(i, out),
        _ => {
            write_len(s.len() as u64, out);
            out.extend_from_slice(s);
        }
    }
}

fn write_int(i: i64, out: &mut Vec<u8>) {
    if let Ok(i) = i8::try_from(i) {
        out.extend_from_slice(&[0xc0, i as u8]);
    } else if let Ok(i) = i16::try_from(i) {
        out.push(0xc1);
        out.extend_from_slice(&i.to_le_bytes());
    } else if let Ok(i) = i32::try_from(i) {
        out.push(0xc2);
        out.extend_from_slice(&i.to_le_bytes());
    } else {
        let mut text = Vec::with_capacity(20);
        number::write_int(i, &mut text);
        write_len(text.len() as u64, out);
        out.extend_from_slice(&text);
    }
}

/// Decodes a payload.
pub fn restore(payload: &[u8]) -> Result<Restored, PayloadError> {
    let (body, sum) = payload.split_last_chunk::<8>().ok_or(PayloadError::Envelope)?;
    let (value, version) = body.split_last_chunk::<2>().ok_or(PayloadError::Envelope)?;
    if u16::from_le_bytes(*version) > VERSION_READ || u64::from_le_bytes(*sum) != crc64(body) {
        return Err(PayloadError::Envelope);
    }
    let mut input = Input { rest: value };
    let restored = input.value().ok_or(PayloadError::Content)?;
    if input.rest.is_empty() { Ok(restored) } else { Err(PayloadError::Content) }
}

/// What has not been decoded yet. Every method gives None where the bytes are not what they should be.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (piece, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(piece)
    }
    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A length, or with `true` the number of a special string encoding.
    fn len_or_special(&mut self) -> Option<(u64, bool)> {
        let first = self.byte()?;
        Some(match (first >> 6, first) {
            (0, n) => (n as u64, false),
            (1, n) => (((n & 0x3f) as u64) << 8 | self.byte()? as u64, false),
            (2, 0x80) => (u32::from_be_bytes(self.array()?) as u64, false),
            (2, 0x81) => (u64::from_be_bytes(self.array()?), false),
            (3, n) => ((n & 0x3f) as u64, true),
            _ => return None,
        })
    }
    fn len(&mut self) -> Option<usize> {
        match self.len_or_special()? {
            (n, false) => usize::try_from(n).ok(),
            _ => None,
        }
    }
    fn string(&mut self) -> Option<Vec<u8>> {
        let (n, special) = self.len_or_special()?;
        let number = match (special, n) {
            (false, n) => return Some(self.take(usize::try_from(n).ok()?)?.to_vec()),
            (true, 0) => i8::from_le_bytes(self.array()?) as i64,
            (true, 1) => i16::from_le_bytes(self.array()?) as i64,
            (true, 2) => i32::from_le_bytes(self.array()?) as i64,
            (true, 3) => {
                let (packed, len) = (self.len()?, self.len()?);
                return lzf(self.take(packed)?, len);
            }
            _ => return None,
        };
        Some(int_text(number))
    }
    fn strings(&mut self) -> Option<Vec<Vec<u8>>> {
        let n = self.len()?;
        let mut all = Vec::new();
        for _ in 0..n {
            all.push(self.string()?);
        }
        Some(all)
    }
    /// The old spelling of scores: a length byte and digits, or a special length.
    fn text_float(&mut self) -> Option<f64> {
        match self.byte()? {
            253 => None,
            254 => Some(f64::INFINITY),
            255 => Some(f64::NEG_INFINITY),
            n => number::float(self.take(n as usize)?),
        }
    }

    fn value(&mut self) -> Option<Restored> {
        Some(match self.byte()? {
            kind::STRING => Restored::Str(self.string()?),
            kind::LIST => Restored::List(self.strings()?),
            kind::SET => Restored::Set(distinct(self.strings()?)?),
            kind::HASH => {
                let n = self.len()?;
                let mut pairs = Vec::new();
                for _ in 0..n {
                    pairs.push((self.string()?, self.string()?));
                }
                Restored::Hash(distinct_fields(pairs)?)
            }
            k @ (kind::ZSET | kind::ZSET_BINARY) => {
                let n = self.len()?;
                let mut members = Vec::new();
                for _ in 0..n {
                    let member = self.string()?;
                    let score = if k == kind::ZSET { self.text_float()? } else { f64::from_le_bytes(self.array()?) };
                    members.push((member, score));
                }
                zset(members)?
            }
            kind::LIST_ZIPLIST => Restored::List(ziplist(&self.string()?)?),
            kind::SET_INTSET => Restored::Set(distinct(intset(&self.string()?)?)?),
            kind::SET_LISTPACK => Restored::Set(distinct(listpack(&self.string()?)?)?),
            kind::ZSET_ZIPLIST => zset(scored(ziplist(&self.string()?)?)?)?,
            kind::ZSET_LISTPACK => zset(scored(listpack(&self.string()?)?)?)?,
            kind::HASH_ZIPLIST => Restored::Hash(distinct_fields(paired(ziplist(&self.string()?)?)?)?),
            kind::HASH_LISTPACK => Restored::Hash(distinct_fields(paired(listpack(&self.string()?)?)?)?),
            kind::LIST_QUICKLIST => {
                let nodes = self.strings()?;
                let mut items = Vec::new();
                for node in nodes {
                    items.extend(ziplist(&node)?);
                }
                Restored::List(items)
            }
            kind::LIST_QUICKLIST_2 => {
                let n = self.len()?;
                let mut items = Vec::new();
                for _ in 0..n {
                    match self.len()? {
                        1 => items.push(self.string()?),
                        2 => items.extend(listpack(&self.string()?)?),
                        _ => return None,
                    }
                }
                Restored::List(items)
            }
            _ => return None,
        })
    }
}

fn int_text(number: i64) -> Vec<u8> {
    let mut text = Vec::with_capacity(20);
    number::write_int(number, &mut text);
    text
}

fn distinct(members: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let mut seen: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
    seen.sort_unstable();
    let twice = seen.windows(2).any(|w| w[0] == w[1]);
    (!twice).then_some(members)
}

fn distinct_fields(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut seen: Vec<&[u8]> = pairs.iter().map(|p| p.0.as_slice()).collect();
    seen.sort_unstable();
    let twice = seen.windows(2).any(|w| w[0] == w[1]);
    (!twice).then_some(pairs)
}

fn paired(items: Vec<Vec<u8>>) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if !items.len().is_multiple_of(2) {
        return None;
    }
    let mut items = items.into_iter();
    Some(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
}

fn scored(items: Vec<Vec<u8>>) -> Option<Vec<(Vec<u8>, f64)>> {
    paired(items)?.into_iter().map(|(member, score)| Some((member, number::float(&score)?))).collect()
}

fn zset(members: Vec<(Vec<u8>, f64)>) -> Option<Restored> {
    members.iter().all(|m| !m.1.is_nan()).then_some(Restored::Zset(members))
}

/// Entries between a header and a final 0xff.
fn packed<'a>(
    bytes: &'a [u8],
    header: usize,
    count: u16,
    entry: impl Fn(&mut Input<'a>) -> Option<Vec<u8>>,
) -> Option<Vec<Vec<u8>>> {
    let total = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if total != bytes.len() {
        return None;
    }
    let mut input = Input { rest: bytes.get(header..)? };
    let mut items = Vec::new();
    while *input.rest.first()? != 0xff {
        items.push(entry(&mut input)?);
    }
    let counted = count == u16::MAX || count as usize == items.len();
    (counted && input.rest.len() == 1).then_some(items)
}

/// `total u32 | count u16 | entries | 0xff`; an entry ends with its own length, backwards.
fn listpack(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let count = u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?);
    packed(bytes, 6, count, |input| {
        let before = input.rest.len();
        let item = listpack_item(input)?;
        let used = before - input.rest.len();
        let back = match used {
            0..=127 => 1,
            128..=16382 => 2,
            16383..=2_097_150 => 3,
            2_097_151..=268_435_454 => 4,
            _ => 5,
        };
        input.take(back)?;
        Some(item)
    })
}

fn listpack_item(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let first = input.byte()?;
    let wide = |low: u8| ((first & low) as usize) << 8;
    let number = match first {
        0x00..=0x7f => first as i64,
        0x80..=0xbf => return Some(input.take((first & 0x3f) as usize)?.to_vec()),
        0xc0..=0xdf => {
            let raw = (wide(0x1f) | input.byte()? as usize) as i64;
            if raw >= 1 << 12 { raw - (1 << 13) } else { raw }
        }
        0xe0..=0xef => {
            let len = wide(0x0f) | input.byte()? as usize;
            return Some(input.take(len)?.to_vec());
        }
        0xf0 => {
            let len = u32::from_le_bytes(input.array()?) as usize;
            return Some(input.take(len)?.to_vec());
        }
        0xf1 => i16::from_le_bytes(input.array()?) as i64,
        0xf2 => int24(input.array()?),
        0xf3 => i32::from_le_bytes(input.array()?) as i64,
        0xf4 => i64::from_le_bytes(input.array()?),
        _ => return None,
    };
    Some(int_text(number))
}

fn int24(b: [u8; 3]) -> i64 {
    (i32::from_le_bytes([0, b[0], b[1], b[2]]) >> 8) as i64
}

/// `total u32 | tail u32 | count u16 | entries | 0xff`; an entry begins with the length of the one before.
fn ziplist(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let count = u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?);
    packed(bytes, 10, count, |input| {
        if input.byte()? == 0xfe {
            input.take(4)?;
        }
        ziplist_item(input)
    })
}

fn ziplist_item(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let first = input.byte()?;
    let number = match first >> 6 {
        0 => return Some(input.take((first & 0x3f) as usize)?.to_vec()),
        1 => {
            let len = ((first & 0x3f) as usize) << 8 | input.byte()? as usize;
            return Some(input.take(len)?.to_vec());
        }
        2 => {
            let len = u32::from_be_bytes(input.array()?) as usize;
            return Some(input.take(len)?.to_vec());
        }
        _ => match first {
            0xc0 => i16::from_le_bytes(input.array()?) as i64,
            0xd0 => i32::from_le_bytes(input.array()?) as i64,
            0xe0 => i64::from_le_bytes(input.array()?),
            0xf0 => int24(input.array()?),
            0xfe => i8::from_le_bytes(input.array()?) as i64,
            0xf1..=0xfd => (first & 0x0f) as i64 - 1,
            _ => return None,
        },
    };
    Some(int_text(number))
}

/// `width u32 | count u32 | integers`
fn intset(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut input = Input { rest: bytes };
    let (width, count) = (u32::from_le_bytes(input.array()?), u32::from_le_bytes(input.array()?));
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(int_text(match width {
            2 => i16::from_le_bytes(input.array()?) as i64,
            4 => i32::from_le_bytes(input.array()?) as i64,
            8 => i64::from_le_bytes(input.array()?),
            _ => return None,
        }));
    }
    input.rest.is_empty().then_some(members)
}

/// LZF: literal runs, and copies of what was written before.
fn lzf(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    // LZF packs at most 264 bytes into 3: an announced length beyond that is a lie, and memory is not given for it.
    if len > DECODED_MAX || len > packed.len().saturating_mul(264) {
        return None;
    }
    let mut input = Input { rest: packed };
    let mut out = Vec::with_capacity(len);
    while !input.rest.is_empty() {
        let control = input.byte()? as usize;
        if control < 32 {
            out.extend_from_slice(input.take(control + 1)?);
            continue;
        }
        let mut run = control >> 5;
        if run == 7 {
            run += input.byte()? as usize;
        }
        let back = ((control & 0x1f) << 8 | input.byte()? as usize) + 1;
        let from = out.len().checked_sub(back)?;
        if out.len() + run + 2 > len {
            return None;
        }
        for i in 0..run + 2 {
            out.push(out[from + i]);
        }
    }
    (out.len() == len).then_some(out)
}

/// CRC-64/Jones, as Redis sums its files: reflected, from 0, nothing at the end.
/// Redis's checksum of a payload.
pub fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, b| CRC_TABLE[((crc ^ *b as u64) & 0xff) as usize] ^ (crc >> 8))
}

static CRC_TABLE: [u64; 256] = crc_table();

const fn crc_table() -> [u64; 256] {
    // 0xad93d23594c935a9 with its bits reversed.
    const POLYNOMIAL: u64 = 0xad93_d235_94c9_35a9u64.reverse_bits();
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_redis_own() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }
    fn strings(all: &[&str]) -> Vec<Vec<u8>> {
        all.iter().map(|s| s.as_bytes().to_vec()).collect()
    }

    /// Payloads that redis-server 7.0.15 gave, one of each encoding.
    #[test]
    fn payloads_of_redis_are_read() {
        let long = "x".repeat(70);
        let table = [
            ("000568656c6c6f0a006372df766534200a", Restored::Str(b"hello".to_vec())),
            ("00c07b0a0048e253e1007a67b9", Restored::Str(b"123".to_vec())),
            ("00c290eefeff0a002875de7b13eb2800", Restored::Str(b"-70000".to_vec())),
            ("00c3093c017878e02f000178780a00136a4bd61cb507ae", Restored::Str(vec![b'x'; 60])),
            (
                "120102c32d406d1e6d00000007008161020c01d44802f270110104f37f96980005f400f2052a01201d0309e04678e03c000148ff0a00c2127781cfeeb94c",
                Restored::List(strings(&["a", "12", "-3000", "70000", "9999999", "5000000000", &long])),
            ),
            (
                "1202020a0a0000000100816102ff020a0a0000000100816202ff0a00aa4ac1805e293d2e",
                Restored::List(strings(&["a", "b"])),
            ),
            ("0b0e0200000003000000010002002c010a00e510b28e7b9529aa", Restored::Set(strings(&["1", "2", "300"]))),
            ("0b10040000000200000001000000701101000a002735436efd6656c4", Restored::Set(strings(&["1", "70000"]))),
            (
                "0b180800000002000000010000000000000000f2052a010000000a0054f5a26ae707b5fc",
                Restored::Set(strings(&["1", "5000000000"])),
            ),
            ("0202016101620a00fe642125eb033d0d", Restored::Set(strings(&["a", "b"]))),
            (
                "1012120000000400816602817602816e026401ff0a005414caec75fc291a",
                Restored::Hash(vec![(b"f".to_vec(), b"v".to_vec()), (b"n".to_vec(), b"100".to_vec())]),
            ),
            ("0401016601760a00adf24356b1860efc", Restored::Hash(vec![(b"f".to_vec(), b"v".to_vec())])),
            (
                "1114140000000400816d0283312e3504816e020201ff0a00f1b03a6d585f6938",
                Restored::Zset(vec![(b"m".to_vec(), 1.5), (b"n".to_vec(), 2.0)]),
            ),
            (
                "0502016e000000000000f07f016d000000000000f83f0a0027f2eaf47f93a0c7",
                Restored::Zset(vec![(b"n".to_vec(), f64::INFINITY), (b"m".to_vec(), 1.5)]),
            ),
        ];
        for (payload, want) in table {
            assert_eq!(restore(&hex(payload)), Ok(want), "{payload}");
        }
        let mut wrong = hex("000568656c6c6f0a006372df766534200a");
        wrong[2] ^= 1;
        assert_eq!(restore(&wrong), Err(PayloadError::Envelope));
        assert_eq!(restore(b""), Err(PayloadError::Envelope));
    }

    #[test]
    fn strings_are_dumped_as_redis_dumps_them() {
        let (_, writer) = crate::store::create().unwrap();
        let table = [
            ("000568656c6c6f0a006372df766534200a", Value::Str(b"hello")),
            ("00c07b0a0048e253e1007a67b9", Value::Int(123)),
            ("00c290eefeff0a002875de7b13eb2800", Value::Int(-70000)),
            ("000b31323334353637383930310a00304e52d727176510", Value::Int(12345678901)),
        ];
        for (payload, value) in table {
            let mut out = Vec::new();
            dump(crate::store::Read::arena(&writer), value, &mut out);
            assert_eq!(out, hex(payload));
        }
    }

    #[test]
    fn damaged_content_is_refused_and_never_panics() {
        let mut good = vec![kind::LIST_QUICKLIST_2, 1, 2, 11, 11, 0, 0, 0, 1, 0, 0x81, b'a', 2, 0xff, 0xff];
        good.truncate(13);
        for at in 0..good.len() {
            for byte in [0, 1, 0x3f, 0x7f, 0x80, 0x81, 0xc3, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                bad.extend_from_slice(&10u16.to_le_bytes());
                let sum = crc64(&bad);
                bad.extend_from_slice(&sum.to_le_bytes());
                let _ = restore(&bad);
            }
        }
    }

    #[test]
    fn compressed_strings_unfold() {
        assert_eq!(lzf(&[0, b'a', 0xe0, 10, 0], 20), Some(vec![b'a'; 20]));
        assert_eq!(lzf(&[0, b'a', 0xe0, 10, 0], 19), None);
        assert_eq!(lzf(&[0x20, 0], 3), None);
    }
}
