//! What `hotbed top` draws: a picture of what was seen last. Pure: the same picture, moment and size give the same frame.

use std::collections::BTreeMap;

use clap::ValueEnum;
use domain::Result;
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::numbers::Numbers;
use crate::api::types::{HappeningView, RepoView, SessionView};
use crate::cli::output::{bytes, lasted, short};

/// Hints that there is room for.
const HINTS: usize = 3;
const FEW_MISSES: f64 = 0.9;
const LITTLE_DISK: f64 = 0.1;

/// What a server said.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub repos: Vec<RepoView>,
    /// The newest first.
    pub sessions: Vec<SessionView>,
    /// Builds that have ended since the look before, in order.
    pub ended: Vec<HappeningView>,
    /// Nothing for a key that may not see them.
    pub numbers: Option<Numbers>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pane {
    Repos,
    Sessions,
    Builds,
}

/// How repos stand in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Name,
    Age,
    Busy,
}

/// Everything that is drawn.
#[derive(Debug)]
pub struct Picture {
    address: String,
    seen: Option<Seen>,
    /// The build of each repo that ended last, of those that were heard of.
    ended: BTreeMap<String, HappeningView>,
    /// Since when nobody answers, and what was said.
    unreachable: Option<(Timestamp, String)>,
    pane: Pane,
    sort: Sort,
    scroll: usize,
}

impl Picture {
    pub fn new(address: String, pane: Pane) -> Self {
        Self {
            address,
            seen: None,
            ended: BTreeMap::new(),
            unreachable: None,
            pane,
            sort: Sort::Name,
            scroll: 0,
        }
    }

    /// A look has ended. While nobody answers, what was seen last stays.
    pub fn seen(&mut self, now: Timestamp, look: Result<Seen>) {
        match look {
            Ok(mut seen) => {
                let named = |event: HappeningView| Some((event.repo.clone()?, event));
                self.ended.extend(seen.ended.drain(..).filter_map(named));
                self.ended.retain(|name, _| seen.repos.iter().any(|repo| repo.name == *name));
                (self.seen, self.unreachable) = (Some(seen), None);
                self.scroll = self.scroll.min(self.rows().saturating_sub(1));
            }
            Err(e) => {
                let since = self.unreachable.take().map_or(now, |(since, _)| since);
                self.unreachable = Some((since, e.chain()));
            }
        }
    }

    pub fn is_reached(&self) -> bool {
        self.unreachable.is_none()
    }

    /// The number of the last event that was heard.
    pub fn told(&self) -> u64 {
        self.ended.values().map(|event| event.seq).max().unwrap_or(0)
    }

    /// Builds that have ended, the newest first, where nothing is at work in their stead.
    fn past<'a>(&'a self, seen: &'a Seen) -> Vec<&'a HappeningView> {
        let idle = seen.repos.iter().filter(|repo| repo.build.is_none());
        let mut all: Vec<_> = idle.filter_map(|repo| self.ended.get(&repo.name)).collect();
        all.sort_by_key(|event| std::cmp::Reverse(event.seq));
        all
    }

    pub fn show(&mut self, pane: Pane) {
        (self.pane, self.scroll) = (pane, 0);
    }

    pub fn next_pane(&mut self) {
        self.show(match self.pane {
            Pane::Repos => Pane::Sessions,
            Pane::Sessions => Pane::Builds,
            Pane::Builds => Pane::Repos,
        });
    }

    pub fn next_sort(&mut self) {
        self.sort = match self.sort {
            Sort::Name => Sort::Age,
            Sort::Age => Sort::Busy,
            Sort::Busy => Sort::Name,
        };
    }

    pub fn scroll(&mut self, by: i32) {
        let by = isize::try_from(by).unwrap_or(0);
        self.scroll = self.scroll.saturating_add_signed(by).min(self.rows().saturating_sub(1));
    }

