//! What must hold of anything that comes from outside, whoever wrote it: one function for each kind of input. Each takes
//! any bytes, and panics where something does not hold that it promises.
//!
//! `fuzz/targets` gives them to cargo-fuzz, which looks for bytes that reach new code (`make fuzz`). The test beside
//! this runs each over its seeds and some thousand changed ones, the same ones every time.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::BytesMut;
use config::{Config, ConfigErrors};
use domain::wire::Frame;
use domain::{Branch, ImportKind, RepoName, RepositoryFile, TreePath};
use github::webhook::Event;
use image_builder::Schedule;
use jiff::Timestamp;

/// A target by its name, with the seeds that its search begins with.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: &'static [&'static [u8]],
    /// Pieces that are put in whole: what a byte at a time would take long to find.
    pub words: &'static [&'static [u8]],
}

pub const TARGETS: [Target; 8] = [
    Target {
        name: "config",
        run: config,
        seeds: &[include_bytes!("../../examples/minimal.yaml"), include_bytes!("../../examples/full.yaml")],
        words: &[b"\n  ", b": ", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!binary ", b"|\n", b"4GiB", b"\"", b"<<: "],
    },
    Target {
        name: "recipe",
        run: recipe,
        seeds: &[
            b"\0{\"image\": \"debian:bookworm\", \"postCreateCommand\": [\"npm\", \"ci\"], /* c */ \"forwardPorts\": [1]}",
            b"\x01{\"install\": \"npm ci\", \"terminals\": [{\"name\": \"dev\", \"command\": \"npm run dev\"}]}",
            b"\x02image: x\ntasks:\n  - init: make\n    command: make run\n",
            b"\x03setup: [\"make\"]\nenv: {A: b}\nservices:\n  - run: redis\n    ready: {port: 6379}\n",
        ],
        words: &[b"//", b"/*", b"*/", b"{", b"}", b"[", b"\"", b"\\u0000", b": ", b"\n- ", b"&a ", b"*a"],
    },
    Target {
        name: "pkt_lines",
        run: pkt_lines,
        seeds: &[
            b"00940000000000000000000000000000000000000000 1111111111111111111111111111111111111111 refs/heads/main\0 report-status side-band-64k agent=git/2.390000PACK",
            b"0035shallow 11111111111111111111111111111111111111110000",
            b"0000",
        ],
        words: &[b"0000", b"0001", b"ffff", b"0004", b"push-cert", b"shallow ", b"refs/heads/", b"\0"],
    },
    Target {
        name: "listings",
        run: listings,
        seeds: &[
            b"003d1111111111111111111111111111111111111111 refs/heads/main\n0000",
            b"003d1111111111111111111111111111111111111111 refs/heads/main\n003a2222222222222222222222222222222222222222 refs/tags/v1\n0000",
            b"00321111111111111111111111111111111111111111 HEAD\n0000",
        ],
        words: &[b"0000", b"0001", b"0002", b"ffff", b"0004", b"003d", b"refs/heads/", b"refs/tags/", b" peeled:", b"\n"],
    },
    Target {
        name: "webhook",
        run: webhook,
        seeds: &[
            b"push\0{\"ref\":\"refs/heads/main\",\"after\":\"1111111111111111111111111111111111111111\",\"repository\":{\"full_name\":\"a/b\"},\"installation\":{\"id\":1}}",
            b"pull_request\0{\"action\":\"closed\",\"number\":1,\"pull_request\":{\"merged\":true,\"head\":{\"ref\":\"x\"}},\"repository\":{\"full_name\":\"a/b\"}}",
            b"ping\0payload=%7B%22zen%22%3A1%7D",
        ],
        words: &[b"payload=", b"%7B", b"%", b"null", b"18446744073709551616", b"-1", b"{", b"[", b"\\ud800"],
    },
    Target {
        name: "agent_frames",
        run: agent_frames,
        seeds: &[
            b"\x01\0\0\0\0\0\0\0\x05\0\0\0\x02hi\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"\x03\0\0\0\0\0\0\0\0\0\0\0\x0a{\"code\":0}",
        ],
        words: &[b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x03", b"{\"code\":1}", b"{\"signal\":9}"],
    },
    Target {
        name: "paths",
        run: paths,
        seeds: &[b"src/main.rs", b"a/../b", b"acme/api", b"feature/x"],
        words: &[b"../", b"/", b"./", b"\0", b"//", b".git", b"@{", b"..", b"~", b"\xc3\xa9", b".lock"],
    },
    Target {
        name: "cron",
        run: cron,
        seeds: &[b"*/30 * * * *\0UTC", b"0 9 * * mon-fri\0Europe/Berlin", b"59 23 31 12 *\0America/New_York"],
        words: &[b"*", b"/", b"-", b",", b"L", b"#", b"W", b"60", b"0/0", b"jan", b"sun", b"@daily", b" "],
    },
];

/// `hotbed.yaml`: it is read, or refused with a place that is in the file; what was read differs in nothing from itself.
pub fn config(bytes: &[u8]) {
    match Config::parse_bytes(bytes, "hotbed.yaml", Path::new("/etc/hotbed")) {
        Ok(config) => assert!(config.diff(&config).is_empty(), "differs from itself"),
        Err(errors) => well_said(&errors, bytes),
    }
}

/// A repository's files: another tool's (the first byte says which), or its own.
pub fn recipe(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let path: TreePath = "some/file.json".parse().expect("a path");
    let imported = match kind % 4 {
        0 => config::import(ImportKind::Devcontainer, &path, text, "/workspace").map(drop),
        1 => config::import(ImportKind::Cursor, &path, text, "/workspace").map(drop),
        2 => config::import(ImportKind::Gitpod, &path, text, "/workspace").map(drop),
        _ => config::repository_file(text, ".hotbed.yaml", &RepositoryFile::default(), &BTreeMap::new())
            .map(drop),
    };
    if let Err(errors) = imported {
        well_said(&errors, text);
    }
}

/// An error says something, and where: a line that the text has.
fn well_said(errors: &ConfigErrors, text: &[u8]) {
    let said = errors.to_string();
    assert!(!said.trim().is_empty(), "an error without a word");
    assert!(
        !said.chars().any(|c| c.is_control() && c != '\n'),
        "what was read goes to a terminal as it is: {said:?}"
    );
    let lines =
        text.iter().filter(|b| **b == b'\n').count() + text.iter().filter(|b| **b == b'\r').count() + 1;
    for place in errors.problems.iter().filter_map(|p| p.place.as_ref()) {
        assert!(place.line <= lines, "line {} of {lines}", place.line);
    }
}

/// The head of a push: what is understood of the whole was not understood otherwise of a part.
pub fn pkt_lines(bytes: &[u8]) {
    let whole = git::parse_commands(bytes);
    if let Ok(Some(request)) = &whole {
        assert!(request.length <= bytes.len(), "more was taken than there is");
        assert_eq!(git::parse_commands(&bytes[..request.length]).as_ref(), Ok(&Some(request.clone())));
        for command in &request.commands {
            assert!(!command.name.is_empty() && !command.name.contains(&0) && !command.name.contains(&b'\n'));
            assert_eq!(command.old.len(), command.new.len());
        }
        for cut in [request.length.saturating_sub(1), request.length / 2] {
            assert!(
                !matches!(git::parse_commands(&bytes[..cut]), Ok(Some(_))),
                "a part is taken for the whole"
            );
        }
    }
}

/// An upstream's branches and tags: what is understood of the whole is not understood of a part, each name is there
/// once, and said again it says the same.
pub fn listings(bytes: &[u8]) {
    let Some(listing) = git::parse_listing(bytes) else { return };
    let refs: Vec<_> = listing.refs().collect();
    assert!(refs.is_sorted() && refs.windows(2).all(|two| two[0].0 != two[1].0), "out of order");
    let mut again = String::new();
    for (name, id) in &refs {
        assert!(id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert!(name.starts_with("refs/heads/") || name.starts_with("refs/tags/"), "{name}");
        let line = format!("{id} {name}\n");
        again += &format!("{:04x}{line}", line.len() + 4);
    }
    again += "0000";
    assert_eq!(git::parse_listing(again.as_bytes()).as_ref(), Some(&listing));
    for cut in [bytes.len() - 1, bytes.len() / 2] {
        assert!(git::parse_listing(&bytes[..cut]).is_none(), "a part is taken for the whole");
    }
}

/// A delivery: its event's name up to the first NUL, then the body. Sent as a form it says the same.
pub fn webhook(bytes: &[u8]) {
    const FORM: &str = "application/x-www-form-urlencoded";
    let mut parts = bytes.splitn(2, |b| *b == 0);
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let body = parts.next().unwrap_or_default();
    let form: String = body.iter().map(|b| format!("%{b:02x}")).collect();
    let form = format!("payload={form}");
    assert_eq!(github::webhook::payload(FORM, form.as_bytes()).expect("a form").as_ref(), body);
    for json in [github::webhook::payload("application/json", body), github::webhook::payload(FORM, body)] {
        let event = json.and_then(|json| Event::read(&name, &json));
        if let Ok(Event::PullRequest(pull)) = event {
            pull.news();
        }
    }
}

/// What an agent sends: cut anywhere it is read the same, and what was read is written again as it was.
pub fn agent_frames(bytes: &[u8]) {
    let (frames, error) = read_frames([bytes]);
    for cut in [1, bytes.len() / 3, bytes.len() / 2] {
        let at = cut.min(bytes.len());
        assert_eq!(read_frames([&bytes[..at], &bytes[at..]]), (frames.clone(), error), "cut at {at}");
    }
    let mut again = BytesMut::new();
    frames.iter().for_each(|f| f.encode(&mut again));
    assert_eq!(read_frames([&again[..]]), (frames, false));
}

fn read_frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, bool) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match Frame::decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// Names and paths: what is taken stays inside, and reads back as what it is.
pub fn paths(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let inside = |path: &TreePath| {
        let parts: Vec<_> = path.as_str().split('/').collect();
        assert!(
            path.is_root() || parts.iter().all(|p| !matches!(*p, "" | "." | "..")),
            "{:?}",
            path.as_str()
        );
        assert!(!path.as_str().contains('\0'));
    };
    if let Ok(path) = text.parse::<TreePath>() {
        inside(&path);
        assert_eq!(path.as_str().parse::<TreePath>().as_ref(), Ok(&path));
        inside(&path.parent());
    }
    let dir: TreePath = "a/b".parse().expect("a path");
    if let Ok(joined) = dir.join(&text) {
        inside(&joined);
    }
    if let Ok(name) = text.parse::<RepoName>() {
        assert_eq!(name.to_string(), text);
        assert_eq!((name.owner().contains('/'), name.name().contains('/')), (false, false));
    }
    if let Ok(branch) = text.parse::<Branch>() {
        let name = branch.to_string();
        assert!(
            !name.starts_with('-') && !name.contains("..") && !name.chars().any(char::is_whitespace),
            "{name:?}"
        );
    }
    let _ = domain::glob_matches(&text, "src/main.rs");
}

/// A schedule and its time zone, apart by a NUL: ticks go forward, and the last before one's successor is that one.
pub fn cron(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (schedule, zone) = text.split_once('\0').unwrap_or((&text, "UTC"));
    let Ok(schedule) = Schedule::in_zone(schedule, zone) else { return };
    // A day on which a clock goes back.
    let mut at: Timestamp = "2026-10-24T22:13:00Z".parse().expect("a time");
    for _ in 0..3 {
        let Some(next) = schedule.after(at) else { return };
        assert!(next > at, "{next} is not after {at}");
        at = next;
    }
}
