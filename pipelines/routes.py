"""`factotum routes`: every route of a timetable on disk, and questions about all of them from the terminal.

The timetable is the one of --timetable FILE, else of --data DIR (stops, halls and ways are enough), else of the newest ingest, else of
the champion's bundle.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import configs
from configs.domain import Domain
from pipelines.options import HOME, AsJson, DomainName, FilesDir, HomeDir, Quiet
from pipelines.steps import Reporter, latest

if TYPE_CHECKING:
    from features.itinerary.objectives import Worth
    from features.itinerary.timetable import Availability, Timetable
    from features.itinerary.wishes import Wishes

routes = typer.Typer(help="Routes: all of them on disk, how many, the best, a fair sample, one of them.", no_args_is_help=True)

TimetableFile = Annotated[Path | None, typer.Option("--timetable", help="timetable.json, as ingest writes it", exists=True, dir_okay=False)]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--wish",
        "-w",
        metavar="NAME=VALUE",
        help="a filter, as often as needed: days=2022-07-01, must=12, must_not=3, bought=7, halls.only=NAME (also artists, composers, "
        "genres, labels, tags; .some, .none), price_limit=250000 (minor units), walking_a_day=40, walking_a_hop, waiting_a_day, "
        "waiting_a_hop, fewest=2, most=4, meal=45@12:00-15:00, party=2, arrival=12:00, leaving=20:30, buffer=5, longest_gap=90, "
        "begun=2022-07-01T15:00+05:00 (nothing that has begun by then; unless said by now, where the domain's YAML wants that and "
        "something is still to come), and bare: every_day, no_programme_twice, maximal, optional",
    ),
]
ObjectiveName = Annotated[str, typer.Option("--objective", "-o", help="what the best have most of")]
Scores = Annotated[
    Path | None, typer.Option("--scores", help="JSON: stop id -> number, for the objectives score and popular", exists=True, dir_okay=False)
]
_CLOCKS, _LISTS = ("arrival", "leaving"), ("days", "must", "must_not", "bought")


@routes.command("enumerate")
def enumerate_(
    domain: DomainName,
    out: Annotated[Path, typer.Option("--out", help="folder for the Parquet files", file_okay=False)],
    data: FilesDir = None,
    timetable: TimetableFile = None,
    buffer: Annotated[int | None, typer.Option(help="minutes to spare at every hop (default: the domain's)", min=0)] = None,
    longest_gap: Annotated[int | None, typer.Option(help="minutes between an end and the next begin, at most", min=0)] = None,
    maximal: Annotated[bool, typer.Option("--maximal", help="only chains into which nothing fits any more")] = False,
    optional: Annotated[bool, typer.Option("--optional", help="with what is off the programme")] = False,
    portraits: Annotated[bool, typer.Option("--portraits", help="the core portrait of each chain beside it")] = False,
    workers: Annotated[int | None, typer.Option(help="parts at once on this machine (default: as many as cores)", min=1)] = None,
    part: Annotated[int | None, typer.Option(help="chains in one file, at most (default: 4,194,304)", min=1_000)] = None,
    home: HomeDir = HOME,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Every chain of every day as Parquet; a run that was killed goes on with what is missing."""
    from features.itinerary.enumeration import Chains
    from pipelines.enumerate_routes import SHARD_CHAINS, enumerate_routes, lines

    with Reporter(quiet, as_json) as reporter:
        opened = _Opened(domain, data, timetable, home, reporter)
        chains = Chains(opened.buffer if buffer is None else buffer, longest_gap, maximal, optional)
        result = enumerate_routes(opened.timetable, chains, out.resolve(), reporter, portraits, part or SHARD_CHAINS, workers)
    _tell(result, as_json, lambda: lines(result))