    fn rows(&self) -> usize {
        let Some(seen) = &self.seen else { return 0 };
        match self.pane {
            Pane::Repos => seen.repos.len(),
            Pane::Sessions => seen.sessions.len(),
            Pane::Builds => seen.repos.iter().filter(|r| r.build.is_some()).count() + self.past(seen).len(),
        }
    }

    /// Lines that show everything.
    pub fn height(&self) -> u16 {
        u16::try_from(self.rows() + HINTS + 7).unwrap_or(u16::MAX)
    }

    /// The repos in the order that was chosen.
    fn sorted<'a>(&self, seen: &'a Seen) -> Vec<&'a RepoView> {
        let mut repos: Vec<_> = seen.repos.iter().collect();
        repos.sort_by(|a, b| a.name.cmp(&b.name));
        match self.sort {
            Sort::Name => {}
            // No image at all is the oldest.
            Sort::Age => repos.sort_by_key(|r| std::cmp::Reverse(r.image_age_seconds.unwrap_or(i64::MAX))),
            Sort::Busy => repos.sort_by_key(|r| std::cmp::Reverse(live_of(seen, &r.name))),
        }
        repos
    }
}

fn live_of(seen: &Seen, repo: &str) -> usize {
    seen.sessions.iter().filter(|s| s.repo == repo && s.state != "ended").count()
}

pub fn draw(picture: &Picture, now: Timestamp, frame: &mut Frame<'_>) {
    let hints = hints(picture);
    let parts = [
        Constraint::Length(4),
        Constraint::Length(u16::try_from(hints.len()).unwrap_or(0)),
        Constraint::Min(2),
        Constraint::Length(1),
    ];
    let [head, trouble, body, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(header(picture, now)), head);
    frame.render_widget(Paragraph::new(hints), trouble);
    match &picture.seen {
        None => frame.render_widget(Paragraph::new("nothing was seen yet").dim(), body),
        Some(seen) => table(picture, seen, now, body, frame),
    }
    frame.render_widget(Paragraph::new(footer(picture)), foot);
}

/// A frame as lines of text.
pub fn text(buffer: &Buffer) -> String {
    let Rect { width, height, .. } = buffer.area;
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    let lines: Vec<_> = (0..height).map(line).collect();
    let end = lines.iter().rposition(|l| !l.is_empty()).map_or(0, |last| last + 1);
    lines[..end].join("\n")
}

fn header(picture: &Picture, now: Timestamp) -> Vec<Line<'static>> {
    let title = Span::styled("hotbed", Style::new().add_modifier(Modifier::BOLD));
    let mut first =
        vec![title, Span::raw(format!(" at {}, {}", picture.address, now.strftime("%H:%M:%S UTC")))];
    if let Some((since, why)) = &picture.unreachable {
        let ago = now.duration_since(*since).as_secs_f64().max(0.0);
        let words = format!("  unreachable since {} ({}): {why}", since.strftime("%H:%M:%S"), lasted(ago));
        first.push(Span::styled(words, Style::new().fg(Color::Red)));
    }
    let Some(seen) = &picture.seen else { return vec![Line::from(first)] };
    vec![Line::from(first), sessions_line(seen), pools_line(seen), budget_line(seen)]
}

fn sessions_line(seen: &Seen) -> Line<'static> {
    let states = ["active", "waiting", "paused", "ending"];
    let count = |state: &str| match &seen.numbers {
        Some(numbers) => numbers.get("hotbed_sessions", &[("state", state)]).unwrap_or(0.0) as usize,
        None => seen.sessions.iter().filter(|s| s.state == state).count(),
    };
    let counts: Vec<_> = states.iter().map(|state| format!("{} {state}", count(state))).collect();
    let mut text = format!("sessions  {}", counts.join(", "));
    if let Some(numbers) = &seen.numbers {
        let people: f64 = numbers.get("hotbed_people_prompting", &[]).unwrap_or(0.0);
        let waiting: Vec<_> = numbers
            .by("hotbed_queue_length", "queue")
            .into_iter()
            .map(|(queue, n)| format!("{} {n}", queue.replace('_', " ")))
            .collect();
        text += &format!("   people {people}   queues  {}", waiting.join(", "));
    }
    Line::from(text)
}

