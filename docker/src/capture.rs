//! Filesystems as images: capture, import, list, remove.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bollard::models::{ContainerConfig, ContainerStateStatusEnum, ImageInspect};
use bollard::query_parameters::{
    CommitContainerOptions, CreateImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions,
};
use domain::ports::{CaptureKind, CaptureSpec, Captured, ObservedCapture};
use domain::{Digest, Error, Result, SandboxId};
use futures_util::StreamExt;
use tokio_util::io::ReaderStream;

use crate::backend::{Shared, within};
use crate::error;
use crate::reference::capture_tag;

/// Bytes read from a tar file at once.
const IMPORT_CHUNK: usize = 256 * 1024;

impl Shared {
    /// Bounded by the capture's deadline, and after a failure by a little more to leave the sandbox as it was.
    pub(crate) async fn capture(&self, id: SandboxId, spec: &CaptureSpec) -> Result<Captured> {
        let what = || format!("capture container {id}");
        let deadlines = &self.config.deadlines;
        let (engine_id, ran) = within(deadlines.query, what, async {
            let found = self.ours(id).await?;
            Ok((found.engine_id, found.status == ContainerStateStatusEnum::RUNNING))
        })
        .await?;
        let captured = within(deadlines.capture, what, self.commit(id, &engine_id, spec)).await;
        if captured.is_err() && spec.pause && ran {
            self.thaw(id).await; // F39
        }
        captured
    }

    async fn commit(&self, id: SandboxId, engine_id: &str, spec: &CaptureSpec) -> Result<Captured> {
        let what = || format!("capture container {id}");
        let docker = self.docker().await?;
        let (repo, tag) = capture_tag(self.marker.short(), spec.kind, &spec.name);
        let earlier = self.own_earlier(&format!("{repo}:{tag}")).await?;
        let options = CommitContainerOptions {
            container: Some(engine_id.to_owned()),
            repo: Some(repo),
            tag: Some(tag),
            pause: spec.pause,
            ..Default::default()
        };
        // Merged by the daemon over the container's own configuration. An entrypoint that is empty, and not
        // absent, resets it: the image must not carry our agent's path, which exists only where we mount it.
        let config = ContainerConfig {
            labels: Some(self.marker.capture_labels(spec.kind, &spec.name)),
            env: (!spec.env.is_empty()).then(|| env_list(&spec.env)),
            working_dir: spec.workdir.clone(),
            entrypoint: Some(Vec::new()),
            cmd: Some(Vec::new()),
            ..Default::default()
        };
        let made = docker.commit_container(options, config).await.map_err(|e| self.fail(what(), e))?;
        let digest = parse_digest(&made.id)?;
        self.finish(digest, earlier).await
    }

    /// The size of a capture just made; and an earlier capture of the same name, which it replaced (a repeated
    /// call after a lost answer), goes.
    async fn finish(&self, digest: Digest, earlier: Option<Digest>) -> Result<Captured> {
        let image = self.image(digest.as_str()).await?.ok_or_else(|| {
            Error::unavailable(format!("image {digest} was removed while it was being captured"))
        })?;
        if let Some(earlier) = earlier.filter(|e| *e != digest)
            && let Err(e) = self.remove_by_id(&earlier).await
        {
            tracing::debug!(error = e.chain(), "an earlier capture of the same name stays");
        }
        Ok(Captured { digest, size: size(&image) })
    }

    /// What carries this tag now, if we made it.
    async fn own_earlier(&self, tag: &str) -> Result<Option<Digest>> {
        let Some(image) = self.image(tag).await? else { return Ok(None) };
        if self.marker.capture(&labels(&image)).is_none() {
            return Ok(None);
        }
        image.id.as_deref().map(parse_digest).transpose()
    }

