"""A season of its own making: three days, three halls, 19 concerts, an event beside the programme each day, 80 people with a taste; all
trained and real, only small.

Concert `dDhH` of day D begins at 12:00 plus H hours and takes 45 minutes; hours 0 to 5 are played in the halls Big, Small, Court, Big,
Small, Court, ten minutes from each other, and there is no way from Court to Big. It costs 300 roubles and 100 more with each hour.
`xD` is a walk at 18:00 of day D. d1h0 and d2h0 are the same programme. `clash` is played in Small at 12:00 of the first day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import yaml

import configs
from configs.domain import Domain
from features.catalogue import Catalogue, build
from features.itinerary.bought import BoughtRoutes, Change, bought_routes
from features.itinerary.timetable import IMPASSABLE, Planned, Timetable
from features.state import Histories, Kinds, histories
from features.statistics import ItemStatistics
from features.vocabulary import Vocabulary
from tests.serving.small_world import DAY_US, MOMENT
from training import bundle
from training.build import build as build_model
from training.bundle import Verdict
from training.contract import CandidateModel, TrainingData

ZONE = "Asia/Yekaterinburg"
FIRST = date(2030, 7, 1)
HALLS = ("Big", "Small", "Court")
SEATS = (100, 40, 0)  # of the court nobody knows
ARTISTS = ("Анна Ключ", "Bob/Trio", "Cid", "Dee")
COMPOSERS = ("Bach", "Лист", "Berio")
GENRES = ("chamber", "choir", "organ")
PEOPLE = 80
NAME = "season"


@dataclass(frozen=True)
class Season:
    domain: Domain
    timetable: Timetable
    catalogue: Catalogue
    users: Vocabulary
    histories: Histories
    models: dict[str, CandidateModel]

    def publish(self, home: Path) -> str:
        """Writes a bundle, makes it the champion and returns its version."""
        directory = bundle.write(
            home,
            self.domain,
            self.catalogue,
            self.users,
            self.histories,
            ItemStatistics.as_of(self.histories, len(self.catalogue), MOMENT, capacity=self.catalogue.capacity()),
            self.models,
            None,
            Verdict(passed=True, serve="content", why="a test"),
            {},
            {},
            MOMENT,
            0,
            "test",
            timetable=self.timetable,
            bought=self.bought(),
        )
        bundle.point(home, self.domain.name, "champion", directory.name)
        return directory.name

    def bought(self) -> BoughtRoutes:
        """Two people hold d1h0 + d1h1 from the second date on, one of them d1h0 alone on the first; three hold d1h4 on both."""
        rows = self.timetable.rows
        pair = (rows["d1h0"], rows["d1h1"])
        moved = [Change(0, pair[:1]), Change(1, pair)]
        three = [[Change(0, (rows["d1h4"],))] for _ in range(3)]
        return bought_routes(self.timetable, ("2030-06-01", "2030-06-02"), [moved, [Change(1, pair)], *three])


def season_file(folder: Path, **also: object) -> Path:
    """The YAML of a domain with an itinerary, with sources that learn at once. `also`: words of the section `itinerary`."""
    document = yaml.safe_load((Path(configs.__file__).parent / "festival.yaml").read_text(encoding="utf-8"))
    document["candidates"] = {"popular": {"model": "popularity"}, "content": {"model": "content", "dimensions": 8}}
    document["ranker"] = None
    document["search"] = {}
    document["serving"]["deadline_ms"] = 30_000
    document["serving"]["exploration"] = {"cold": 0.0, "warm": 0.0, "pool": 1}
    document["itinerary"] |= {"seats_refresh_s": 0.1, "orders_to": "mailto:desk@example.org", **also}
    path = folder / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump({**document, "name": NAME}, allow_unicode=True), encoding="utf-8")
    return path


def season_timetable() -> Timetable:
    planned = []
    for day in range(3):
        for hour in range(6):
            number = 6 * day + hour
            planned.append(
                _stop(
                    f"d{day + 1}h{hour}",
                    day,
                    12 + hour,
                    hour % 3,
                    price=30_000 + 10_000 * hour,
                    genre=GENRES[number % 3],
                    artists=(ARTISTS[number % 4],),
                    composers=(COMPOSERS[number % 3], *(("Verdi",) if hour == 5 else ())),
                    works=(f"Work {number % 7}",),
                    labels=(("family",) if hour == 1 else ()) + (("recommended",) if number == 4 else ()),
                    programme="twice" if (day, hour) in ((0, 0), (1, 0)) else f"p{number}",
                )
            )
        planned.append(_stop(f"x{day + 1}", day, 18, 2, optional=True, title="A walk"))
    planned.append(_stop("clash", 0, 12, 1, price=100_000, genre="organ", composers=("Berio",), artists=("Dee",)))
    walk = ((0, 10, 10), (10, 0, 10), (IMPASSABLE, 10, 0))
    return Timetable.build(ZONE, 360, HALLS, SEATS, walk, planned)


def _stop(name: str, day: int, hour: int, hall: int, **more: object) -> Planned:
    moment = datetime.combine(FIRST + timedelta(days=day), time(hour), ZoneInfo(ZONE))
    said = {"title": f"Концерт {name}", **more}
    return Planned(id=name, starts_at=int(moment.timestamp()) * 1_000_000, minutes=45, hall=hall, **said)  # type: ignore[arg-type]


def season_world(yaml_file: Path) -> Season:
    domain = configs.load(str(yaml_file))
    timetable = season_timetable()
    catalogue = _catalogue(domain, timetable)
    users = Vocabulary([f"client{person}" for person in range(PEOPLE)])
    everything = _histories(domain, catalogue)
    models = {name: build_model(words) for name, words in domain.candidates.items()}
    for model in models.values():
        model.fit(TrainingData(everything, catalogue, MOMENT, 3))
    return Season(domain, timetable, catalogue, users, everything, models)


def _catalogue(domain: Domain, timetable: Timetable) -> Catalogue:
    concerts = [stop for stop in timetable.stops if not stop.optional]
    return build(
        domain.items,
        [stop.id for stop in concerts],
        [stop.title for stop in concerts],
        [True] * len(concerts),
        {
            "genre": [stop.genre for stop in concerts],
            "hall": [timetable.halls[stop.hall] for stop in concerts],
            "day": [timetable.days[stop.day] for stop in concerts],
            "programme": [stop.programme for stop in concerts],
            "artists": [";".join(stop.artists) for stop in concerts],
            "composers": [";".join(stop.composers) for stop in concerts],
            "works": [";".join(stop.works) for stop in concerts],
            "tags": ["" for _ in concerts],
            "labels": [";".join(stop.labels) for stop in concerts],
            "hour": [6 + stop.begins / 60 for stop in concerts],
            "minutes": [stop.ends - stop.begins for stop in concerts],
            "price": [stop.price for stop in concerts],
            "seats": [SEATS[stop.hall] or None for stop in concerts],
        },
    )


def _histories(domain: Domain, catalogue: Catalogue) -> Histories:
    """Each person buys four concerts of one genre."""
    kinds = Kinds.of(domain.events)
    rng = np.random.default_rng(5)
    genres = [catalogue.describe(row)["genre"] for row in range(len(catalogue))]
    rows, items, times = [], [], []
    for person in range(PEOPLE):
        mine = [row for row, genre in enumerate(genres) if genre == GENRES[person % 3]]
        for row in rng.choice(mine, 4, replace=False):
            rows.append(person)
            items.append(int(row))
            times.append(MOMENT - int(rng.integers(1, 60 * DAY_US)))
    n = len(rows)
    return histories(
        kinds,
        PEOPLE,
        np.array(rows, dtype=np.int32),
        np.array(items, dtype=np.int32),
        np.full(n, kinds.code("bought"), dtype=np.int8),
        np.full(n, np.nan, dtype=np.float32),
        np.array(times, dtype=np.int64),
        True,
    )