fn pools_line(seen: &Seen) -> Line<'static> {
    let sum = |of: fn(&crate::api::types::PoolView) -> u32| -> u32 {
        seen.repos.iter().filter_map(|r| r.pool.as_ref()).map(of).sum()
    };
    let running =
        seen.repos.iter().filter(|r| r.build.as_ref().is_some_and(|b| b.state == "running")).count();
    let starting = sum(|p| p.starting + p.creating);
    let mut text = format!(
        "pools     {} warm of {}, {starting} on the way, {} reserved",
        sum(|p| p.warm),
        sum(|p| p.target),
        sum(|p| p.reserved)
    );
    if let Some(rate) = seen.numbers.as_ref().and_then(|n| hit_rate(n, &[])) {
        text += &format!(", hit rate {}", percent(rate));
    }
    text += &format!("   builds  {running} running");
    Line::from(text)
}

/// Claims that found a member, of those that could have used one.
fn hit_rate(numbers: &Numbers, of: &[(&str, &str)]) -> Option<f64> {
    let came = numbers.get("hotbed_pool_arrivals_total", of).filter(|n| *n > 0.0)?;
    Some(numbers.get("hotbed_pool_hits_total", of).unwrap_or(0.0) / came)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn budget_line(seen: &Seen) -> Line<'static> {
    let Some(numbers) = &seen.numbers else {
        return Line::from("budget    not for this key: it is limited to repos").dim();
    };
    let get = |name: &str| numbers.get(name, &[]).unwrap_or(0.0);
    let part = |used: String, of: f64, limit: String| match of > 0.0 {
        true => format!("{used} of {limit}"),
        false => format!("{used}, no limit"),
    };
    let (cpus, most) = (get("hotbed_reserved_cpus"), get("hotbed_budget_cpus"));
    let (memory, room) = (get("hotbed_reserved_memory_bytes"), get("hotbed_budget_memory_bytes"));
    let cpus = part(format!("{cpus:.1} cpus"), most, format!("{most:.1}"));
    let memory = part(bytes(memory as u64), room, bytes(room as u64));
    let disks: Vec<_> = numbers
        .by("hotbed_disk_free_bytes", "disk")
        .into_iter()
        .map(|(disk, n)| format!("{disk} {}", bytes(n as u64)))
        .collect();
    let disks = if disks.is_empty() { String::new() } else { format!("   free  {}", disks.join(", ")) };
    Line::from(format!("budget    {cpus}; {memory}{disks}"))
}

/// What somebody should look at, the worst first.
fn hints(picture: &Picture) -> Vec<Line<'static>> {
    let Some(seen) = &picture.seen else { return Vec::new() };
    let mut all = Vec::new();
    if let Some(numbers) = &seen.numbers {
        if numbers.get("hotbed_backend_up", &[]) == Some(0.0) {
            all.push("the engine does not answer".to_owned());
        }
        let low =
            numbers.by("hotbed_disk_free_ratio", "disk").into_iter().find(|(_, left)| *left < LITTLE_DISK);
        if let Some((disk, left)) = low {
            all.push(format!("the disk of `{disk}` has {} left", percent(left)));
        }
        let oldest = numbers.get("hotbed_outbox_oldest_seconds", &[]).unwrap_or(0.0);
        if oldest > 600.0 {
            all.push(format!("a pull request has waited to be opened for {}", lasted(oldest)));
        }
    }
    for repo in picture.sorted(seen) {
        if repo.image.is_none() {
            all.push(format!("{} has no image", repo.name));
        } else if is_old(repo, seen) {
            all.push(format!("the image of {} is older than its target", repo.name));
        }
        if let Some(failed) = picture.ended.get(&repo.name).filter(|event| has_failed(event)) {
            all.push(format!("the last build of {} failed: {}", repo.name, failed.words));
        }
        if let Some(pool) = repo.pool.as_ref().filter(|p| p.target > 0 && p.warm == 0) {
            all.push(format!("the pool of {} is empty: {}", repo.name, pool.reason));
        }
    }
    let troubled = seen.sessions.iter().filter(|s| s.trouble.is_some() && s.state != "ended").count();
    if troubled > 0 {
        all.push(format!("{troubled} sessions are in trouble"));
    }
    let more = all.len().saturating_sub(HINTS);
    all.truncate(HINTS);
    if more > 0
        && let Some(last) = all.last_mut()
    {
        last.push_str(&format!(" (and {more} more)"));
    }
    all.into_iter().map(|hint| Line::styled(format!("! {hint}"), Style::new().fg(Color::Yellow))).collect()
}

