//! The files of an image, read without running anything of it: a container that is made and never started, and the
//! engine's export of it, which is parsed while it comes and kept nowhere.
//!
//! There is one such container at a time and it has one name, so that whatever a crash leaves of it is found: by the
//! next reading, and by the next look at the sandboxes.

use std::io::{self, Read};
use std::pin::pin;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bollard::models::{ContainerCreateBody, ContainerSummary, HostConfig};
use bollard::query_parameters::CreateContainerOptions;
use bytes::{Buf, Bytes};
use domain::ports::{ContentFilter, TreeEntry, TreeStream};
use domain::{Digest, Error, Result};
use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::backend::{Shared, within};
use crate::error;

/// Chunks of the export, and entries, that wait for who reads them.
const CHUNKS: usize = 16;
const ENTRIES: usize = 1024;
/// Bytes that are hashed at once.
const BLOCK: usize = 64 * 1024;

type Entries = mpsc::Sender<Result<TreeEntry>>;

impl Shared {
    /// The stream ends after the container is gone.
    pub(crate) async fn read_tree(
        self: &Arc<Self>,
        digest: &Digest,
        content: ContentFilter,
    ) -> Result<TreeStream> {
        let begun = Instant::now();
        let turn = self.reading.clone().acquire_owned().await;
        let turn = turn.map_err(|e| Error::permanent("read an image").caused_by(e))?;
        let made =
            within(self.config.deadlines.query, || format!("read image {digest}"), self.make_reader(digest))
                .await;
        let engine_id = match made {
            Ok(engine_id) => engine_id,
            Err(e) => {
                let failed = Err(e);
                self.note("read_tree", begun, &failed);
                return failed;
            }
        };
        let (to, from) = mpsc::channel(ENTRIES);
        tokio::spawn(self.clone().tell_tree(engine_id, content, to, turn, begun));
        Ok(stream::unfold(from, async |mut from| Some((from.recv().await?, from))).boxed())
    }

    async fn tell_tree(
        self: Arc<Self>,
        engine_id: String,
        content: ContentFilter,
        to: Entries,
        turn: OwnedSemaphorePermit,
        begun: Instant,
    ) {
        let deadlines = &self.config.deadlines;
        let what = || "read the files of an image".to_owned();
        let read = within(deadlines.read, what, self.export(&engine_id, content, to.clone())).await;
        self.note("read_tree", begun, &read);
        let remove = || "remove the container that an image was read through".to_owned();
        if let Err(e) = within(deadlines.stop, remove, self.remove_container(&engine_id)).await {
            tracing::warn!(error = e.chain(), "a container stays until the next look at the sandboxes");
        }
        drop(turn);
        if let Err(e) = read {
            // Who has gone away does not want to know.
            let _ = to.send(Err(e)).await;
        }
    }

    async fn make_reader(&self, digest: &Digest) -> Result<String> {
        let docker = self.docker().await?;
        let name = self.reader_name();
        let body = || ContainerCreateBody {
            image: Some(digest.to_string()),
            // Never run; the engine wants one.
            entrypoint: Some(vec!["/".to_owned()]),
            cmd: Some(Vec::new()),
            labels: Some(self.marker.reader_labels(&name)),
            host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..Default::default() }),
            ..Default::default()
        };
        let options = || CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        let mut made = docker.create_container(Some(options()), body()).await;
        if made.as_ref().is_err_and(|e| error::is_status(e, 409)) {
            // What an earlier one left. A name can be taken by others: then it is theirs, and stays.
            self.remove_reader(&name).await?;
            made = docker.create_container(Some(options()), body()).await;
        }
        made.map(|made| made.id).map_err(|e| self.fail(format!("read image {digest}"), e))
    }

    fn reader_name(&self) -> String {
        format!("hotbed-reader-{}", self.marker.short())
    }

    async fn remove_reader(&self, name: &str) -> Result<()> {
        let docker = self.docker().await?;
        let found = docker.inspect_container(name, None).await;
        let found = match found {
            Ok(found) => found,
            Err(e) if error::is_status(&e, 404) => return Ok(()),
            Err(e) => return Err(self.fail(format!("inspect container {name}"), e)),
        };
        let labels = found.config.and_then(|c| c.labels).unwrap_or_default();
        match found.id {
            Some(id) if self.marker.is_reader(name, &labels) => self.remove_container(&id).await,
            _ => Err(Error::conflict(format!("container {name} was not made by this instance of Hotbed"))),
        }
    }

    /// Removes what a reading that was cut off has left, as far as it is in a list of our containers.
    pub(crate) async fn drop_left_reader(&self, listed: &[ContainerSummary]) {
        let name = self.reader_name();
        let shown = format!("/{name}");
        let is_reader = |c: &&ContainerSummary| {
            c.names.as_ref().is_some_and(|names| names.contains(&shown))
                && c.labels.as_ref().is_some_and(|labels| self.marker.is_reader(&name, labels))
        };
        let Some(id) = listed.iter().find(is_reader).and_then(|c| c.id.as_deref()) else { return };
        // Whoever reads now has the turn.
        let Ok(_turn) = self.reading.try_acquire() else { return };
        match self.remove_container(id).await {
            Ok(()) => tracing::info!("removed a container that a reading of an image had left"),
            Err(e) => tracing::debug!(error = e.chain(), "what a reading of an image left stays for now"),
        }
    }

    async fn export(&self, engine_id: &str, content: ContentFilter, to: Entries) -> Result<()> {
        let docker = self.docker().await?;
        let (chunks, received) = mpsc::channel(CHUNKS);
        let from = Pipe { chunks: received, left: Bytes::new() };
        let parsing = tokio::task::spawn_blocking(move || parse(from, content, &to));
        let mut exported = pin!(docker.export_container(engine_id));
        let mut broken = None;
        while let Some(chunk) = exported.next().await {
            match chunk {
                Ok(chunk) => {
                    // The parser has seen the end, or nobody listens to it any more.
                    if chunks.send(chunk).await.is_err() {
                        break;
                    }
                }
                Err(e) => {
                    broken = Some(self.fail("read the files of an image", e));
                    break;
                }
            }
        }
        drop(chunks);
        let parsed = parsing.await;
        if let Some(e) = broken {
            return Err(e);
        }
        let bad = || "read what the engine exports of an image";
        match parsed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Error::permanent(bad()).caused_by(e)),
            Err(e) => Err(Error::permanent(bad()).caused_by(e)),
        }
    }
}

