//! `warmup.js` in a real browser, on the demo's page, against a live server of another origin.

mod chromium;

use orchestrator::demo::page::{self, Page};
use orchestrator::warmups::Limits;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::world::{Setup, World, id};
use chromium::Chromium;

/// The page's server, on a port of its own: for the browser that is another origin.
async fn serve_page(w: &World) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let origin = format!("http://{}", listener.local_addr().expect("address"));
    w.app().warmups.set_limits(Limits { origins: vec![origin.clone()], ..Limits::default() });
    let page = Page {
        client: w.client(),
        hotbed: format!("http://{}", w.client().address),
        repo: w.specs[0].name.clone(),
        heartbeat: 400,
        grace: 200,
    };
    w.on(move |_| async move {
        tokio::spawn(page::serve(listener, page));
    })
    .await;
    origin
}

async fn warmups(w: &World, state: &str) -> Vec<Value> {
    let list = w.get(&format!("/v1/warmups?state={state}")).await.expect(200).json();
    list["items"].as_array().expect("items").clone()
}

/// F55: the whole life of a warm-up as a browser leads it: the first key announces, many keys make one, a branch moves
/// it, submitting hands it over, leaving the field or the page gives it back.
#[test]
fn f55_typing_in_a_browser() {
    World::with(Setup::pool(2), async |w| {
        let branch = "feature".parse().expect("branch");
        w.commit_to(&branch, "feature work");
        let origin = serve_page(w).await;
        let mut browser = Chromium::start().await;
        browser.open(&format!("{origin}/")).await;
        browser.until("window.warmup").await;
        assert_eq!(warmups(w, "live").await, [] as [Value; 0], "nobody has typed yet");

        browser.eval("document.forms[0].prompt.focus()").await;
        browser.keys("F").await;
        browser.until("warmup.state === 'live'").await;
        let live = warmups(w, "live").await;
        assert_eq!(live.len(), 1);
        assert_eq!(browser.eval("warmup.id").await, live[0]["id"]);
        browser.keys(&"ix the flaky test ".repeat(10)).await;
        let sent = browser
            .eval("performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/v1/warmups')).length")
            .await;
        let keys = browser.eval("document.forms[0].prompt.value.length").await;
        assert_eq!(keys, 181);
        // One at the first key and one with each heartbeat; each may have been asked for by a preflight.
        let span = browser.eval("performance.now()").await.as_f64().expect("milliseconds");
        assert!(sent.as_f64().is_some_and(|n| n <= 4.0 + 2.0 * span / 400.0), "{sent} requests in {span} ms");
        assert_eq!(warmups(w, "live").await.len(), 1, "a thousand keystrokes make one (F55)");

        // The heartbeat moves the expiry while somebody types.
        let before = w.get(&format!("/v1/warmups/{}", id(&live[0]))).await.expect(200).field("expires_at");
        w.wait("a heartbeat comes", async || {
            let now = w.get(&format!("/v1/warmups/{}", id(&live[0]))).await.expect(200).field("expires_at");
            browser.keys(".").await;
            (now != before).then_some(())
        })
        .await;

        browser.eval("warmup.setBranch('feature')").await;
        w.wait("the branch is announced", async || {
            (warmups(w, "live").await.first()?["branch"] == "feature").then_some(())
        })
        .await;
        assert_eq!(id(&warmups(w, "live").await[0]), id(&live[0]), "the same reservation");
        browser.eval("warmup.setBranch(null)").await;

        // Submitting hands it over.
        browser.eval("document.forms[0].requestSubmit()").await;
        browser.until("document.getElementById('log').textContent.includes('(warmup)')").await;
        assert_eq!(warmups(w, "hit").await.len(), 1);
        assert_eq!(warmups(w, "live").await.len(), 0);
        assert_eq!(warmups(w, "withdrawn").await.len(), 0);

        // Leaving the field gives it back, after a moment of grace; coming back in time keeps it.
        browser.keys("a").await;
        browser.until("warmup.state === 'live'").await;
        browser.eval("document.forms[0].branch.focus(); document.forms[0].prompt.focus()").await;
        browser.eval("new Promise((done) => setTimeout(done, 400))").await;
        assert_eq!(warmups(w, "live").await.len(), 1, "it came back within the grace");
        browser.eval("document.forms[0].branch.focus()").await;
        w.wait("it is withdrawn", async || (warmups(w, "withdrawn").await.len() == 1).then_some(())).await;

        // Leaving the page does, at once.
        browser.eval("document.forms[0].prompt.focus()").await;
        browser.keys("b").await;
        browser.until("warmup.state === 'live'").await;
        browser.open("about:blank").await;
        w.wait("it is withdrawn", async || (warmups(w, "withdrawn").await.len() == 2).then_some(())).await;
        assert_eq!(warmups(w, "live").await.len(), 0);
    });
}