fn has_failed(build: &HappeningView) -> bool {
    build.outcome.as_deref() == Some("failed")
}

fn is_old(repo: &RepoView, seen: &Seen) -> bool {
    let target = age_target(repo, seen);
    repo.image_age_seconds.zip(target).is_some_and(|(age, target)| age as f64 > target)
}

fn age_target(repo: &RepoView, seen: &Seen) -> Option<f64> {
    seen.numbers.as_ref()?.get("hotbed_image_age_target_seconds", &[("repo", &repo.name)])
}

/// Head, width, and how well it can be spared where there is little room: the largest goes first.
type Column = (&'static str, u16, u8);

const REPOS: [Column; 10] = [
    ("REPO", 28, 0),
    ("IMAGE AGE", 9, 0),
    ("TARGET", 8, 6),
    ("BEHIND", 6, 5),
    ("BUILD", 20, 2),
    ("WARM", 9, 0),
    ("ON THE WAY", 10, 7),
    ("RESERVED", 8, 8),
    ("LIVE", 5, 4),
    ("HITS", 6, 1),
];
const SESSIONS: [Column; 9] = [
    ("SESSION", 36, 0),
    ("REPO", 20, 0),
    ("USER", 14, 2),
    ("STATE", 8, 0),
    ("LAUNCH", 8, 4),
    ("SYNC", 8, 3),
    ("BRANCH", 20, 6),
    ("AGE", 8, 1),
    ("LEFT", 8, 5),
];
const BUILDS: [Column; 8] = [
    ("BUILD", 36, 5),
    ("REPO", 20, 0),
    ("STATE", 10, 0),
    ("PHASE", 9, 3),
    ("FOR", 8, 4),
    ("TRIGGER", 9, 6),
    ("COMMIT", 12, 7),
    ("WHAT", 24, 1),
];

/// Which columns there is room for: all, or without those that can best be spared. One stays in any case.
fn fitting(columns: &[Column], width: u16) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let wide = |kept: &[usize]| kept.iter().map(|n| columns[*n].1 + 1).sum::<u16>().saturating_sub(1);
    while kept.len() > 1 && wide(&kept) > width {
        let least = (0..kept.len()).max_by_key(|at| (columns[kept[*at]].2, *at)).unwrap_or(0);
        kept.remove(least);
    }
    kept
}

fn table(picture: &Picture, seen: &Seen, now: Timestamp, area: Rect, frame: &mut Frame<'_>) {
    let (columns, rows): (&[Column], Vec<Drawn>) = match picture.pane {
        Pane::Repos => (&REPOS, picture.sorted(seen).into_iter().map(|repo| repo_row(repo, seen)).collect()),
        Pane::Sessions => {
            (&SESSIONS, seen.sessions.iter().map(|session| session_row(session, now)).collect())
        }
        Pane::Builds => {
            let past = picture.past(seen).into_iter().map(|event| past_row(event, now));
            (&BUILDS, seen.repos.iter().filter_map(build_row).chain(past).collect())
        }
    };
    let kept = fitting(columns, area.width);
    // What is left over goes to the last column, where words stand, or to the first, where names do.
    let grows = if picture.pane == Pane::Builds { columns.len() - 1 } else { 0 };
    let width = |n: &usize| match *n == grows {
        true => Constraint::Min(columns[*n].1.min(area.width)),
        false => Constraint::Length(columns[*n].1),
    };
    let head = Row::new(kept.iter().map(|n| columns[*n].0))
        .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let rows = rows.into_iter().skip(picture.scroll).map(|(mut cells, style)| {
        let cells: Vec<_> = kept.iter().map(|n| std::mem::take(&mut cells[*n])).collect();
        Row::new(cells).style(style)
    });
    frame.render_widget(Table::new(rows, kept.iter().map(width)).header(head), area);
}

