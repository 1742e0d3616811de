"""A few questions for somebody of whom nothing is known, and what the answers come to: an objective and wishes, in the words of
`POST routes/search`. Pure: questions depend on the timetable alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.domain import Itinerary, Language
from features.itinerary.timetable import Timetable
from features.itinerary.wishes import Objective, vocabulary
from serving.itinerary.showing import money

_SHORT_WALK = 7  # minutes of one way, for whom walking is hard
_MEAL = {"minutes": 45, "earliest": "12:00", "latest": "16:00"}
_CHILDREN = ("children", "family")
_BUDGETS = (3, 6, 12)  # times the median price

_TEXTS: dict[str, dict[Language, str]] = {
    "aim": {"en": "What matters most?", "ru": "Что для вас важнее всего?"},
    "days": {"en": "On which days do you come?", "ru": "В какие дни вы придёте?"},
    "pace": {"en": "How full may a day be?", "ru": "Насколько насыщенным может быть день?"},
    "budget": {"en": "How much may it cost for one, altogether?", "ru": "Сколько это может стоить на одного, всего?"},
    "genres": {"en": "What should be among it?", "ru": "Что обязательно должно быть?"},
    "children": {"en": "Do children come along?", "ru": "Будут ли с вами дети?"},
    "walking": {"en": "Is walking hard for you?", "ru": "Трудно ли вам ходить пешком?"},
    "meal": {"en": "Do you want time for lunch?", "ru": "Нужно ли время на обед?"},
}
_VALUES: dict[str, dict[str, dict[Language, str]]] = {
    "aim": {
        "score": {"en": "what fits me", "ru": "то, что мне подходит"},
        "depth": {"en": "to discover what is rare", "ru": "открыть редкое"},
        "comfort": {"en": "to hurry nowhere", "ru": "никуда не спешить"},
        "balance": {"en": "both in balance", "ru": "и то и другое"},
        "music": {"en": "as much music as possible", "ru": "как можно больше музыки"},
        "cheapest": {"en": "the price", "ru": "цена"},
    },
    "pace": {
        "calm": {"en": "two at most", "ru": "не больше двух"},
        "steady": {"en": "four at most", "ru": "не больше четырёх"},
        "full": {"en": "as full as possible", "ru": "как можно насыщеннее"},
    },
    **{name: {"yes": {"en": "yes", "ru": "да"}, "no": {"en": "no", "ru": "нет"}} for name in ("children", "walking", "meal")},
}
_SEVERAL = ("days", "genres")
_PACE = {"calm": 2, "steady": 4}


class AnswerError(ValueError):
    """An answer to a question that there is not, or a value that it does not list."""

    def __init__(self, question: str, what: str, got: object, allowed: Sequence[str]) -> None:
        super().__init__(f"{question}: {what}")
        self.question, self.what, self.got, self.allowed = question, what, got, list(allowed)


@dataclass(frozen=True)
class Profile:
    """`wishes`: as the body of routes/search takes them. `notes` say what could not be asked for."""

    objective: str
    wishes: Mapping[str, Any]
    notes: tuple[str, ...]


def questions(timetable: Timetable, words: Itinerary, language: Language) -> list[dict[str, Any]]:
    """Each: question, text, whether several values may be chosen, and the values with their texts. A question without values is left
    out."""
    found = []
    for name, text in _TEXTS.items():
        values = _values(timetable, words, name, language)
        if values:
            listed = [{"value": value, "text": said} for value, said in values.items()]
            found.append({"question": name, "text": text[language], "several": name in _SEVERAL, "values": listed})
    return found


def profile(timetable: Timetable, words: Itinerary, answers: Mapping[str, Sequence[str]]) -> Profile:
    """Raises AnswerError."""
    said = {name: _chosen(timetable, words, name, values) for name, values in answers.items()}
    wishes: dict[str, Any] = {}
    notes: list[str] = []
    aim = said.get("aim", ())
    if days := said.get("days"):
        wishes["days"] = list(days)
    if (pace := said.get("pace", ("full",))[0]) in _PACE:
        wishes["most"] = _PACE[pace]
    if (budget := said.get("budget", ("none",))[0]) != "none":
        wishes["price_limit"] = int(budget)
    if genres := said.get("genres"):
        wishes["genres"] = {"some": list(genres)}
    if said.get("children") == ("yes",):
        labels = [label for label in _CHILDREN if label in vocabulary(timetable)["labels"]]
        if labels:
            wishes["labels"] = {"some": labels}
        else:
            notes.append("nothing is marked as being for children")
    if said.get("walking") == ("yes",):
        wishes["walking_a_hop"] = _SHORT_WALK
    if said.get("meal") == ("yes",):
        wishes["meal"] = dict(_MEAL)
    return Profile(aim[0] if aim else str(Objective.SCORE), wishes, tuple(notes))


def _values(timetable: Timetable, words: Itinerary, question: str, language: Language) -> dict[str, str]:
    match question:
        case "days":
            return {day: day for day in timetable.days}
        case "genres":
            return {genre: genre for genre in vocabulary(timetable)["genres"]}
        case "budget":
            none: dict[Language, str] = {"en": "it does not matter", "ru": "не важно"}
            up_to: dict[Language, str] = {"en": "up to {}", "ru": "до {}"}
            amounts = {str(amount): up_to[language].format(money(amount, words)) for amount in _budgets(timetable, words)}
            return {**amounts, "none": none[language]} if amounts else {}
        case _:
            return {value: texts[language] for value, texts in _VALUES[question].items()}


def _budgets(timetable: Timetable, words: Itinerary) -> list[int]:
    """Minor units, in whole hundreds of units; none where no price is known."""
    known = [stop.price for stop in timetable.stops if stop.price]
    if not known:
        return []
    step = 100 * words.minor_units
    middle = float(np.median(known))
    return sorted({max(step, round(times * middle / step) * step) for times in _BUDGETS})


def _chosen(timetable: Timetable, words: Itinerary, question: str, values: Sequence[str]) -> tuple[str, ...]:
    if question not in _TEXTS:
        raise AnswerError(question, "there is no such question", None, list(_TEXTS))
    allowed = _values(timetable, words, question, "en")
    for value in values:
        if value not in allowed:
            raise AnswerError(question, "the question does not list this value", value, list(allowed))
    once = tuple(dict.fromkeys(values))
    if len(once) > 1 and question not in _SEVERAL:
        raise AnswerError(question, "one value is allowed", ", ".join(once), list(allowed))
    if not once:
        raise AnswerError(question, "a value is missing; leave the question out instead", None, list(allowed))
    return once
