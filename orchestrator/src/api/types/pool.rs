//! What a pool looks like: its target with each of its terms, what is there, what was ordered.

use domain::{PoolOrder, PoolOrderKind};
use jiff::Timestamp;
use pool::{FloorReason, Source, Terms};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    pub repo: String,
    /// What the pool works towards: what is wanted, less what the budget has no room for.
    pub target: u32,
    /// Why the target is what it is, in a line.
    pub why: String,
    pub terms: PoolTerms,
    /// Each term in words.
    pub explain: Vec<String>,
    /// What an operator has ordered and is in force.
    pub order: Option<OrderView>,
    pub warm: u32,
    pub starting: u32,
    pub creating: u32,
    pub reserved: u32,
    /// What the pool is doing, or what holds it back.
    pub reason: String,
}

/// What a target is made of.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PoolTerms {
    /// For the claims that are expected; absent where none are, or nobody wants them forecast.
    pub expected: Option<ExpectedView>,
    pub floor: FloorView,
    /// For warm-ups that are live, beside the larger of the two above.
    pub warmups: u32,
    pub max: u32,
    /// All of it together.
    pub wanted: u32,
    /// Members above what is wanted are kept up to this many: they were wanted a few minutes ago.
    pub kept: u32,
}

/// The members that expected claims ask for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExpectedView {
    pub members: u32,
    /// What was expected in the last minutes, at its highest.
    pub kept: u32,
    /// What the forecast rests on: `recent` minutes, or the same hour of earlier weeks (`season`).
    pub source: String,
    /// Claims that were seen, and in how many minutes.
    pub claims: u32,
    pub minutes: f64,
    pub claims_per_minute: f64,
    /// Claims to be expected within one lead time, in the mean.
    pub claims_per_lead_time: f64,
    /// From the decision to make a member until it is ready: the 95th percentile of so many starts. None: it is assumed.
    pub lead_seconds: f64,
    pub lead_samples: u32,
    /// The part of occasions on which several claims come together, and how many then do.
    pub bunches_share: f64,
    pub bunches_size: f64,
    /// More claims than `members` in one lead time are expected with at most these odds.
    pub odds: f64,
    pub target_hit_rate: f64,
    /// What the odds were learnt from.
    pub lesson: Option<LessonView>,
}

/// What replayed weeks would have been like under the odds that were chosen.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LessonView {
    pub weeks: f64,
    pub claims: u32,
    pub hits: u32,
    /// The same under odds of `1 - target_hit_rate`.
    pub hits_before: u32,
    pub idle_hours: f64,
}

/// The least that is kept whatever the traffic is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FloorView {
    pub members: u32,
    /// Who says so: `min`, `window`, `order`, `idle` or `drained`.
    pub by: String,
}

/// What an operator has ordered.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OrderView {
    pub order: OrderWord,
    pub min: Option<u32>,
    pub max: Option<u32>,
    pub until: Option<Timestamp>,
    pub at: Timestamp,
    pub by: String,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderWord {
    /// Other limits than the policy's, for a while.
    Set,
    /// Nothing is made, replaced or scaled down.
    Pause,
    /// Nothing is made, and what is idle goes.
    Drain,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveOrder {
    pub order: OrderWord,
    /// For `set`: the least, in place of the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// For `set`: the most, in place of the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// For `set`: how long; at most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// Who orders it; `api` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The claims of a repo as they are kept.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Arrivals {
    pub repo: String,
    /// Since when they are counted.
    pub watched_since: Option<Timestamp>,
    /// How long the latest members took to become ready, the latest last.
    pub lead_milliseconds: Vec<u32>,
    /// The minutes in which somebody came, in order.
    pub minutes: Vec<MinuteView>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MinuteView {
    pub at: Timestamp,
    pub claims: u32,
}

impl PoolView {
    pub fn new(p: &pool::RepoPlan, order: Option<&PoolOrder>) -> Self {
        Self {
            repo: p.repo.to_string(),
            target: p.target.members,
            why: p.target.to_string(),
            terms: (&p.target.terms).into(),
            explain: p.target.explain(),
            order: order.and_then(OrderView::of),
            warm: p.have.warm,
            starting: p.have.starting,
            creating: p.have.creating,
            reserved: p.have.reserved,
            reason: p.reason.clone(),
        }
    }
}

impl From<&Terms> for PoolTerms {
    fn from(terms: &Terms) -> Self {
        let by = match terms.floor.why {
            FloorReason::Min => "min",
            FloorReason::Window { .. } => "window",
            FloorReason::Order { .. } => "order",
            FloorReason::Idle { .. } => "idle",
            FloorReason::Drained => "drained",
        };
        Self {
            expected: terms.expected.as_ref().map(Into::into),
            floor: FloorView { members: terms.floor.members, by: by.into() },
            warmups: terms.warmups,
            max: terms.max,
            wanted: terms.wanted,
            kept: terms.kept,
        }
    }
}

impl From<&pool::Expected> for ExpectedView {
    fn from(e: &pool::Expected) -> Self {
        let source = match e.forecast.source {
            Source::Recent { .. } => "recent",
            Source::Season { .. } => "season",
        };
        Self {
            members: e.members,
            kept: e.kept,
            source: source.into(),
            claims: e.forecast.claims,
            minutes: e.forecast.minutes,
            claims_per_minute: e.forecast.per_minute,
            claims_per_lead_time: e.forecast.count.mean(),
            lead_seconds: e.lead.seconds,
            lead_samples: e.lead.samples,
            bunches_share: e.habits.bunches.share,
            bunches_size: e.habits.bunches.size,
            odds: e.odds,
            target_hit_rate: e.target_hit_rate,
            lesson: e.habits.lesson.map(|l| LessonView {
                weeks: l.weeks,
                claims: l.claims,
                hits: l.hits,
                hits_before: l.hits_before,
                idle_hours: l.idle_hours,
            }),
        }
    }
}

impl OrderView {
    /// One to resume is no order that is in force.
    fn of(order: &PoolOrder) -> Option<Self> {
        let (word, min, max, until) = match order.kind {
            PoolOrderKind::Set { min, max, until } => (OrderWord::Set, min, max, Some(until)),
            PoolOrderKind::Pause => (OrderWord::Pause, None, None, None),
            PoolOrderKind::Drain => (OrderWord::Drain, None, None, None),
            PoolOrderKind::Resume => return None,
        };
        let (by, why) = (order.by.clone(), order.why.clone());
        Some(Self { order: word, min, max, until, at: order.at, by, why })
    }
}
