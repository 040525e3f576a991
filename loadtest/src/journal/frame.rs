//! The file around the records: its header and its blocks.
//!
//! Owns: magic words, version, lengths and check sums.
//! Never: looks into a block.
//! Bound: `HEADER_BYTES_MAX`, `BLOCK_BYTES_MAX`.
//! Invariant: a block is valid only at its place: its number in the file is part
//! of its check sum, so an old block left in a reused place is not taken.
//!
//! Header: magic (16 bytes), version (2), length (4), check (8), JSON.
//! Block: magic (4), thread (4), number (4), length (4), check (8), records. The
//! last, without records, is of `END_THREAD`: the journal was closed.
//! Numbers are little-endian; a check is the first 8 bytes of BLAKE3.

use super::Header;

const FILE_MAGIC: &[u8; 16] = b"loadtest-journal";
const BLOCK_MAGIC: &[u8; 4] = b"LTJB";
/// Another layout of header, block or record is another version.
pub(super) const VERSION: u16 = 1;
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// A thread hands a block over at 64 KiB, after at most one whole batch call:
/// 8,192 transfers of some 50 bytes at the worst.
pub(super) const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// No client thread has this number.
pub(super) const END_THREAD: u32 = u32::MAX;
pub(super) const FILE_PREFIX_BYTES: usize = 30;
pub(super) const BLOCK_PREFIX_BYTES: usize = 24;

/// The file's first bytes.
pub(super) fn write_header(header: &Header) -> std::io::Result<Vec<u8>> {
    let json = serde_json::to_vec(header)?;
    let mut bytes = FILE_MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length(&json).to_le_bytes());
    bytes.extend_from_slice(&check(&[&json]));
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// What is wrong with the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    NotAJournal,
    Version(u16),
    Damaged,
}

/// Length and check sum of the header's JSON.
pub(super) fn read_prefix(prefix: &[u8; FILE_PREFIX_BYTES]) -> Result<(usize, [u8; 8]), BadHeader> {
    let rest = prefix
        .strip_prefix(FILE_MAGIC)
        .ok_or(BadHeader::NotAJournal)?;
    let [v0, v1, l0, l1, l2, l3, check @ ..] = rest else {
        return Err(BadHeader::Damaged);
    };
    let version = u16::from_le_bytes([*v0, *v1]);
    if version != VERSION {
        return Err(BadHeader::Version(version));
    }
    let length = usize::try_from(u32::from_le_bytes([*l0, *l1, *l2, *l3])).unwrap_or(usize::MAX);
    let check = <[u8; 8]>::try_from(check).map_err(|_length| BadHeader::Damaged)?;
    if length > HEADER_BYTES_MAX {
        return Err(BadHeader::Damaged);
    }
    Ok((length, check))
}

pub(super) fn read_header(json: &[u8], expected: [u8; 8]) -> Result<Header, BadHeader> {
    if check(&[json]) != expected {
        return Err(BadHeader::Damaged);
    }
    serde_json::from_slice(json).map_err(|_json| BadHeader::Damaged)
}

/// What stands before a block's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) thread: u32,
    pub(super) number: u32,
    pub(super) length: usize,
    check: [u8; 8],
}

pub(super) fn write_prefix(thread: u32, number: u32, records: &[u8]) -> [u8; BLOCK_PREFIX_BYTES] {
    let words = [thread, number, length(records)]
        .map(u32::to_le_bytes)
        .concat();
    let mut prefix = [0; BLOCK_PREFIX_BYTES];
    prefix[..4].copy_from_slice(BLOCK_MAGIC);
    prefix[4..16].copy_from_slice(&words);
    prefix[16..].copy_from_slice(&check(&[&words, records]));
    prefix
}

impl Prefix {
    /// None if no block begins here.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (prefix, _) = bytes.split_first_chunk::<BLOCK_PREFIX_BYTES>()?;
        let rest = prefix.strip_prefix(BLOCK_MAGIC)?;
        let word = |at: usize| {
            let (word, _) = rest.get(at..)?.split_first_chunk::<4>()?;
            Some(u32::from_le_bytes(*word))
        };
        let length = usize::try_from(word(8)?).ok()?;
        Some(Self {
            thread: word(0)?,
            number: word(4)?,
            length,
            check: rest.get(12..)?.try_into().ok()?,
        })
        .filter(|prefix| prefix.length <= BLOCK_BYTES_MAX)
    }

    pub(super) fn matches(&self, records: &[u8]) -> bool {
        let words = [self.thread, self.number, length(records)];
        let words = words.map(u32::to_le_bytes).concat();
        records.len() == self.length && check(&[&words, records]) == self.check
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn check(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut check = [0; 8];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    check
}
