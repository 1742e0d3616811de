"""A route as a calendar, on paper, in words and by mail; and what tickets say of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.deployment import Deployment
from features.itinerary.routes import route_id
from features.itinerary.timetable import Planned, Timetable
from serving.itinerary import calendars, describing, papers
from serving.itinerary.current import Current
from serving.itinerary.telling import counted
from serving.service import Service
from tests.serving.callers import person
from tests.serving.conftest import started, unhurried
from tests.serving.itinerary_world import Season, season_timetable
from tests.serving.test_mail import Inboxes, inboxes

__all__ = ["inboxes"]  # a fixture
Seated = tuple[Service, httpx.AsyncClient]
STAMP = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def name(*stops: str) -> str:
    timetable = season_timetable()
    return route_id(timetable, [timetable.rows[stop] for stop in stops])


def unfolded(raw: bytes) -> list[str]:
    """The lines of a calendar, put together again; each stands as RFC 5545 wants it."""
    assert raw.endswith(b"\r\n")
    for line in raw.removesuffix(b"\r\n").split(b"\r\n"):
        assert len(line) <= 75
        assert b"\n" not in line
        line.decode()  # no character is cut in two
    return raw.decode().replace("\r\n ", "").removesuffix("\r\n").split("\r\n")


def events(lines: list[str]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    inside = False
    for line in lines:
        if line in ("BEGIN:VEVENT", "END:VEVENT"):
            inside = line == "BEGIN:VEVENT"
            found += [{}] if inside else []
        elif inside:
            key, _, value = line.partition(":")
            found[-1][key] = value
    return found


def instant(lines: list[str], value: str) -> datetime:
    """A local time of a calendar as a moment, by the rules that stand in the calendar alone."""
    wanted = datetime.strptime(value, "%Y%m%dT%H%M%S")
    offset, onset = None, None
    for line in lines[lines.index("BEGIN:VTIMEZONE") : lines.index("END:VTIMEZONE")]:
        key, _, said = line.partition(":")
        if key == "DTSTART":
            onset = datetime.strptime(said, "%Y%m%dT%H%M%S")
        if key == "TZOFFSETTO" and onset is not None and onset <= wanted:
            sign = -1 if said[0] == "-" else 1
            offset = sign * timedelta(hours=int(said[1:3]), minutes=int(said[3:5]))
    assert offset is not None
    return (wanted - offset).replace(tzinfo=UTC)


def test_a_calendar_holds_every_stop_at_its_moment_in_the_zone_of_the_place() -> None:
    timetable = season_timetable()
    rows = [timetable.rows[stop] for stop in ("d1h0", "d1h1", "d3h5")]
    lines = unfolded(calendars.calendar(timetable, rows, "A season; of, its own", "example.org", STAMP))
    assert lines[:2] == ["BEGIN:VCALENDAR", "VERSION:2.0"]
    assert "X-WR-CALNAME:A season\\; of\\, its own" in lines
    found = events(lines)
    assert [one["SUMMARY"] for one in found] == ["Концерт d1h0", "Концерт d1h1", "Концерт d3h5"]
    assert len({one["UID"] for one in found}) == 3
    assert {one["DTSTAMP"] for one in found} == {"20260102T030405Z"}
    for one, row in zip(found, rows, strict=True):
        begins = instant(lines, one["DTSTART;TZID=Asia/Yekaterinburg"])
        assert begins.timestamp() * 1e6 == timetable.stops[row].starts_at
        assert instant(lines, one["DTEND;TZID=Asia/Yekaterinburg"]) - begins == timedelta(minutes=45)
    assert found[1]["DESCRIPTION"].endswith("→ Small: 10 min")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata", "UTC", "Africa/Casablanca"])
def test_the_calendars_own_rules_say_the_right_moment_on_every_day_of_the_year(zone: str) -> None:
    place = ZoneInfo(zone)
    noons = [datetime(2026, 1, 1, 12, tzinfo=place) + timedelta(days=day) for day in range(0, 365, 5)]
    planned = [Planned(f"s{n}", "x", int(noon.timestamp()) * 1_000_000, 30, 0) for n, noon in enumerate(noons)]
    timetable = Timetable.build(zone, 360, ["hall"], [0], [[0]], planned)
    lines = unfolded(calendars.calendar(timetable, range(len(planned)), "n", "h", STAMP))
    for one, stop in zip(events(lines), timetable.stops, strict=True):
        assert instant(lines, one[f"DTSTART;TZID={zone}"]).timestamp() * 1e6 == stop.starts_at


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=200))
def test_any_title_comes_back_as_it_went(title: str) -> None:
    title = "".join(character for character in title if character >= " " and not "\ud800" <= character <= "\udfff") or "x"
    timetable = Timetable.build("UTC", 0, ["h"], [0], [[0]], [Planned("a", title, 0, 30, 0)])
    lines = calendars.calendar(timetable, [0], "n", "h", STAMP).decode().replace("\r\n ", "").split("\r\n")
    (said,) = [line.removeprefix("SUMMARY:") for line in lines if line.startswith("SUMMARY:")]
    assert re.sub(r"\\([\\;,])", r"\1", said) == title


def test_a_paper_has_its_letters_or_says_that_there_is_no_font(season: Season, tmp_path: Path) -> None:
    words = season.domain.itinerary
    assert words is not None
    current = Current.of("b", season_timetable(), [], [])
    rows = [current.timetable.rows[stop] for stop in ("d1h0", "d1h1")]
    with pytest.raises(papers.NoFontError, match="fonts-dejavu-core"):
        papers.paper(current, words, rows, "ru", "Сезон", [str(tmp_path)])
    plain = Timetable.build("UTC", 0, ["h"], [0], [[0]], [Planned("a", "Plain", 0, 30, 0)])
    made = papers.paper(Current.of("b", plain, [], []), words, [0], "en", "A season", [str(tmp_path)])
    assert made.startswith(b"%PDF-")
    if not any((Path(folder) / "DejaVuSans.ttf").is_file() for folder in papers.FOLDERS):
        pytest.skip("DejaVu is not installed (Debian: apt install fonts-dejavu-core)")
    whole = papers.paper(current, words, rows, "ru", "Сезон")
    maps = re.findall(rb"/CIDInit.*?endcmap", whole, re.DOTALL)  # of letters to what is searched for and copied
    assert any(b"<0421>" in found for found in maps)  # the first letter of the heading
    assert len(re.findall(rb"/Type /Page\b", whole)) == 1


def test_words_are_counted_as_the_language_wants(season: Season) -> None:
    words = season.domain.itinerary
    assert words is not None
    said = [counted(number, words, "stop", "ru").split()[1] for number in (1, 2, 5, 11, 12, 21, 24, 111, 122)]
    assert said == ["концерт", "концерта", "концертов", "концертов", "концертов", "концерт", "концерта", "концертов", "концерта"]
    assert [counted(number, words, "hall", "en") for number in (1, 2)] == ["1 hall", "2 halls"]


def test_a_description_tells_facts_and_a_summary_is_short(season: Season) -> None:
    words = season.domain.itinerary
    assert words is not None
    current = Current.of("b", season_timetable(), [], [])
    rows = [current.timetable.rows[stop] for stop in ("d1h0", "d1h1", "d1h4", "d2h1")]
    text = describing.description(current, words, rows, "ru")
    assert text.startswith("4 концерта, 2 зала, музыки 3 ч. Дни: 2030-07-01, 2030-07-02. Пешком 10 мин, ожидание 2 ч 20 мин.")
    assert "Всего 1 800 RUB на одного." in text
    english = describing.description(current, words, rows, "en")
    assert english.startswith("4 concerts in 2 halls, 3 h of music.")
    everything = [row for row, stop in enumerate(current.timetable.stops) if not stop.optional and stop.id != "clash"]
    assert len(describing.summary(current, words, everything, "ru")) <= describing.SUMMARY
    subject, letter = describing.letter(current, words, rows, "en")
    assert subject == "Your route: 4 concerts, 2030-07-01, 2030-07-02"
    assert "13:00-13:45 Small: Концерт d1h1 (400 RUB)" in letter
    assert "   10 min on foot" in letter


# ------------------------------------------------------------ over HTTP


async def test_a_route_is_had_in_every_form(seated: Seated) -> None:
    _, client = seated
    route = f"/v1/season/routes/{name('d1h0', 'd1h1')}"
    ics = await client.get(f"{route}/ics")
    assert ics.headers["content-type"] == "text/calendar; charset=utf-8"
    assert len(events(unfolded(ics.content))) == 2
    pdf = await client.get(f"{route}/pdf?language=ru")
    assert pdf.status_code in (200, 503)
    assert pdf.content.startswith(b"%PDF-") if pdf.status_code == 200 else "fonts-dejavu-core" in pdf.json()["detail"]
    template = (await client.get(f"{route}/description?language=ru")).json()
    model = (await client.get(f"{route}/description?by=llm&language=ru")).json()
    assert (template["by"], template["notes"]) == ("template", [])
    assert (model["by"], model["asked"], model["text"]) == ("template", "llm", template["text"])
    assert "no language model" in model["notes"][0]
    assert (await client.get(f"{route}/description?by=magic")).status_code == 422
    assert len((await client.get(f"{route}/summary")).json()["text"]) <= 280


async def test_what_tickets_say_of_routes(seated: Seated) -> None:
    _, client = seated
    popular = (await client.get("/v1/season/routes/popular?by=day")).json()
    (group,) = popular["groups"]
    assert (group["day"], group["several_days"]) == ("2030-07-01", False)
    assert [(one["concerts"], one["holders"], one["rank"]) for one in group["routes"]] == [(["d1h4"], 3, 1), (["d1h0", "d1h1"], 2, 2)]
    lengths = (await client.get("/v1/season/routes/popular?by=length&k=1")).json()["groups"]
    assert [(one["length"], len(one["routes"])) for one in lengths] == [(1, 1), (2, 1)]
    pair = (await client.get(f"/v1/season/routes/{name('d1h0', 'd1h1')}/rank-history")).json()
    assert pair["bought"] == 2
    assert [(one["date"], one["holders"], one["rank_of_day"]) for one in pair["history"]] == [("2030-06-02", 2, 2)]
    alone = (await client.get(f"/v1/season/routes/{name('d1h0')}/rank-history")).json()
    assert (alone["bought"], [one["holders"] for one in alone["history"]]) == (0, [1, 0])
    never = (await client.get(f"/v1/season/routes/{name('d3h0')}/rank-history")).json()
    assert (never["bought"], never["history"]) == (0, [])


async def test_a_route_is_mailed_to_ones_own_address(
    tmp_path: Path, season: Season, season_yaml: Path, quick: Deployment, running: Any, inboxes: tuple[Inboxes, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    box, url = inboxes
    monkeypatch.setenv("FACTOTUM_SMTP_URL", url)
    season.publish(tmp_path / "home")
    service, client = await started(unhurried(tmp_path / "home", season_yaml, quick), running)
    me = await person(service)
    address = (await service.accounts.find(me.account)).email
    route = f"/v1/season/routes/{name('d1h0', 'd1h1')}/email"
    assert (await client.post(route, json={})).status_code == 401
    assert (await client.post(route, json={"to": "them@example.org"}, headers=me.headers)).status_code == 422
    asked = await client.post(route, json={"language": "ru"}, headers=me.headers)
    assert (asked.status_code, asked.json()) == (202, {"queued": True, "to": address})
    await box.arrived(1)
    mail = message_from_bytes(box.got[0], policy=policy.default)
    assert (mail["To"], mail["Subject"]) == (address, "Ваш маршрут: 2 концерта, 2030-07-01")
    body = mail.get_body(("plain",))
    assert body is not None
    assert "13:00-13:45 Small: Концерт d1h1 (400 RUB)" in body.get_content()
    (attached,) = list(mail.iter_attachments())
    assert attached.get_content_type() == "text/calendar"
    assert len(events(unfolded(attached.get_content().replace("\r\n", "\n").replace("\n", "\r\n").encode()))) == 2
