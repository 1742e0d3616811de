"""Pages and pictures that need nothing but a browser: one HTML file, inline CSS and SVG, no script, light and dark, narrow and wide.

Every picture has a title that is read aloud, numbers in the text of the page's ink, and names beside the marks (or a legend), so that
no colour alone carries a meaning. Coordinates are rounded to a tenth: files stay small and do not differ from run to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDE, HIGH = 560, 320  # of a picture, in its own units; a page scales it to its column
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 16, 14, 44
LEAST = 1e-300  # on a logarithmic axis; what is smaller cannot be halved without becoming nothing
_SERIES = 8  # colours there are; a ninth series begins anew

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1a1d21; --soft: #5b6570; --line: #d9dee3; --band: #f4f6f8;
  --good: #1a7f4b; --bad: #b3261e; --s0: #2563b0; --s1: #c2571a; --s2: #1a7f5a; --s3: #8a3ffc; --s4: #a8284f; --s5: #6b7280;
  --s6: #8a6d00; --s7: #007d9c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --soft: #9aa4ae; --line: #333a41; --band: #1c2126;
  --good: #5fd39a; --bad: #ff8a80; --s0: #7ab0f5; --s1: #f2a065; --s2: #5fd3a5; --s3: #c19bff; --s4: #f28bab; --s5: #aeb6bf;
  --s6: #e0c04a; --s7: #5cc8e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0 .2rem; } h2 { font-size: 1.3rem; margin: 2.4rem 0 .4rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; } p { margin: .5rem 0; } a { color: var(--s0); }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
code { font: .88em ui-monospace, "SF Mono", Consolas, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .6rem 0; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.text, th.text { text-align: left; white-space: normal; min-width: 12rem; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); white-space: normal; vertical-align: bottom; }
tr.best td { font-weight: 700; } .interval { color: var(--soft); font-size: .85em; font-weight: 400; }
.reached { color: var(--good); font-weight: 600; } .missed { color: var(--bad); font-weight: 600; } .open { color: var(--soft); }
pre { font: .8rem/1.45 ui-monospace, "SF Mono", Consolas, monospace; margin: 0; padding: .6rem .8rem; background: var(--band);
  width: max-content; min-width: 100%; }
figure { margin: 1rem 0; } .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 1.5rem; }
svg { display: block; width: 100%; max-width: 44rem; height: auto; font: 13px system-ui, sans-serif; } svg text { fill: var(--ink); }
svg .axis { fill: var(--soft); } svg .grid { stroke: var(--line); stroke-width: 1; } svg .curve { fill: none; stroke-width: 2; }
svg .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
nav a { margin-right: .9rem; white-space: nowrap; }
@media (max-width: 40rem) { th:first-child, td:first-child { white-space: normal; min-width: 5.5rem; } th, td { padding: .28rem .45rem; }
  body { padding: .8rem .8rem 3rem; } }
@media print { :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --band: #eee; } body { max-width: none; font-size: 10pt; }
  nav { display: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } .wide { overflow: visible; }
  table { font-size: 8pt; } th, td { padding: .15rem .35rem; } }
"""


