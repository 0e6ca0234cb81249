//! The body of a request on its way in: unpacked when it came packed, counted, and not longer than allowed.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use flate2::write::GzDecoder;

use crate::pump::{Plain, Source};
use crate::relay::Body;

/// Packed bytes that are unpacked at a time. It bounds what one step can swell to: gzip packs at most some
/// thousand to one.
const STEP: usize = 4096;

pub(super) struct Inbound<B> {
    body: Plain<B>,
    gunzip: Option<GzDecoder<Vec<u8>>>,
    /// Packed bytes that have not been unpacked yet.
    packed: Bytes,
    /// Unpacked bytes to be given out first.
    front: Bytes,
    room: u64,
    received: Arc<AtomicU64>,
}

impl<B: Body> Inbound<B> {
    /// `limit` is in bytes after unpacking; `received` counts bytes as they came.
    pub(super) fn new(body: B, gzip: bool, limit: u64, received: Arc<AtomicU64>) -> Self {
        Self {
            body: Plain(body),
            gunzip: gzip.then(|| GzDecoder::new(Vec::new())),
            packed: Bytes::new(),
            front: Bytes::new(),
            room: limit,
            received,
        }
    }

    /// Puts bytes back that were taken too far.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.front = bytes;
    }

    async fn unpacked(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.packed.is_empty() {
                match self.body.next().await? {
                    Some(bytes) => {
                        self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        self.packed = bytes;
                    }
                    None => {
                        let Some(mut gunzip) = self.gunzip.take() else { return Ok(None) };
                        gunzip.try_finish()?;
                        let last = std::mem::take(gunzip.get_mut());
                        return Ok((!last.is_empty()).then(|| last.into()));
                    }
                }
            }
            let Some(gunzip) = self.gunzip.as_mut() else {
                let bytes = std::mem::take(&mut self.packed);
                if bytes.is_empty() {
                    continue;
                }
                return Ok(Some(bytes));
            };
            let step = self.packed.len().min(STEP);
            gunzip.write_all(&self.packed[..step])?;
            self.packed.advance(step);
            let bytes = std::mem::take(gunzip.get_mut());
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
        }
    }
}

impl<B: Body> Source for Inbound<B> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if !self.front.is_empty() {
            return Ok(Some(std::mem::take(&mut self.front)));
        }
        let Some(bytes) = self.unpacked().await? else { return Ok(None) };
        self.room = self
            .room
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the request is too large"))?;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http_body_util::Full;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(data).unwrap();
        packer.finish().unwrap()
    }

    async fn read(body: Vec<u8>, packed: bool, limit: u64) -> io::Result<(Vec<u8>, u64)> {
        let received = Arc::new(AtomicU64::new(0));
        let mut inbound = Inbound::new(Full::new(Bytes::from(body)), packed, limit, received.clone());
        let mut all = Vec::new();
        while let Some(bytes) = inbound.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok((all, received.load(Ordering::Relaxed)))
    }

    #[tokio::test]
    async fn packed_and_plain_bodies_are_read() {
        let data: Vec<u8> =
            (0..200_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let packed = gzip(&data);
        let length = packed.len() as u64;
        assert_eq!(read(packed, true, 1 << 30).await.unwrap(), (data.clone(), length));
        assert_eq!(read(data.clone(), false, 1 << 30).await.unwrap().0, data);
        assert!(read(Vec::new(), false, 0).await.unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn what_swells_beyond_the_limit_is_an_error() {
        let bomb = gzip(&vec![0; 50_000_000]);
        assert!(bomb.len() < 100_000);
        assert!(read(bomb, true, 1_000_000).await.is_err());
        assert!(read(vec![0; 11], false, 10).await.is_err());
    }

    #[tokio::test]
    async fn a_broken_pack_is_an_error() {
        assert!(read(b"no gzip at all".to_vec(), true, 1000).await.is_err());
        let mut cut = gzip(&[7; 5000]);
        cut.truncate(cut.len() - 6);
        assert!(read(cut, true, 10_000).await.is_err());
    }
}
