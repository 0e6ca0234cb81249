//! The kept output of one command: the bytes of both streams in the order they were read, found again by offset.
//!
//! It promises bounded memory and disk: up to 256 KiB in memory, then up to 64 MiB in a file without a name,
//! after which the oldest bytes make room and [`Log::dropped`] says how many are gone. Nothing here waits.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use domain::wire::{MAX_FRAME, StreamName};
use rustix::fs::{MemfdFlags, Mode, OFlags};

/// Kept in memory, in bytes.
pub const IN_MEMORY: u64 = 256 * 1024;
/// Kept in all, in bytes.
pub const KEPT: u64 = 64 * 1024 * 1024;
/// Kept in memory of a command that has ended, in bytes.
const IN_MEMORY_AFTER: usize = 32 * 1024;
/// Changes of stream that are remembered. Two streams that take turns byte by byte must not cost more than this.
const MAX_PIECES: usize = 256 * 1024;

/// Where the byte at `offset` lies: at `offset` modulo the capacity.
enum Store {
    Memory(Vec<u8>),
    File(File),
    /// There is no room for a file; or nobody will ask again.
    Nowhere,
}

pub struct Log {
    store: Store,
    capacity: u64,
    limit: u64,
    total: u64,
    base: u64,
    /// Offsets at which the stream changes, with the stream in the lowest bit.
    pieces: VecDeque<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Self::with_limits(IN_MEMORY, KEPT)
    }
}

fn pack(offset: u64, stream: StreamName) -> u64 {
    offset << 1 | u64::from(stream == StreamName::Stderr)
}

fn unpack(piece: u64) -> (u64, StreamName) {
    (piece >> 1, if piece & 1 == 1 { StreamName::Stderr } else { StreamName::Stdout })
}

impl Log {
    fn with_limits(in_memory: u64, limit: u64) -> Self {
        let store = Store::Memory(Vec::new());
        Self { store, capacity: in_memory, limit, total: 0, base: 0, pieces: VecDeque::new() }
    }

    /// The offset that the next byte will have.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The first offset that can still be read.
    pub fn dropped(&self) -> u64 {
        self.base
    }

    /// Bytes that are kept.
    pub fn kept(&self) -> u64 {
        self.total - self.base
    }

    /// The command has ended: gives back the memory that it does not need.
    pub fn settle(&mut self) {
        if let Store::Memory(v) = &mut self.store {
            if v.len() > IN_MEMORY_AFTER {
                self.spill();
            } else {
                v.shrink_to_fit();
            }
        }
        self.pieces.shrink_to_fit();
    }

    /// Keeps only the count from now on.
    pub fn forget(&mut self) {
        self.store = Store::Nowhere;
        self.base = self.total;
        self.pieces = VecDeque::new();
    }

    pub fn append(&mut self, stream: StreamName, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if matches!(self.store, Store::Memory(_)) && self.total + data.len() as u64 > self.capacity {
            self.spill();
        }
        if matches!(self.store, Store::Nowhere) {
            self.total += data.len() as u64;
            self.base = self.total;
            return;
        }
        if self.pieces.back().is_none_or(|p| unpack(*p).1 != stream) {
            self.pieces.push_back(pack(self.total, stream));
        }
        let mut data_left = data;
        while !data_left.is_empty() {
            let position = self.total % self.capacity;
            let room = (self.capacity - position).min(data_left.len() as u64) as usize;
            let (now, later) = data_left.split_at(room);
            if !self.write(position, now) {
                // The disk is full (F41): what is kept is given up, the command goes on.
                self.total += data_left.len() as u64;
                self.forget();
                return;
            }
            self.total += now.len() as u64;
            data_left = later;
        }
        self.base = self.base.max(self.total.saturating_sub(self.capacity));
        while self.pieces.len() > MAX_PIECES {
            self.pieces.pop_front();
            self.base = self.base.max(self.pieces.front().map_or(self.total, |p| unpack(*p).0));
        }
        while self.pieces.get(1).is_some_and(|p| unpack(*p).0 <= self.base) {
            self.pieces.pop_front();
        }
    }

    /// Bytes from `from` on, of one stream and no more than a frame holds, with the offset they begin at: later
    /// than `from` when that was dropped. `None` when there is nothing yet.
    pub fn read(&self, from: u64) -> Option<(StreamName, u64, Bytes)> {
        let from = from.max(self.base);
        if from >= self.total {
            return None;
        }
        let next = self.pieces.partition_point(|p| unpack(*p).0 <= from);
        let (_, stream) = unpack(*self.pieces.get(next.checked_sub(1)?)?);
        let end = self.pieces.get(next).map_or(self.total, |p| unpack(*p).0);
        let position = from % self.capacity;
        let length = (end - from).min(MAX_FRAME as u64).min(self.capacity - position) as usize;
        let data = match &self.store {
            Store::Memory(v) => Bytes::copy_from_slice(&v[position as usize..position as usize + length]),
            Store::File(f) => {
                let mut buf = vec![0; length];
                f.read_exact_at(&mut buf, position).ok()?;
                buf.into()
            }
            Store::Nowhere => return None,
        };
        Some((stream, from, data))
    }