/// All cells of a row, and how it looks.
type Drawn = (Vec<Cell<'static>>, Style);

fn dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

fn repo_row(repo: &RepoView, seen: &Seen) -> Drawn {
    let of = [("repo", repo.name.as_str())];
    let number = |name: &str| seen.numbers.as_ref().and_then(|n| n.get(name, &of));
    let old = if is_old(repo, seen) { Style::new().fg(Color::Red) } else { Style::new() };
    let age = dash(repo.image_age_seconds.map(|age| lasted(age as f64)));
    let build = repo.build.as_ref().map(|b| match &b.phase {
        Some(phase) => format!("{} ({phase})", b.state),
        None => b.state.clone(),
    });
    let pool = repo.pool.as_ref();
    let empty = pool.is_some_and(|p| p.target > 0 && p.warm == 0);
    let rate = seen.numbers.as_ref().and_then(|n| hit_rate(n, &of));
    let poor = rate.is_some_and(|rate| rate < FEW_MISSES);
    let loud = |loud: bool| if loud { Style::new().fg(Color::Yellow) } else { Style::new() };
    let cells = vec![
        Cell::from(repo.name.clone()),
        Cell::from(age).style(old),
        Cell::from(dash(age_target(repo, seen).map(lasted))),
        Cell::from(dash(number("hotbed_image_commits_behind").map(|n| n.to_string()))),
        Cell::from(dash(build)),
        Cell::from(dash(pool.map(|p| format!("{}/{}", p.warm, p.target)))).style(loud(empty)),
        Cell::from(dash(pool.map(|p| (p.starting + p.creating).to_string()))),
        Cell::from(dash(pool.map(|p| p.reserved.to_string()))),
        Cell::from(live_of(seen, &repo.name).to_string()),
        Cell::from(dash(rate.map(percent))).style(loud(poor)),
    ];
    (cells, Style::new())
}

fn session_row(session: &SessionView, now: Timestamp) -> Drawn {
    let end = session.ended_at.unwrap_or(now);
    let age = end.duration_since(session.created_at).as_secs_f64().max(0.0);
    let left = session.expires_at.duration_since(now).as_secs_f64();
    let left = if session.ended_at.is_some() || left <= 0.0 { "-".to_owned() } else { lasted(left) };
    let state = match session.trouble {
        Some(_) => Style::new().fg(Color::Red),
        None if session.state == "ended" => Style::new().add_modifier(Modifier::DIM),
        None => Style::new(),
    };
    let cells = [
        session.id.clone(),
        session.repo.clone(),
        session.user.login.clone(),
        session.state.clone(),
        session.launch.clone(),
        session.sync.phase.clone(),
        session.branch.clone(),
        lasted(age),
        left,
    ];
    (cells.map(Cell::from).into(), state)
}

fn build_row(repo: &RepoView) -> Option<Drawn> {
    let build = repo.build.as_ref()?;
    let cells = [
        build.id.clone(),
        build.repo.clone(),
        build.state.clone(),
        dash(build.phase.clone()),
        dash(build.elapsed_seconds.map(lasted)),
        build.trigger.clone(),
        short(build.commit.as_deref()),
        dash(build.error.clone().or_else(|| build.decision.clone())),
    ];
    Some((cells.map(Cell::from).into(), Style::new()))
}

/// A build that has ended, as it was told.
fn past_row(event: &HappeningView, now: Timestamp) -> Drawn {
    let ago = now.duration_since(event.at).as_secs_f64().max(0.0);
    let none = || "-".to_owned();
    let cells = [
        dash(event.subject.clone()),
        dash(event.repo.clone()),
        dash(event.outcome.clone()),
        none(),
        none(),
        none(),
        none(),
        format!("{} ago: {}", lasted(ago), event.words),
    ];
    let style = if has_failed(event) { Style::new().fg(Color::Red) } else { Style::new().dim() };
    (cells.map(Cell::from).into(), style)
}

fn footer(picture: &Picture) -> Line<'static> {
    let name = |pane: Pane, text: &'static str| match picture.pane == pane {
        true => Span::styled(text, Style::new().add_modifier(Modifier::REVERSED)),
        false => Span::raw(text),
    };
    let sort = match picture.sort {
        Sort::Name => "name",
        Sort::Age => "age",
        Sort::Busy => "sessions",
    };
    let mut parts = vec![
        name(Pane::Repos, " 1 repos "),
        name(Pane::Sessions, " 2 sessions "),
        name(Pane::Builds, " 3 builds "),
        Span::raw(format!("   s sort: {sort}   j k scroll   q quit")),
    ];
    let rows = picture.rows();
    if picture.scroll > 0 {
        parts.push(Span::raw(format!("   from {} of {rows}", picture.scroll + 1)));
    }
    Line::from(parts)
}

