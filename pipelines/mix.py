"""What the benchmarks of faults and of endurance ask, mixed as people and machines ask it, and how each answer is judged.

Of twenty requests: nine recommendations for people of the bundle (by a machine's key), one for somebody known by two items
(nobody's token), two for oneself (a person's token), four events with an id of their own (key), two reads of a history (key, or
one's own by token), one slate read again, and one that must be refused: another person's history, by token.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from pipelines.load import Answer, Client
from serving.api.documents import EventsAnswer, SlateAnswer, StoredSlateAnswer, UserAnswer

Judgement = Literal["good", "degraded", "refused", "failed", "wrong"]
KINDS = ("recommend", "by history", "for oneself", "event", "a history", "one's own history", "a slate", "another's history")
_TURNS = "REHRTRESRLREORARTREX"  # one letter a kind, in the order they come
_SETTLED_S = 5.0  # an event accepted so long ago is known to every replica, unless the database was away meanwhile
_SLATE_S = 3.0  # a slate answered so long ago is in the database, unless it was away meanwhile
_AGAIN_S = 10.0  # after the database came back, until both hold again
_SLATES = 500
_T = TypeVar("_T")
_Document = TypeVar("_Document", bound=BaseModel)


@dataclass(frozen=True)
class Person:
    """An account with an access token. `user`: theirs in the domain."""

    account: str
    token: str

    @property
    def user(self) -> str:
        return f"a-{self.account}"


@dataclass
class Question:
    kind: str
    request: bytes
    judge: Callable[[Answer, float], Judgement]  # with the moment it was sent


@dataclass
class Accepted:
    """An event that was answered with 2xx."""

    event_id: str
    user: str
    item: str
    at: float


@dataclass
class Books:
    """What was promised, and what was wrong."""

    accepted: dict[str, Accepted] = field(default_factory=dict)
    by_user: dict[str, list[Accepted]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slates_missing: int = 0  # answered by a replica that was killed before it wrote them
    away: list[tuple[float, float]] = field(default_factory=list)  # while the database was gone, time.monotonic()

    def accept(self, event: Accepted) -> None:
        self.accepted[event.event_id] = event
        self.by_user.setdefault(event.user, []).append(event)

    def settled(self, at: float, sent: float, within_s: float) -> bool:
        """Whether what was accepted at `at` must be known everywhere at `sent`."""
        ready = at + within_s
        for began, ended in self.away:
            if began <= ready and ended + _AGAIN_S >= at:
                ready = max(ready, ended + _AGAIN_S)
        return sent >= ready


class Mix:
    """`people`: users of the bundle; `consumed`: user -> items that must not be shown to them; `items`: that events are about;
    `kind`: of the events, one that means that the item was consumed."""

    def __init__(
        self,
        client: Client,
        domain: str,
        people: Sequence[str],
        consumed: Callable[[str], frozenset[str]],
        items: Sequence[str],
        kind: str,
        key: str,
        persons: Sequence[Person],
        label: str,
        seed: int = 7,
    ) -> None:
        self.books = Books()
        self._client, self._domain, self._people, self._consumed = client, domain, people, consumed
        self._items, self._kind, self._key, self._persons, self._label = items, kind, {"X-API-Key": key}, persons, label
        self._random = np.random.default_rng(seed)
        self._slates: deque[tuple[str, float]] = deque(maxlen=_SLATES)

    def question(self, number: int) -> Question:
        """The request that comes as the `number`th."""
        match _TURNS[number % len(_TURNS)]:
            case "R":
                person = self._one(self._people)
                return self._slate("recommend", {"user_id": person, "k": 10}, person, self._key)
            case "H":
                liked = [self._one(self._items), self._one(self._items)]
                return self._slate("by history", {"history": liked, "k": 10}, None, {}, frozenset(liked))
            case "T":
                me = self._one(self._persons)
                return self._slate("for oneself", {"user_id": "me", "k": 10}, me.user, self._token(me))
            case "E":
                return self._event(number)
            case "L":
                person = self._one(self._people)
                return self._history("a history", person, person, self._key)
            case "O":
                me = self._one(self._persons)
                return self._history("one's own history", "me", me.user, self._token(me))
            case "S" | "A" if self._slates:
                return self._again()
            case "X":
                me = self._one(self._persons)
                return self._others(me)
            case _:
                person = self._one(self._people)
                return self._slate("recommend", {"user_id": person, "k": 10}, person, self._key)

    def _one(self, among: Sequence[_T]) -> _T:
        return among[int(self._random.integers(len(among)))]

    @staticmethod
    def _token(person: Person) -> dict[str, str]:
        return {"Authorization": f"Bearer {person.token}"}

    # ------------------------------------------------------------ kinds

    def _slate(
        self, kind: str, body: dict[str, object], user: str | None, who: dict[str, str], given: frozenset[str] = frozenset()
    ) -> Question:
        request = self._client.request("POST", f"/v1/{self._domain}/recommendations", body, who)

        def judge(answer: Answer, sent: float) -> Judgement:
            if answer.status != 200:
                return self._unanswered(answer)
            said = self._fits(kind, SlateAnswer, answer)
            if said is None:
                return "wrong"
            shown = [item.item_id for item in said.items]
            forbidden = given | (self._consumed(user) if user is not None else frozenset())
            forbidden |= {event.item for event in self.books.by_user.get(user or "", ()) if self.books.settled(event.at, sent, _SETTLED_S)}
            if not shown or len(set(shown)) < len(shown):
                return self._wrong(kind, f"{len(shown)} items, {len(set(shown))} of them different")
            if forbidden & set(shown):
                return self._wrong(kind, f"{user} was shown {sorted(forbidden & set(shown))}, consumed before ({said.degraded})")
            self._slates.append((said.slate, sent))
            return "degraded" if said.degraded or answer.header("degraded") else "good"

        return Question(kind, request, judge)

    def _event(self, number: int) -> Question:
        event_id, user = f"{self._label}-{number}", f"{self._label}-person-{number % 97}"
        item = self._one(self._items)
        body = {"event_id": event_id, "user_id": user, "item_id": item, "kind": self._kind}
        request = self._client.request("POST", f"/v1/{self._domain}/events", body, self._key)

        def judge(answer: Answer, sent: float) -> Judgement:
            if answer.status != 200:
                return self._unanswered(answer, write=True)
            said = self._fits("event", EventsAnswer, answer)
            if said is None or [event.event_id for event in said.events] != [event_id]:
                return self._wrong("event", f"{event_id} was answered with {answer.body[:200]!r}")
            self.books.accept(Accepted(event_id, user, item, time.monotonic()))
            return "degraded" if answer.header("degraded") else "good"

        return Question("event", request, judge)

    def _history(self, kind: str, asked: str, user: str, who: dict[str, str]) -> Question:
        request = self._client.request("GET", f"/v1/{self._domain}/users/{asked}", None, who)

        def judge(answer: Answer, sent: float) -> Judgement:
            if answer.status == 404 and asked == "me":
                return "good"  # nothing is known of them yet
            if answer.status != 200:
                return self._unanswered(answer)
            said = self._fits(kind, UserAnswer, answer)
            if said is None or said.user_id != user:
                return self._wrong(kind, f"asked for {user}, answered {answer.body[:200]!r}")
            return "degraded" if answer.header("degraded") else "good"

        return Question(kind, request, judge)

    def _again(self) -> Question:
        slate, answered = self._one(self._slates)
        request = self._client.request("GET", f"/v1/{self._domain}/slates/{slate}", None, self._key)

        def judge(answer: Answer, sent: float) -> Judgement:
            if answer.status == 404:
                if self.books.settled(answered, sent, _SLATE_S):
                    self.books.slates_missing += 1
                return "good"
            if answer.status != 200:
                return self._unanswered(answer)
            said = self._fits("a slate", StoredSlateAnswer, answer)
            if said is None or said.slate != slate:
                return self._wrong("a slate", f"asked for {slate}, answered {answer.body[:200]!r}")
            return "degraded" if answer.header("degraded") else "good"

        return Question("a slate", request, judge)

    def _others(self, me: Person) -> Question:
        other = self._one([person for person in self._persons if person is not me])
        request = self._client.request("GET", f"/v1/{self._domain}/users/{other.user}", None, self._token(me))

        def judge(answer: Answer, sent: float) -> Judgement:
            if answer.status == 403:
                return "good"
            if answer.status >= 500:
                return self._unanswered(answer)
            return self._wrong("another's history", f"{answer.status} {answer.body[:200]!r}")

        return Question("another's history", request, judge)

    # ------------------------------------------------------------ judging

    def _fits(self, kind: str, model: type[_Document], answer: Answer) -> _Document | None:
        try:
            said = orjson.loads(answer.body)
            unknown = set(said) - set(model.model_fields)
            if unknown:
                raise ValueError(f"unknown keys {sorted(unknown)}")
            return model.model_validate(said)
        except (ValidationError, ValueError, TypeError) as error:
            self._wrong(kind, f"{error}"[:300])
            return None

    def _wrong(self, kind: str, why: str) -> Judgement:
        self.books.wrong.append(f"{kind}: {why}")
        return "wrong"

    def _unanswered(self, answer: Answer, write: bool = False) -> Judgement:
        """A refusal of a write that says when to come again is as it should be; everything else was owed an answer."""
        return "refused" if write and answer.status == 503 and answer.header("retry-after") is not None else "failed"
