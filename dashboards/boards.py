"""The dashboards. Each answers one question of the platform team's day; each panel says what it tells.

With many repos the panels of the overview show the ten that are worst: a hundred lines say nothing.
"""

from model import Board, RATE, bars, lines, row, stat
from slos import FAST, SLOS, left


def rate(metric, by="", where=""):
    grouped = f" by ({by})" if by else ""
    series = f"{metric}{{{where}}}" if where else metric
    return f"sum{grouped} (rate({series}[{RATE}]))"


def hourly(metric, by="", where=""):
    """Events an hour, which people can imagine, where those a second are tiny."""
    return f"3600 * {rate(metric, by, where)}"


def quantile(q, metric, by="", where=""):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(metric + '_bucket', labels, where)})"


def share(part, whole):
    """0 where there was nothing at all."""
    return f"{part} / ({whole} > 0) or 0 * {whole}"


MISSES = "hotbed_pool_misses_total"
STARTS = "hotbed_session_starts_total"
COLD = 'launch="cold"'
NOT_RESTORED = 'launch!="restore"'

OVERVIEW = Board(
    "hotbed-overview", "Hotbed: overview",
    "Is every image fresh, did anyone wait, what is stuck?",
    (
        row(
            "Now",
            stat(
                "Repos without a fresh image", "Without a current image, or older than its max_age and a tenth. Runbook: HotbedImageOld, HotbedNoImage.", "none",
                "count(hotbed_image_age_target_seconds) - (count(hotbed_image_age_seconds <= 1.1 * hotbed_image_age_target_seconds) or vector(0))",
                limit=1,
            ),
            stat(
                "Cold starts, last hour", "Share of sessions that found nothing ready, restored ones aside. The promise is under 1 %.", "percentunit",
                share(f"sum(increase({STARTS}{{{COLD}}}[1h]))", f"sum(increase({STARTS}{{{NOT_RESTORED}}}[1h]))"),
                limit=0.01,
            ),
            stat("Live sessions", "Waiting, active, paused and ending.", "none", "sum(hotbed_sessions)"),
            stat(
                "Warm members of those wanted", "Under one while pools fill or when they can't.", "percentunit",
                share('sum(hotbed_pool_sandboxes{state="warm"})', "sum(hotbed_pool_target)"), limit=0.8, below=True,
            ),
            stat("Engine", "1 when the engine answered the last comparison. Runbook: HotbedEngineDown.", "bool_yes_no", "min(hotbed_backend_up)", limit=1, below=True),
            stat("Alerts that fire", "Every one has a section in the runbook.", "none", 'count(ALERTS{alertstate="firing",alertname=~"Hotbed.*"}) or vector(0)', limit=1),
        ),
        row(
            "Is every image fresh?",
            lines(
                "Image age against its target, worst ten", "1 is `image.max_age`: an image is built anew then even if nothing changed.", "percentunit",
                ("{{repo}}", "topk(10, hotbed_image_age_seconds / hotbed_image_age_target_seconds)"), limit=1.1,
            ),
            lines("Commits behind, worst ten", "Between the current image and the tip of its branch. Sync at the claim has to fetch them.", "none", ("{{repo}}", "topk(10, hotbed_image_commits_behind)")),
            lines("Ready members behind their branch, worst ten", "They are synced in place; those that can't be stay here.", "none", ("{{repo}}", "topk(10, hotbed_pool_sandboxes_behind)")),
            lines(
                "From a push to ready members at it", "From seeing the branch move to a member that was brought to its tip.", "s",
                ("p50", quantile(0.5, "hotbed_pool_catch_up_seconds") + " >= 0"), ("p95", quantile(0.95, "hotbed_pool_catch_up_seconds") + " >= 0"),
            ),
        ),
        row(
            "Did anyone wait?",
            lines(
                "Share of cold starts", "Of all sessions but the restored, and of the three repos that have most of them.", "percentunit",
                ("all", share(rate(STARTS, where=COLD), rate(STARTS, where=NOT_RESTORED))),
                ("{{repo}}", f"topk(3, {share(rate(STARTS, 'repo', COLD), rate(STARTS, 'repo', NOT_RESTORED))})"),
                limit=0.01,
            ),
            lines(
                "Time to ready, by launch", "From the request to the open write gate: git sync is in it. A restore or a cold start is as slow as the engine.", "s",
                ("{{launch}} p50", quantile(0.5, "hotbed_session_ready_seconds", "launch") + " >= 0"),
                ("{{launch}} p95", quantile(0.95, "hotbed_session_ready_seconds", "launch") + " >= 0"),
            ),
            lines(
                "Time to the claim, p99, by launch", "From the request to the durable claim. The promise is 5 ms.", "s",
                ("{{launch}}", quantile(0.99, "hotbed_session_claim_seconds", "launch") + " >= 0"), limit=0.005,
            ),
            lines("Claims that found no member, by reason", "What each reason means and how to mend it: runbook, HotbedPoolEmpty.", "none", ("{{reason}}", hourly(MISSES, "reason")), stacked=True),
        ),
        row(
            "The pool",
            lines(
                "Pool against target", "All repos together. Creating and starting members count as on their way.", "none",
                ("{{state}}", "sum by (state) (hotbed_pool_sandboxes)"), ("target", "sum(hotbed_pool_target)"),
            ),
            lines(
                "Members missing, worst ten", "Wanted and not warm, by repo.", "none",
                ("{{repo}}", 'topk(10, hotbed_pool_target - ignoring (state) hotbed_pool_sandboxes{state="warm"})'),
            ),
            lines("Warm-ups an hour, by outcome", "A hit became a session; expired and withdrawn ones held a member for nothing.", "none", ("{{outcome}}", hourly("hotbed_warmups_total", "outcome")), stacked=True),
            lines(
                "Warm-ups wasted", "Share that no session came of, and how many are live.", "percentunit",
                ("wasted", share(rate("hotbed_warmups_total", where='outcome!="hit"'), rate("hotbed_warmups_total"))),
            ),
            lines(
                "What warm-ups were worth, an hour", "Preparation that was done before the session came, and members held for a session that never came.", "s",
                ("saved", hourly("hotbed_warmup_saved_seconds_total")), ("wasted", hourly("hotbed_warmup_wasted_seconds_total")),
            ),
        ),
        row(
            "What is stuck?",
            lines(
                "Queues", "Sessions that wait for a cold start, builds that wait for their turn, warm-ups that are live.", "none",
                ("{{queue}}", "hotbed_queue_length"), ("warm-ups", "hotbed_warmups_live"), ("waiting sessions", 'hotbed_sessions{state="waiting"}'),
            ),
            lines("Oldest in the outbox", "What waits to be told to the outside, by kind. Runbook: HotbedOutboxStuck.", "s", ("{{kind}}", "hotbed_outbox_oldest_seconds"), limit=600),
        ),
    ),
)

