//! The note that an image carries: written by the build, read wherever a sandbox of it comes up.

use std::time::Duration;

use bytes::Bytes;
use domain::ports::AgentLink;
use domain::{Error, ErrorKind, IMAGE_NOTE, ImageNote, Result};
use futures_util::StreamExt;

/// A longer one is none of ours.
const MAX_BYTES: usize = 1 << 20;
/// One call of the agent.
const CALL: Duration = Duration::from_secs(10);

/// The note of the image that this sandbox was started from; `None` where it carries none.
///
/// Errors: those of the connection; `Permanent` for a note that can't be read or that a newer Hotbed wrote.
pub async fn read_note(link: &dyn AgentLink) -> Result<Option<ImageNote>> {
    let what = || format!("read {IMAGE_NOTE} of {}", link.sandbox());
    let read = async {
        let mut stream = match link.read_file(IMAGE_NOTE).await {
            Ok(stream) => stream,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut text = Vec::new();
        while let Some(piece) = stream.next().await {
            text.extend_from_slice(&piece?);
            if text.len() > MAX_BYTES {
                return Err(Error::permanent(format!("{}: it is longer than {MAX_BYTES} bytes", what())));
            }
        }
        Ok(Some(text))
    };
    let read = tokio::time::timeout(CALL, read).await;
    let Some(text) = read.map_err(|_| Error::timeout(format!("{}: no answer", what())))?? else {
        return Ok(None);
    };
    let note: ImageNote = serde_json::from_slice(&text).map_err(|e| Error::permanent(what()).caused_by(e))?;
    if note.format > ImageNote::FORMAT {
        return Err(Error::permanent(format!(
            "{}: a newer Hotbed wrote it (format {}, known up to {})",
            what(),
            note.format,
            ImageNote::FORMAT
        )));
    }
    Ok(Some(note))
}

/// Puts the note where [`read_note`] finds it.
pub async fn write_note(link: &dyn AgentLink, note: &ImageNote) -> Result<()> {
    let what = || format!("write {IMAGE_NOTE} of {}", link.sandbox());
    let text = serde_json::to_vec_pretty(note).map_err(|e| Error::permanent(what()).caused_by(e))?;
    let write = link.write_file(IMAGE_NOTE, Bytes::from(text), Some(0o644), 0);
    match tokio::time::timeout(CALL, write).await {
        Ok(written) => written,
        Err(_) => Err(Error::timeout(format!("{}: no answer", what()))),
    }
}
