"""A report as a list of blocks, which become a page (HTML) or a file for the repository (Markdown): the same words and figures in both.

Text is plain in every block; escaping is done here, once. Pictures are on the page only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import assert_never

from pipelines import drawing

REACHED, MISSED, OPEN = "reached", "not reached", "not measured"
_VERDICTS = {REACHED: "reached", MISSED: "missed", OPEN: "open"}
_INTERVAL = re.compile(r" \[[^\]]*\]$")


@dataclass(frozen=True)
class Heading:
    """`level` 1 is the document's title, 2 a section (also in the page's navigation), 3 a part of it."""

    level: int
    text: str


@dataclass(frozen=True)
class Said:
    """A paragraph; `code`: set in the type of a program's words, after it."""

    text: str
    code: str = ""


@dataclass(frozen=True)
class Cells:
    """A table. A cell that ends in "[low, high]" shows that smaller; REACHED, MISSED and OPEN have a colour. `text`: columns of
    sentences; `best`: the row in bold."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: int | None = None
    text: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """`drawn`: SVG of pipelines/drawing.py; nothing is shown where it is empty."""

    drawn: str
    caption: str


@dataclass(frozen=True)
class Side:
    """Pictures that stand side by side where there is room."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Listing:
    """Lines as a terminal shows them."""

    lines: Sequence[str]


Block = Heading | Said | Cells | Picture | Side | Listing


def html(title: str, blocks: Sequence[Block]) -> str:
    """One self-contained document."""
    sections = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    links = "".join(f'<a href="#{_anchor(text)}">{escape(text)}</a> ' for text in sections)
    out: list[str] = []
    for block in blocks:
        out.append(_html(block))
        if isinstance(block, Heading) and block.level == 1 and links:
            out.append(f"<nav>{links}</nav>")
    return drawing.page(title, "\n".join(part for part in out if part))


def _html(block: Block) -> str:
    match block:
        case Heading():
            mark = f' id="{_anchor(block.text)}"' if block.level == 2 else ""
            return f"<h{block.level}{mark}>{escape(block.text)}</h{block.level}>"
        case Said():
            code = f" <code>{escape(block.code)}</code>" if block.code else ""
            return f"<p>{escape(block.text)}{code}</p>"
        case Cells():
            rows = [[_cell(cell) for cell in row] for row in block.rows]
            return drawing.table([escape(name) for name in block.head], rows, block.best, block.text)
        case Picture():
            return drawing.figure(block.drawn, block.caption)
        case Side():
            drawn = "".join(drawing.figure(picture.drawn, picture.caption) for picture in block.pictures)
            return f'<div class="pair">{drawn}</div>' if drawn else ""
        case Listing():
            return f'<div class="wide"><pre>{escape(chr(10).join(block.lines))}</pre></div>'
        case _:
            assert_never(block)


def _cell(text: str) -> str:
    if text in _VERDICTS:
        return f'<span class="{_VERDICTS[text]}">{escape(text)}</span>'
    found = _INTERVAL.search(text)
    if found is None:
        return escape(text)
    return f'{escape(text[: found.start()])} <span class="interval">{escape(found.group().strip())}</span>'


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def markdown(blocks: Sequence[Block]) -> str:
    """The same without pictures."""
    out: list[str] = []
    for block in blocks:
        match block:
            case Heading():
                out.append(f"{'#' * block.level} {_plain(block.text)}")
            case Said():
                out.append(_plain(block.text) + (f" `{block.code}`" if block.code else ""))
            case Cells():
                out.append("\n".join(_lines(block)))
            case Listing():
                out.append("\n".join(("```", *block.lines, "```")))
            case Picture() | Side():
                pass
            case _:
                assert_never(block)
    return "\n\n".join(out) + "\n"


def _lines(table: Cells) -> list[str]:
    marks = [":--" if column == 0 or column in table.text else "--:" for column in range(len(table.head))]
    rows = [[_plain(cell) for cell in row] for row in table.rows]
    if table.best is not None and table.best < len(rows):
        rows[table.best] = [f"**{cell}**" if cell else cell for cell in rows[table.best]]
    return [f"| {' | '.join(cells)} |" for cells in ([_plain(name) for name in table.head], marks, *rows)]


def _plain(text: str) -> str:
    """What Markdown would read as its own is escaped."""
    return re.sub(r"([|*_`<>])", r"\\\1", text).replace("\n", " ")