_R = 'repo="$repo"'
REPO = Board(
    "hotbed-repo", "Hotbed: one repo",
    "Everything about one repo: is it fresh, is its pool the right size, how long do its builds take?",
    (
        row(
            "Now",
            stat("Image age", "Of the current image. Red past its max_age.", "s", f"hotbed_image_age_seconds{{{_R}}}"),
            stat("Of its target", "1 is `image.max_age`.", "percentunit", f"hotbed_image_age_seconds{{{_R}}} / hotbed_image_age_target_seconds{{{_R}}}", limit=1.1),
            stat("Commits behind", "Of the tip, as of the mirror.", "none", f"hotbed_image_commits_behind{{{_R}}}"),
            stat("Last look that went well", "Built, or found unchanged.", "s", f"time() - hotbed_image_last_success_timestamp_seconds{{{_R}}}"),
            stat("Warm", "Members that wait.", "none", f'hotbed_pool_sandboxes{{{_R},state="warm"}}'),
            stat("Wanted", "`hotbed pool explain` says why.", "none", f"hotbed_pool_target{{{_R}}}"),
        ),
        row(
            "Image",
            lines("Image age", "Falls at each build; grows while nothing changes, up to max_age.", "s", ("age", f"hotbed_image_age_seconds{{{_R}}}"), ("target", f"hotbed_image_age_target_seconds{{{_R}}}")),
            lines("Builds an hour, by result", "Unchanged: the tip was looked at and is what the image holds.", "none", ("{{result}}", hourly("hotbed_image_builds_total", "result", _R)), stacked=True),
            lines(
                "Mean time of a build, by phase", "setup, update and warm are the repo's own commands.", "s",
                ("{{phase}}", f"{rate('hotbed_image_build_seconds_sum', 'phase', _R)} / ({rate('hotbed_image_build_seconds_count', 'phase', _R)} > 0)"), stacked=True,
            ),
            lines("Commits behind", "Between the current image and the tip.", "none", ("commits", f"hotbed_image_commits_behind{{{_R}}}")),
        ),
        row(
            "Pool",
            lines("Pool against target", "Members by state; the target; and what it would be with room for all in the budget.", "none", ("{{state}}", f"hotbed_pool_sandboxes{{{_R}}}"), ("target", f"hotbed_pool_target{{{_R}}}"), ("wanted", f"hotbed_pool_wanted{{{_R}}}")),
            lines("Claims an hour, and those that found a member", "What the pool is sized by. Restores are not among them.", "none", ("claims", hourly("hotbed_pool_arrivals_total", where=_R)), ("found a member", hourly("hotbed_pool_hits_total", where=_R))),
            lines("Time to a ready member", "From the decision to the agent's answer: what a claim in need would wait.", "s", ("p50", quantile(0.5, "hotbed_pool_refill_seconds", where=_R) + " >= 0"), ("p95", quantile(0.95, "hotbed_pool_refill_seconds", where=_R) + " >= 0")),
            lines("Sessions an hour, by launch", "Cold ones found nothing ready.", "none", ("{{launch}}", hourly(STARTS, "launch", _R)), stacked=True),
            lines("Claims that found no member, by reason", "Runbook: HotbedPoolEmpty.", "none", ("{{reason}}", hourly(MISSES, "reason", _R)), stacked=True),
            lines("Warm-ups an hour, by outcome", "Hits became sessions.", "none", ("{{outcome}}", hourly("hotbed_warmups_total", "outcome", _R)), stacked=True),
            lines(
                "Sandboxes in use, by purpose", "The mean number of them: hours used in an hour.", "none",
                ("{{purpose}}", rate("hotbed_sandbox_seconds_total", "purpose", _R)), ("idle in the pool", rate("hotbed_pool_idle_sandbox_seconds_total", where=_R)),
            ),
        ),
    ),
    of_repo=True,
)

