"""A route on paper: one PDF, stop by stop. Letters beyond Latin-1 need a font that has them; where the machine has none, that is said
rather than printed as question marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import Align, XPos, YPos

from configs.domain import Itinerary, Language
from serving.itinerary.current import Current
from serving.itinerary.describing import description, on_foot
from serving.itinerary.showing import ends_at, legs, local, money

MEDIA_TYPE = "application/pdf"
FOLDERS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/dejavu-sans-fonts", "/usr/share/fonts/TTF", "/usr/share/fonts/dejavu")
_REGULAR, _BOLD = "DejaVuSans.ttf", "DejaVuSans-Bold.ttf"
_FAMILY = "DejaVu"
_LINE = 6.0  # millimetres


class NoFontError(RuntimeError):
    """The text has letters that no font of this machine has."""


def paper(
    current: Current, words: Itinerary, rows: Sequence[int], language: Language, name: str, folders: Sequence[str] = FOLDERS
) -> bytes:
    """`name`: the heading. Tens of milliseconds: not for an event loop. Raises NoFontError."""
    timetable = current.timetable
    told = description(current, words, rows, language)
    stops = [timetable.stops[row] for row in rows]
    everything = "".join([name, told, *timetable.halls, *(stop.title for stop in stops), *("".join(stop.artists) for stop in stops)])
    pdf = FPDF()
    family = _family(pdf, everything, folders)
    pdf.set_title(name)
    pdf.set_creator("Factotum")
    pdf.add_page()
    _line(pdf, name, family, "B", 16.0, 9.0)
    _line(pdf, told, family, "", 10.0, _LINE)
    walks = {leg["after"]: leg for leg in legs(timetable, rows)}
    day = None
    for stop in stops:
        if stop.day != day:
            day = stop.day
            pdf.ln(3.0)
            _line(pdf, timetable.days[stop.day], family, "B", 12.0, 8.0)
        if stop.id in walks and walks[stop.id]["walk"]:
            _line(pdf, on_foot(walks[stop.id]["walk"], language), family, "", 8.0, 5.0)
        begins, ends = local(timetable, stop.starts_at), local(timetable, ends_at(stop))
        price = f" ({money(stop.price, words)})" if stop.price else ""
        _line(pdf, f"{begins:%H:%M}-{ends:%H:%M}  {timetable.halls[stop.hall]}", family, "B", 10.0, _LINE)
        _line(pdf, f"{stop.title}{price}", family, "", 10.0, _LINE)
        if stop.artists:
            _line(pdf, ", ".join(stop.artists), family, "", 8.0, 5.0)
    return bytes(pdf.output())


def _line(pdf: FPDF, text: str, family: str, style: str, size: float, height: float) -> None:
    pdf.set_font(family, style, size)
    pdf.multi_cell(0, height, text, align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)  # stretched to both margins names are torn apart


def _family(pdf: FPDF, text: str, folders: Sequence[str]) -> str:
    """The font to write with. Raises NoFontError."""
    for folder in folders:
        regular, bold = Path(folder) / _REGULAR, Path(folder) / _BOLD
        if regular.is_file() and bold.is_file():
            pdf.add_font(_FAMILY, "", regular)
            pdf.add_font(_FAMILY, "B", bold)
            return _FAMILY
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise NoFontError(
            "this machine has no font with these letters: install DejaVu (Debian: apt install fonts-dejavu-core) and ask again"
        ) from None
    return "Helvetica"