    /// `None` when there is no such image.
    pub(crate) async fn image(&self, reference: &str) -> Result<Option<ImageInspect>> {
        match self.docker().await?.inspect_image(reference).await {
            Ok(image) => Ok(Some(image)),
            Err(e) if error::is_status(&e, 404) => Ok(None),
            Err(e) => Err(self.fail(format!("inspect image {reference}"), e)),
        }
    }

    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.image(digest.as_str()).await?.is_some())
    }

    pub(crate) async fn import(&self, tar: &Path, spec: &CaptureSpec) -> Result<Captured> {
        let what = || format!("import {}", tar.display());
        let file = tokio::fs::File::open(tar).await.map_err(|e| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => domain::ErrorKind::NotFound,
                _ => domain::ErrorKind::Permanent,
            };
            Error::new(kind, what()).caused_by(e)
        })?;
        let docker = self.docker().await?;
        let (repo, tag) = capture_tag(self.marker.short(), spec.kind, &spec.name);
        let earlier = self.own_earlier(&format!("{repo}:{tag}")).await?;
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repo),
            tag: Some(tag),
            changes: self.changes(spec)?,
            ..Default::default()
        };
        let body = bollard::body_try_stream(ReaderStream::with_capacity(file, IMPORT_CHUNK));
        let mut answers = docker.create_image(Some(options), Some(body), None);
        let mut digest = None;
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|e| self.fail(what(), e))?;
            digest = answer.status.filter(|s| s.starts_with("sha256:")).or(digest);
        }
        let digest = digest.ok_or_else(|| {
            Error::permanent(format!("{}: the engine ended without naming the image", what()))
        })?;
        self.finish(parse_digest(&digest)?, earlier).await
    }

    /// The configuration of an imported image, as Dockerfile instructions: the only way the endpoint takes it.
    fn changes(&self, spec: &CaptureSpec) -> Result<Vec<String>> {
        let mut changes = Vec::new();
        let labels: BTreeMap<_, _> = self.marker.capture_labels(spec.kind, &spec.name).into_iter().collect();
        for (key, value) in labels {
            changes.push(format!("LABEL {}={}", quote(&key)?, quote(&value)?));
        }
        for (key, value) in &spec.env {
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(Error::invalid(format!(
                    "environment name `{key}`: expected letters, digits and `_`"
                )));
            }
            changes.push(format!("ENV {key}={}", quote(value)?));
        }
        if let Some(workdir) = &spec.workdir {
            changes.push(format!("WORKDIR {}", quote(workdir)?));
        }
        Ok(changes)
    }

    pub(crate) async fn list_captures(&self) -> Result<Vec<ObservedCapture>> {
        let options = ListImagesOptions { filters: Some(self.marker.filter()), ..Default::default() };
        let docker = self.docker().await?;
        let all = docker.list_images(Some(options)).await.map_err(|e| self.fail("list images", e))?;
        let marked: HashMap<_, _> =
            all.iter().filter_map(|i| Some((i.id.as_str(), self.marker.capture(&i.labels)?))).collect();
        let mut captures = Vec::new();
        for image in &all {
            let Some((kind, name)) = marked.get(image.id.as_str()) else { continue };
            // What somebody builds on top of a capture inherits its labels, and does not carry its tag. A capture
            // whose client was killed carries none either once it is taken again under the same name (F31); it
            // stands on what its sandbox ran, and never on one of its own name.
            let (repo, tag) = capture_tag(self.marker.short(), *kind, name);
            let tagged = image.repo_tags.contains(&format!("{repo}:{tag}"));
            let untagged = image.repo_tags.iter().all(|t| t == "<none>:<none>");
            let on_another = !image.parent_id.is_empty()
                && marked.get(image.parent_id.as_str()).is_none_or(|(k, n)| (k, n) != (kind, name));
            if tagged || (untagged && on_another) {
                let size = u64::try_from(image.size).unwrap_or(0);
                captures.push(ObservedCapture {
                    digest: parse_digest(&image.id)?,
                    kind: *kind,
                    name: name.clone(),
                    size,
                });
            }
        }
        Ok(captures)
    }

    /// Removes exactly this image, with every tag that it has. Children and users of it are a `Conflict`, and
    /// then nothing has changed.
    pub(crate) async fn remove_capture(&self, digest: &Digest) -> Result<()> {
        let Some(image) = self.image(digest.as_str()).await? else { return Ok(()) };
        let Some((kind, name)) = self.marker.capture(&labels(&image)) else {
            return Err(Error::conflict(format!(
                "remove image {digest}: it was not captured by this instance of Hotbed"
            )));
        };
        let (repo, tag) = capture_tag(self.marker.short(), kind, &name);
        let own = format!("{repo}:{tag}");
        // The engine removes by id what has one tag, and checks first that nothing stands on it. Other tags (of a
        // push) go before that, and come back if it fails.
        let tags = image.repo_tags.unwrap_or_default();
        let others: Vec<String> = tags.into_iter().filter(|t| *t != own).collect();
        for other in &others {
            self.untag(other).await?;
        }
        if let Some(image) = self.image(digest.as_str()).await? {
            for pushed in image.repo_digests.unwrap_or_default() {
                self.untag(&pushed).await?;
            }
        }
        // Below a base lie the steps of the classic builder, which have no name and no label.
        let removed = match kind {
            CaptureKind::Base => self.remove_with_parents(digest.as_str()).await,
            CaptureKind::Image | CaptureKind::Snapshot => self.remove_by_id(digest).await,
        };
        if removed.is_err() {
            for other in &others {
                if let Err(e) = self.tag(digest, other).await {
                    tracing::warn!(error = e.chain(), "a tag of an image that could not be removed is lost");
                }
            }
        }
        removed
    }

    pub(crate) async fn adopt(&self, digest: &Digest) -> Result<()> {
        let image = self.image(digest.as_str()).await?;
        let image = image.ok_or_else(|| Error::not_found(format!("image {digest} is not on this engine")))?;
        let Some((kind, name)) = self.marker.capture(&labels(&image)) else {
            return Err(Error::conflict(format!(
                "image {digest} was not captured by this instance of Hotbed"
            )));
        };
        let (repo, tag) = capture_tag(self.marker.short(), kind, &name);
        self.tag(digest, &format!("{repo}:{tag}")).await
    }

    async fn untag(&self, reference: &str) -> Result<()> {
        let docker = self.docker().await?;
        let options = RemoveImageOptions { force: false, noprune: true, platforms: None };
        match docker.remove_image(reference, Some(options), None).await {
            Err(e) if !error::is_status(&e, 404) => Err(self.fail(format!("untag {reference}"), e)),
            _ => Ok(()),
        }
    }

    /// Not its parents with it: what is to go is named.
    async fn remove_by_id(&self, digest: &Digest) -> Result<()> {
        self.remove(digest.as_str(), false).await
    }

    /// With those of its parents that have no name and carry nothing else.
    pub(crate) async fn remove_with_parents(&self, id: &str) -> Result<()> {
        self.remove(id, true).await
    }

    async fn remove(&self, id: &str, parents: bool) -> Result<()> {
        let docker = self.docker().await?;
        let options = RemoveImageOptions { force: false, noprune: !parents, platforms: None };
        match docker.remove_image(id, Some(options), None).await {
            Err(e) if !error::is_status(&e, 404) => Err(self.fail(format!("remove image {id}"), e)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn tag(&self, digest: &Digest, reference: &str) -> Result<()> {
        let reference = crate::reference::Reference::parse(reference)?;
        if reference.digest.is_some() {
            return Err(Error::invalid(format!("tag {}: a tag can't hold a digest", reference.full())));
        }
        let options = TagImageOptions {
            repo: Some(reference.repository.clone()),
            tag: Some(reference.tag.clone().unwrap_or_else(|| "latest".to_owned())),
        };
        let docker = self.docker().await?;
        let what = || format!("tag image {digest} as {}", reference.full());
        docker.tag_image(digest.as_str(), Some(options)).await.map_err(|e| self.fail(what(), e))
    }
}

pub(crate) fn parse_digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|e| Error::permanent("the engine named an image by something else").caused_by(e))
}

pub(crate) fn size(image: &ImageInspect) -> u64 {
    image.size.and_then(|s| u64::try_from(s).ok()).unwrap_or(0)
}

fn labels(image: &ImageInspect) -> crate::mark::Labels {
    image.config.as_ref().and_then(|c| c.labels.clone()).unwrap_or_default()
}

fn env_list(env: &BTreeMap<String, String>) -> Vec<String> {
    env.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// A word of a Dockerfile instruction that means what it says.
fn quote(text: &str) -> Result<String> {
    if text.contains(['\n', '\r', '\0']) {
        return Err(Error::invalid(format!("`{}`: a line break can't be written here", text.escape_debug())));
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_they_say() {
        assert_eq!(quote(r#"a "$HOME" \"#).unwrap(), r#""a \"\$HOME\" \\""#);
        assert!(quote("a\nRUN x").is_err());
    }
}
