//! What power loss can leave at the end of the engine's journal, and the engine does not mend.
//!
//! A round is written in one piece and then synced. When the power goes in between, some of its
//! pages can be on disk and some not, in any order. Where that broke the structure of the journal
//! the engine drops the round. Where only keys or values were lost it finds a wrong checksum and
//! opens nothing any more, although nobody was ever told that the round is stored. So the last
//! batch is cut off then, if it is the last thing in the journal; what lies before it was synced,
//! and if a checksum is wrong there it is damage, which is not for us to hide.
//!
//! A batch, as the engine (version 3) writes it, numbers little-endian:
//! ```text
//! 1 | items u32 | sequence number u64
//! 2 | kind u8 | compression u8 | keyspace u64 | key length u16 | value length u32
//!   | stored length u32 | key | value          of each item
//! 3 | checksum u64 | FJL 3
//! ```

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The end of a journal, cut off.
pub(super) struct Cut {
    journal: PathBuf,
    at: u64,
    /// What was there.
    bytes: Vec<u8>,
    /// The length of the file.
    len: u64,
}

/// Cuts off the last batch of the journal in `dir`; `None` when something comes after it.
pub(super) fn cut_last_batch(dir: &Path) -> io::Result<Option<Cut>> {
    let Some(journal) = last_journal(dir)? else {
        return Ok(None);
    };
    let mut file = File::options().read(true).write(true).open(&journal)?;
    let Some(batch) = last_batch(&mut file)? else {
        return Ok(None);
    };
    let len = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(batch.start))?;
    Read::take(&file, batch.end - batch.start).read_to_end(&mut bytes)?;
    file.set_len(batch.start)?;
    file.sync_all()?;
    Ok(Some(Cut {
        journal,
        at: batch.start,
        bytes,
        len,
    }))
}

impl Cut {
    /// Puts back what was cut off.
    pub(super) fn undo(self) -> io::Result<()> {
        let mut file = File::options().write(true).open(&self.journal)?;
        file.seek(SeekFrom::Start(self.at))?;
        io::Write::write_all(&mut file, &self.bytes)?;
        file.set_len(self.len)?;
        file.sync_all()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The journal with the highest number.
fn last_journal(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut last = None;
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            last = last.max(number(&path).map(|number| (number, path)));
        }
    }
    Ok(last.map(|(_, path)| path))
}

/// Where the last batch lies, if its structure is whole and only zeros follow.
fn last_batch(file: &mut (impl Read + Seek)) -> io::Result<Option<Range<u64>>> {
    let len = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let (mut start, mut last) = (0, None);
    loop {
        let at = reader.stream_position()?;
        if at >= len {
            return Ok(last);
        }
        match read_array::<1>(&mut reader)? {
            [1] => {
                start = at;
                reader.seek_relative(12)?;
            }
            [2] => skip_item(&mut reader)?,
            [3] => {
                reader.seek_relative(12)?;
                last = Some(start..reader.stream_position()?);
            }
            [0] => return Ok(if only_zeros(reader)? { last } else { None }),
            _ => return Ok(None),
        }
    }
}

fn skip_item(reader: &mut BufReader<impl Read + Seek>) -> io::Result<()> {
    reader.seek_relative(10)?;
    let key = u16::from_le_bytes(read_array(reader)?);
    reader.seek_relative(4)?;
    let value = u32::from_le_bytes(read_array(reader)?);
    reader.seek_relative(i64::from(key) + i64::from(value))
}

/// The next bytes; zeros past the end, which the caller looks for.
fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match reader.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok([0; N]),
        Err(error) => Err(error),
        Ok(()) => Ok(bytes),
    }
}

fn only_zeros(mut reader: impl Read) -> io::Result<bool> {
    let mut chunk = [0; 8192];
    loop {
        match reader.read(&mut chunk)? {
            0 => return Ok(true),
            read if chunk[..read].iter().any(|&byte| byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn batch(value: &[u8]) -> Vec<u8> {
        let len = u32::try_from(value.len()).unwrap().to_le_bytes();
        let start = [&[1, 1, 0, 0, 0], &[7; 8][..]].concat();
        let item = [&[2, 0, 0], &[9; 8][..], &[2, 0], &len, &len, b"kk", value].concat();
        let end = [&[3], &[5; 8][..], b"FJL\x03"].concat();
        [start, item, end].concat()
    }

    fn last(bytes: Vec<u8>) -> Option<Range<u64>> {
        last_batch(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn the_last_batch_is_found_before_zeros_and_before_the_end() {
        let (first, second) = (batch(b"one"), batch(&[3; 9000]));
        let both = [&first[..], &second].concat();
        let expected = Some(first.len() as u64..both.len() as u64);
        assert_eq!(last(both.clone()), expected);
        assert_eq!(last([&both[..], &[0; 20_000]].concat()), expected);
    }

    #[test]
    fn nothing_is_found_where_something_follows_or_nothing_is() {
        let one = batch(b"one");
        assert_eq!(last([&one[..], &[0; 9000], &[1]].concat()), None);
        assert_eq!(last([&one[..], &[9]].concat()), None);
        assert_eq!(last(vec![0; 100]), None);
        assert_eq!(last(Vec::new()), None);
    }
}