BUILDS = Board(
    "hotbed-builds", "Hotbed: builds",
    "Does every repo get its images, and what do they cost?",
    (
        row(
            "Results",
            lines("Builds an hour, by result", "All repos. A failed build leaves the current image in place: nobody notices but here and HotbedBuildsFailing.", "none", ("{{result}}", hourly("hotbed_image_builds_total", "result")), stacked=True),
            bars("Failed builds of the last day, worst ten", "`hotbed build ls REPO`, `hotbed build log ID`.", "none", ("{{repo}}", 'topk(10, sum by (repo) (increase(hotbed_image_builds_total{result="failed"}[1d])))'), limit=2),
            bars("Longest since a look that went well, worst ten", "Built, or found unchanged.", "s", ("{{repo}}", "topk(10, time() - hotbed_image_last_success_timestamp_seconds)")),
            lines(
                "Builds that wait, looks that came late", "As many run as `builds.at_once` lets; a tick of a schedule that passed unseen is answered by a later one.", "none",
                ("waiting", 'hotbed_queue_length{queue="build"}'), ("missed ticks an hour", hourly("hotbed_image_missed_ticks_total")),
            ),
            lines(
                "Images on trial", "Sandboxes in which an image failed, and what became of canaries and of images that failed. Runbook: HotbedImageDemoted.", "none",
                ("failures an hour", hourly("hotbed_image_failures_total")), ("{{verdict}} an hour", hourly("hotbed_image_verdicts_total", "verdict")),
            ),
            lines(
                "Images and the registry", "Empty without a registry. What waits for long is named in the server's log, with what the registry said.", "none",
                ("{{result}} an hour", hourly("hotbed_image_pushes_total", "result")), ("waiting", "hotbed_images_unpushed"),
            ),
        ),
        row(
            "Time",
            lines("Mean time of a phase", "Over all repos.", "s", ("{{phase}}", f"{rate('hotbed_image_build_seconds_sum', 'phase')} / ({rate('hotbed_image_build_seconds_count', 'phase')} > 0)")),
            lines("p95 of a phase", "Over all repos.", "s", ("{{phase}}", quantile(0.95, "hotbed_image_build_seconds", "phase") + " >= 0")),
            bars("Time of building in the last day, ten longest", "All phases of all builds of a repo.", "s", ("{{repo}}", "topk(10, sum by (repo) (increase(hotbed_image_build_seconds_sum[1d])))")),
            lines("What the engine keeps", "Sizes of all captures; layers that several share are counted each time.", "bytes", ("{{kind}}", "hotbed_captured_bytes"), stacked=True),
        ),
    ),
)

