//! Reading a journal, whole or cut off by a kill.
//!
//! Owns: what counts as a torn tail.
//! Never: changes the file, or skips a damaged block and reads on.
//! Bound: one block in memory.
//! Invariant: what is given was written: every block's check sum is right.
//!
//! A tail is torn when no valid block follows it: then it is cut, and said. A bad
//! block with a valid one behind it is damage, which is an error: an
//! acknowledgement may be lost in it.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use super::frame::{
    self, BLOCK_BYTES_MAX, BLOCK_PREFIX_BYTES, BadHeader, FILE_PREFIX_BYTES, Prefix,
};
use super::record::Decoder;
use super::{Header, Record};

/// Why a journal cannot be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(std::io::Error),
    Header(String),
    /// A bad block, at this byte, is not the last one.
    Damaged(u64),
    /// A block is whole, but is none that this version writes.
    Unreadable(u64),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Header(problem) => f.write_str(problem),
            Self::Damaged(at) => write!(
                f,
                "damaged at byte {at}, with valid blocks behind it: acknowledgements may be lost; take the file from a copy"
            ),
            Self::Unreadable(at) => write!(f, "a record in the block at byte {at} makes no sense"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether the writer came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Closing {
    #[default]
    Closed,
    /// Killed, or not at its end yet: what it sent last is missing.
    CutShort,
}

/// A journal being read.
#[derive(Debug)]
pub(crate) struct Reader {
    file: BufReader<File>,
    header: Header,
    first_block_at: u64,
    at: u64,
    length: u64,
    next_number: u32,
    closing: Closing,
    block: Vec<u8>,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::with_capacity(256 * 1024, file);
        let mut prefix = [0; FILE_PREFIX_BYTES];
        let not = |_error| ReadError::Header("this is not a journal of loadtest".to_owned());
        file.read_exact(&mut prefix).map_err(not)?;
        let (json_bytes, check) = frame::read_prefix(&prefix).map_err(explain)?;
        let mut json = vec![0; json_bytes];
        file.read_exact(&mut json).map_err(not)?;
        let header = frame::read_header(&json, check).map_err(explain)?;
        let at = u64::try_from(FILE_PREFIX_BYTES + json_bytes).unwrap_or(0);
        Ok(Self {
            file,
            header,
            first_block_at: at,
            at,
            length,
            next_number: 0,
            closing: Closing::CutShort,
            block: Vec::new(),
        })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the file when it was opened.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes read.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Bytes of the torn tail, to be asked at the end. None if the file has grown
    /// since it was opened, because its run goes on.
    pub(crate) fn cut_bytes(&self) -> u64 {
        self.length.saturating_sub(self.at)
    }

    /// To be asked at the end.
    pub(crate) fn closing(&self) -> Closing {
        self.closing
    }

    /// Begins again.
    pub(crate) fn rewind(&mut self) -> Result<(), ReadError> {
        self.at = self.first_block_at;
        self.next_number = 0;
        self.file.seek(SeekFrom::Start(self.at))?;
        Ok(())
    }

    /// Gives the next block's records, in order; `None` at the end.
    pub(crate) fn next_block(
        &mut self,
        mut tell: impl FnMut(Record),
    ) -> Result<Option<()>, ReadError> {
        let Some(prefix) = self.read_block()? else {
            if self.valid_block_follows()? {
                return Err(ReadError::Damaged(self.at));
            }
            return Ok(None);
        };
        let mut decoder = Decoder::new(&self.block);
        while !decoder.is_empty() {
            let record = decoder.read().ok_or(ReadError::Unreadable(self.at))?;
            tell(record);
        }
        let length = u64::try_from(BLOCK_PREFIX_BYTES + prefix.length).unwrap_or(u64::MAX);
        self.at = self.at.saturating_add(length);
        self.next_number = self.next_number.wrapping_add(1);
        if prefix.thread == frame::END_THREAD {
            self.closing = Closing::Closed;
        }
        Ok(Some(()))
    }

    /// The block at `at`, if it is whole.
    fn read_block(&mut self) -> Result<Option<Prefix>, ReadError> {
        let mut bytes = [0; BLOCK_PREFIX_BYTES];
        if !fill(&mut self.file, &mut bytes)? {
            return Ok(None);
        }
        let Some(prefix) = Prefix::read(&bytes).filter(|p| p.number == self.next_number) else {
            return Ok(None);
        };
        self.block.resize(prefix.length, 0);
        let whole = fill(&mut self.file, &mut self.block)? && prefix.matches(&self.block);
        Ok(whole.then_some(prefix))
    }

    /// Whether a later block begins within the largest block's length.
    fn valid_block_follows(&mut self) -> Result<bool, ReadError> {
        self.file.seek(SeekFrom::Start(self.at))?;
        let mut window = Vec::new();
        let most = u64::try_from(2 * BLOCK_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut self.file).take(most).read_to_end(&mut window)?;
        Ok((1..window.len()).any(|from| {
            Prefix::read(&window[from..]).is_some_and(|prefix| {
                let records = &window[from + BLOCK_PREFIX_BYTES..];
                prefix.number > self.next_number
                    && records
                        .get(..prefix.length)
                        .is_some_and(|r| prefix.matches(r))
            })
        }))
    }
}

/// Whether there were enough bytes.
fn fill(file: &mut impl Read, into: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn explain(bad: BadHeader) -> ReadError {
    ReadError::Header(match bad {
        BadHeader::NotAJournal => "this is not a journal of loadtest".to_owned(),
        BadHeader::Version(version) => format!(
            "version {version} of the journal; this loadtest reads version {}: use the one that wrote it",
            frame::VERSION
        ),
        BadHeader::Damaged => "the journal's header is damaged".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Amount, Event, Journal, JournalPlan, Lost, Planned};
    use super::*;
    use crate::request::Span;
    use crate::request::key::Key;
    use crate::scenario::Keys;
    use std::time::Duration;

    /// A journal of three blocks of two transfers each.
    fn write(path: &Path) {
        let plan = JournalPlan {
            path: path.to_owned(),
            host: "http://127.0.0.1:1".to_owned(),
            seed: 7,
            accounts: "1..=9".parse().unwrap(),
        };
        let journal = Journal::create(&plan, 1).unwrap();
        for first in [0, 2, 4] {
            let mut recorder = journal.recorder(5);
            let amount = Amount::parse("1").unwrap();
            let planned = Planned {
                from: 1,
                to: 2,
                amount,
                keys: Keys::On,
            };
            let span = Span {
                first: Key {
                    user: 5,
                    counter: first,
                },
                count: 2,
            };
            recorder.sent(Duration::ZERO, span, &[planned; 2]);
            recorder.unanswered(Duration::from_secs(1), span, Lost::Io);
        }
        assert_eq!(journal.close().unwrap().waited, Duration::ZERO);
    }

    fn counters(path: &Path) -> Result<(Vec<u64>, u64, Closing), ReadError> {
        let mut reader = Reader::open(path)?;
        assert_eq!(reader.header().seed, 7);
        let mut sent = Vec::new();
        while let Some(()) = reader.next_block(|record| {
            assert_eq!(record.key.user, 5);
            if let Event::Sent(_) = record.event {
                sent.push(record.key.counter);
            }
        })? {}
        Ok((sent, reader.cut_bytes(), reader.closing()))
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_at_the_last_whole_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        write(&path);
        let all = ((0..6).collect(), 0, Closing::Closed);
        assert_eq!(counters(&path).unwrap(), all);
        let whole = std::fs::read(&path).unwrap();
        let blocks: Vec<usize> = (0..whole.len())
            .filter(|at| whole[*at..].starts_with(b"LTJB"))
            .collect();
        assert_eq!(blocks.len(), 4, "the last is the end");
        for end in blocks[1]..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let kept = blocks.iter().filter(|at| **at <= end).count() - 1;
            let cut = u64::try_from(end - blocks[kept]).unwrap();
            let kept = (0..u64::try_from(2 * kept).unwrap()).collect();
            // Between two blocks nothing is torn, and yet something is missing.
            let expected = (kept, cut, Closing::CutShort);
            assert_eq!(counters(&path).unwrap(), expected, "{end}");
        }
        // A tail of nothing, as a lost power may leave it, is torn too.
        std::fs::write(&path, [&whole[..blocks[2]], &[0; 500]].concat()).unwrap();
        let expected = ((0..4).collect(), 500, Closing::CutShort);
        assert_eq!(counters(&path).unwrap(), expected);
    }

    #[test]
    fn a_journal_may_grow_while_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        let second = whole[100..].windows(4).position(|part| part == b"LTJB");
        std::fs::write(&path, &whole[..100 + second.unwrap()]).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        std::fs::write(&path, &whole).unwrap();
        while reader.next_block(|_| ()).unwrap().is_some() {}
        assert!(reader.length() < reader.position());
        assert_eq!(reader.cut_bytes(), 0);
    }

    #[test]
    fn damage_before_the_end_is_an_error_not_a_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        let first = (0..whole.len())
            .find(|at| whole[*at..].starts_with(b"LTJB"))
            .unwrap();
        for at in first..first + 40 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert!(
                matches!(counters(&path), Err(ReadError::Damaged(_))),
                "{at}"
            );
        }
        for (at, part) in [
            (0, "not a journal"),
            (16, "version 0"),
            (24, "damaged"),
            (60, "damaged"),
        ] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let message = counters(&path).unwrap_err().to_string();
            assert!(message.contains(part), "{at}: {message}");
        }
    }

    #[test]
    fn a_journal_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        write(&path);
        let plan = JournalPlan {
            path: path.clone(),
            host: String::new(),
            seed: 1,
            accounts: "1..=2".parse().unwrap(),
        };
        let error = Journal::create(&plan, 1).unwrap_err();
        assert!(super::super::explain(&path, &error).contains("name another file"));
        assert_eq!(counters(&path).unwrap().0.len(), 6);
    }
}
