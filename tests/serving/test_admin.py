"""What analysts and administrators read: figures through the cache, and the audit of who read whom."""

from __future__ import annotations

import httpx

from serving.logs import person as hashed
from serving.service import Service
from serving.storage.views import Views
from tests.serving.callers import machine, person
from tests.serving.test_service import until


async def test_an_analyst_reads_figures_that_are_anew_as_soon_as_the_view_is(client: httpx.AsyncClient, service: Service) -> None:
    analyst = await person(service, "analyst")

    def looked(outcome: str) -> float:
        return service.metrics.registry.get_sample_value("factotum_cache_total", {"cache": "view", "outcome": outcome}) or 0.0

    async def events() -> list[tuple[str, int]]:
        answer = await client.get("/v1/admin/analytics/events", headers=analyst.headers)
        assert answer.status_code == 200, answer.text
        return [(row["kind"], row["events"]) for row in answer.json()["rows"]]

    assert await events() == []
    sent = {"event_id": "e1", "user_id": "u1", "item_id": "1001", "kind": "like"}
    assert (await client.post("/v1/anime/events", json=sent)).status_code == 200
    await Views(service.database).refresh()
    assert await events() == [("like", 1)]
    assert (looked("miss"), looked("near")) == (2.0, 0.0)
    assert await events() == [("like", 1)]
    assert (looked("miss"), looked("near")) == (2.0, 1.0)
    await client.post("/v1/anime/events", json={**sent, "event_id": "e2"})
    assert await events() == [("like", 1)]  # until the view is made again
    await Views(service.database).refresh()
    assert await events() == [("like", 2)]


async def test_who_read_whom_can_be_found(client: httpx.AsyncClient, service: Service) -> None:
    admin, ann = await person(service, "admin"), await person(service)
    own = hashed(ann.account)
    mine = await client.get("/v1/anime/users/me", headers=ann.headers)
    assert mine.status_code in (200, 404)
    assert (await client.get(f"/v1/anime/users/{ann.user}", headers=admin.headers)).status_code in (200, 404)
    assert (await client.get(f"/v1/anime/users/{ann.user}", headers=await machine(service, "users:read"))).status_code in (200, 404)

    async def found(**asked: str) -> list[tuple[str, str]]:
        answer = await client.get("/v1/admin/audit", params={**asked, "endpoint": "/v1/{domain}/users/{user_id}"}, headers=admin.headers)
        assert answer.status_code == 200, answer.text
        return sorted((entry["caller"], "hers" if entry["person"] == own else "another's") for entry in answer.json()["entries"])

    await until(lambda: service.metrics.registry.get_sample_value("factotum_audit_waiting") == 0)
    assert await found(about=ann.account) == [("account", "another's"), ("account", "hers"), ("key", "another's")]
    assert await found(person=ann.account) == [("account", "hers")]
