"""Why a route is shown, in sentences made of what is known: tickets, favourites, the person's score, the editors. Templates; no model."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from configs.domain import Itinerary, Language
from serving.itinerary.choosing import Chosens
from serving.itinerary.current import RECOMMENDED, Current

_NAMED = 3
_WHY: dict[str, dict[Language, str]] = {
    "bought": {"en": "It keeps your tickets: {stops}.", "ru": "Сохраняет ваши билеты: {stops}."},
    "yes": {"en": "It has what you surely want: {stops}.", "ru": "Здесь то, что вы точно хотите: {stops}."},
    "favourite": {"en": "It has your favourites: {stops}.", "ru": "Здесь ваше избранное: {stops}."},
    "score": {"en": "Fits you best: {stops}.", "ru": "Лучше всего вам подходит: {stops}."},
    "popular": {"en": "Most asked for: {stops}.", "ru": "Самое востребованное: {stops}."},
    "recommended": {"en": "The editors recommend: {stops}.", "ru": "Рекомендуют редакторы: {stops}."},
}


def why(current: Current, rows: Sequence[int], person: Chosens, scores: Sequence[float], known: bool, language: Language) -> list[str]:
    """`scores`: of each stop. `known`: whether they are this person's own; of somebody unknown they say what is asked for most."""
    stops = current.timetable.stops
    said = []
    for word, names in (("bought", person.bought), ("yes", person.yes), ("favourite", person.favourites)):
        mine = [row for row in rows if stops[row].id in names] if names else []
        if mine:
            said.append(_WHY[word][language].format(stops=_titles(current, mine)))
    rest = [row for row in rows if not stops[row].optional and stops[row].id not in person.bought and scores[row] > 0.5]
    above = heapq.nlargest(_NAMED, rest, key=scores.__getitem__)
    if above:
        said.append(_WHY["score" if known else "popular"][language].format(stops=_titles(current, above)))
    marked = [row for row in rows if RECOMMENDED in stops[row].labels]
    if marked:
        said.append(_WHY["recommended"][language].format(stops=_titles(current, marked)))
    return said


def _titles(current: Current, rows: Sequence[int]) -> str:
    titles = [f"«{current.timetable.stops[row].title}»" for row in rows[:_NAMED]]
    return ", ".join(titles) + (f" (+{len(rows) - _NAMED})" if len(rows) > _NAMED else "")


def counted(number: int, words: Itinerary, what: str, language: Language) -> str:
    """ "3 concerts", "5 концертов": a number with the noun in the form that it takes."""
    forms = getattr(words.words[language if language in words.words else next(iter(words.words))], what)
    if language == "ru":
        tens, ones = number % 100, number % 10
        form = forms.many if 11 <= tens <= 14 or ones == 0 or ones >= 5 else forms.one if ones == 1 else forms.few
    else:
        form = forms.one if number == 1 else forms.many
    return f"{number} {form}"
