"""GET /v1/{domain}/users/{id}: what is known of a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from fastapi import APIRouter, Request, Response

from features.state import NO_TIME, Means, UserState
from serving.api import answers, documents, permits
from serving.api.domains import known
from serving.api.problems import Fault, Problem
from serving.service import Service
from serving.standing import Standing

_LAST = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["users"])

    @routes.get("/v1/{domain}/users/{user_id}", responses=documents.answers(documents.UserAnswer, 404, 503))
    async def user(domain: str, user_id: str, request: Request) -> Response:
        """Counts by kind, what they liked and did not, and their last events, newest first. `me` is the caller's own user."""
        words = known(service, domain)
        user_id = await permits.read_about(service, request, words, user_id)
        standing = service.standing(domain)
        state = standing.people.state(user_id)
        if state is None:
            raise Problem(404, "unknown-user", "no such user", [Fault("path", "unknown user", user_id)])
        return answers.json({"user_id": user_id, **_summary(state, standing)})

    return routes


def iso(moment: int) -> str | None:
    """A moment in microseconds UTC as ISO 8601; None where the source had no times."""
    return None if moment == NO_TIME else (_EPOCH + timedelta(microseconds=moment)).isoformat()


def _summary(state: UserState, standing: Standing) -> dict[str, object]:
    catalogue, kinds = standing.engine.catalogue, standing.engine.kinds
    counts = np.bincount(state.kinds, minlength=len(kinds.names)) if len(state) else np.zeros(len(kinds.names), dtype=np.int64)
    liked = state.folded.items[(state.folded.meanings & Means.LIKED) != 0]
    last = range(len(state) - 1, max(-1, len(state) - 1 - _LAST), -1)
    return {
        "events": len(state),
        "kinds": {name: int(count) for name, count in zip(kinds.names, counts, strict=True) if count},
        "taste": len(state.positives),
        "excluded": len(state.excluded),
        "liked": catalogue.ids.ids(liked[::-1][:_LAST]),
        "disliked": catalogue.ids.ids(state.disliked[::-1][:_LAST]),
        "last_events": [
            {
                "item_id": catalogue.ids.id(int(state.items[place])),
                "title": catalogue.titles[int(state.items[place])],
                "kind": kinds.names[int(state.kinds[place])],
                "value": None if np.isnan(state.values[place]) else float(state.values[place]),
                "time": iso(int(state.times[place])),
            }
            for place in last
        ],
    }