SESSIONS = Board(
    "hotbed-sessions", "Hotbed: sessions",
    "What do users get: how fast, for how long, and how does it end?",
    (
        row(
            "Beginning",
            lines("Live sessions, by state", "Waiting ones have no sandbox yet.", "none", ("{{state}}", "hotbed_sessions"), stacked=True),
            lines("Sessions an hour, by launch", "Warm and warm-up are fast; restore and cold wait for the engine.", "none", ("{{launch}}", hourly(STARTS, "launch")), stacked=True),
            lines("Time to the claim", "From the request to the durable claim.", "s", ("{{launch}} p50", quantile(0.5, "hotbed_session_claim_seconds", "launch") + " >= 0"), ("{{launch}} p99", quantile(0.99, "hotbed_session_claim_seconds", "launch") + " >= 0"), limit=0.005, traced=True),
            lines("Time to ready", "From the request to the open write gate.", "s", ("{{launch}} p50", quantile(0.5, "hotbed_session_ready_seconds", "launch") + " >= 0"), ("{{launch}} p95", quantile(0.95, "hotbed_session_ready_seconds", "launch") + " >= 0"), limit=5, traced=True),
        ),
        row(
            "Sync and gate",
            lines("Git sync, p95, by result", "Failed ones leave the gate shut until the client decides.", "s", ("{{result}}", quantile(0.95, "hotbed_sync_seconds", "result") + " >= 0"), traced=True),
            lines("Syncs an hour, by result", "A failed one means a user who can read and not write.", "none", ("{{result}}", hourly("hotbed_sync_seconds_count", "result")), stacked=True),
            lines("Commits behind when sync began", "0 when members are kept at the tip.", "none", ("p50", quantile(0.5, "hotbed_sync_lag_commits") + " >= 0"), ("p95", quantile(0.95, "hotbed_sync_lag_commits") + " >= 0")),
            lines("API writes that waited at the gate, p95", "Processes that wait in the kernel are not in it.", "s", ("wait", quantile(0.95, "hotbed_gate_wait_seconds") + " >= 0")),
        ),
        row(
            "Work",
            lines("Commands an hour", "Those that were waited for.", "none", ("commands", hourly("hotbed_exec_seconds_count"))),
            lines("Time of commands", "The users' own programs.", "s", ("p50", quantile(0.5, "hotbed_exec_seconds") + " >= 0"), ("p95", quantile(0.95, "hotbed_exec_seconds") + " >= 0"), traced=True),
            lines("Outbox", "What waits to be told to the outside.", "none", ("{{kind}}", "hotbed_outbox_pending")),
        ),
        row(
            "Pull requests",
            lines("Pull requests an hour, by result", "Found: it was open already. Refused: the branch was not pushed, or holds nothing new.", "none", ("{{result}}", hourly("hotbed_pull_requests_total", "result")), stacked=True),
            lines("Pull requests that ended, an hour", "Merged is what sessions are for.", "none", ("{{end}}", hourly("hotbed_pull_request_ends_total", "end")), stacked=True),
            lines("Sessions that led to a merge, an hour", "The first measure of all this.", "none", ("merged", hourly("hotbed_sessions_merged_total"))),
            lines("Approved and revised", "Ended with an approval, an hour; revisions of those that ended.", "none", ("approved", hourly("hotbed_pull_requests_approved_total")), ("revisions p50", quantile(0.5, "hotbed_pull_request_revisions") + " >= 0")),
            lines("Time to the pull request", "From the beginning of the session.", "s", ("p50", quantile(0.5, "hotbed_pull_request_open_seconds") + " >= 0"), ("p90", quantile(0.9, "hotbed_pull_request_open_seconds") + " >= 0")),
            lines("People prompting", "Who used a session within the last five minutes.", "none", ("{{repo}}", "hotbed_people_prompting"), stacked=True),
            lines("Time to merge", "From the opening of a pull request.", "s", ("p50", quantile(0.5, "hotbed_pull_request_merge_seconds") + " >= 0"), ("p90", quantile(0.9, "hotbed_pull_request_merge_seconds") + " >= 0")),
            lines("Webhooks an hour, by result", "Forged: not signed with the secret. Failed: kept, and could not be worked.", "none", ("{{result}}", hourly("hotbed_webhooks_total", "result")), stacked=True),
        ),
        row(
            "End",
            lines("Sessions that ended an hour, by reason", "launch_failed and sandbox_lost are ours to explain.", "none", ("{{end}}", hourly("hotbed_session_ends_total", "end")), stacked=True),
            lines("Captures, p95", "At the end of a session, or asked for.", "s", ("{{kind}}", quantile(0.95, "hotbed_snapshot_seconds", "kind") + " >= 0")),
            lines("Size of captures, p50", "All layers of them together.", "bytes", ("{{kind}}", quantile(0.5, "hotbed_snapshot_bytes", "kind") + " >= 0")),
            stat("Sandboxes kept after a failed capture", "Each is the only copy of somebody's work. Runbook: HotbedSandboxKept.", "none", 'sum(hotbed_sandboxes{state="kept"})', width=12, limit=1),
        ),
    ),
)

