//! Sealed secrets in memory. It can be told to fail, which is when what was to be stored is lost.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use crate::ports::SealedStore;
use crate::{Error, Result};

#[derive(Debug, Default)]
pub struct FakeSealed {
    lying: Mutex<BTreeMap<String, Vec<u8>>>,
    failing: AtomicBool,
}

impl FakeSealed {
    /// What lies there, as it lies there.
    pub fn lying(&self, name: &str) -> Option<Vec<u8>> {
        self.lying.lock().expect("lock").get(name).cloned()
    }

    /// Whether writing fails from now on.
    pub fn fail(&self, on: bool) {
        self.failing.store(on, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(Error::exhausted("write what is sealed: told to fail"));
        }
        Ok(())
    }
}

#[async_trait]
impl SealedStore for FakeSealed {
    async fn put_sealed(&self, name: &str, sealed: Vec<u8>) -> Result<()> {
        self.check()?;
        self.lying.lock().expect("lock").insert(name.to_owned(), sealed);
        Ok(())
    }

    async fn sealed(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.lying(name))
    }

    async fn remove_sealed(&self, name: &str) -> Result<()> {
        self.check()?;
        self.lying.lock().expect("lock").remove(name);
        Ok(())
    }

    async fn sealed_names(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.lying.lock().expect("lock").keys().filter(|n| n.starts_with(prefix)).cloned().collect())
    }
}
