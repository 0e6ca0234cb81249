"""What a dashboard is made of, and how Grafana writes it down.

Kinds of panels: `lines` (over time), `stat` (one number), `bars` (one number for each of several). A query is a pair:
what the legend says and the PromQL. Colours, grids and ids are nobody's to choose.
"""

from dataclasses import dataclass

# What Grafana puts a value in place of. Whoever evaluates a query elsewhere does the same: observe.py, tests/it/observe.
RATE = "$__rate_interval"

WIDTH = 24
HEIGHTS = {"lines": 8, "bars": 8, "stat": 4}


@dataclass(frozen=True)
class Query:
    legend: str
    expr: str


@dataclass(frozen=True)
class Panel:
    kind: str
    title: str
    # What it tells, and what to do when it looks bad: shown at the panel's corner.
    about: str
    unit: str
    queries: tuple
    width: int
    # From here on a value is bad; the direction says whether above or below.
    limit: float | None = None
    below: bool = False
    stacked: bool = False
    # Points on the lines lead to the traces of single observations.
    traced: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    about: str
    rows: tuple
    # Shows one repo, chosen at the top.
    of_repo: bool = False

    def panels(self):
        for row in self.rows:
            yield from row.panels


def _queries(queries):
    return tuple(Query(*q) if isinstance(q, tuple) else Query("", q) for q in queries)


def lines(title, about, unit, *queries, width=12, **more):
    return Panel("lines", title, about, unit, _queries(queries), width, **more)


def stat(title, about, unit, query, width=4, **more):
    return Panel("stat", title, about, unit, _queries((query,)), width, **more)


def bars(title, about, unit, *queries, width=12, **more):
    return Panel("bars", title, about, unit, _queries(queries), width, **more)


def row(title, *panels):
    return Row(title, panels)


# ---------------------------------------------------------------------------------------------------- Grafana

SOURCE = {"type": "prometheus", "uid": "${source}"}


def _thresholds(panel):
    good, bad = {"color": "green", "value": None}, {"color": "red", "value": panel.limit}
    if panel.limit is None:
        steps = [good]
    elif panel.below:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.limit}]
    else:
        steps = [good, bad]
    return {"mode": "absolute", "steps": steps}


def _defaults(panel):
    defaults = {"unit": panel.unit, "thresholds": _thresholds(panel)}
    if panel.kind == "lines":
        custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": False}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        custom["thresholdsStyle"] = {"mode": "off" if panel.limit is None else "line"}
        defaults |= {"color": {"mode": "palette-classic"}, "custom": custom, "min": 0}
    else:
        defaults["color"] = {"mode": "thresholds"}
    return defaults


def _options(panel):
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "lines":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "bars":
        return {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": reduce, "showUnfilled": True}
    return {"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "reduceOptions": reduce, "textMode": "auto"}


def _target(panel, index, query):
    target = {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend}
    # A number is that of now; Grafana need not ask for the whole range.
    target |= {"range": True} if panel.kind == "lines" else {"instant": True, "range": False}
    if panel.traced:
        target["exemplar"] = True
    return target


def _panel(panel, number, x, y):
    kinds = {"lines": "timeseries", "stat": "stat", "bars": "bargauge"}
    return {
        "id": number,
        "type": kinds[panel.kind],
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHTS[panel.kind]},
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "targets": [_target(panel, i, q) for i, q in enumerate(panel.queries)],
    }


def _layout(board):
    """Rows one below the other; panels from left to right, on the next line where one does not fit."""
    made, y = [], 0
    for row_ in board.rows:
        made.append({
            "id": len(made) + 1, "type": "row", "title": row_.title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        })
        y, x, tallest = y + 1, 0, 0
        for panel in row_.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            made.append(_panel(panel, len(made) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, HEIGHTS[panel.kind])
        y += tallest
    return made


def _variables(board):
    source = {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus", "hide": 0}
    repo = {
        "name": "repo", "label": "Repo", "type": "query", "datasource": SOURCE, "hide": 0, "refresh": 2, "sort": 1,
        "definition": "label_values(hotbed_pool_target, repo)",
        "query": {"query": "label_values(hotbed_pool_target, repo)", "refId": "repo"},
    }
    return [source, repo] if board.of_repo else [source]


def grafana(board):
    """The dashboard as Grafana's own JSON."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.about,
        "tags": ["hotbed"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [{
            "title": "Hotbed", "type": "dashboards", "tags": ["hotbed"], "asDropdown": True, "includeVars": False,
            "keepTime": True, "icon": "external link", "targetBlank": False, "tooltip": "", "url": "",
        }],
        "templating": {"list": _variables(board)},
        "panels": _layout(board),
    }