ENGINE = Board(
    "hotbed-engine", "Hotbed: engine and errors",
    "Is the machinery well: engine, tasks, disks, tokens, the process itself?",
    (
        row(
            "Engine",
            lines("Engine answers", "1 when it answered the last comparison of records and engine.", "bool_yes_no", ("{{backend}}", "hotbed_backend_up")),
            lines("Engine calls, p95", "By verb. Starts and captures are the engine's own work.", "s", ("{{call}}", quantile(0.95, "hotbed_backend_call_seconds", "call") + " >= 0")),
            lines("Engine calls a second", "By verb, builds and sweeps included.", "none", ("{{call}}", rate("hotbed_backend_call_seconds_count", "call")), stacked=True),
            lines("Engine errors an hour, by kind", "Runbook: by error kind.", "none", ("{{kind}}", hourly("hotbed_backend_errors_total", "kind")), stacked=True),
            lines("Sandboxes, by purpose and state", "Stopping ones that stay are retried every 15 s.", "none", ("{{purpose}} {{state}}", "hotbed_sandboxes > 0")),
            lines("Found without a record, an hour", "Removed as soon as they are found. More than a few is a leak. Runbook: HotbedOrphans.", "none", ("{{kind}}", hourly("hotbed_orphans_total", "kind"))),
            stat("Left alone since a restore", "Made after the copy that was restored, so without a record. Look at them, then `hotbed restore --release`. Runbook: the state was restored.", "none", "sum(hotbed_spared)", width=6),
        ),
        row(
            "Errors",
            lines("Requests a second, by status", "All routes.", "none", ("{{status}}", rate("hotbed_api_requests_total", "status")), stacked=True),
            lines("Time to answer, p99, by what was asked", "Until the head of the answer; waiting for a command is in it, and `pull_request` holds the forge's own time.", "s", ("{{group}}", quantile(0.99, "hotbed_api_request_seconds", "group") + " >= 0")),
            bars("5xx of the last hour, by route", "503 has a Retry-After: a limit or something that is away.", "none", ("{{route}} {{status}}", 'topk(10, sum by (route, status) (increase(hotbed_api_requests_total{status=~"5.."}[1h])))'), limit=1),
            lines("Refused by a quota, an hour", "A user or a repo had its share (`quotas`).", "none", ("{{quota}}", hourly("hotbed_quota_refusals_total", "quota"))),
            stat("Lines of the audit log that were lost", "The store took none for so long that there was no room for more. 0 is right.", "none", "sum(hotbed_audit_lost_total)", width=6),
            lines("Spans of traces a second, by what became of them", "Sent to the collector, failed because it was away or refused them, dropped because too many waited.", "none", ("{{result}}", rate("hotbed_trace_spans_total", "result"))),
            lines("Keys and tokens refused, an hour", "By whose they were. Runbook: HotbedTokensRefused.", "none", ("{{kind}}", hourly("hotbed_tokens_refused_total", "kind"))),
            lines("Background tasks: runs that failed, an hour", "The log says why.", "none", ("{{task}}", hourly("hotbed_task_failures_total", "task"))),
            bars("Time since a task last ended well, in its own intervals", "Above 3 it is not run, or fails each time. Runbook: HotbedTaskNotRun.", "none", ("{{task}}", "(time() - hotbed_task_last_success_timestamp_seconds) / hotbed_task_interval_seconds"), limit=3),
        ),
        row(
            "Machine",
            lines("Disk left", "Of its bytes and of its inodes. Runbook: HotbedDiskLow.", "percentunit", ("{{disk}} {{of}}", "hotbed_disk_free_ratio"), limit=0.1, below=True),
            lines("Disk left, bytes", "`state` holds records, mirrors and logs; `engine` holds images, snapshots and sandboxes.", "bytes", ("{{disk}}", "hotbed_disk_free_bytes")),
            lines("Processor of Hotbed", "1 is one core. Sandboxes are not in it.", "none", ("{{instance}}", f'rate(process_cpu_seconds_total{{job="hotbed"}}[{RATE}])')),
            lines("Memory of Hotbed", "Resident; sandboxes are not in it.", "bytes", ("{{instance}}", 'process_resident_memory_bytes{job="hotbed"}')),
            lines("Open files of Hotbed", "One for each agent, and those of its clients.", "none", ("{{instance}}", 'process_open_fds{job="hotbed"}')),
            lines(
                "Work behind the answers, a second", "Commits to the store, fetches from upstream and looks that spared one, plans of the pool, wakes of sessions: they grow with the sessions, not faster.", "none",
                ("commits", rate("hotbed_store_commits_total")),
                ("fetches", rate("hotbed_git_fetches_total")), ("fetches spared", rate("hotbed_git_fetches_spared_total")),
                ("pool plans", rate("hotbed_pool_plans_total")), ("session wakes", rate("hotbed_session_wakes_total")),
            ),
            stat("Up for", "Since the last start.", "s", 'time() - max(process_start_time_seconds{job="hotbed"})', width=6),
            stat("Version", "Of each instance.", "none", ("{{version}}", "hotbed_build_info"), width=6),
        ),
    ),
)