/// A server that refuses, or is not there, disturbs nobody: the page goes on without a warm-up.
#[test]
fn a_page_without_a_warmup_works_all_the_same() {
    World::with(Setup::pool(1), async |w| {
        let origin = serve_page(w).await;
        w.app().warmups.set_limits(Limits { live: 0, origins: vec![origin.clone()], ..Limits::default() });
        let mut browser = Chromium::start().await;
        browser.open(&format!("{origin}/")).await;
        browser.until("window.warmup").await;
        browser.eval("document.forms[0].prompt.focus()").await;
        browser.keys("abc").await;
        browser.until("document.getElementById('log').textContent.includes('503')").await;
        assert_eq!(browser.eval("warmup.state").await, "idle");
        assert_eq!(browser.eval("document.forms[0].prompt.value").await, "abc");
        browser.eval("document.forms[0].requestSubmit()").await;
        browser.until("document.getElementById('log').textContent.includes('(warm)')").await;
        // An origin that is not allowed does not come as far as asking; by a browser that has not asked before.
        w.app().warmups.set_limits(Limits::default());
        let mut browser = Chromium::start().await;
        browser.open(&format!("{origin}/")).await;
        browser.until("window.warmup").await;
        browser.eval("document.forms[0].prompt.focus()").await;
        browser.keys("d").await;
        browser.until("document.getElementById('log').textContent.includes('Failed to fetch')").await;
        assert_eq!(warmups(w, "live").await.len(), 0);
    });
}

/// The types say what the script does: every member and option of `warmup.d.ts` is there, and nothing that is not.
#[test]
fn the_types_are_those_of_the_script() {
    let read = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/warmup").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let (types, script) = (read("warmup.d.ts"), read("warmup.js"));
    let members = |interface: &str| -> std::collections::BTreeSet<String> {
        let body = types.split_once(&format!("interface {interface} {{")).expect("it is declared").1;
        let body = body.split_once("\n}").expect("it ends").0;
        let name = |line: &str| {
            let line = line.trim().trim_start_matches("readonly ");
            let end = line.find(['(', ':', '?'])?;
            let word = &line[..end];
            (!word.is_empty() && word.chars().all(char::is_alphanumeric)).then(|| word.to_owned())
        };
        body.lines().filter_map(name).collect()
    };
    World::with(Setup::pool(0), async |w| {
        let origin = serve_page(w).await;
        let mut browser = Chromium::start().await;
        browser.open(&format!("{origin}/")).await;
        browser.until("window.warmup").await;
        let own =
            "Object.getOwnPropertyNames(Object.getPrototypeOf(warmup)).filter((n) => n !== 'constructor')";
        let own = browser.eval(own).await;
        let own: std::collections::BTreeSet<_> =
            own.as_array().expect("names").iter().filter_map(|n| n.as_str().map(str::to_owned)).collect();
        assert_eq!(own, members("Warmup"));
    });
    for option in members("WarmupOptions") {
        assert!(script.contains(&option), "`{option}` is declared, and the script does not know it");
    }
}
