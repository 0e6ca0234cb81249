//! What happens in the whole installation, as server-sent events.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use domain::{RepoName, SessionId};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use utoipa::IntoParams;

use super::events::{Position, beginning};
use super::types::{HappeningFrame, HappeningView, LostView};
use super::{ApiResult, Caller, Hotbed, parse};
use crate::feed::{Happening, Heard, Kind};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct HappeningsQuery {
    /// Begin behind this number; with the oldest that is still there when not given. `Last-Event-ID` does the same.
    #[param(value_type = Option<u64>)]
    after: Option<Position>,
    /// Of this repo alone.
    repo: Option<String>,
    /// Of this session alone.
    session: Option<String>,
    /// Of these kinds alone, with commas between them: `build_ended,image_current`.
    kind: Option<String>,
    /// End after what is there now instead of following.
    #[serde(default)]
    tail: bool,
}

/// Whom an event is for, and what was asked for.
struct Wanted {
    caller: Caller,
    repo: Option<RepoName>,
    session: Option<SessionId>,
    kinds: Option<Vec<Kind>>,
}

impl Wanted {
    fn has(&self, happening: &Happening) -> bool {
        let news = &happening.news;
        // What is of no repo is about the installation.
        let may = news.repo.as_ref().map_or(!self.caller.is_limited(), |repo| self.caller.covers(repo));
        may && (self.repo.is_none() || self.repo == news.repo)
            && (self.session.is_none() || self.session == news.session)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&news.kind))
    }

    fn shown(&self, heard: Heard) -> Option<Event> {
        match heard {
            Heard::Happened(h) if self.has(&h) => {
                let data = serde_json::to_string(&HappeningView::from(&*h)).unwrap_or_default();
                Some(Event::default().id(h.seq.to_string()).event(h.news.kind.as_str()).data(data))
            }
            Heard::Happened(_) => None,
            Heard::Lost { after, next } => {
                let data = serde_json::to_string(&LostView { after, next }).unwrap_or_default();
                Some(Event::default().event("lost").data(data))
            }
        }
    }
}

/// What happens, as it happens: sessions, builds, images, pools, warm-ups, pull requests, failures. The `data` of each is a `HappeningView`. The last 4096 are remembered, in memory; the event `lost`, a `LostView`, says that what was between `after` and `next` is no longer there, after a restart, too. A key that is limited to repos hears of those.
#[utoipa::path(get, path = "/v1/events", tag = "operations", operation_id = "follow_events", params(HappeningsQuery),
    responses((status = 200, content_type = "text/event-stream", body = HappeningFrame)))]
pub async fn follow(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Query(q): Query<HappeningsQuery>,
    headers: HeaderMap,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let repo = q.repo.as_deref().map(|r| parse("repo", r)).transpose()?;
    if let Some(repo) = &repo {
        caller.must_cover(repo)?;
        app.repos.spec(repo)?;
    }
    let session = q.session.as_deref().map(|s| parse("session", s)).transpose()?;
    let kinds = q.kind.as_deref().map(|list| list.split(',').map(|k| parse("kind", k.trim())).collect());
    let wanted = Wanted { caller, repo, session, kinds: kinds.transpose()? };
    let feed = app.feed.clone();
    let after = beginning(q.after, &headers);
    let heard = if q.tail {
        futures_util::stream::iter(feed.now(after)).boxed()
    } else {
        let stop = app.stop.clone();
        feed.follow(after).take_until(stop.cancelled_owned()).boxed()
    };
    let events = heard.filter_map(move |heard| ready(wanted.shown(heard).map(Ok)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}
