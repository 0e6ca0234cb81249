//! A session's log as server-sent events: followed from any sequence number, by any number of clients.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use domain::SessionId;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use utoipa::IntoParams;

use super::types::{EventFrame, EventView};
use super::{ApiResult, Hotbed, parse};

/// The number of an event, as a request gives it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub struct Position(u64);

impl TryFrom<u64> for Position {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        match i64::try_from(number) {
            Ok(_) => Ok(Self(number)),
            Err(_) => Err(format!("{number} is no event's number: expected 0 to {}", i64::MAX)),
        }
    }
}

/// Behind which number a follower begins: what it has had, which clients send by themselves, else what it asks for.
pub fn beginning(asked: Option<Position>, headers: &HeaderMap) -> u64 {
    let had = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    had.or(asked.map(|p| p.0)).unwrap_or(0)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Begin behind this sequence number; 0, the beginning, when not given. `Last-Event-ID` does the same.
    #[param(value_type = Option<u64>)]
    after: Option<Position>,
    /// End after what is there now instead of following.
    #[serde(default)]
    tail: bool,
}

/// The log of a session, as server-sent events. The `data` of each is an `EventView`, its `id` the sequence number.
#[utoipa::path(get, path = "/v1/sessions/{id}/events", tag = "sessions", operation_id = "follow_session_events", params(EventsQuery),
    responses((status = 200, content_type = "text/event-stream", body = EventFrame)))]
pub async fn follow(
    State(app): Hotbed,
    Path(id): Path<String>,
    Query(q): Query<EventsQuery>,
    headers: HeaderMap,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let id: SessionId = parse("id", &id)?;
    app.sessions.record(id).await?;
    let after = beginning(q.after, &headers);
    let upto = if q.tail { Some(app.session_logs.last(id).await?) } else { None };
    let stop = app.stop.clone();
    let events = app
        .session_logs
        .follow(id, after)
        .take_until(async move { stop.cancelled().await })
        .take_while(|event| std::future::ready(event.is_ok()))
        .filter_map(|event| std::future::ready(event.ok()));
    // With `tail` the last event there is ends it: nothing is waited for behind it.
    let mut over = upto.is_some_and(|upto| upto <= after);
    let events = futures_util::stream::poll_fn({
        let mut events = Box::pin(events);
        move |cx| {
            if over {
                return std::task::Poll::Ready(None);
            }
            let next = std::task::ready!(events.as_mut().poll_next(cx));
            over = next.as_ref().is_none_or(|e| upto.is_some_and(|upto| e.seq >= upto));
            std::task::Poll::Ready(next)
        }
    });
    let events = events.map(|event| {
        let frame = Event::default().id(event.seq.to_string()).event(&event.kind);
        let data = serde_json::to_string(&EventView::from(event)).unwrap_or_default();
        Ok(frame.data(data))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}
