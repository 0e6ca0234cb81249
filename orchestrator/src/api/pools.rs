//! Pools: what they want and why, what operators order, who came.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use domain::{Error, PoolOrder, PoolOrderKind, RepoSpec, Result};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::catalog::named;
use super::types::{Arrivals, GiveOrder, List, MinuteView, OrderWord, PoolView};
use super::{ApiResult, Caller, Hotbed, Payload, detached};
use crate::app::App;
use crate::fleet::after;

/// The longest that other limits than the policy's may be in force: what is meant to stay belongs into the policy.
const LONGEST_ORDER: Duration = Duration::from_secs(30 * 24 * 3600);
/// As `pool.max` in the configuration.
const MAX_POOL: u32 = 10_000;
const LONGEST_WORDS: usize = 200;

/// The pools: what they want, what they have, and why.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", operation_id = "list_pools", responses((status = 200, body = List<PoolView>)))]
pub async fn list(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
) -> ApiResult<Json<List<PoolView>>> {
    let plan = app.pools.plan_aside().await?;
    let view = |p: &pool::RepoPlan| PoolView::new(p, app.demands.order_of(&p.repo).as_ref());
    let shown = plan.repos.iter().filter(|p| caller.covers(&p.repo));
    Ok(Json(List { items: shown.map(view).collect(), next: None }))
}

/// One pool: each term of its target, what is there, and the order that is in force.
#[utoipa::path(get, path = "/v1/pools/{owner}/{name}", tag = "pools", operation_id = "get_pool", responses((status = 200, body = PoolView)))]
pub async fn read(
    State(app): Hotbed,
    Path((owner, name)): Path<(String, String)>,
) -> ApiResult<Json<PoolView>> {
    let spec = named(&app, &owner, &name)?;
    Ok(Json(present(&app, &spec).await?))
}

async fn present(app: &App, spec: &RepoSpec) -> Result<PoolView> {
    let plan = app.pools.plan_aside().await?;
    let found = plan.repos.iter().find(|p| p.repo == spec.name);
    let found = found.ok_or_else(|| Error::not_found(format!("{} has no pool", spec.name)))?;
    Ok(PoolView::new(found, app.demands.order_of(&spec.name).as_ref()))
}

/// Order something of a pool, in place of what was ordered before: other limits for a while (`set`), to leave all as it is (`pause`), or to empty it (`drain`). It survives a restart.
#[utoipa::path(put, path = "/v1/pools/{owner}/{name}/order", tag = "pools", operation_id = "order_pool", request_body = GiveOrder, responses((status = 200, body = PoolView)))]
pub async fn order(
    State(app): Hotbed,
    Path((owner, name)): Path<(String, String)>,
    body: Payload<GiveOrder>,
) -> ApiResult<Json<PoolView>> {
    let spec = named(&app, &owner, &name)?;
    let now = app.clock.now();
    let GiveOrder { order, min, max, for_seconds, by, why } = body.value;
    let kind = match order {
        OrderWord::Set => limits(&spec, now, min, max, for_seconds)?,
        word => {
            for (field, given) in
                [("min", min.is_some()), ("max", max.is_some()), ("for_seconds", for_seconds.is_some())]
            {
                if given {
                    return Err(Error::invalid(format!("`{field}` belongs to the order `set` alone")).into());
                }
            }
            if word == OrderWord::Pause { PoolOrderKind::Pause } else { PoolOrderKind::Drain }
        }
    };
    give(app, &spec, kind, by, why).await
}

fn limits(
    spec: &RepoSpec,
    now: Timestamp,
    min: Option<u32>,
    max: Option<u32>,
    seconds: Option<u64>,
) -> Result<PoolOrderKind> {
    if min.is_none() && max.is_none() {
        return Err(Error::invalid("`min` and `max` are missing: expected at least one of them"));
    }
    let longest = LONGEST_ORDER.as_secs();
    let seconds = match seconds {
        Some(n) if (1..=longest).contains(&n) => n,
        Some(n) => return Err(Error::invalid(format!("`for_seconds` is {n}: expected 1 to {longest}"))),
        None => return Err(Error::invalid(format!("`for_seconds` is missing: expected 1 to {longest}"))),
    };
    let most = max.unwrap_or(spec.pool.max);
    if most > MAX_POOL {
        return Err(Error::invalid(format!("`max` is {most}: expected at most {MAX_POOL}")));
    }
    if let Some(min) = min.filter(|min| *min > most) {
        return Err(Error::invalid(format!("`min` is {min}: expected at most `max`, which is {most}")));
    }
    Ok(PoolOrderKind::Set { min, max, until: after(now, Duration::from_secs(seconds)) })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ResumeQuery {
    /// Who resumes it, and why; recorded as for any order.
    by: Option<String>,
    why: Option<String>,
}

/// Withdraw what was ordered: the policy alone counts again.
#[utoipa::path(delete, path = "/v1/pools/{owner}/{name}/order", tag = "pools", operation_id = "withdraw_pool_order", params(ResumeQuery), responses((status = 200, body = PoolView)))]
pub async fn resume(
    State(app): Hotbed,
    Path((owner, name)): Path<(String, String)>,
    Query(q): Query<ResumeQuery>,
) -> ApiResult<Json<PoolView>> {
    let spec = named(&app, &owner, &name)?;
    give(app, &spec, PoolOrderKind::Resume, q.by, q.why).await
}

async fn give(
    app: std::sync::Arc<App>,
    spec: &RepoSpec,
    kind: PoolOrderKind,
    by: Option<String>,
    why: Option<String>,
) -> ApiResult<Json<PoolView>> {
    let words = |field: &str, given: Option<String>, otherwise: &str| match given {
        Some(text) if text.is_empty() || text.len() > LONGEST_WORDS => Err(Error::invalid(format!(
            "`{field}` has {} characters: expected 1 to {LONGEST_WORDS}",
            text.len()
        ))),
        given => Ok(given.unwrap_or_else(|| otherwise.to_owned())),
    };
    let (by, why) = (words("by", by, "api")?, words("why", why, "no reason given")?);
    let order = PoolOrder { repo: spec.name.clone(), kind, at: app.clock.now(), by, why };
    let demands = app.demands.clone();
    detached(async move { demands.order(order).await }).await?;
    app.fleet.pool_poke.notify_one();
    Ok(Json(present(&app, spec).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ArrivalsQuery {
    /// Since when; all that is kept, which is five weeks, when not given.
    from: Option<Timestamp>,
}

/// The claims of a repo by the minute, and how long its members took: what `hotbed pool replay` runs a policy against.
#[utoipa::path(get, path = "/v1/pools/{owner}/{name}/arrivals", tag = "pools", operation_id = "get_pool_arrivals", params(ArrivalsQuery), responses((status = 200, body = Arrivals)))]
pub async fn arrivals(
    State(app): Hotbed,
    Path((owner, name)): Path<(String, String)>,
    Query(q): Query<ArrivalsQuery>,
) -> ApiResult<Json<Arrivals>> {
    let spec = named(&app, &owner, &name)?;
    let recorded = app.demands.recorded(&spec.name, q.from.unwrap_or(Timestamp::MIN));
    let minute = |(at, claims)| MinuteView { at, claims };
    Ok(Json(Arrivals {
        repo: spec.name.to_string(),
        watched_since: recorded.watched_since,
        lead_milliseconds: recorded.lead.samples,
        minutes: recorded.minutes.into_iter().map(minute).collect(),
    }))
}
