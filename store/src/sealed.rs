//! Sealed secrets, by name: the port of the vault. What is in them is not for this crate to see.

use async_trait::async_trait;
use domain::Result;
use domain::ports::SealedStore;
use rusqlite::OptionalExtension;

use crate::failure;
use crate::store::Store;
use crate::tx::Tx;

#[async_trait]
impl SealedStore for Store {
    async fn put_sealed(&self, name: &str, sealed: Vec<u8>) -> Result<()> {
        self.commit(Tx::new().sealed(name, sealed)).await
    }

    async fn sealed(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = name.to_owned();
        self.read(move |conn| {
            conn.prepare_cached("SELECT body FROM sealed WHERE name = ?1")
                .and_then(|mut stmt| stmt.query_row([&name], |row| row.get(0)).optional())
                .map_err(|e| failure::sql(format!("read row {name} of table sealed"), e))
        })
        .await
    }

    async fn remove_sealed(&self, name: &str) -> Result<()> {
        self.commit(Tx::new().remove_sealed(name)).await
    }

    async fn sealed_names(&self, prefix: &str) -> Result<Vec<String>> {
        let prefix = prefix.to_owned();
        self.read(move |conn| {
            // Not LIKE, which reads `_` and `%` in a name as signs.
            conn.prepare_cached(
                "SELECT name FROM sealed WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
            )
            .and_then(|mut stmt| stmt.query_map([&prefix], |row| row.get(0))?.collect())
            .map_err(|e| failure::sql("list table sealed", e))
        })
        .await
    }
}