@routes.command()
def count(
    domain: DomainName,
    wish: Filters = None,
    data: FilesDir = None,
    timetable: TimetableFile = None,
    home: HomeDir = HOME,
    as_json: AsJson = False,
) -> None:
    """How many routes there are under these wishes: over all days, and by day and length."""
    opened = _Opened(domain, data, timetable, home, Reporter(json=as_json))
    all_routes = opened.routes(wish)
    days = {day: {str(length): str(those) for length, those in table.items()} for day, table in all_routes.by_day().items()}
    lengths = {str(length): str(those) for length, those in all_routes.by_length().items()}
    totals = {day: str(sum(int(those) for those in table.values())) for day, table in days.items()}
    result: dict[str, Any] = {"timetable": opened.timetable.version, "total": str(all_routes.count())}
    result |= {"by_length": lengths, "by_day": {day: {"total": totals[day], "by_length": table} for day, table in days.items()}}
    why = all_routes.why_nothing()
    if why is not None:
        result["why"] = why.message

    def lines() -> list[str]:
        out = [f"{result['total']} routes over {len(days)} days" + (f": {why.message}" if why else "")]
        for day, table in days.items():
            out.append(f"{day}: {totals[day]} ({', '.join(f'{those} of {length}' for length, those in table.items()) or 'none'})")
        return out

    _tell(result, as_json, lines)


@routes.command()
def top(
    domain: DomainName,
    wish: Filters = None,
    objective: ObjectiveName = "music",
    k: Annotated[int, typer.Option("-k", help="how many", min=1, max=10_000)] = 10,
    different: Annotated[float, typer.Option(help="0: the best; up to 1: the more they differ", min=0.0, max=1.0)] = 0.0,
    deadline: Annotated[float, typer.Option(help="seconds for objectives that are no sums", min=0.001)] = 0.1,
    scores: Scores = None,
    data: FilesDir = None,
    timetable: TimetableFile = None,
    home: HomeDir = HOME,
    as_json: AsJson = False,
) -> None:
    """The best routes of all under these wishes. Exact, or it says how far from the best they can be."""
    from features.itinerary.alternatives import different as that_differ
    from features.itinerary.search import warm

    opened = _Opened(domain, data, timetable, home, Reporter(json=as_json))
    aim = _objective(objective)
    all_routes = opened.routes(wish, _worth(scores, opened.timetable))
    warm()
    best = that_differ(all_routes, aim, k, different, deadline) if different else all_routes.best(aim, k, deadline)
    found = best.routes
    result: dict[str, Any] = {"objective": aim.value, "exact": best.exact, "within": best.within if found else None}
    if different:
        result["different"] = different
    why = None if found else all_routes.why_nothing()
    result["routes"] = [{"route": opened.name(one.stops), "value": one.value, "stops": opened.said(one.stops)} for one in found]
    if why is not None:
        result["why"] = why.message

    def lines() -> list[str]:
        out = [why.message] if why else []
        for place, one in enumerate(found, start=1):
            out.append(f"{place}. {one.value:g}  {opened.name(one.stops)}")
            out += [f"   {said}" for said in opened.told(one.stops)]
        if different and found:
            out.append("chosen to differ: the first is the best there is" + (f", or within {best.within:g} of it" if best.within else ""))
        elif not best.exact:
            out.append(f"within {best.within:g} of the best; a longer --deadline comes closer" if found else "no route found in time")
        return out

    _tell(result, as_json, lines)


@routes.command()
def sample(
    domain: DomainName,
    wish: Filters = None,
    n: Annotated[int, typer.Option("-n", help="how many", min=1, max=100_000)] = 5,
    seed: Annotated[int, typer.Option(help="the same seed draws the same")] = 0,
    data: FilesDir = None,
    timetable: TimetableFile = None,
    home: HomeDir = HOME,
    as_json: AsJson = False,
) -> None:
    """Routes drawn from all under these wishes, each with equal chance."""
    opened = _Opened(domain, data, timetable, home, Reporter(json=as_json))
    drawn = opened.routes(wish).sample(n, seed)
    result = {"seed": seed, "routes": [{"route": opened.name(stops), "stops": opened.said(stops)} for stops in drawn]}
    _tell(result, as_json, lambda: [said for stops in drawn for said in (opened.name(stops), *(f"   {one}" for one in opened.told(stops)))])


