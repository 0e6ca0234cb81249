//! Pools, sessions, and what a sandbox may use and reach.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::written;
use crate::values::{
    BranchPattern, ByteSize, Cpus, Days, HostPattern, Hours, NetworkName, Period, Rate, Zone,
};

/// How many sandboxes are kept warm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "pool")]
pub(crate) struct PoolSection {
    /// Never fewer than this, while the budget has room and the repo is not idle. Without `target_hit_rate` it is what is kept.
    #[schemars(range(max = 10000))]
    pub min: u32,
    /// Never more than this.
    #[schemars(range(max = 10000))]
    pub max: u32,
    /// The share of sessions that should find a warm sandbox: more than 0, less than 1. With it the pool follows the repo's traffic between `min` and `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_hit_rate: Option<Rate>,
    /// Parts of the week that raise `min`. The time zone of the first one also says what "the same hour of earlier weeks" is.
    pub schedule: Vec<WindowSection>,
    /// A warm sandbox older than this is replaced.
    pub member_max_age: Period,
    /// How long a warm-up holds its sandbox after the last keystroke.
    pub warmup_ttl: Period,
    /// How often upstream is asked whether the branch has moved while sandboxes wait, so that they follow it. Each look is one question, and a fetch where it has; an announced push needs none.
    pub fresh_within: Period,
    /// A repo without a session for this long keeps no warm sandboxes, until somebody comes or an operator orders some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Period>,
}

impl Default for PoolSection {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            target_hit_rate: None,
            schedule: Vec::new(),
            member_max_age: Period::hours(6),
            warmup_ttl: Period::minutes(2),
            fresh_within: Period::minutes(1),
            idle_after: None,
        }
    }
}

/// A part of the week that raises a pool's `min`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "window")]
pub(crate) struct WindowSection {
    /// The days.
    #[serde(default)]
    pub days: Days,
    /// The part of the day; over midnight where the end is before the start.
    pub hours: Hours,
    /// Whose days and hours these are.
    #[serde(default)]
    pub timezone: Zone,
    /// What `min` is raised to.
    #[schemars(range(max = 10000))]
    pub min: u32,
}

/// When sessions end, and what they work on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "session")]
pub(crate) struct SessionSection {
    /// A session ends this long after its claim, whatever happens.
    pub timeout: Period,
    /// What idleness leads to.
    pub idle: IdleSection,
    /// The branch that a session works on; `{session}` is replaced by its short id.
    pub branch_pattern: BranchPattern,
    /// How long git sync may take before the write gate's wait ends in a failure.
    pub sync_timeout: Period,
}

impl Default for SessionSection {
    fn default() -> Self {
        Self {
            timeout: Period::hours(4),
            idle: IdleSection::default(),
            branch_pattern: written("hotbed/{session}"),
            sync_timeout: Period::seconds(60),
        }
    }
}

/// What idleness (no request, no running command) leads to. What is not given does not happen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "idle")]
pub(crate) struct IdleSection {
    /// The sandbox is paused after this long. Not acted on by this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Period>,
    /// The session ends after this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Period>,
}

/// What one sandbox may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "resources")]
pub(crate) struct ResourcesSection {
    /// Processors.
    pub cpus: Cpus,
    /// Memory; without swap. At least 64MiB.
    pub memory: ByteSize,
    /// Processes and threads.
    #[schemars(range(min = 32))]
    pub pids: u32,
}

impl Default for ResourcesSection {
    fn default() -> Self {
        Self { cpus: Cpus(2000), memory: ByteSize(4 << 30), pids: 1024 }
    }
}

/// What a sandbox can reach besides Hotbed itself: one of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "network")]
pub(crate) enum NetworkSection {
    /// Nothing.
    None,
    /// Everything the host reaches, on a network of Hotbed's own, without traffic between sandboxes.
    #[default]
    Bridge,
    /// An existing network of the engine, by name.
    Use(NetworkName),
    /// Only these hosts. Refused by this version, which can't enforce it.
    Egress(Vec<HostPattern>),
}