def page(title: str, body: str) -> str:
    """A whole document. `body` is HTML; `title` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], best: int | None = None, text: Sequence[int] = ()) -> str:
    """Cells are HTML. `best`: the row in bold; `text`: columns that hold sentences rather than numbers."""
    kind = dict.fromkeys(text, ' class="text"')
    heading = "".join(f"<th{kind.get(column, '')}>{cell}</th>" for column, cell in enumerate(head))
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td{kind.get(column, '')}>{cell}</td>" for column, cell in enumerate(row))
        mark = ' class="best"' if number == best else ""
        lines.append(f"<tr{mark}>{cells}</tr>")
    return f'<div class="wide"><table><thead><tr>{heading}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def figure(drawn: str, caption: str) -> str:
    """A picture with what it shows in a sentence (text)."""
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>" if drawn else ""


# ------------------------------------------------------------------ axes


@dataclass(frozen=True)
class Axis:
    """`log`: only for values above 0. `low`, `high`: fixed ends; none: those of the values."""

    name: str
    log: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    name: str
    series: int = 0
    hollow: bool = False


class _Scale:
    """Values -> places along an axis."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        known = [value for value in values if _drawable(value, axis)] or [1.0]
        low, high = min(known) if axis.low is None else axis.low, max(known) if axis.high is None else axis.high
        if low == high:
            low, high = (low / 2.0, high * 2.0) if axis.log else (low - (abs(low) or 1.0) * 0.5, high + (abs(high) or 1.0) * 0.5)
        elif not axis.log:
            room = (high - low) * 0.06
            low, high = low - room if axis.low is None and low != 0 else low, high + room if axis.high is None else high
        else:
            room = (high / low) ** 0.05
            low, high = low / room, high * room
        self._log, self._start, self._end = axis.log, start, end
        self.low, self.high = low, high

    def at(self, value: float) -> float:
        place = math.log if self._log else float
        share = (place(value) - place(self.low)) / (place(self.high) - place(self.low))
        return round(self._start + share * (self._end - self._start), 1)

    def marks(self) -> list[float]:
        """Round numbers, about five."""
        if self._log:
            spread = math.log10(self.high / self.low)
            steps = (1, 2, 5) if spread < 3 else (1,)
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [step * 10.0**power for power in powers for step in steps if self.low <= step * 10.0**power <= self.high]
            if len(found) >= 2:
                return found
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [place * step for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """As people write it: 0.25, 12, 3.4k, 2M."""
    if value == 0:
        return "0"
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            divided = value / (1e3 if letter == "k" else limit)
            return f"{divided:.3g}{letter}"
    return f"{value:.3g}" if size < 1000 else f"{value:,.0f}"


def _frame(title: str, x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> tuple[list[str], _Scale, _Scale]:
    across, up = _Scale(x, xs, _LEFT, WIDE - _RIGHT), _Scale(y, ys, HIGH - _BOTTOM, _TOP)
    out = [_opened(title, HIGH)]
    for mark in up.marks():
        at = up.at(mark)
        out += [_line(_LEFT, at, WIDE - _RIGHT, at), _text(_LEFT - 6, at + 4, number(mark), "end", "axis")]
    out += [_text(across.at(mark), HIGH - _BOTTOM + 18, number(mark), "middle", "axis") for mark in across.marks()]
    out.append(_text((_LEFT + WIDE - _RIGHT) / 2, HIGH - 8, x.name, "middle", "axis"))
    out.append(_text(_LEFT + 4, _TOP + 2, y.name, "start", "axis halo"))
    return out, across, up


def _opened(title: str, high: float) -> str:
    said = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDE} {high:g}" role="img" aria-label="{said}"><title>{said}</title>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "ink") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str = 'class="grid"') -> str:
    return f'<line {style} x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, radius: float, style: str, said: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {style}><title>{escape(said)}</title></circle>'


def _colour(series: int) -> str:
    return f"var(--s{series % _SERIES})"


# ------------------------------------------------------------------ pictures


def scatter(title: str, points: Sequence[Point], x: Axis, y: Axis, named: bool = True) -> str:
    """Points with their names beside them (`named`), or in what a pointer over them shows."""
    shown = [point for point in points if _drawable(point.x, x) and _drawable(point.y, y)]
    if not shown:
        return ""
    out, across, up = _frame(title, x, y, [point.x for point in shown], [point.y for point in shown])
    dots = [(across.at(point.x), up.at(point.y)) for point in shown]
    taken = [(left - 6, top - 6, left + 6, top + 6) for left, top in dots]  # a name covers no point either
    for point in sorted(shown, key=lambda point: -point.y):
        left, top = across.at(point.x), up.at(point.y)
        fill = "var(--paper)" if point.hollow else _colour(point.series)
        style = f'fill="{fill}" stroke="{_colour(point.series)}" stroke-width="2"'
        out.append(_dot(left, top, 5, style, f"{point.name}: {number(point.x)}, {number(point.y)}"))
        if named:
            out.append(_label(point.name, left, top, taken))
    return "".join((*out, "</svg>"))


def _label(name: str, left: float, top: float, taken: list[tuple[float, float, float, float]]) -> str:
    """The name beside its point, on the side and at the height where it covers no other name."""
    width = 7.2 * len(name)
    for down in (4, 18, -10, 32, -24, 46, -38):
        for anchor, start in (("start", left + 10), ("end", left - 10 - width)):
            box = (start, top + down - 11, start + width, top + down + 3)
            free = all(box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in taken)
            if free and box[0] >= _LEFT - 4 and box[2] <= WIDE and box[1] > 0 and box[3] < HIGH - _BOTTOM + 6:
                taken.append(box)
                at = start if anchor == "start" else start + width
                return _text(at, top + down, name, anchor, "halo")
    return ""


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]], x: Axis, y: Axis, legend: bool = True) -> str:
    """One line a series; a series of one point is a dot."""
    shown = {name: [(a, b) for a, b in points if _drawable(a, x) and _drawable(b, y)] for name, points in series.items()}
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return ""
    every = [point for points in shown.values() for point in points]
    out, across, up = _frame(title, x, y, [a for a, _ in every], [b for _, b in every])
    for place, (name, points) in enumerate(shown.items()):
        colour = _colour(place)
        path = " ".join(f"{across.at(a)},{up.at(b)}" for a, b in points)
        if len(points) > 1:
            out.append(f'<polyline class="curve" points="{path}" stroke="{colour}"><title>{escape(name)}</title></polyline>')
        out.append(_dot(across.at(points[-1][0]), up.at(points[-1][1]), 3.5, f'fill="{colour}"', f"{name}: {number(points[-1][1])}"))
    drawn = "".join((*out, "</svg>"))
    return drawn + (_legend(list(shown)) if legend and len(shown) > 1 else "")


