#!/usr/bin/env python3
"""Writes what is made of boards.py and slos.py: grafana/*.json, alerts/slo.yml, alerts/tests/slo.yml and the table of
docs/slo.md. `--check` writes nothing, names what differs and fails. Python's standard library is all it needs."""

import json
import sys
from pathlib import Path

from boards import BOARDS
from model import grafana
from slos import FAST, FEW, PERIOD, SLOS, SLOW, WINDOWS, share

HERE = Path(__file__).resolve().parent
SLO_PAGE = HERE.parent / "docs" / "slo.md"
BEGIN, END = "<!-- made by dashboards/generate.py: begin -->", "<!-- made by dashboards/generate.py: end -->"
MADE = "# Made by dashboards/generate.py of slos.py; change it there.\n"
RUNBOOK = "{{ with $externalLabels.hotbed_docs }}{{ . }}{{ else }}docs{{ end }}/runbook.md#"


def quoted(text):
    """As YAML in single quotes."""
    return "'" + text.replace("'", "''") + "'"


# ------------------------------------------------------------------------------------------------ rules


def recording(slo, window, name=None):
    return [
        f"      - record: hotbed:slo_bad:share{name or window}",
        f"        expr: {quoted(share(slo, window))}",
        f"        labels: {{ slo: {slo.name} }}",
    ]


def condition(slo, burn):
    def over(factor, long, short):
        limit = round(factor * slo.allowed, 6)
        parts = [f'hotbed:slo_bad:share{window}{{slo="{slo.name}"}} > {limit}' for window in (long, short)]
        if slo.all is not None:
            # At night one bad session may be a third of all; that is nobody's emergency.
            parts.append(f"on () ({seconds(long)} * ({slo.bad.replace('[W]', f'[{long}]')})) >= {FEW}")
        return "(" + " and ".join(parts) + ")"

    return " or ".join(over(*windows) for windows in burn.over)


def seconds(window):
    return int(window[:-1]) * {"m": 60, "h": 3600, "d": 86400}[window[-1]]


def alert_name(slo, burn):
    return f"Hotbed{slo.alert}Budget{'Fast' if burn is FAST else 'Slow'}"


def percent(slo):
    return f"{100 * slo.objective:g} %"


def summary(slo, burn):
    return f"{slo.name}: the budget {burn.meaning} ({percent(slo)} {slo.promise})"


def anchor(slo):
    return f"hotbed{slo.alert}budget".lower()


def alert(slo, burn):
    return [
        f"      - alert: {alert_name(slo, burn)}",
        f"        expr: {quoted(condition(slo, burn))}",
        f"        for: {burn.wait}",
        f"        labels: {{ severity: {burn.severity} }}",
        "        annotations:",
        f"          summary: {quoted(summary(slo, burn))}",
        f"          runbook_url: {quoted(RUNBOOK + anchor(slo))}",
    ]


def rules():
    out = [MADE + "groups:", "  - name: hotbed-slo", "    rules:"]
    for slo in SLOS:
        for window in WINDOWS:
            out += recording(slo, window)
    # Four weeks of series are read for these; their answer hardly moves.
    out += ["  - name: hotbed-slo-period", "    interval: 5m", "    rules:"]
    for slo in SLOS:
        out += recording(slo, PERIOD)
    out += ["  - name: hotbed-slo-burn", "    rules:"]
    for slo in SLOS:
        out += alert(slo, FAST) + alert(slo, SLOW)
    return "\n".join(out) + "\n"


# ------------------------------------------------------------------------------------------------ their tests


