"""An answer without the engine's models: the latest scored file of the person, then the popular list. Rules hold here too:
nothing seen, nothing excluded, nothing the filters forbid."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator

from serving.engine import Engine
from serving.recommender import Ask, state_of
from serving.scored import Scored, ScoredFiles
from serving.slate import Reason, Slate, SlateItem
from serving.standing import Standing
from serving.storage.database import now_us

PART = "recommender"  # the name that `degraded` shows
_FIRST = 500  # of the popular list; more only where these do not suffice


class Fallback:
    """One domain's. Called from a thread that is not the engine's."""

    def __init__(self, scored: ScoredFiles) -> None:
        self._scored = scored
        self._popular: tuple[Engine, int, tuple[SlateItem, ...]] | None = None

    def slate(self, ask: Ask, standing: Standing) -> Slate:
        """k items where the catalogue allows it. Raises FilterError as the engine does."""
        engine = standing.engine
        allowed = engine.allowed(ask.filters).copy()
        allowed[state_of(ask, standing, now_us()).excluded] = False
        for excluded in ask.exclude:
            if (row := engine.catalogue.row(excluded)) is not None:
                allowed[row] = False
        named = ask.user is not None and ask.sources is None and not standing.people.erased(ask.user)
        scored = self._scored.of(ask.user) if named and ask.user is not None else None
        chosen: list[SlateItem] = []

        def take(items: Iterable[SlateItem]) -> None:
            for item in items:
                row = engine.catalogue.row(item.item)
                if row is not None and allowed[row] and len(chosen) < ask.k:
                    allowed[row] = False
                    chosen.append(item)

        if scored is not None:
            take(_listed(scored, engine))
        if len(chosen) < ask.k:
            take(self._most_popular(_FIRST, engine))
        if len(chosen) < ask.k:
            take(self._most_popular(len(engine.catalogue), engine))
        note = (
            f"the recommender was late: this list was made on {scored.date} by {scored.version}"
            if scored is not None
            else "the recommender was late: these are the most popular titles"
        )
        return Slate(
            slate=secrets.token_hex(16),
            domain=ask.domain,
            version=engine.version,
            variant="default",
            mode="scored" if scored is not None else "popular",
            items=tuple(
                SlateItem(item.item, item.title, item.score, place + 1, item.sources, item.reasons, 1.0)
                for place, item in enumerate(chosen)
            ),
            degraded=(PART,),
            notes=(note,),
        )

    def _most_popular(self, wanted: int, engine: Engine) -> tuple[SlateItem, ...]:
        depth = min(wanted, len(engine.catalogue))
        cached = self._popular
        if cached is None or cached[0] is not engine or cached[1] < depth:
            cached = self._popular = (engine, depth, engine.popular(depth))
        return cached[2]


def _listed(scored: Scored, engine: Engine) -> Iterator[SlateItem]:
    for place, (item, score) in enumerate(zip(scored.items, scored.scores, strict=True)):
        row = engine.catalogue.row(item)
        if row is not None:
            reason = Reason("feature", float(score), 1, 1.0, feature="scored in batch", source="scored")
            yield SlateItem(item, engine.catalogue.titles[row], float(score), place + 1, ("scored",), (reason,), 1.0)