#[cfg(test)]
mod tests {
    use domain::Error;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn image(repo: &str) -> Value {
        json!({
            "id": "img_1", "repo": repo, "state": "current", "digest": "sha256:0", "commit": "c0ffee", "branch": "main",
            "generation": 3, "build": "bld_1", "parent": null, "base_digest": "sha256:1", "fingerprint": "f",
            "agent_version": "1", "size": 1, "pinned": false, "registry": null, "failures": [], "went_well": 0,
            "created_at": at(-600), "verified_at": at(-60)
        })
    }

    fn pool(repo: &str, warm: u32, target: u32) -> Value {
        json!({
            "repo": repo, "target": target, "why": "", "explain": [], "order": null, "warm": warm, "starting": 1,
            "creating": 0, "reserved": 2, "reason": "the budget has no room",
            "terms": {
                "expected": null, "floor": {"members": 1, "by": "min"}, "warmups": 0, "max": 9, "wanted": 1, "kept": 1
            }
        })
    }

    fn build(repo: &str) -> Value {
        json!({
            "id": "bld_2", "repo": repo, "state": "running", "trigger": "push", "by": null, "decision": "on image 3",
            "phase": "setup", "phase_seconds": 5.0, "phases": [], "elapsed_seconds": 65.0, "commit": "0123456789abcdef",
            "parent": null, "base_digest": null, "fingerprint": null, "image": null, "size": null, "warnings": [],
            "created_at": at(-70), "started_at": at(-65), "ended_at": null, "deadline": at(900), "superseded_by": null,
            "error": null
        })
    }

    fn session(n: u32, repo: &str, state: &str) -> Value {
        json!({
            "id": format!("ses_{n}"), "repo": repo, "state": state, "launch": "warm", "sandbox": null, "image": null,
            "user": {"login": "ada"}, "committer": "ada", "co_authors": [], "base": "main", "branch": format!("hotbed/{n}"),
            "sync": {
                "phase": "synced", "gate": "open", "wanted": null, "head": null, "lag_commits": 0, "error": null,
                "started_at": null, "ended_at": null
            },
            "snapshot": null, "parent": null, "created_at": at(-90), "started_at": at(-90), "expires_at": at(3600),
            "ended_at": if state == "ended" { json!(at(-30)) } else { Value::Null }, "end": null, "trouble": null
        })
    }

