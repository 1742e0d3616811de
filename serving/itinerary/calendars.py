"""A route as a calendar (RFC 5545), in the timetable's own zone, whose rules stand in the calendar itself.

The zone's offsets are written as they are from the year before the first stop to the year after the last, one observance for each change: a
program that has never heard of the zone shows the right moment, and so does one whose own rules for it are old.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from configs.domain import Language
from features.itinerary.timetable import Timetable
from serving.itinerary.showing import ends_at, legs, local, zone

MEDIA_TYPE = "text/calendar"
_OCTETS = 75  # of a line, without its end (section 3.1)
_STEP = timedelta(days=1)


def calendar(timetable: Timetable, rows: Sequence[int], name: str, host: str, stamp: datetime, language: Language = "en") -> bytes:
    """One event a stop. `name`: of the calendar; `host`: makes the events' ids the world's own; `stamp`: when it was made."""
    stops = [timetable.stops[row] for row in rows]
    walks = {leg["after"]: leg for leg in legs(timetable, rows)}
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Factotum//itinerary//EN", "CALSCALE:GREGORIAN", "METHOD:PUBLISH"]
    lines += [f"X-WR-CALNAME:{_text(name)}", f"X-WR-TIMEZONE:{_text(timetable.zone)}"]
    if stops:
        lines += _zone(timetable.zone, stops[0].starts_at, ends_at(stops[-1]))
    for stop in stops:
        hall = timetable.halls[stop.hall]
        said = [*([", ".join(stop.artists)] if stop.artists else []), *([", ".join(stop.composers)] if stop.composers else [])]
        if stop.id in walks and walks[stop.id]["walk"]:
            said.append(f"→ {hall}: {walks[stop.id]['walk']} {'мин' if language == 'ru' else 'min'}")
        lines += [
            "BEGIN:VEVENT",
            f"UID:{_uid(stop.id)}-{timetable.version}@{host}",
            f"DTSTAMP:{stamp.astimezone(UTC):%Y%m%dT%H%M%SZ}",
            f"DTSTART;TZID={timetable.zone}:{local(timetable, stop.starts_at):%Y%m%dT%H%M%S}",
            f"DTEND;TZID={timetable.zone}:{local(timetable, ends_at(stop)):%Y%m%dT%H%M%S}",
            f"SUMMARY:{_text(stop.title)}",
            f"LOCATION:{_text(hall)}",
            *([f"DESCRIPTION:{_text(chr(10).join(said))}"] if said else []),
            *([f"CATEGORIES:{','.join(_text(label) for label in stop.labels)}"] if stop.labels else []),
            "TRANSP:OPAQUE",
            "END:VEVENT",
        ]
    lines.append("END:VCALENDAR")
    return b"".join(_folded(line) for line in lines)


def _text(value: str) -> str:
    """Section 3.3.11: backslash, semicolon, comma and line ends are escaped; other control characters cannot be said."""
    kept = "".join(" " if character < " " and character != "\n" else character for character in value.replace("\r\n", "\n"))
    return kept.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")


def _uid(value: str) -> str:
    return "".join(character if character.isascii() and character.isalnum() else f"_{ord(character):x}_" for character in value)


def _folded(line: str) -> bytes:
    """At most 75 octets a line; what goes on begins with a blank, and no character is cut in two."""
    out, room = bytearray(), _OCTETS
    for character in line:
        octets = character.encode()
        if len(octets) > room:
            out += b"\r\n "
            room = _OCTETS - 1
        out += octets
        room -= len(octets)
    return bytes(out + b"\r\n")


# ------------------------------------------------------------------ the zone


def _zone(name: str, first: int, last: int) -> list[str]:
    """VTIMEZONE; `first`, `last`: microseconds UTC."""
    place = zone(name)
    begins = datetime.fromtimestamp(first / 1e6, UTC).astimezone(place).year
    ends = datetime.fromtimestamp(last / 1e6, UTC).astimezone(place).year
    start = datetime(begins - 1, 1, 1, tzinfo=UTC)
    lines = ["BEGIN:VTIMEZONE", f"TZID:{name}"]
    before = start.astimezone(place)
    lines += _observance(before, before.utcoffset() or timedelta())
    for moment, old in _changes(place, start, datetime(ends + 2, 1, 1, tzinfo=UTC)):
        lines += _observance(moment.astimezone(place), old)
    return [*lines, "END:VTIMEZONE"]


def _observance(at: datetime, before: timedelta) -> list[str]:
    """From a moment on; its local time is that of the clock before the change (section 3.6.5)."""
    kind = "DAYLIGHT" if at.dst() else "STANDARD"
    onset = at.astimezone(UTC) + before
    return [
        f"BEGIN:{kind}",
        f"DTSTART:{onset:%Y%m%dT%H%M%S}",
        f"TZOFFSETFROM:{_offset(before)}",
        f"TZOFFSETTO:{_offset(at.utcoffset() or timedelta())}",
        f"TZNAME:{at.tzname() or _offset(at.utcoffset() or timedelta())}",
        f"END:{kind}",
    ]


def _changes(place: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[datetime, timedelta]]:
    """(the first moment of another offset, UTC; the offset before) of each change, found to the second."""
    at = start
    while at < end:
        after = at + _STEP
        old, new = at.astimezone(place).utcoffset(), after.astimezone(place).utcoffset()
        if old != new and old is not None:
            low, high = at, after
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) / 2
                middle = middle.replace(microsecond=0)
                if middle.astimezone(place).utcoffset() == old:
                    low = middle
                else:
                    high = middle
            yield high, old
        at = after


def _offset(value: timedelta) -> str:
    minutes = round(value.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