@routes.command()
def show(
    domain: DomainName,
    route: Annotated[str, typer.Argument(help="a route's id, or its stop ids separated by commas", metavar="ROUTE")],
    data: FilesDir = None,
    timetable: TimetableFile = None,
    home: HomeDir = HOME,
    as_json: AsJson = False,
) -> None:
    """One route: its stops and its portrait."""
    from features.itinerary.portrait import portrait
    from features.itinerary.routes import rows_of

    opened = _Opened(domain, data, timetable, home, Reporter(json=as_json))
    named = route if "~" in route else opened.name(_rows(opened.timetable, route))
    stops = rows_of(opened.timetable, named)
    made = portrait(opened.timetable, stops)
    result = {"route": named, "stops": opened.said(stops), "portrait": made.to_json()}
    _tell(result, as_json, lambda: [named, *(f"   {one}" for one in opened.told(stops)), *(f"{k}: {v}" for k, v in made.to_json().items())])


# ------------------------------------------------------------------ what is asked about


class _Opened:
    """The timetable, and its words for people."""

    def __init__(self, domain: str, data: Path | None, timetable: Path | None, home: Path, reporter: Reporter) -> None:
        from features.itinerary.timetable import Availability, Timetable

        words = configs.load(domain)
        self.timetable: Timetable
        self._availability: Availability | None = None
        if data is not None and timetable is None:
            self.timetable, self._availability = read_timetable(words, data, home.resolve(), reporter)
        else:
            path = timetable or timetable_file(words, home.resolve())
            self.timetable = Timetable.of_json(_document(path))
            beside = path.with_name("availability.json")
            if beside.is_file():
                self._availability = Availability.of_json(_document(beside), self.timetable)
        section = words.itinerary
        self.buffer = section.buffer_minutes if section is not None else 0
        self._late = section is not None and section.begun == "left_out"

    def routes(self, wish: Sequence[str] | None, worth: Worth | None = None) -> Any:
        """As the search over HTTP has them at this moment."""
        from features.itinerary.search import Routes

        wishes, now = wishes_of(wish or (), self.buffer), time.time_ns() // 1_000
        if self._late and wishes.begun is None and not self.timetable.over(now):
            wishes = replace(wishes, begun=now)
        return Routes(self.timetable, wishes, self._availability, worth)

    def name(self, stops: Sequence[int]) -> str:
        from features.itinerary.routes import route_id

        return route_id(self.timetable, stops)

    def said(self, stops: Sequence[int]) -> list[dict[str, Any]]:
        rows = [self.timetable.stops[row] for row in stops]
        return [
            {
                "id": stop.id,
                "title": stop.title,
                "day": self.timetable.days[stop.day],
                "begins": self.timetable.clock(stop.starts_at),
                "minutes": stop.minutes,
                "hall": self.timetable.halls[stop.hall],
                "price": stop.price,
            }
            for stop in rows
        ]

    def told(self, stops: Sequence[int]) -> list[str]:
        return [f"{one['day']} {one['begins']} {one['title']} ({one['hall']}, {one['minutes']} min)" for one in self.said(stops)]


def timetable_file(words: Domain, home: Path) -> Path:
    """timetable.json of the newest ingest or the champion. Raises FileNotFoundError where there is none."""
    from training import bundle

    newest, version = latest(home, words.name, "ingest"), bundle.alias(home, words.name, "champion")
    places = [newest] if newest is not None else []
    places += [bundle.bundles_dir(home, words.name) / version] if version is not None else []
    for place in places:
        if (place / "timetable.json").is_file():
            return place / "timetable.json"
    made_by = f"`factotum ingest {words.name} --data DIR`"
    raise FileNotFoundError(f"{words.name} has no timetable in {home}: {made_by} makes one, or name --data or a --timetable")


def read_timetable(words: Domain, data: Path, home: Path, reporter: Reporter) -> tuple[Timetable, Availability]:
    """The timetable of these files alone: whoever asks about routes needs no tickets. Bad rows are told; raises SourceError where a file
    has more of them than `factotum ingest` accepts."""
    from pipelines.sources import timetable_of
    from pipelines.sources.tables import SourceError

    programme, limit = timetable_of(words, data, home / words.name / "raw"), words.source.bad_rows
    for sheet in programme.sheets:
        if sheet.bad:
            said = f"{sheet.name}: {len(sheet.bad)} of {sheet.rows} rows are bad; the first, line {sheet.bad[0][0]}: {sheet.bad[0][1]}"
            if len(sheet.bad) > limit.rows and len(sheet.bad) > limit.share * sheet.rows:
                raise SourceError(f"{said}; accepted are {limit.share:.1%} of a file's rows, or {limit.rows} (source.bad_rows)")
            reporter.say(said)
    return programme.timetable, programme.availability


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def _rows(timetable: Timetable, text: str) -> list[int]:
    unknown = [name for name in text.split(",") if name not in timetable.rows]
    if unknown:
        raise ValueError(f"there is no stop {unknown[0]!r} in this timetable")
    return [timetable.rows[name] for name in text.split(",")]