    fn ended(seq: u64, repo: &str, outcome: &str) -> HappeningView {
        HappeningView {
            seq,
            at: at(-100),
            kind: "build_ended".into(),
            repo: Some(repo.into()),
            session: None,
            subject: Some(format!("bld_{seq}")),
            outcome: Some(outcome.into()),
            words: "setup: `make deps` exited with 2".into(),
        }
    }

    const METRICS: &str = "\
hotbed_sessions{state=\"active\"} 2
hotbed_sessions{state=\"waiting\"} 1
hotbed_people_prompting{repo=\"acme/api\"} 2
hotbed_queue_length{queue=\"cold_start\"} 1
hotbed_queue_length{queue=\"build\"} 0
hotbed_pool_arrivals_total{repo=\"acme/api\"} 10
hotbed_pool_hits_total{repo=\"acme/api\"} 8
hotbed_image_age_target_seconds{repo=\"acme/api\"} 86400
hotbed_image_age_target_seconds{repo=\"acme/web\"} 300
hotbed_image_commits_behind{repo=\"acme/web\"} 4
hotbed_reserved_cpus 6
hotbed_budget_cpus 24
hotbed_reserved_memory_bytes 8589934592
hotbed_budget_memory_bytes 0
hotbed_disk_free_bytes{disk=\"state\"} 1073741824
hotbed_disk_free_ratio{disk=\"state\",of=\"bytes\"} 0.05
hotbed_backend_up{backend=\"docker\"} 1
";

    fn seen() -> Seen {
        let repo = |name: &str, age: Value, build: Value, pool: Value| {
            let image = if age.is_null() { Value::Null } else { image(name) };
            json!({
                "name": name, "url": "/srv", "branch": "main", "image": image, "canary": null,
                "image_age_seconds": age, "commits_behind": null, "pool": pool, "build": build
            })
        };
        let repos = json!([
            repo("acme/web", json!(600), build("acme/web"), pool("acme/web", 0, 2)),
            repo("acme/api", json!(3600), Value::Null, pool("acme/api", 3, 3)),
            repo("acme/new", Value::Null, Value::Null, Value::Null),
        ]);
        let sessions = json!([
            session(3, "acme/web", "active"),
            session(2, "acme/web", "waiting"),
            session(1, "acme/api", "ended")
        ]);
        Seen {
            repos: serde_json::from_value(repos).unwrap(),
            sessions: serde_json::from_value(sessions).unwrap(),
            ended: vec![
                ended(1, "acme/api", "failed"),
                ended(2, "acme/gone", "failed"),
                ended(3, "acme/web", "failed"),
            ],
            numbers: Some(Numbers::parse(METRICS)),
        }
    }

    fn frame(picture: &Picture, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        text(terminal.draw(|frame| draw(picture, at(0), frame)).unwrap().buffer)
    }

    /// The frame is the one that was looked at and kept; `UPDATE=1` keeps it anew.
    #[track_caller]
    fn hold(name: &str, frame: &str) {
        let path = format!("{}/src/cli/top/frames/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, format!("{frame}\n")).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(format!("{frame}\n"), kept, "{path} is another");
    }

    fn picture(pane: Pane) -> Picture {
        let mut picture = Picture::new("127.0.0.1:7070".into(), pane);
        picture.seen(at(0), Ok(seen()));
        picture
    }

    #[test]
    fn each_pane_is_drawn() {
        for (pane, name) in [(Pane::Repos, "repos"), (Pane::Sessions, "sessions"), (Pane::Builds, "builds")] {
            hold(name, &frame(&picture(pane), 130, 16));
        }
        // Too small for all of it: what there is room for, and no panic.
        for (pane, name) in [(Pane::Repos, "repos"), (Pane::Sessions, "sessions"), (Pane::Builds, "builds")] {
            hold(&format!("{name}-narrow"), &frame(&picture(pane), 80, 12));
        }
        for (width, height) in [(1, 1), (3, 200), (200, 3), (0, 0)] {
            frame(&picture(Pane::Repos), width, height);
        }
    }

    #[test]
    fn a_key_that_is_limited_sees_what_it_may() {
        let mut limited = picture(Pane::Repos);
        limited.seen(at(0), Ok(Seen { numbers: None, ..seen() }));
        hold("limited", &frame(&limited, 130, 16));
    }

    #[test]
    fn what_was_seen_stays_while_nobody_answers() {
        let mut away = Picture::new("127.0.0.1:7070".into(), Pane::Repos);
        away.seen(at(-5), Err(Error::unavailable("reach Hotbed")));
        assert!(!away.is_reached());
        hold("never", &frame(&away, 130, 16));
        away.seen(at(-4), Ok(seen()));
        assert!(away.is_reached());
        away.seen(at(-3), Err(Error::unavailable("reach Hotbed")));
        away.seen(at(-1), Err(Error::unavailable("reach Hotbed")));
        // Since the first time, not the last.
        hold("away", &frame(&away, 130, 16));
    }

    /// What a build came to stays until another of its repo has ended; of repos that are gone nothing stays.
    #[test]
    fn a_failed_build_is_seen_until_the_next() {
        let mut picture = picture(Pane::Builds);
        assert_eq!(picture.told(), 3);
        let text = frame(&picture, 150, 16);
        assert!(text.contains("the last build of acme/api failed: setup: `make deps`"), "{text}");
        assert!(text.contains("bld_1") && !text.contains("acme/gone"), "{text}");
        // The one of acme/web is behind what runs there now.
        assert!(text.contains("bld_2 ") && !text.contains("bld_3"), "{text}");
        picture.seen(at(1), Ok(Seen { ended: Vec::new(), ..seen() }));
        assert!(frame(&picture, 150, 16).contains("bld_1"));
        picture.seen(at(2), Ok(Seen { ended: vec![ended(9, "acme/api", "succeeded")], ..seen() }));
        let text = frame(&picture, 150, 16);
        assert!(text.contains("bld_9") && !text.contains("the last build of acme/api failed"), "{text}");
        assert_eq!(picture.told(), 9);
    }

    #[test]
    fn the_best_columns_stay_where_there_is_little_room() {
        let heads = |columns: &[Column], width| -> Vec<_> {
            fitting(columns, width).into_iter().map(|n| columns[n].0).collect()
        };
        assert_eq!(heads(&REPOS, 200).len(), REPOS.len());
        assert_eq!(heads(&REPOS, 80), ["REPO", "IMAGE AGE", "BUILD", "WARM", "HITS"]);
        assert_eq!(heads(&SESSIONS, 120).first(), Some(&"SESSION"));
        assert!(!heads(&SESSIONS, 120).contains(&"BRANCH"));
        assert_eq!(heads(&BUILDS, 80), ["REPO", "STATE", "PHASE", "FOR", "WHAT"]);
        for columns in [&REPOS[..], &SESSIONS, &BUILDS] {
            for width in [0, 1, 5] {
                assert_eq!(fitting(columns, width).len(), 1);
            }
        }
    }

    #[test]
    fn rows_are_sorted_and_scrolled() {
        let mut picture = picture(Pane::Repos);
        let first = |picture: &Picture| {
            let text = frame(picture, 130, 16);
            let head = text.lines().position(|l| l.starts_with("REPO")).unwrap();
            text.lines().nth(head + 1).unwrap().split(' ').next().unwrap().to_owned()
        };
        assert_eq!(first(&picture), "acme/api");
        picture.next_sort();
        assert_eq!(first(&picture), "acme/new", "no image is the oldest");
        picture.next_sort();
        assert_eq!(first(&picture), "acme/web", "the most sessions");
        picture.next_sort();
        picture.scroll(1);
        assert_eq!(first(&picture), "acme/new");
        picture.scroll(100);
        assert_eq!(first(&picture), "acme/web", "the last one stays");
        picture.scroll(i32::MIN);
        assert_eq!(first(&picture), "acme/api");
        picture.next_pane();
        assert!(frame(&picture, 130, 16).contains("LAUNCH"));
    }
}
