//! The bridge of our own that sandboxes with network stand on: made when the first one needs it, never the
//! engine's default bridge, and without traffic between sandboxes.

use std::collections::HashMap;
use std::sync::RwLock;

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::ListNetworksOptions;
use domain::{Error, ErrorKind, Result};
use tokio::sync::Mutex;

use crate::backend::Shared;
use crate::error;
use crate::mark::Marker;

pub(crate) struct OwnNetwork {
    pub(crate) name: String,
    /// The engine's id of it, once it is known to be there. By id, because on Docker 20.10 two networks may share
    /// a name.
    id: RwLock<Option<String>>,
    /// One at a time looks and makes: two makers would make two networks of one name.
    making: Mutex<()>,
}

impl OwnNetwork {
    pub(crate) fn new(marker: &Marker) -> Self {
        Self { name: format!("hotbed-{}", marker.short()), id: RwLock::new(None), making: Mutex::new(()) }
    }

    fn known(&self) -> Option<String> {
        self.id.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn set(&self, id: Option<String>) {
        *self.id.write().unwrap_or_else(|e| e.into_inner()) = id;
    }

    /// Somebody removed it; the next start makes it again.
    pub(crate) fn forget(&self) {
        self.set(None);
    }
}

impl Shared {
    /// The id of our own network, made if need be.
    pub(crate) async fn own_network(&self) -> Result<String> {
        let own = &self.network;
        if let Some(id) = own.known() {
            return Ok(id);
        }
        // Held across calls that have the start's deadline; who waits has a deadline too.
        let _making = own.making.lock().await;
        if let Some(id) = own.known() {
            return Ok(id);
        }
        let id = match self.find_network().await? {
            Some(id) => id,
            None => self.make_network().await?,
        };
        own.set(Some(id.clone()));
        Ok(id)
    }

    async fn find_network(&self) -> Result<Option<String>> {
        let name = &self.network.name;
        let what = || format!("look for network {name}");
        let filters = HashMap::from([("name".to_owned(), vec![format!("^{name}$")])]);
        let options = ListNetworksOptions { filters: Some(filters) };
        let docker = self.docker().await?;
        let networks = docker.list_networks(Some(options)).await.map_err(|e| self.fail(what(), e))?;
        let same: Vec<_> = networks.into_iter().filter(|n| n.name.as_deref() == Some(name)).collect();
        let foreign = !same.is_empty();
        for network in same {
            let labels = network.labels.unwrap_or_default();
            if let (Some(id), true) = (network.id, self.marker.is_own_network(name, &labels)) {
                return Ok(Some(id));
            }
        }
        if foreign {
            // Its rules are not known to us, so nothing is put on it (F6).
            return Err(Error::conflict(format!(
                "network {name} exists and was not made by this instance of Hotbed; remove it"
            )));
        }
        Ok(None)
    }

    async fn make_network(&self) -> Result<String> {
        let name = &self.network.name;
        let options = [("com.docker.network.bridge.enable_icc", "false")];
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            options: Some(options.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            labels: Some(self.marker.network_labels(name)),
            ..Default::default()
        };
        let docker = self.docker().await?;
        match docker.create_network(request).await {
            Ok(made) => Ok(made.id),
            Err(e) if error::kind(&e) == ErrorKind::Exhausted => Err(self.fail(
                format!(
                    "make network {name}: the engine has no free subnet left; remove unused networks or widen its \
                     `default-address-pools`"
                ),
                e,
            )),
            Err(e) => Err(self.fail(format!("make network {name}"), e)),
        }
    }

    /// Removes the network unless something stands on it.
    pub(crate) async fn remove_network(&self) -> Result<()> {
        let own = &self.network;
        let _making = own.making.lock().await;
        let found = match self.find_network().await {
            Ok(found) => found,
            // One of the same name that is not ours stays.
            Err(e) if e.kind() == ErrorKind::Conflict => None,
            Err(e) => return Err(e),
        };
        own.forget();
        let Some(id) = found else { return Ok(()) };
        let docker = self.docker().await?;
        match docker.remove_network(&id).await {
            Err(e) if !matches!(error::kind(&e), ErrorKind::NotFound | ErrorKind::Conflict) => {
                Err(self.fail(format!("remove network {}", own.name), e))
            }
            // In use, or gone already.
            _ => Ok(()),
        }
    }
}
