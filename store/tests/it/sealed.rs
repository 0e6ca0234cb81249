//! Sealed secrets: bytes in, the same bytes out, by name.

use domain::ports::SealedStore;

use crate::samples::open;

#[tokio::test]
async fn sealed_secrets_stay_until_they_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let bytes: Vec<u8> = (0..=255).collect();
    store.put_sealed("github/user/ada", vec![1]).await.unwrap();
    store.put_sealed("github/user/ada", bytes.clone()).await.unwrap();
    store.put_sealed("github/user/b_b", Vec::new()).await.unwrap();
    store.put_sealed("github/userXada", vec![2]).await.unwrap();
    store.close().await;

    let (store, _) = open(dir.path()).await;
    assert_eq!(store.sealed("github/user/ada").await.unwrap(), Some(bytes));
    assert_eq!(store.sealed("github/user/none").await.unwrap(), None);
    assert_eq!(store.sealed_names("github/user/").await.unwrap(), ["github/user/ada", "github/user/b_b"]);
    store.remove_sealed("github/user/ada").await.unwrap();
    store.remove_sealed("github/user/ada").await.unwrap();
    assert_eq!(store.sealed_names("").await.unwrap(), ["github/user/b_b", "github/userXada"]);
}