/// Chunks as they come from the engine, to read from on a thread of its own.
struct Pipe {
    chunks: mpsc::Receiver<Bytes>,
    left: Bytes,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.left = chunk,
                None => return Ok(0),
            }
        }
        let n = self.left.len().min(into.len());
        self.left.copy_to_slice(&mut into[..n]);
        Ok(n)
    }
}

fn parse(from: impl Read, content: ContentFilter, to: &Entries) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    let mut block = vec![0; BLOCK];
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let read = read_entry(&mut entry, content, &mut block)?;
        if to.blocking_send(Ok(read)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn read_entry(
    entry: &mut tar::Entry<'_, impl Read>,
    content: ContentFilter,
    block: &mut [u8],
) -> io::Result<TreeEntry> {
    let mut print = Context::new(&SHA256);
    let field = |print: &mut Context, bytes: &[u8]| {
        print.update(&(bytes.len() as u64).to_le_bytes());
        print.update(bytes);
    };
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if extension.key_bytes().starts_with(b"SCHILY.xattr.") {
                field(&mut print, extension.key_bytes());
                field(&mut print, extension.value_bytes());
            }
        }
    }
    let header = entry.header();
    field(&mut print, &[header.entry_type().as_byte()]);
    field(&mut print, &header.mode()?.to_le_bytes());
    field(&mut print, &header.uid()?.to_le_bytes());
    field(&mut print, &header.gid()?.to_le_bytes());
    // Only devices have them; what others have in their place means nothing.
    for number in [header.device_major(), header.device_minor()].map(|n| n.ok().flatten().unwrap_or(0)) {
        field(&mut print, &number.to_le_bytes());
    }
    field(&mut print, &entry.link_name_bytes().unwrap_or_default());

    let mut path = vec![b'/'];
    path.extend_from_slice(&entry.path_bytes());
    let size = entry.size();
    let mut kept = (content(&path) && size <= TreeEntry::MAX_CONTENT).then(Vec::new);
    loop {
        match entry.read(block)? {
            0 => break,
            n => {
                print.update(&block[..n]);
                if let Some(kept) = &mut kept {
                    kept.extend_from_slice(&block[..n]);
                }
            }
        }
    }
    let mut short = [0; 16];
    short.copy_from_slice(&print.finish().as_ref()[..16]);
    Ok(TreeEntry { path, size, print: short, content: kept.map(Bytes::from) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tar: Vec<u8>, content: ContentFilter) -> io::Result<Vec<TreeEntry>> {
        let (to, mut from) = mpsc::channel(64);
        parse(tar.as_slice(), content, &to)?;
        drop(to);
        let mut all = Vec::new();
        while let Some(entry) = from.blocking_recv() {
            all.push(entry.unwrap());
        }
        Ok(all)
    }

    fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header
    }

    fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, mtime: u64, content: &[u8]) {
        let mut header = header(tar::EntryType::Regular, mode);
        header.set_mtime(mtime);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    }

    #[test]
    fn equal_content_has_an_equal_print_whenever_it_was_written() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut dir = header(tar::EntryType::Directory, 0o755);
        tar.append_data(&mut dir, "etc/", io::empty()).unwrap();
        file(&mut tar, "a", 0o644, 1, b"one");
        file(&mut tar, "b", 0o644, 2, b"one");
        file(&mut tar, "mode", 0o755, 1, b"one");
        file(&mut tar, "other", 0o644, 1, b"two");
        let xattr = [("SCHILY.xattr.security.capability", b"cap".as_slice())];
        tar.append_pax_extensions(xattr).unwrap();
        file(&mut tar, "xattr", 0o644, 1, b"one");
        let mut link = header(tar::EntryType::Symlink, 0o777);
        tar.append_link(&mut link, "link", "a").unwrap();
        tar.append_link(&mut link, "link2", "b").unwrap();
        let read = read(tar.into_inner().unwrap(), |path| path == b"/other").unwrap();
        let names: Vec<_> = read.iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect();
        assert_eq!(names, ["/a", "/b", "/mode", "/other", "/xattr", "/link", "/link2"]);
        assert_eq!(read[0].print, read[1].print);
        for (i, one) in read.iter().enumerate() {
            for other in read.iter().skip(i.max(1) + 1) {
                assert_ne!(one.print, other.print, "{one:?} {other:?}");
            }
        }
        assert_eq!(read[0].size, 3);
        let contents: Vec<_> = read.iter().filter_map(|e| e.content.as_deref()).collect();
        assert_eq!(contents, [b"two"]);
    }

    #[test]
    fn what_breaks_off_is_an_error_and_no_shorter_tree() {
        let mut tar = tar::Builder::new(Vec::new());
        file(&mut tar, "a", 0o644, 1, &[7; 4000]);
        let whole = tar.into_inner().unwrap();
        assert_eq!(read(whole.clone(), |_| false).unwrap().len(), 1);
        assert!(read(whole[..2000].to_vec(), |_| false).is_err());
    }
}
