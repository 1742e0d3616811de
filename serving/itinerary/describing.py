"""A route in words, from templates: a description, a summary for promotion, and the letter that takes it to somebody. Facts only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from configs.domain import Itinerary, Language
from serving.itinerary.current import Current
from serving.itinerary.showing import ends_at, legs, local, money
from serving.itinerary.telling import counted

SUMMARY = 280  # characters at most
_NAMES = 5

_SAID: dict[str, dict[Language, str]] = {
    "whole": {"en": "{stops} in {halls}, {music} of music.", "ru": "{stops}, {halls}, музыки {music}."},
    "days": {"en": "Days: {days}.", "ru": "Дни: {days}."},
    "also": {"en": "On the way: {optional}.", "ru": "По пути: {optional}."},
    "way": {"en": "On foot {walk}, to wait {wait}.", "ru": "Пешком {walk}, ожидание {wait}."},
    "composers": {"en": "Music by {names}.", "ru": "Музыка: {names}."},
    "artists": {"en": "You hear {names}.", "ru": "Играют: {names}."},
    "labels": {"en": "Among it: {names}.", "ru": "Среди них: {names}."},
    "cost": {"en": "Together {cost} for one.", "ru": "Всего {cost} на одного."},
    "cost_from": {"en": "Together {cost} for one, as far as prices are known.", "ru": "Всего {cost} на одного, насколько известны цены."},
    "more": {"en": "{names} and {more} more", "ru": "{names} и ещё {more}"},
    "subject": {"en": "Your route: {stops}, {days}", "ru": "Ваш маршрут: {stops}, {days}"},
    "walk": {"en": "   {minutes} min on foot", "ru": "   {minutes} мин пешком"},
}


@dataclass(frozen=True)
class _Facts:
    stops: str
    optional: str | None
    halls: str
    days: tuple[str, ...]
    music: int
    walk: int
    wait: int
    cost: int
    all_priced: bool
    composers: tuple[str, ...]
    artists: tuple[str, ...]
    labels: tuple[str, ...]


def _facts(current: Current, words: Itinerary, rows: Sequence[int], language: Language) -> _Facts:
    timetable = current.timetable
    stops = [timetable.stops[row] for row in rows]
    concerts = [stop for stop in stops if not stop.optional]
    off = len(stops) - len(concerts)
    way = legs(timetable, rows)
    labels = dict.fromkeys(label for stop in concerts for label in stop.labels if label in words.labels)
    return _Facts(
        stops=counted(len(concerts), words, "stop", language),
        optional=counted(off, words, "optional", language) if off else None,
        halls=counted(len({stop.hall for stop in concerts}), words, "hall", language),
        days=tuple(dict.fromkeys(timetable.days[stop.day] for stop in stops)),
        music=sum(stop.ends - stop.begins for stop in concerts),
        walk=sum(int(leg["walk"]) for leg in way),
        wait=sum(int(leg["wait"]) for leg in way),
        cost=sum(stop.price or 0 for stop in stops),
        all_priced=all(stop.price is not None for stop in concerts),
        composers=tuple(dict.fromkeys(name for stop in concerts for name in stop.composers)),
        artists=tuple(dict.fromkeys(name for stop in concerts for name in stop.artists)),
        labels=tuple(_spoken(words.labels[label].words, language) for label in labels),
    )


def description(current: Current, words: Itinerary, rows: Sequence[int], language: Language) -> str:
    """A few sentences."""
    facts = _facts(current, words, rows, language)
    said = [
        _of("whole", language, stops=facts.stops, halls=facts.halls, music=_time(facts.music, language)),
        _of("days", language, days=", ".join(facts.days)),
    ]
    if facts.optional:
        said.append(_of("also", language, optional=facts.optional))
    said.append(_of("way", language, walk=_time(facts.walk, language), wait=_time(facts.wait, language)))
    for word, names in (("composers", facts.composers), ("artists", facts.artists), ("labels", facts.labels)):
        if names:
            said.append(_of(word, language, names=_listed(names, language)))
    if facts.cost:
        said.append(_of("cost" if facts.all_priced else "cost_from", language, cost=money(facts.cost, words)))
    return " ".join(said)


def summary(current: Current, words: Itinerary, rows: Sequence[int], language: Language) -> str:
    """At most 280 characters: as many of the sentences that promise most as fit."""
    facts = _facts(current, words, rows, language)
    said = _of("whole", language, stops=facts.stops, halls=facts.halls, music=_time(facts.music, language))
    for word, names in (("labels", facts.labels), ("composers", facts.composers), ("artists", facts.artists)):
        more = f"{said} {_of(word, language, names=_listed(names, language, 3))}" if names else said
        said = more if len(more) <= SUMMARY else said
    return said[:SUMMARY]


def letter(current: Current, words: Itinerary, rows: Sequence[int], language: Language) -> tuple[str, str]:
    """Subject and text of a mail: the description, then stop by stop with times, halls and the way between them."""
    timetable = current.timetable
    facts = _facts(current, words, rows, language)
    walks = {leg["after"]: leg for leg in legs(timetable, rows)}
    lines = [description(current, words, rows, language), ""]
    day = None
    for row in rows:
        stop = timetable.stops[row]
        if stop.day != day:
            day = stop.day
            lines += ["", timetable.days[stop.day], ""]
        if stop.id in walks and walks[stop.id]["walk"]:
            lines.append(on_foot(walks[stop.id]["walk"], language))
        begins, ends = local(timetable, stop.starts_at), local(timetable, ends_at(stop))
        price = f" ({money(stop.price, words)})" if stop.price else ""
        lines.append(f"{begins:%H:%M}-{ends:%H:%M} {timetable.halls[stop.hall]}: {stop.title}{price}")
    subject = _of("subject", language, stops=facts.stops, days=", ".join(facts.days))
    return "".join(character if character.isprintable() else " " for character in subject)[:200], "\n".join(lines) + "\n"


def on_foot(minutes: int, language: Language) -> str:
    """The line between two stops."""
    return _of("walk", language, minutes=minutes)


def _of(word: str, language: Language, **values: object) -> str:
    return _SAID[word][language].format(**values)


def _spoken(words: dict[Language, str], language: Language) -> str:
    return words.get(language) or next(iter(words.values()))


def _listed(names: Sequence[str], language: Language, most: int = _NAMES) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else _of("more", language, names=shown, more=len(names) - most)


def _time(minutes: int, language: Language) -> str:
    hours, rest = divmod(minutes, 60)
    hour, minute = ("h", "min") if language == "en" else ("ч", "мин")
    parts = [*([f"{hours} {hour}"] if hours else []), *([f"{rest} {minute}"] if rest or not hours else [])]
    return " ".join(parts)
