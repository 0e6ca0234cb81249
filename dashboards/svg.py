"""Draws the panels of a dashboard as SVG and a page around them, where no Grafana is to be had."""

import textwrap
from html import escape

# Distinct on white, and in print.
COLOURS = ("#3274d9", "#e0752d", "#37872d", "#a352cc", "#c4162a", "#1f9e9e", "#b8860b", "#5b6b7b", "#d35a9e", "#6b4f2a")
FONT = 'font-family="system-ui, sans-serif"'
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def number(value, unit):
    """As a person reads it."""
    if value is None or value != value:
        return "–"
    size = abs(value)
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "bool_yes_no":
        return "yes" if value else "no"
    if unit == "bytes":
        name = max((n for n, by in UNITS.items() if size >= by), key=UNITS.get, default="B")
        return f"{value / UNITS[name]:.3g} {name}"
    if unit == "s":
        for name, by in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
            if size >= by:
                return f"{value / by:.3g} {name}"
        return "0 s" if value == 0 else f"{1000 * value:.3g} ms"
    text = f"{value:.3g}" if size < 1000 else f"{value:,.0f}"
    return f"{text} h" if unit == "h" else text


def _text(x, y, text, size=11, anchor="start", colour="#333", weight="normal"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {FONT} text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _ticks(top, unit):
    """A few round values from 0 to at least `top`."""
    if top <= 0 or unit == "bool_yes_no":
        return [0, 1]
    if unit == "bytes":
        step = 1.0
        while top / step > 4:
            step *= 2
        return [i * step for i in range(int(-(-top // step)) + 1)]
    magnitude = 10.0
    while magnitude > top:
        magnitude /= 10
    while magnitude * 10 <= top:
        magnitude *= 10
    step = next(magnitude * m for m in (0.25, 0.5, 1, 2, 2.5, 5, 10) if top / (magnitude * m) <= 4)
    ticks = [0.0]
    while ticks[-1] < top:
        ticks.append(ticks[-1] + step)
    return ticks


def _stack(series):
    """Each on top of those before it."""
    total, out = {}, []
    for name, points in series:
        for at, value in points:
            total[at] = total.get(at, 0) + value
        out.append((name, [(at, total[at]) for at, _ in points]))
    return out


def lines(panel, series, width, height):
    shown = _stack(series) if panel.stacked else series
    values = [v for _, points in shown for _, v in points]
    times = [t for _, points in shown for t, _ in points]
    limit = [panel.limit] if panel.limit is not None and panel.limit <= 3 * max(values, default=0) else []
    ticks = _ticks(max(values + limit, default=0), panel.unit)
    left, right, top, bottom = 58, width - 12, 34, height - 46
    begin, end = min(times, default=0), max(times, default=1)

    def x(at):
        return left + (right - left) * (at - begin) / max(end - begin, 1)

    def y(value):
        return bottom - (bottom - top) * value / ticks[-1]

    out = []
    for tick in ticks:
        out.append(f'<line x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e3e3e3"/>')
        out.append(_text(left - 6, y(tick) + 4, number(tick, panel.unit), 10, "end", "#777"))
    for at, anchor in ((begin, "start"), (end, "end")):
        ago = f"{end - at:.0f} s ago" if at != end else "now"
        out.append(_text(x(at), bottom + 14, ago, 10, anchor, "#777"))
    for value in limit:
        out.append(f'<line x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#c4162a" stroke-dasharray="4 3"/>')
    legend = left
    for i, (name, points) in enumerate(shown):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x(at):.1f},{y(max(value, 0)):.1f}" for at, value in points)
        if panel.stacked and len(points) > 1:
            own = dict(series[i][1])
            below = " ".join(f"{x(at):.1f},{y(max(value - own[at], 0)):.1f}" for at, value in reversed(points))
            out.append(f'<polygon points="{path} {below}" fill="{colour}" fill-opacity="0.25"/>')
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(points) == 1:
            out.append(f'<circle cx="{x(points[0][0]):.1f}" cy="{y(points[0][1]):.1f}" r="2" fill="{colour}"/>')
        wanted = 26 + 6.8 * len(name)
        if legend + wanted < right:
            out.append(f'<rect x="{legend:.0f}" y="{height - 18}" width="10" height="4" fill="{colour}"/>')
            out.append(_text(legend + 14, height - 12, name, 11))
        legend += wanted
    return out


def stat(panel, series, width, height):
    value = series[0][1][-1][1] if series else None
    name = series[0][0] if series else ""
    bad = panel.limit is not None and value is not None
    bad = bad and (value < panel.limit if panel.below else value >= panel.limit)
    text = name if panel.title == "Version" else number(value, panel.unit)
    return [_text(width / 2, height / 2 + 22, text, 30, "middle", "#c4162a" if bad else "#37872d", "bold")]


def bars(panel, series, width, height):
    shown = sorted(((name, points[-1][1]) for name, points in series), key=lambda s: -s[1])[:8]
    most = max([value for _, value in shown] + [panel.limit or 0, 1e-9])
    out, y = [], 44
    for name, value in shown:
        bad = panel.limit is not None and (value < panel.limit if panel.below else value >= panel.limit)
        length = max((width - 250) * max(value, 0) / most, 1)
        out.append(_text(168, y + 11, name[-26:], 11, "end"))
        out.append(f'<rect x="176" y="{y}" width="{length:.1f}" height="14" fill="{"#c4162a" if bad else "#37872d"}"/>')
        out.append(_text(182 + length, y + 11, number(value, panel.unit), 11))
        y += 20
    return out


def draw(panel, series):
    """A panel as SVG. `series`: name and points (seconds, value), oldest first."""
    width, height = 36 * panel.width, {"stat": 120}.get(panel.kind, 240)
    body = {"lines": lines, "stat": stat, "bars": bars}[panel.kind](panel, series, width, height)
    if not series:
        body = [_text(width / 2, height / 2, "no data", 14, "middle", "#c4162a")]
    size = 13 if len(panel.title) * 7.5 < width else 11
    titles = textwrap.wrap(panel.title, int((width - 20) / (0.62 * size)))
    title = "".join(_text(10, 20 + 14 * i, line, size, weight="bold") for i, line in enumerate(titles))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<title>{escape(panel.about)}</title><rect width="100%" height="100%" fill="#fff" stroke="#ddd"/>'
        f'{title}{"".join(body)}</svg>\n'
    )


def page(board, drawn):
    """A page of a dashboard: `drawn` has the SVG of each panel, in order."""
    drawn = iter(drawn)
    rows = "".join(
        f"<h2>{escape(row.title)}</h2><div>{''.join(next(drawn) for _ in row.panels)}</div>" for row in board.rows
    )
    style = "body{font:14px system-ui;background:#f4f5f5;width:880px;margin:1em auto}svg{vertical-align:top}h2{font-size:15px}"
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(board.title)}</title><style>{style}</style>'
        f"<h1>{escape(board.title)}</h1><p>{escape(board.about)}</p>{rows}"
    )
