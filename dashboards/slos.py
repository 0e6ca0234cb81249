"""The service levels: what counts, what counts as bad, how much of it is allowed, and what spends the allowance.

From this table come the recording rules and burn-rate alerts (`alerts/slo.yml`), their tests, the dashboard of error
budgets, and the table in docs/slo.md.

`bad` and `all` are rates over the window `[W]`. Where something is good or bad for a time, not in events, `bad` is the
share itself at this moment and `all` is not given; windows are then means over time.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slo:
    name: str  # in the label `slo`
    alert: str  # CamelCase, in the names of its alerts
    objective: float
    promise: str
    bad: str
    all: str | None
    # The series that the tests of its alerts feed: of what is bad (of all, where that is a histogram's count), and of
    # what is good; without events those of the value and its limit, for repo {}.
    bad_series: str
    good_series: str

    @property
    def allowed(self):
        return round(1 - self.objective, 6)


def _bucket(metric, launches, border):
    labels = f'launch=~"{launches}"'
    every = f"sum(rate({metric}_count{{{labels}}}[W]))"
    fast = f'sum(rate({metric}_bucket{{{labels},le="{border}"}}[W]))'
    return f"{every} - {fast}", every


_CLAIM = _bucket("hotbed_session_claim_seconds", "warm|warmup", "0.005")
_READY = _bucket("hotbed_session_ready_seconds", "warm|warmup", "5.0")

SLOS = (
    Slo(
        "warm_start", "WarmStart", 0.99,
        "of sessions that are not restored start from a sandbox that was ready or being made for them",
        'sum(rate(hotbed_session_starts_total{launch="cold"}[W]))',
        'sum(rate(hotbed_session_starts_total{launch!="restore"}[W]))',
        'hotbed_session_starts_total{repo="acme/api",launch="cold"}',
        'hotbed_session_starts_total{repo="acme/api",launch="warm"}',
    ),
    Slo(
        "claim", "Claim", 0.99,
        "of warm claims are durable within 5 ms",
        *_CLAIM,
        'hotbed_session_claim_seconds_count{launch="warm"}',
        'hotbed_session_claim_seconds_bucket{launch="warm",le="0.005"}',
    ),
    Slo(
        "ready", "Ready", 0.99,
        "of warm sessions can write to their workspace within 5 s",
        *_READY,
        'hotbed_session_ready_seconds_count{launch="warm"}',
        'hotbed_session_ready_seconds_bucket{launch="warm",le="5.0"}',
    ),
    Slo(
        "fresh_image", "FreshImage", 0.99,
        "of the time of all repos there is a current image, not older than its `max_age` and a tenth",
        "1 - (sum(hotbed_image_age_seconds <= bool 1.1 * hotbed_image_age_target_seconds) or vector(0))"
        " / count(hotbed_image_age_target_seconds)",
        None,
        'hotbed_image_age_seconds{{repo="acme/{}"}}',
        'hotbed_image_age_target_seconds{{repo="acme/{}"}}',
    ),
    Slo(
        "api", "Api", 0.999,
        "of requests are answered with something else than a 5xx",
        'sum(rate(hotbed_api_requests_total{status=~"5.."}[W]))',
        "sum(rate(hotbed_api_requests_total[W]))",
        'hotbed_api_requests_total{route="/v1/sessions",status="503"}',
        'hotbed_api_requests_total{route="/v1/sessions",status="201"}',
    ),
    Slo(
        "session_kept", "SessionKept", 0.999,
        "of sessions end for another reason than a lost sandbox or one that could not be started",
        'sum(rate(hotbed_session_ends_total{end=~"sandbox_lost|launch_failed"}[W]))',
        "sum(rate(hotbed_session_ends_total[W]))",
        'hotbed_session_ends_total{end="sandbox_lost"}',
        'hotbed_session_ends_total{end="requested"}',
    ),
)

# The budget is that of so many days.
PERIOD = "28d"
# Windows over which the share of what was bad is recorded.
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
# Fewer bad ones than this in the long window are nobody's emergency, whatever their share.
FEW = 5


@dataclass(frozen=True)
class Burn:
    severity: str
    # (factor, long window, short window): so many times faster than allowed over both.
    over: tuple
    wait: str
    meaning: str


# A twentieth of a month's allowance within the hour (or within six) is worth waking somebody; a tenth within one to
# three days is worth a ticket. The short window lets the alert end soon after the trouble has.
FAST = Burn("page", ((14.4, "1h", "5m"), (6, "6h", "30m")), "2m", "would be spent within days")
SLOW = Burn("ticket", ((3, "1d", "2h"), (1, "3d", "6h")), "15m", "is spent faster than it comes back")


def share(slo, window):
    """What was bad of all, over a window."""
    if slo.all is None:
        return slo.bad if window == "5m" else f'avg_over_time(hotbed:slo_bad:share5m{{slo="{slo.name}"}}[{window}])'
    bad, every = slo.bad.replace("[W]", f"[{window}]"), slo.all.replace("[W]", f"[{window}]")
    # Where nothing happened nothing was bad.
    return f"({bad}) / ({every} > 0) or 0 * ({every})"


def left(slo):
    """The share of the period's budget that is left; below zero when it is overspent."""
    return f'1 - hotbed:slo_bad:share{PERIOD}{{slo="{slo.name}"}} / {slo.allowed}'