def series(slo, trouble):
    """What a Prometheus sees in three days: all well, half of it bad, or four times as much as is allowed."""
    minutes = 3 * 24 * 60
    if slo.all is None:
        repos, old = 25, {"none": 0, "half": 13, "some": 1}[trouble]
        made = []
        for i in range(repos):
            age = 200000 if i < old else 3600
            made += [(slo.bad_series.format(i), f"{age}x{minutes}"), (slo.good_series.format(i), f"86400x{minutes}")]
        return made
    if trouble == "few":
        # Nothing for days, and then two bad ones among two.
        good = 0 if "_bucket" in slo.good_series else 2
        return [(slo.bad_series, f"0x{minutes - 4} 2x4"), (slo.good_series, f"{good}x{minutes}")]
    # So many of a thousand a minute.
    bad = {"none": 0, "half": 500, "some": round(4000 * slo.allowed)}[trouble]
    # A histogram's other series counts all of them.
    other = 1000 if "_bucket" in slo.good_series else bad
    return [(slo.bad_series, f"0+{other}x{minutes}"), (slo.good_series, f"0+{1000 - bad}x{minutes}")]


def case(slo, burn, trouble, fires):
    out = ["  - interval: 1m", "    input_series:"]
    for name, values in series(slo, trouble):
        out += [f"      - series: {quoted(name)}", f"        values: {quoted(values)}"]
    out += ["    alert_rule_test:", "      - eval_time: 3d", f"        alertname: {alert_name(slo, burn)}"]
    if not fires:
        return out + ["        exp_alerts: []"]
    labels = f"{{ severity: {burn.severity}, slo: {slo.name} }}"
    return out + [
        "        exp_alerts:",
        f"          - exp_labels: {labels}",
        "            exp_annotations:",
        f"              summary: {quoted(summary(slo, burn))}",
        f"              runbook_url: 'docs/runbook.md#{anchor(slo)}'",
    ]


def rule_tests():
    # Few evaluations, for each reads windows of days: an alert is pending at one and fires at the next.
    out = [MADE + "rule_files: [../slo.yml]", "evaluation_interval: 12h"]
    out += ["group_eval_order: [hotbed-slo, hotbed-slo-period, hotbed-slo-burn]", "tests:"]
    for slo in SLOS:
        for burn in (FAST, SLOW):
            out += case(slo, burn, "half" if burn is FAST else "some", True)
            out += case(slo, burn, "none", False)
        # What a ticket is for wakes nobody, and neither does a handful.
        out += case(slo, FAST, "some", False)
        if slo.all is not None:
            out += case(slo, FAST, "few", False)
    return "\n".join(out) + "\n"


# ------------------------------------------------------------------------------------------------ docs/slo.md


def budget(slo):
    minutes = slo.allowed * 28 * 24 * 60
    if slo.all is None:
        return f"{minutes / 60:.1f} h of every repo's 28 days"
    return f"{slo.allowed * 1000:g} in 1,000"


def slo_table():
    out = [BEGIN, "| SLO | promise | budget of 28 days | alerts |", "|---|---|---|---|"]
    for slo in SLOS:
        link = f"[`{alert_name(slo, FAST)}`, `…Slow`](runbook.md#{anchor(slo)})"
        out.append(f"| `{slo.name}` | {percent(slo)} {slo.promise} | {budget(slo)} | {link} |")
    return "\n".join(out + [END])


def slo_page():
    page = SLO_PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        sys.exit(f"{SLO_PAGE}: the marks {BEGIN} and {END} are missing")
    return before + slo_table() + after


def files():
    made = {HERE / "grafana" / f"{board.uid}.json": json.dumps(grafana(board), indent=1) + "\n" for board in BOARDS}
    made[HERE / "alerts" / "slo.yml"] = rules()
    made[HERE / "alerts" / "tests" / "slo.yml"] = rule_tests()
    made[SLO_PAGE] = slo_page()
    return made


def main():
    made = files()
    stray = [p for p in (HERE / "grafana").glob("*.json") if p not in made]
    if "--check" in sys.argv[1:]:
        differing = [p for p, text in made.items() if not p.exists() or p.read_text() != text] + stray
        for path in differing:
            print(f"{path.relative_to(HERE.parent)} is not what dashboards/generate.py writes")
        sys.exit(1 if differing else 0)
    for path, text in made.items():
        path.write_text(text)
    for path in stray:
        path.unlink()


if __name__ == "__main__":
    main()