def _objective(name: str) -> Any:
    from features.itinerary.wishes import Objective

    try:
        return Objective(name)
    except ValueError:
        raise ValueError(f"there is no objective {name!r}: {', '.join(one.value for one in Objective)} are allowed") from None


def _worth(scores: Path | None, timetable: Timetable) -> Worth | None:
    import numpy as np

    from features.itinerary.objectives import Worth

    if scores is None:
        return None
    said = _document(scores)
    if not isinstance(said, Mapping) or not all(isinstance(value, int | float) for value in said.values()):
        raise ValueError(f"{scores}: an object of stop ids and numbers is needed")
    _rows(timetable, ",".join(said)) if said else None
    values = np.array([float(said.get(stop.id, 0.0)) for stop in timetable.stops], dtype=np.float64)
    return Worth(score=values, popular=values)


def wishes_of(texts: Sequence[str], buffer: int = 0) -> Wishes:
    """Wishes from NAME=VALUE; a name may come again where there may be several. Raises ValueError that says what is allowed."""
    from features.itinerary.wishes import WORDS, Meal, Wishes, Words

    allowed = [place.name for place in fields(Wishes)]
    said: dict[str, Any] = {"buffer": buffer}
    for text in texts:
        name, _, value = text.partition("=")
        whole, _, part = name.partition(".")
        if whole in WORDS:
            if part not in ("only", "some", "none"):
                raise ValueError(f"--wish {text}: {whole}.only, {whole}.some or {whole}.none is needed")
            before = said.get(whole, Words())
            kinds = {kind: getattr(before, kind) + ((value,) if kind == part else ()) for kind in ("only", "some", "none")}
            said[whole] = Words(**kinds)
        elif name not in allowed:
            raise ValueError(f"--wish {text}: there is no wish {name!r}; {', '.join(allowed)} are allowed")
        elif name in _LISTS:
            said[name] = (*(said.get(name) or ()), value)
        elif name == "meal":
            said[name] = Meal(*_meal(text, value))
        elif name in _CLOCKS:
            said[name] = _minutes(text, value)
        elif name == "begun":
            said[name] = _instant(text, value)
        elif isinstance(getattr(Wishes(), name), bool):
            if value not in ("", "true", "false"):
                raise ValueError(f"--wish {text}: nothing, true or false may stand behind {name}")
            said[name] = value != "false"
        else:
            if not value.isdigit():
                raise ValueError(f"--wish {text}: a whole number is needed, found {value!r}")
            said[name] = int(value)
    return Wishes(**said)


def _minutes(text: str, clock: str) -> int:
    hour, found, minute = clock.partition(":")
    if not (found and hour.isdigit() and minute.isdigit() and int(hour) < 24 and int(minute) < 60):
        raise ValueError(f"--wish {text}: a clock time such as 13:30 is needed, found {clock!r}")
    return int(hour) * 60 + int(minute)


def _instant(text: str, value: str) -> int:
    """Microseconds UTC."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"--wish {text}: a moment with its offset such as 2030-07-01T13:00+05:00 is needed, found {value!r}")
    return int(moment.timestamp()) * 1_000_000


def _meal(text: str, value: str) -> tuple[int, int, int]:
    minutes, at, window = value.partition("@")
    earliest, dash, latest_end = window.partition("-")
    if not (at and dash and minutes.isdigit()):
        raise ValueError(f"--wish {text}: minutes@from-to is needed, such as 45@12:00-15:00")
    return int(minutes), _minutes(text, earliest), _minutes(text, latest_end)


def _tell(result: Mapping[str, Any], as_json: bool, lines: Callable[[], list[str]]) -> None:
    print(json.dumps(result, ensure_ascii=False, indent=1) if as_json else "\n".join(lines()))
