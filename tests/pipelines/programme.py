"""A tiny season in the plain form: two days, two halls with a way in one direction only, three concerts, an event, four tickets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import configs
from configs.domain import Domain

FILES: dict[str, str] = {
    "halls.csv": "hall,seats\nBig,10\nSmall,\n",
    "transitions.csv": "from_hall,to_hall,minutes\nBig,Small,7\n",
    "concerts.csv": (
        "concert_id,title,start,minutes,hall,price,genre,tags,artists,composers,works,programme\n"
        "a,Dawn,2025-07-04T13:00:00+05:00,45,Big,200.50,Choir,star;Brass,Ann;Bob,Bach; Liszt ;Bach,Bach: Air,Dawn\n"
        "b,A fairy tale: СКАЗКА,2025-07-04T13:52:00+05:00,45,Small,,,,,,,\n"
        "c,Dawn again,2025-07-05T19:30:00Z,60,Big,300,Choir,,Ann,Bach,,Dawn\n"
    ),
    "off_programme.csv": (
        "event_id,title,start,minutes,hall,tags\n"
        "e,Walk,2025-07-04T15:00:00+05:00,30,Small,рекомендация\n"
        "desk,Tickets,2025-07-04T10:00:00+05:00,660,Small,\n"
    ),
    "tickets.csv": (
        "client_id,concert_id,sold_at,price\n"
        "1,a,2025-05-01T12:00:00+05:00,200\n"
        "1,a,2025-04-30T12:00:00+05:00,200\n"
        "1,c,2025-05-02T12:00:00+05:00,300\n"
        "2,b,2025-05-03T00:00:00Z,\n"
    ),
}


def domain() -> Domain:
    """The domain that ships, with limits that let no bad row through unseen."""
    words = configs.load("festival")
    return words.model_copy(
        update={"source": words.source.model_copy(update={"bad_rows": words.source.bad_rows.model_copy(update={"rows": 1})})}
    )


def folder(directory: Path, changed: Mapping[str, str | None] | None = None) -> Path:
    """Writes the files; `changed`: other texts for some of them, None leaves one out."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **(changed or {})}.items():
        if text is None:
            (directory / name).unlink(missing_ok=True)
        elif not (directory / name).is_file() or (directory / name).read_text(encoding="utf-8") != text:
            (directory / name).write_text(text, encoding="utf-8")
    return directory


def with_line(name: str, line: str) -> dict[str, str | None]:
    """One more line at the end of a file."""
    return {name: FILES[name] + line + "\n"}