_IDLE = "hotbed_pool_idle_sandbox_seconds_total"
COST = Board(
    "hotbed-cost", "Hotbed: cost",
    "What do the machines do, and what of it is waiting?",
    (
        row(
            "Room",
            lines("Memory reserved, against the budget", "What the sandboxes there are may use. The budget is absent where none is set. Runbook: HotbedBudgetExhausted.", "bytes", ("reserved", "hotbed_reserved_memory_bytes"), ("budget", "hotbed_budget_memory_bytes > 0")),
            lines("Processors reserved, against the budget", "As memory, in cores.", "none", ("reserved", "hotbed_reserved_cpus"), ("budget", "hotbed_budget_cpus > 0")),
        ),
        row(
            "Time",
            lines("Sandboxes, by purpose", "The mean number of them: sandbox-hours in an hour.", "none", ("{{purpose}}", rate("hotbed_sandbox_seconds_total", "purpose")), stacked=True),
            bars("Sandbox-hours of the last day, by repo, ten most", "Sessions, builds and pool together.", "h", ("{{repo}}", "topk(10, sum by (repo) (increase(hotbed_sandbox_seconds_total[1d]))) / 3600")),
            lines("Idle members", "The mean number of members that wait: what having them ready costs.", "none", ("{{repo}}", f"topk(10, {rate(_IDLE, 'repo')})")),
            stat("Idle hours a warm session, last day", "What one session that did not wait has cost in waiting members.", "h", share(f"sum(increase({_IDLE}[1d])) / 3600", f'sum(increase({STARTS}{{launch=~"warm|warmup"}}[1d]))'), width=6),
            stat("Idle share of all sandbox time, last day", "The pool's part.", "percentunit", share('sum(increase(hotbed_sandbox_seconds_total{purpose="pool"}[1d]))', "sum(increase(hotbed_sandbox_seconds_total[1d]))"), width=6),
        ),
        row(
            "Work",
            bars("Hours of building in the last day, ten most", "A longer schedule or fewer steps make it less.", "h", ("{{repo}}", "topk(10, sum by (repo) (increase(hotbed_image_build_seconds_sum[1d]))) / 3600")),
            lines("What the engine keeps", "`image.keep` and snapshots' age bound it.", "bytes", ("{{kind}}", "hotbed_captured_bytes"), stacked=True),
        ),
    ),
)

SLO = Board(
    "hotbed-slo", "Hotbed: error budgets",
    "Are the promises of docs/slo.md kept, and how much may still go wrong?",
    (
        row("Left of 28 days", *(stat(slo.name, f"{100 * slo.objective:g} % {slo.promise}.", "percentunit", left(slo), limit=0, below=True) for slo in SLOS)),
        row(
            "Now",
            *(
                lines(
                    f"{slo.name}: how fast it burns", f"1 spends the budget in exactly 28 days; {FAST.over[0][0]} wakes somebody.", "none",
                    *((window, f'hotbed:slo_bad:share{window}{{slo="{slo.name}"}} / {slo.allowed}') for window in ("5m", "1h", "6h", "3d")),
                    width=8, limit=FAST.over[0][0],
                )
                for slo in SLOS
            ),
        ),
    ),
)

BOARDS = (OVERVIEW, REPO, BUILDS, SESSIONS, ENGINE, COST, SLO)
