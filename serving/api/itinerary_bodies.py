"""What may be asked of timetables and routes. Clock times are "HH:MM" by the timetable's own clock, prices whole minor units."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, WithJsonSchema

from configs.domain import Language
from features.itinerary.wishes import Meal, Objective, Wishes, Words
from serving.api.bodies import Body, Id, Text
from serving.storage.choices import Choice, Chosen
from serving.storage.seats import Labelled
from serving.storage.tables import TARGET

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
MOST_K = 100
_MOST_WORDS = 200
_MOST_MINUTES = 10_080


def _clock(value: object) -> object:
    if not isinstance(value, str) or (found := _CLOCK.fullmatch(value)) is None:
        raise ValueError("expected a time such as 09:30 or 23:15")
    return 60 * int(found[1]) + int(found[2])


Clock = Annotated[int, BeforeValidator(_clock), WithJsonSchema({"type": "string", "pattern": rf"^{_CLOCK.pattern}$"})]
Minutes = Annotated[int, Field(ge=0, le=_MOST_MINUTES)]
Some = Annotated[int, Field(ge=1, le=1_000)]
Name = Annotated[Text, Field(min_length=1)]
Names = Annotated[list[Name], Field(max_length=_MOST_WORDS)]
Ids = Annotated[list[Id], Field(max_length=_MOST_WORDS)]
Minor = Annotated[int, Field(ge=0, le=10**12)]
Target = Annotated[Text, Field(min_length=1, max_length=TARGET)]
Aim = Annotated[Objective, Field(strict=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class WordsBody(Body):
    """only: a stop that has none of these is left out; some: a route has at least one stop with at least one of these; none: a stop that
    has one of these is left out."""

    only: Names = Field(default_factory=list)
    some: Names = Field(default_factory=list)
    none: Names = Field(default_factory=list)


class MealBody(Body):
    """At least so many minutes in one place and free of stops, between two times of each day."""

    minutes: Annotated[int, Field(ge=1, le=600)]
    earliest: Clock
    latest: Clock


class WishesBody(Body):
    """All at once; what is left out is not asked for. features/itinerary/wishes.py says what each means. `party`: so many seats must be
    free at every stop, one unless said; null: seats are not looked at."""

    days: Names | None = None
    every_day: StrictBool = False
    must: Ids = Field(default_factory=list)
    must_not: Ids = Field(default_factory=list)
    bought: Ids = Field(default_factory=list)
    halls: WordsBody = WordsBody()
    artists: WordsBody = WordsBody()
    composers: WordsBody = WordsBody()
    genres: WordsBody = WordsBody()
    labels: WordsBody = WordsBody()
    tags: WordsBody = WordsBody()
    price_limit: Minor | None = None
    walking_a_day: Minutes | None = None
    walking_a_hop: Minutes | None = None
    waiting_a_day: Minutes | None = None
    waiting_a_hop: Minutes | None = None
    fewest: Some | None = None
    most: Some | None = None
    meal: MealBody | None = None
    no_programme_twice: StrictBool = False
    party: Some | None = 1
    arrival: Clock | None = None
    leaving: Clock | None = None
    buffer: Minutes | None = None
    longest_gap: Minutes | None = None
    maximal: StrictBool = False
    optional: StrictBool = False


_WORDS = ("halls", "artists", "composers", "genres", "labels", "tags")
_LISTS = ("must", "must_not", "bought")


def wishes(body: WishesBody, buffer: int) -> Wishes:
    """`buffer`: minutes to spare between stops where the body says none. Not checked against any timetable yet."""
    said: dict[str, Any] = {name: getattr(body, name) for name in WishesBody.model_fields}
    said |= {name: Words(*(tuple(getattr(getattr(body, name), part)) for part in ("only", "some", "none"))) for name in _WORDS}
    said |= {name: tuple(getattr(body, name)) for name in _LISTS}
    said["days"] = None if body.days is None else tuple(body.days)
    said["meal"] = None if body.meal is None else Meal(body.meal.minutes, body.meal.earliest, body.meal.latest)
    said["buffer"] = buffer if body.buffer is None else body.buffer
    return Wishes(**said)


class RoutesBody(Body):
    """Which routes, and which of them first. `user_id`: whose score, tickets and choices count (`me`: the caller's own); `personal`: false
    leaves the person's choices out. `objective` left out: what the questionnaire came to, else the score. `diversity`: 0 takes the best
    as they are, 1 looks for routes that share nothing. `sample`: true draws routes evenly from all there are instead, by `seed`."""

    user_id: Id | None = None
    objective: Aim | None = None
    wishes: WishesBody | None = None
    k: Annotated[int, Field(ge=1, le=MOST_K)] = 10
    diversity: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    sample: StrictBool = False
    seed: Seed | None = None
    personal: StrictBool = True
    language: Language = "en"


class AlternativesBody(Body):
    """Other routes in place of one, with what is gained and lost."""

    user_id: Id | None = None
    objective: Aim | None = None
    wishes: WishesBody | None = None
    k: Annotated[int, Field(ge=1, le=MOST_K)] = 5
    personal: StrictBool = True
    language: Language = "en"


class RouteMailBody(Body):
    """The route goes to the caller's own address. `language`: of the mail; left out, the one of the account's profile."""

    language: Language | None = None


class ChoiceBody(Body):
    choice: Choice
    of: Chosen = "stop"
    targets: Annotated[list[Target], Field(min_length=1, max_length=_MOST_WORDS)]


class TicketBody(Body):
    """`sold_at`: ISO 8601 with its offset."""

    concert_id: Id
    sold_at: Annotated[str, Field(min_length=1, max_length=40, json_schema_extra={"format": "date-time"})] | None = None


class TicketsBody(Body):
    tickets: Annotated[list[TicketBody], Field(min_length=1, max_length=_MOST_WORDS)]


class AnswersBody(Body):
    """`answers`: question -> the values chosen, as the questionnaire lists them; what is left out was not answered."""

    answers: dict[Annotated[Text, Field(max_length=40)], Annotated[list[Name], Field(max_length=20)]]
    user_id: Id | None = None
    language: Language = "en"


class OrderBody(Body):
    """`contact`: the address for the answer, the account's own unless said. `language`: of the mail to the desk; left out, the one of the
    account's profile."""

    concerts: Annotated[list[Id], Field(min_length=1, max_length=50)]
    party: Annotated[int, Field(ge=1, le=50)] = 1
    contact: Annotated[Text, Field(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    note: Annotated[Text, Field(max_length=500)] = ""
    language: Language | None = None


class SaleBody(Body):
    concerts: Annotated[list[Id], Field(min_length=1, max_length=500)]
    on_sale: StrictBool


class FreeSeatsBody(Body):
    """Random numbers of free seats, the same for the same seed: each between `low` and `high` of its hall's seats. `concerts` left out:
    all of them."""

    seed: Seed
    concerts: Annotated[list[Id], Field(min_length=1, max_length=500)] | None = None
    low: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    high: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0


class LabelBody(Body):
    """`target`: the id of a stop or a route, the name of an artist or a composer, the title of a work."""

    of: Labelled
    target: Target
    label: Annotated[Text, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_]*$")] = "recommended"
    present: StrictBool = True


BODIES: tuple[type[BaseModel], ...] = (
    RoutesBody,
    AlternativesBody,
    RouteMailBody,
    ChoiceBody,
    TicketsBody,
    AnswersBody,
    OrderBody,
    SaleBody,
    FreeSeatsBody,
    LabelBody,
)
