//! Files through the API.

use std::os::unix::fs::PermissionsExt;

use domain::wire::{DirEntry, FileKind};
use http::Method;

use crate::harness::{Client, World, sh};

#[tokio::test(flavor = "multi_thread")]
async fn written_read_listed_deleted() {
    let world = World::open().await;
    let long = "z".repeat(3_000_000);
    let put = |path: &'static str, body: String| world.client.send(Method::PUT, path, body);
    assert_eq!(put("/v1/file?path=a/b/c.txt", long.clone()).await.status(), 204);
    assert_eq!(world.read("a/b/c.txt"), long);
    let got = world.client.send(Method::GET, "/v1/file?path=a/./x/../b/c.txt", "").await;
    assert_eq!(Client::body(got).await.len(), long.len());
    assert_eq!(put("/v1/file?path=run&mode=755", "#!/bin/sh\necho hi\n".into()).await.status(), 204);
    assert_eq!(world.client.sh("./run").await.stdout, "hi\n");
    // Overwritten, a file keeps its mode, and a link stays a link.
    std::os::unix::fs::symlink("run", world.workspace.join("link")).unwrap();
    assert_eq!(put("/v1/file?path=link", "#!/bin/sh\necho ho\n".into()).await.status(), 204);
    assert_eq!(world.client.sh("./run").await.stdout, "ho\n");
    assert!(world.workspace.join("link").is_symlink());
    assert_eq!(world.workspace.join("run").metadata().unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(put("/v1/file?path=empty", String::new()).await.status(), 204);
    assert_eq!(world.read("empty"), "");

    let list: Vec<DirEntry> = world.client.get("/v1/dir?path=.").await;
    let names: Vec<_> = list.iter().map(|e| (e.name.as_str(), e.kind)).collect();
    assert_eq!(
        names,
        [
            ("a", FileKind::Dir),
            ("empty", FileKind::File),
            ("link", FileKind::Symlink),
            ("run", FileKind::File)
        ]
    );
    assert_eq!(list[3].mode, 0o755);

    let delete = |path: &'static str| world.client.send(Method::DELETE, path, "");
    assert_eq!(delete("/v1/file?path=link").await.status(), 204);
    assert!(world.workspace.join("run").exists());
    assert_eq!(delete("/v1/file?path=a").await.status(), 422);
    assert_eq!(delete("/v1/file?path=nothing").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_done_says_why() {
    let world = World::open().await;
    assert_eq!(world.client.sh("mkfifo pipe; mkdir dir; echo x > file").await.code(), Some(0));
    for (method, path, status) in [
        (Method::GET, "/v1/file?path=missing", 404),
        (Method::GET, "/v1/file?path=dir", 422),
        (Method::GET, "/v1/file?path=pipe", 422),
        (Method::GET, "/v1/file", 422),
        (Method::PUT, "/v1/file?path=dir", 422),
        (Method::PUT, "/v1/file?path=file/below", 422),
        (Method::PUT, "/v1/file?path=x&mode=9", 422),
        (Method::GET, "/v1/dir?path=missing", 404),
        (Method::GET, "/v1/dir?path=file", 422),
        (Method::GET, "/v1/nothing", 404),
        (Method::POST, "/v1/info", 404),
        (Method::POST, "/v1/exec", 422),
    ] {
        let response = world.client.send(method.clone(), path, "").await;
        assert_eq!(response.status(), status, "{method} {path}");
    }
    // Nothing is left of a write that failed.
    assert_eq!(world.client.run(&sh("ls -A | sort | tr '\\n' ' '")).await.stdout, "dir file pipe ");
}
