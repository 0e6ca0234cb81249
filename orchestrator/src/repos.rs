//! The configured repos and their images, in memory: what the claim path and the plans look at.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use domain::{CommitId, Error, ImageId, ImageRecord, ImageState, RepoName, RepoSpec, Result};
use tokio::sync::{Notify, watch};

#[derive(Debug)]
pub struct Repos {
    specs: RwLock<BTreeMap<RepoName, Arc<RepoSpec>>>,
    /// Every image that is not being removed, oldest first.
    images: RwLock<HashMap<RepoName, Vec<ImageRecord>>>,
    /// Moves when an image becomes current, or is handed out no more.
    pub promoted: watch::Sender<u64>,
    /// The tip of each repo's own branch as it was last seen.
    tips: RwLock<HashMap<RepoName, CommitId>>,
    /// Repos whose upstream was pushed to since somebody looked.
    pushed: Mutex<HashSet<RepoName>>,
    /// Wakes who follows the branches.
    pub push_poke: Arc<Notify>,
}

/// See [`Repos::handed_out`].
#[derive(Debug, Clone, Default)]
pub struct HandedOut {
    pub current: Option<ImageRecord>,
    /// What a share of them tries first.
    pub canary: Option<ImageRecord>,
}

impl HandedOut {
    pub fn get(self, id: ImageId) -> Option<ImageRecord> {
        self.current.into_iter().chain(self.canary).find(|i| i.id == id)
    }
}

/// What is said of a repo that is not configured, and of one that somebody may not know of.
pub fn unknown(repo: &RepoName) -> Error {
    Error::not_found(format!("there is no repo `{repo}` in the configuration (`hotbed repo ls` lists them)"))
}

impl Repos {
    pub fn new(specs: Vec<RepoSpec>, images: Vec<ImageRecord>) -> Arc<Self> {
        let mut by_repo: HashMap<_, Vec<_>> = HashMap::new();
        for image in images {
            by_repo.entry(image.repo.clone()).or_default().push(image);
        }
        for list in by_repo.values_mut() {
            list.sort_by_key(|i| i.id);
        }
        let specs = specs.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect();
        Arc::new(Self {
            specs: RwLock::new(specs),
            images: RwLock::new(by_repo),
            promoted: watch::Sender::new(0),
            tips: RwLock::default(),
            pushed: Mutex::default(),
            push_poke: Arc::default(),
        })
    }

    /// `NotFound` for a name that is not configured.
    pub fn spec(&self, repo: &RepoName) -> Result<Arc<RepoSpec>> {
        self.get(repo).ok_or_else(|| unknown(repo))
    }

    pub fn get(&self, repo: &RepoName) -> Option<Arc<RepoSpec>> {
        self.specs.read().unwrap_or_else(PoisonError::into_inner).get(repo).cloned()
    }

    pub fn all(&self) -> Vec<Arc<RepoSpec>> {
        self.specs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A new configuration is in force.
    pub fn replace(&self, specs: Vec<RepoSpec>) {
        let specs = specs.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect();
        *self.specs.write().unwrap_or_else(PoisonError::into_inner) = specs;
    }

    pub fn current_image(&self, repo: &RepoName) -> Option<ImageRecord> {
        let images = self.images.read().unwrap_or_else(PoisonError::into_inner);
        images.get(repo)?.iter().find(|i| i.state == ImageState::Current).cloned()
    }

    /// What sandboxes of this repo may start from.
    pub fn handed_out(&self, repo: &RepoName) -> HandedOut {
        let images = self.images.read().unwrap_or_else(PoisonError::into_inner);
        let Some(images) = images.get(repo) else { return HandedOut::default() };
        let of = |state| images.iter().find(|i| i.state == state).cloned();
        HandedOut { current: of(ImageState::Current), canary: of(ImageState::Canary) }
    }

    /// The images that a session or a warm-up may get, first the one that it should get: the canary for its share of
    /// them, else the current one.
    pub fn offer(&self, spec: &RepoSpec, id: u128) -> Vec<ImageRecord> {
        let HandedOut { current, canary } = self.handed_out(&spec.name);
        let tries = spec.rollout.canary.as_ref().is_some_and(|p| image_builder::tries_canary(id, p));
        let (first, second) = if tries { (canary, current) } else { (current, canary) };
        first.into_iter().chain(second).collect()
    }

    pub fn images(&self, repo: &RepoName) -> Vec<ImageRecord> {
        let images = self.images.read().unwrap_or_else(PoisonError::into_inner);
        images.get(repo).cloned().unwrap_or_default()
    }

    pub fn all_images(&self) -> Vec<ImageRecord> {
        let images = self.images.read().unwrap_or_else(PoisonError::into_inner);
        images.values().flatten().cloned().collect()
    }

    /// Takes over rows that have just been written.
    pub fn put_images(&self, rows: &[ImageRecord]) {
        let mut images = self.images.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let list = images.entry(row.repo.clone()).or_default();
            match list.iter_mut().find(|i| i.id == row.id) {
                Some(old) => *old = row.clone(),
                None => list.push(row.clone()),
            }
        }
        drop(images);
        let moves = |r: &ImageRecord| matches!(r.state, ImageState::Current | ImageState::Demoted);
        if rows.iter().any(moves) {
            self.promoted.send_modify(|n| *n += 1);
        }
    }

    pub fn remove_image(&self, repo: &RepoName, id: ImageId) {
        let mut images = self.images.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = images.get_mut(repo) {
            list.retain(|i| i.id != id);
        }
    }

    /// What a claim prefers its member to be at.
    pub fn tip(&self, repo: &RepoName) -> Option<CommitId> {
        self.tips.read().unwrap_or_else(PoisonError::into_inner).get(repo).cloned()
    }

    /// True where it has moved.
    pub fn set_tip(&self, repo: &RepoName, tip: &CommitId) -> bool {
        if self.tip(repo).as_ref() == Some(tip) {
            return false;
        }
        self.tips.write().unwrap_or_else(PoisonError::into_inner).insert(repo.clone(), tip.clone());
        true
    }

    /// Upstream was pushed to: the next to look need not wait until it is time.
    pub fn note_push(&self, repo: &RepoName) {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner).insert(repo.clone());
    }

    /// What was pushed to since this was last asked.
    pub fn take_pushed(&self) -> HashSet<RepoName> {
        std::mem::take(&mut self.pushed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The variables that make tools trust the repo's own certificates; none where it has none.
    pub fn trust_env(&self, repo: &RepoName) -> BTreeMap<String, String> {
        match self.get(repo) {
            Some(spec) if !spec.image.ca_certificates.is_empty() => image_builder::trust_env(),
            _ => BTreeMap::new(),
        }
    }
}