    fn write(&mut self, position: u64, data: &[u8]) -> bool {
        match &mut self.store {
            Store::Memory(v) => {
                let at = position as usize;
                if v.len() < at + data.len() {
                    v.resize(at + data.len(), 0);
                }
                v[at..at + data.len()].copy_from_slice(data);
                true
            }
            Store::File(f) => f.write_all_at(data, position).is_ok(),
            Store::Nowhere => false,
        }
    }

    /// Moves to a file. Where none can be made, memory goes round and round.
    fn spill(&mut self) {
        let Store::Memory(v) = &self.store else { return };
        if self.total > self.capacity {
            return; // tried before
        }
        if let Some(file) = nameless_file()
            && file.write_all_at(v, 0).is_ok()
        {
            self.store = Store::File(file);
            self.capacity = self.limit;
        }
    }
}

fn nameless_file() -> Option<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open("/tmp", flags, mode) {
        return Some(fd.into());
    }
    // Overlay filesystems have known O_TMPFILE only since Linux 6.1.
    let mut template = *b"/tmp/.hotbed-XXXXXX\0";
    // SAFETY: the template is writable and ends with a NUL.
    let raw = unsafe { libc::mkostemp(template.as_mut_ptr().cast(), libc::O_CLOEXEC) };
    if raw >= 0 {
        // SAFETY: the call succeeded: the descriptor is ours and the template holds the name.
        let file = unsafe {
            libc::unlink(template.as_ptr().cast());
            OwnedFd::from_raw_fd(raw)
        };
        return Some(file.into());
    }
    rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use StreamName::{Stderr, Stdout};

    fn all(log: &Log, mut from: u64) -> (u64, Vec<u8>, Vec<StreamName>) {
        let (mut out, mut streams, mut first) = (Vec::new(), Vec::new(), None);
        while let Some((stream, offset, data)) = log.read(from) {
            first.get_or_insert(offset);
            out.extend_from_slice(&data);
            streams.push(stream);
            from = offset + data.len() as u64;
        }
        (first.unwrap_or(from), out, streams)
    }

    #[test]
    fn both_streams_come_back_in_order_from_any_offset() {
        let mut log = Log::default();
        log.append(Stdout, b"one");
        log.append(Stdout, b"two");
        log.append(Stderr, b"three");
        log.append(Stdout, b"four");
        assert_eq!(all(&log, 0), (0, b"onetwothreefour".to_vec(), vec![Stdout, Stderr, Stdout]));
        assert_eq!(all(&log, 8), (8, b"reefour".to_vec(), vec![Stderr, Stdout]));
        assert_eq!(log.read(15), None);
        assert_eq!(log.read(99), None);
    }

    #[test]
    fn what_spills_and_wraps_is_what_was_written() {
        let mut log = Log::with_limits(1000, 5000);
        let byte = |i: u64| (i * 7 % 251) as u8;
        let mut n = 0;
        for size in [1u64, 999, 1, 700, 3000, 12_345, 250, 5000, 4999, 3] {
            let data: Vec<u8> = (n..n + size).map(byte).collect();
            log.append(if size % 2 == 0 { Stderr } else { Stdout }, &data);
            n += size;
            assert_eq!(log.total(), n);
            assert_eq!(log.dropped(), n.saturating_sub(if n > 1000 { 5000 } else { 1000 }));
            let (first, out, _) = all(&log, 0);
            assert_eq!(first, log.dropped());
            assert_eq!(out, (first..n).map(byte).collect::<Vec<_>>());
        }
    }

    #[test]
    fn streams_that_take_turns_cost_bounded_memory() {
        let mut log = Log::with_limits(1 << 20, 1 << 24);
        for i in 0..MAX_PIECES + 1000 {
            log.append(if i % 2 == 0 { Stdout } else { Stderr }, b"x");
        }
        assert!(log.pieces.len() <= MAX_PIECES);
        assert_eq!(log.dropped(), 1000);
        assert_eq!(log.read(0).map(|(_, at, _)| at), Some(1000));
    }

    #[test]
    fn a_settled_log_is_the_same_log() {
        let mut log = Log::default();
        let data: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
        log.append(Stdout, &data);
        log.settle();
        assert!(matches!(log.store, Store::File(_)));
        log.append(Stderr, b"later");
        log.settle();
        let (_, out, streams) = all(&log, 0);
        assert_eq!((out[..100_000] == data, &out[100_000..]), (true, &b"later"[..]));
        assert_eq!(streams.last(), Some(&Stderr));
    }

    #[test]
    fn a_forgotten_log_only_counts() {
        let mut log = Log::default();
        log.append(Stdout, b"abc");
        log.forget();
        log.append(Stdout, b"de");
        assert_eq!((log.total(), log.dropped(), log.read(0)), (5, 5, None));
    }
}