def _legend(names: Sequence[str]) -> str:
    marks = (
        f'<span style="white-space:nowrap;margin-right:1rem"><span style="color:{_colour(place)}">&#9632;</span> {escape(name)}</span>'
        for place, name in enumerate(names)
    )
    return f'<p class="soft">{" ".join(marks)}</p>'


def bars(title: str, values: Mapping[str, float], said: Callable[[float], str] = number) -> str:
    """Horizontal bars from 0, in the order given."""
    if not values:
        return ""
    step, left = 24, _name_room(values)
    most = max(max(values.values()), 0.0) or 1.0
    out = [_opened(title, step * len(values) + 8)]
    for place, (name, value) in enumerate(values.items()):
        top = place * step + 6
        wide = max(value, 0.0) / most * (WIDE - left - 70)
        out.append(_text(left - 8, top + 13, _cut(name), "end"))
        out.append(f'<rect x="{left}" y="{top}" width="{wide:.1f}" height="17" rx="2" fill="var(--s0)"/>')
        out.append(_text(left + wide + 6, top + 13, said(value), "start", "axis"))
    return "".join((*out, "</svg>"))


def intervals(title: str, rows: Mapping[str, tuple[float, float, float]], axis: Axis, lines: Mapping[str, float] | None = None) -> str:
    """A dot and its interval (mean, low, high) for each row; `lines`: values to compare with, each with its name."""
    if not rows:
        return ""
    marks, step, left = dict(lines or {}), 26, _name_room(rows)
    head = 16 * len(marks) + 4
    bottom = head + step * len(rows) + 2
    values = [value for row in rows.values() for value in row] + list(marks.values())
    across = _Scale(axis, values, left, WIDE - 20)
    out = [_opened(title, bottom + 38)]
    for mark in across.marks():
        at = across.at(mark)
        out += [_line(at, head, at, bottom), _text(at, bottom + 16, number(mark), "middle", "axis")]
    for place, (name, value) in enumerate(marks.items()):
        at, top = across.at(value), 16.0 * place + 14
        out.append(_line(at, top, at, bottom, 'stroke="var(--s1)" stroke-dasharray="4 3"'))
        out.append(_text(at - 5, top, name, "end", "axis") if at > WIDE / 2 else _text(at + 5, top, name, "start", "axis"))
    for place, (name, (mean, low, high)) in enumerate(rows.items()):
        at = head + step * place + 15
        out.append(_text(left - 10, at + 4, _cut(name), "end"))
        out.append(_line(across.at(low), at, across.at(high), at, 'stroke="var(--s0)" stroke-width="2"'))
        out.append(_dot(across.at(mean), at, 4.5, 'fill="var(--s0)"', f"{name} {mean:.4f} [{low:.4f}, {high:.4f}]"))
    out.append(_text((left + WIDE - 20) / 2, bottom + 32, axis.name, "middle", "axis"))
    return "".join((*out, "</svg>"))


_LONGEST = 28  # letters of a name beside a bar


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _name_room(names: Iterable[str]) -> int:
    return 16 + int(7.2 * min(_LONGEST, max(len(name) for name in names)))


def _drawable(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and (value >= LEAST or not axis.log)
