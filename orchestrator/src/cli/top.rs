//! `hotbed top`: the installation as a picture that is drawn anew every few seconds. A client of the API like any other:
//! what is drawn is in [`view`], and knows no network; here are the questions, the keys and the terminal.

mod numbers;
mod view;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use domain::{Clock, Error, ErrorKind, Result, SystemClock};
use futures_util::FutureExt;
use futures_util::future::{FusedFuture, OptionFuture};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal};
use tokio::sync::mpsc;

use super::Ctx;
use crate::api::types::{HappeningView, List, RepoView, SessionView};
use crate::client::Client;
use numbers::Numbers;
use view::{Pane, Picture, Seen};

/// What one look at the server may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often the keyboard is asked whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Sessions that are looked at, the newest.
const SESSIONS: u32 = 200;
/// The size of a picture where there is no terminal.
const SIZE: (u16, u16) = (120, 40);

#[derive(Args)]
pub struct TopArgs {
    /// Seconds between looks.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    interval: f64,
    /// Print one picture and end.
    #[arg(long)]
    once: bool,
    /// What is shown first.
    #[arg(long, value_enum, default_value_t = Pane::Repos)]
    pane: Pane,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let n: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    if (0.1..=3600.0).contains(&n) { Ok(n) } else { Err(format!("`{text}`: expected 0.1 to 3600 seconds")) }
}

pub async fn run(ctx: &Ctx, args: TopArgs) -> Result<ExitCode> {
    let client = ctx.client()?;
    let mut picture = Picture::new(client.address.clone(), args.pane);
    if args.once || !std::io::stdout().is_terminal() {
        picture.seen(SystemClock.now(), look(&client, 0).await);
        println!("{}", once(&picture)?);
        return Ok(if picture.is_reached() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    // From here on the terminal is ours; it is given back whatever happens, a panic included.
    let terminal = ratatui::try_init().map_err(|e| Error::permanent("take the terminal").caused_by(e))?;
    let done = live(terminal, &client, picture, Duration::from_secs_f64(args.interval)).await;
    ratatui::restore();
    done.map(|()| ExitCode::SUCCESS)
}

/// One picture as text, as large as the terminal, or as what it shows.
fn once(picture: &Picture) -> Result<String> {
    let (width, _) =
        ratatui::crossterm::terminal::size().ok().filter(|_| std::io::stdout().is_terminal()).unwrap_or(SIZE);
    let height = picture.height().max(SIZE.1);
    let drawn = |e| Error::permanent("draw").caused_by(e);
    let mut terminal = match Terminal::new(TestBackend::new(width, height)) {
        Ok(terminal) => terminal,
        Err(never) => match never {},
    };
    let now = SystemClock.now();
    let frame = terminal.draw(|frame| view::draw(picture, now, frame));
    let frame =
        frame.map_err(|never: std::convert::Infallible| drawn(std::io::Error::other(never.to_string())))?;
    Ok(view::text(frame.buffer))
}

/// Draws until somebody has seen enough.
async fn live(
    mut terminal: DefaultTerminal,
    client: &Client,
    mut picture: Picture,
    every: Duration,
) -> Result<()> {
    let keys = Keyboard::listen();
    let mut keys_in = keys.events;
    let mut stop = std::pin::pin!(super::stop_signal());
    let mut next = tokio::time::interval(every);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // One look at a time; keys are heard while the server thinks.
    let mut looking = std::pin::pin!(OptionFuture::from(None));
    loop {
        let now = SystemClock.now();
        terminal
            .draw(|frame| view::draw(&picture, now, frame))
            .map_err(|e| Error::permanent("draw").caused_by(e))?;
        tokio::select! {
            () = &mut stop => return Ok(()),
            event = keys_in.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if pressed(&mut picture, key) {
                        return Ok(());
                    }
                }
                // A new size is drawn at once.
                Some(_) => {}
                None => return Ok(()),
            },
            _ = next.tick(), if looking.is_terminated() => {
                looking.set(OptionFuture::from(Some(look(client, picture.told()).fuse())));
            }
            Some(seen) = &mut looking, if !looking.is_terminated() => picture.seen(SystemClock.now(), seen),
        }
    }
}

/// What a key does; whether it was the last one.
fn pressed(picture: &mut Picture, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('1') => picture.show(Pane::Repos),
        KeyCode::Char('2') => picture.show(Pane::Sessions),
        KeyCode::Char('3') => picture.show(Pane::Builds),
        KeyCode::Tab | KeyCode::Right => picture.next_pane(),
        KeyCode::Char('s') => picture.next_sort(),
        KeyCode::Char('j') | KeyCode::Down => picture.scroll(1),
        KeyCode::Char('k') | KeyCode::Up => picture.scroll(-1),
        KeyCode::PageDown => picture.scroll(20),
        KeyCode::PageUp => picture.scroll(-20),
        KeyCode::Home => picture.scroll(i32::MIN),
        _ => {}
    }
    false
}

/// Reads the keyboard on a thread of its own, which ends when this is dropped.
struct Keyboard {
    events: mpsc::Receiver<Event>,
    _wanted: Wanted,
}

struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Keyboard {
    fn listen() -> Self {
        let (tx, events) = mpsc::channel(64);
        let wanted = Arc::new(AtomicBool::new(true));
        let still = wanted.clone();
        std::thread::spawn(move || {
            while still.load(Ordering::Relaxed) {
                let read = match event::poll(KEY_WAIT) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(e) => Err(e),
                };
                // The terminal is gone, or nobody listens; dropping `tx` says so.
                let Ok(event) = read else { return };
                if tx.blocking_send(event).is_err() {
                    return;
                }
            }
        });
        Self { events, _wanted: Wanted(wanted) }
    }
}

/// Everything that is drawn, asked for at once. What a key that is limited may not see is left out; of the builds that
/// have ended only those behind `told` are asked for.
async fn look(client: &Client, told: u64) -> Result<Seen> {
    let sessions = format!("/v1/sessions?limit={SESSIONS}");
    let ended = format!("/v1/events?tail=true&kind=build_ended&after={told}");
    let asked = async {
        tokio::join!(
            client.get::<List<RepoView>>("/v1/repos"),
            client.get::<List<SessionView>>(&sessions),
            client.text(&ended),
            client.text("/metrics"),
        )
    };
    let asked = tokio::time::timeout(DEADLINE, asked).await;
    let (repos, sessions, ended, metrics) =
        asked.map_err(|_| Error::timeout(format!("no answer within {} s", DEADLINE.as_secs())))?;
    let numbers = match metrics {
        Ok(text) => Some(Numbers::parse(&text)),
        Err(e) if e.kind() == ErrorKind::Invalid || e.kind() == ErrorKind::Denied => None,
        Err(e) => return Err(e),
    };
    Ok(Seen { repos: repos?.items, sessions: sessions?.items, ended: events(&ended?), numbers })
}

/// The events of a stream that has ended. `lost` is none: who begins to watch knows no better.
fn events(text: &str) -> Vec<HappeningView> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data.trim()).ok()).collect()
}
