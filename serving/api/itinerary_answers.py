"""What the answers about timetables and routes look like, for /docs and for programs. tests/serving/test_itinerary_*.py hold them to
what is sent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class StopAnswer(BaseModel):
    """Times by the clock of the timetable's zone. `price`: minor units; `free`: seats left, null where nobody knows."""

    id: str
    title: str
    day: str
    starts: str
    ends: str
    begins: str
    until: str
    minutes: int
    hall: str
    price: int | None
    currency: str
    genre: str | None
    tags: list[str]
    artists: list[str]
    composers: list[str]
    works: list[str]
    programme: str | None
    labels: list[str]
    optional: bool
    free: int | None
    on_sale: bool
    to_be_had: bool


class StopsAnswer(BaseModel):
    """`as_of`: when a seat was last said anew, null where none ever was."""

    domain: str
    timetable: str
    days: list[str]
    as_of: str | None
    concerts: list[StopAnswer]
    total: int


class NamedAnswer(BaseModel):
    """Somebody or something that stops have. `free`: seats left over all of its stops on sale."""

    name: str
    concerts: int
    days: list[str]
    free: int | None
    labels: list[str]


class ArtistsAnswer(BaseModel):
    domain: str
    timetable: str
    artists: list[NamedAnswer]
    total: int


class ComposersAnswer(BaseModel):
    domain: str
    timetable: str
    composers: list[NamedAnswer]
    total: int


class HallAnswer(NamedAnswer):
    """`seats`: null where they are not known; `walk`: hall -> minutes, null where there is no way."""

    seats: int | None
    walk: dict[str, int | None]


class HallsAnswer(BaseModel):
    domain: str
    timetable: str
    halls: list[HallAnswer]
    total: int


class NamedStopsAnswer(NamedAnswer):
    domain: str
    timetable: str
    stops: list[StopAnswer]


class Leg(BaseModel):
    """From one stop to the next of a day: minutes on the way, and what is left to wait."""

    before: str
    after: str
    walk: int
    wait: int


class FoundRoute(BaseModel):
    """`stops`: ids, in the order of time; `score`: in the objective's unit, null where routes were drawn; `portrait`: its core."""

    route_id: str
    score: float | None
    stops: list[str]
    legs: list[Leg]
    portrait: dict[str, Any]
    why: list[str]


class RouteAnswer(BaseModel):
    """`portrait`: every figure of features/itinerary/portrait.py."""

    route_id: str
    timetable: str
    stops: list[StopAnswer]
    legs: list[Leg]
    portrait: dict[str, Any]


class SearchAnswer(BaseModel):
    """`total`: routes that fulfil all wishes, digits (it may be beyond 2^64). `exact`: these are the best, in
    order; false: the best may be better than the first shown by at most `within` (null: not known; 0: the first is the best, and the rest
    were chosen to differ). `clash`: stops that no route can have all of, though without any one of them there are some. `binding`: which
    wish, left out, gives routes (`begun`: that what has begun is left out). `concerts`: every stop of these routes, by id."""

    domain: str
    timetable: str
    objective: str
    total: str
    exact: bool
    within: float | None
    clash: list[str]
    binding: list[str]
    degraded: list[str]
    notes: list[str]
    routes: list[FoundRoute]
    concerts: dict[str, StopAnswer]


class RouteAvailability(BaseModel):
    """`free`: of the stop with the fewest, null where no number is known."""

    route_id: str
    to_be_had: bool
    free: int | None
    as_of: str | None
    stops: list[dict[str, Any]]


class DescriptionAnswer(BaseModel):
    """`by`: what wrote the text; `asked`: what was asked for. `notes` say why they differ."""

    route_id: str
    by: str
    asked: str
    language: str
    text: str
    notes: list[str]


class SummaryAnswer(BaseModel):
    route_id: str
    language: str
    text: str


class QueuedAnswer(BaseModel):
    """It is on disk and will be sent; `to` is where."""

    queued: bool
    to: str


class PopularAnswer(BaseModel):
    domain: str
    by: str
    groups: list[dict[str, Any]]
    notes: list[str]


class RankHistoryAnswer(BaseModel):
    """`bought`: people whose tickets make exactly this route now; `with_more`: those whose tickets hold all of it."""

    route_id: str
    bought: int
    with_more: int
    history: list[dict[str, Any]]
    notes: list[str]


class EndorsementAnswer(BaseModel):
    """`share`: of the route's concerts that are recommended, 0 to 1; `routes`: recommended routes that share concerts with it, most alike
    first, `likeness` the size of what is common by that of both together."""

    route_id: str
    recommended: bool
    share: float
    concerts: list[str]
    routes: list[dict[str, Any]]
    agreement: float


class AlternativeShown(BaseModel):
    """What changes: stops gained and lost, and differences (this less the route asked about) of worth, price in minor units, and minutes of
    music, walking and waiting."""

    route_id: str
    score: float
    score_by: float | None
    gained: list[StopAnswer]
    lost: list[StopAnswer]
    stops: list[str]
    price_by: int
    music_by: int
    walking_by: int
    waiting_by: int


class AlternativesAnswer(BaseModel):
    route_id: str
    timetable: str
    objective: str
    score: float | None
    degraded: list[str]
    notes: list[str]
    alternatives: list[AlternativeShown]


class ChoiceAnswer(BaseModel):
    choice: str
    of: str
    target: str
    title: str | None
    chosen_at: str


class ChoicesAnswer(BaseModel):
    """`bought` holds what the person bought by all that is known, here said or not."""

    user_id: str
    choices: list[ChoiceAnswer]
    bought: list[str]


class ChosenAnswer(BaseModel):
    """`added`: those that were not there before."""

    added: list[str]
    choices: int


class RemovedAnswer(BaseModel):
    removed: bool


class TicketsAnswer(BaseModel):
    """`clashing`: pairs that nobody can attend both: bought for several people."""

    imported: int
    repeated: int
    clashing: list[list[str]]


class QuestionnaireAnswer(BaseModel):
    language: str
    questions: list[dict[str, Any]]


class ProfileAnswer(BaseModel):
    """What a questionnaire's answers come to: to be sent to routes/search as they are."""

    objective: str
    wishes: dict[str, Any]
    notes: list[str]
    stored: bool


class OrderAnswer(BaseModel):
    """`state`: stored = nobody is named to send it to; waiting, sent, refused = by the mail server, or its end is not known."""

    order_id: str
    concerts: list[str]
    party: int
    contact: str
    note: str
    created: str
    state: str


class OrdersAnswer(BaseModel):
    orders: list[OrderAnswer]


class SeatsAnswer(BaseModel):
    """What seats are now."""

    changed: int
    concerts: list[dict[str, Any]]


class LabelAnswer(BaseModel):
    of: str
    target: str
    label: str
    present: bool
