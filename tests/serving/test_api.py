"""Each address: what it answers when it is asked properly."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from configs.deployment import Deployment
from serving import logs
from serving.api.application import create_app
from serving.service import Service
from tests.serving.callers import machine
from tests.serving.conftest import started
from tests.serving.small_world import ITEMS


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/anime/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(slate: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in slate["items"]]


# ---------------------------------------------------------------- the brief's own calls


async def test_top(client: httpx.AsyncClient, service: Service) -> None:
    first, second = await client.get("/top"), await client.get("/top")
    listed = first.json()["items"]
    assert [item["rank"] for item in listed] == list(range(1, ITEMS))  # one title cannot be had
    assert isinstance(listed[0]["anime_id"], int)
    assert second.content == first.content
    assert service.metrics.registry.get_sample_value("factotum_cache_total", {"cache": "prepared", "outcome": "near"}) == 1


async def test_the_content_based_call_as_the_brief_writes_it(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/recommend_content_based", json={"anime_id": 1001, "top_n": 10})).json()
    assert answer["anime_id"] == 1001
    assert len(answer["items"]) == 10
    assert all(isinstance(item["anime_id"], int) and item["anime_id"] != 1001 for item in answer["items"])
    assert answer["items"][0]["title"].startswith("Comedy")
    assert len((await client.post("/recommend_content_based", json={"anime_id": "1001"})).json()["items"]) == 10


@pytest.mark.parametrize(("path", "source"), [("/recommend_session_based", "sasrec"), ("/recommend_collaborative", "als")])
async def test_the_calls_about_a_user(path: str, source: str, client: httpx.AsyncClient, service: Service) -> None:
    answer = (await client.post(path, json={"user_id": 1})).json()
    assert (answer["user_id"], answer["mode"], len(answer["items"])) == (1, source, 10)
    assert (await client.post(path, json={"user_id": 1, "top_n": 3})).json()["items"] == answer["items"][:3]
    stored = (await client.get(f"/v1/anime/slates/{answer['slate']}", headers=await machine(service, "users:read"))).json()
    assert (stored["user_id"], stored["mode"], len(stored["items"])) == ("1", source, 10)


# ---------------------------------------------------------------- recommendations


async def test_a_slate_says_everything_about_itself(client: httpx.AsyncClient, service: Service) -> None:
    slate = await ask(client, user_id=1, k=4, explain=True)
    assert {"slate", "domain", "model_version", "variant", "mode", "degraded", "notes", "items"} == set(slate)
    assert (slate["domain"], slate["variant"], slate["mode"], slate["degraded"]) == ("anime", "default", "two-stage", [])
    assert slate["model_version"] == service.standing("anime").version
    assert [item["rank"] for item in slate["items"]] == [1, 2, 3, 4]
    for item in slate["items"]:
        assert {"item_id", "title", "score", "rank", "sources", "reasons", "explanation", "propensity"} == set(item)
        assert item["explanation"]
        assert 0 < item["propensity"] <= 1
        for reason in item["reasons"]:
            assert ("item" in reason) + ("feature" in reason) <= 1
            assert {"kind", "value", "sign", "share"} <= set(reason)


async def test_seen_titles_are_not_recommended_and_k_is_honoured(client: httpx.AsyncClient, service: Service) -> None:
    state = service.standing("anime").people.state("1")
    assert state is not None
    seen = set(service.standing("anime").engine.catalogue.ids.ids(state.items))
    slate = await ask(client, user_id="1", k=100)
    assert len(ids(slate)) == ITEMS - 1 - len(seen)
    assert not seen & set(ids(slate))


async def test_the_same_question_has_the_same_answer(client: httpx.AsyncClient) -> None:
    assert (await ask(client, seed=7))["items"] == (await ask(client, seed=7))["items"]
    drawn = {tuple(ids(await ask(client, seed=seed))) for seed in range(8)}
    assert len(drawn) > 1  # a newcomer's slate explores


async def test_by_history(client: httpx.AsyncClient) -> None:
    slate = await ask(client, history=["1001", 1005, "1009", "1001"], k=6)
    assert not {"1001", "1005", "1009"} & set(ids(slate))
    assert slate["notes"] == []


async def test_unknown_ids_are_left_out_with_a_note(client: httpx.AsyncClient) -> None:
    unknown = [f"x{number}" for number in range(8)]
    slate = await ask(client, history=["1001", *unknown], exclude=["1002", "y"])
    assert slate["notes"][0] == "history: unknown titles were left out: x0, x1, x2, x3, x4 and 3 more"
    assert slate["notes"][1] == "exclude: unknown titles were left out: y"
    assert "1002" not in ids(slate)


async def test_an_unknown_user_is_a_newcomer_and_is_told(client: httpx.AsyncClient) -> None:
    slate = await ask(client, user_id="never seen")
    assert len(slate["items"]) == 10
    assert "unknown" in slate["notes"][0]
    assert "cold start" in slate["notes"][1]


async def test_nobody_at_all_is_a_newcomer(client: httpx.AsyncClient) -> None:
    assert any("cold start" in note for note in (await ask(client))["notes"])
    assert len((await ask(client, history=[]))["items"]) == 10


async def test_a_newcomers_words_come_first(client: httpx.AsyncClient) -> None:
    slate = await ask(client, profile={"genre": ["horror"]}, k=5, seed=1)
    assert sum(item["title"].startswith("Horror") for item in slate["items"]) >= 4  # the fifth place explores


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        ({"genre": "comedy"}, lambda item: item["attributes"]["genre"] == ["Comedy"]),
        ({"genre": ["Comedy", "Drama"]}, lambda item: item["attributes"]["genre"][0] in ("Comedy", "Drama")),
        ({"type": "Movie"}, lambda item: item["attributes"]["type"] == "Movie"),
        ({"episodes": {"low": 10, "high": 30}}, lambda item: 10 <= item["attributes"]["episodes"] <= 30),
        ({"episodes": {"high": 12}, "type": "TV"}, lambda item: item["attributes"]["episodes"] <= 12),
    ],
)
async def test_what_the_filters_forbid_is_never_shown(filters: dict[str, Any], holds: Any, client: httpx.AsyncClient) -> None:
    for person in ({"user_id": 1}, {"history": ["1001"]}, {}):
        slate = await ask(client, filters=filters, **person)
        assert slate["items"]
        for item in ids(slate):
            assert holds((await client.get(f"/v1/anime/items/{item}")).json())


async def test_diversity_mixes_genres(client: httpx.AsyncClient) -> None:
    plain, mixed = await ask(client, history=["1001", "1005", "1009"]), await ask(client, history=["1001", "1005", "1009"], diversity=0.9)
    kinds = [len({item["title"].split()[0] for item in slate["items"]}) for slate in (plain, mixed)]
    assert kinds[1] >= kinds[0]
    assert ids(plain) != ids(mixed)


async def test_sentences_in_russian(client: httpx.AsyncClient) -> None:
    slate = await ask(client, user_id=1, explain=True, language="ru")
    assert any("а" <= letter <= "я" for letter in slate["items"][0]["explanation"])


async def test_a_slate_is_given_back_as_it_was_served(client: httpx.AsyncClient, service: Service) -> None:
    served = await ask(client, user_id=1, k=3, filters={"genre": "Comedy"})
    stored = (await client.get(f"/v1/anime/slates/{served['slate']}", headers=await machine(service, "users:read"))).json()
    assert {name: stored[name] for name in served} == served
    assert stored["user_id"] == "1"
    assert stored["request"] == {"user_id": "1", "k": 3, "filters": {"genre": "Comedy"}}


# ---------------------------------------------------------------- events


async def test_an_event_changes_the_very_next_answer(client: httpx.AsyncClient, service: Service) -> None:
    first = ids(await ask(client, user_id=1))[0]
    event = {"event_id": "e1", "user_id": 1, "item_id": first, "kind": "completed", "value": 9, "time": "2026-01-31T20:15:00+03:00"}
    assert (await client.post("/v1/anime/events", json=event)).json() == {
        "recorded": 1,
        "repeated": 0,
        "events": [{"event_id": "e1", "status": "recorded"}],
    }
    assert first not in ids(await ask(client, user_id=1))
    known = (await client.get("/v1/anime/users/1", headers=await machine(service, "users:read"))).json()
    assert known["last_events"][0] == {
        "item_id": first,
        "title": known["last_events"][0]["title"],
        "kind": "completed",
        "value": 9.0,
        "time": "2026-01-31T17:15:00+00:00",
    }


async def test_repeating_a_request_changes_nothing(client: httpx.AsyncClient, service: Service) -> None:
    events = [{"event_id": f"e{n}", "user_id": "eve", "item_id": "1001", "kind": "like"} for n in (1, 2, 1)]
    first, second = await client.post("/v1/anime/events", json=events), await client.post("/v1/anime/events", json=events)
    assert [event["status"] for event in first.json()["events"]] == ["recorded", "recorded", "repeated"]
    assert (second.json()["recorded"], second.json()["repeated"]) == (0, 3)
    assert (await client.get("/v1/anime/users/eve", headers=await machine(service, "users:read"))).json()["events"] == 2


async def test_a_dislike_and_its_undo_are_understood(client: httpx.AsyncClient, service: Service) -> None:
    victim = ids(await ask(client, user_id=1))[0]
    await client.post("/v1/anime/events", json={"event_id": "d", "user_id": 1, "item_id": victim, "kind": "dislike"})
    assert victim not in ids(await ask(client, user_id=1, k=100))
    assert (await client.get("/v1/anime/users/1", headers=await machine(service, "users:read"))).json()["disliked"] == [victim]
    await client.post("/v1/anime/events", json={"event_id": "u", "user_id": 1, "item_id": victim, "kind": "undo"})
    assert victim in ids(await ask(client, user_id=1, k=100))


async def test_impressions_and_clicks_are_events(client: httpx.AsyncClient, service: Service) -> None:
    shown = ids(await ask(client, user_id=1))
    events = [{"event_id": f"s{n}", "user_id": 1, "item_id": item, "kind": "impression"} for n, item in enumerate(shown)]
    events.append({"event_id": "c", "user_id": 1, "item_id": shown[1], "kind": "click"})
    assert (await client.post("/v1/anime/events", json=events)).json()["recorded"] == 11
    assert shown[0] in ids(await ask(client, user_id=1, k=100))  # being shown is not being seen
    assert service.metrics.registry.get_sample_value("factotum_events_recorded_total", {"domain": "anime", "kind": "impression"}) == 10


# ---------------------------------------------------------------- the catalogue


async def test_items_are_found_by_title_page_by_page(client: httpx.AsyncClient) -> None:
    first = (await client.get("/v1/anime/items", params={"query": "COMEDY", "size": 4})).json()
    assert (first["total"], len(first["items"]), first["page"]) == (15, 4, 1)
    pages = [
        (await client.get("/v1/anime/items", params={"query": "comedy", "size": 4, "page": page})).json()["items"] for page in (1, 2, 3, 4)
    ]
    assert [len(page) for page in pages] == [4, 4, 4, 3]
    assert len({item["item_id"] for page in pages for item in page}) == 15
    assert (await client.get("/v1/anime/items", params={"page": 999})).json()["items"] == []
    assert (await client.get("/v1/anime/items")).json()["total"] == ITEMS


async def test_items_like_one(client: httpx.AsyncClient, service: Service) -> None:
    answer = (await client.get("/v1/anime/items/1001/similar", params={"k": 3})).json()
    assert len(answer["items"]) == 3
    assert answer["items"][0]["reasons"]
    await client.get("/v1/anime/items/1001/similar", params={"k": 3})
    assert service.metrics.registry.get_sample_value("factotum_cache_total", {"cache": "similar", "outcome": "near"}) == 1


async def test_an_item_is_added_and_recommended_at_once(client: httpx.AsyncClient, service: Service) -> None:
    key = await machine(service, "items:write")
    item = {"item_id": 9001, "title": "Comedy story 99", "attributes": {"genre": ["Comedy", "Space"], "type": "TV", "episodes": 12}}
    added = await client.post("/v1/anime/items", json=item, headers=key)
    assert added.status_code == 201
    assert added.json()["attributes"]["genre"] == ["Comedy", "Space"]
    assert (await client.get("/v1/anime/items/9001")).json() == added.json()
    assert (await client.get("/v1/anime/items", params={"query": "story 99"})).json()["total"] == 1
    assert ids(await ask(client, filters={"genre": "Space"})) == ["9001"]
    found = {entry["item_id"]: entry for entry in (await ask(client, history=["1001", "1005"], k=100))["items"]}
    assert "content" in found["9001"]["sources"]  # nobody has seen it: its words bring it
    assert "9001" in [entry["item_id"] for entry in (await client.get("/v1/anime/items/1001/similar")).json()["items"]]
    again = await client.post("/v1/anime/items", json={**item, "available": False}, headers=key)
    assert again.status_code == 200
    assert ids(await ask(client, filters={"genre": "Space"})) == []
    top = [entry["anime_id"] for entry in (await client.get("/top")).json()["items"]]
    assert 9001 not in top


# ---------------------------------------------------------------- the rest


async def test_what_there_is(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1")).json()["domains"][0]["domain"] == "anime"
    described = (await client.get("/v1/anime")).json()
    assert described["attributes"]["genre"]["words"] == ["Action", "Comedy", "Drama", "Horror"]
    assert described["kinds"]["dropped"]["means"] == ["seen", "disliked"]
    assert described["scale"] == {"low": 1.0, "high": 10.0}
    assert sorted(described["sources"]) == ["als", "content", "popular", "sasrec"]


async def test_health(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).status_code == 200
    ready = (await client.get("/readyz")).json()
    assert ready["status"] == "ready"
    assert ready["parts"]["database"]["state"] == "ready"
    assert ready["parts"]["domains"]["anime"]["mode"] == "two-stage"


async def test_metrics_tell_stages_requests_and_the_model(client: httpx.AsyncClient, service: Service) -> None:
    await ask(client, user_id=1)
    await client.get("/nowhere")
    text = (await client.get("/metrics")).text
    for stage in ("source.als", "source.sasrec", "candidates", "rank", "rerank", "reasons"):
        assert f'factotum_stage_seconds_count{{domain="anime",stage="{stage}"' in text
    assert 'factotum_requests_total{method="POST",route="/v1/{domain}/recommendations",status="200"' in text
    assert 'route="unmatched",status="404"' in text
    assert f'version="{service.standing("anime").version}"' in text


async def test_the_documents_are_served(client: httpx.AsyncClient) -> None:
    assert "swagger" in (await client.get("/docs")).text.lower()
    document = (await client.get("/openapi.json")).json()
    assert {"/top", "/recommend_content_based", "/v1/{domain}/recommendations", "/v1/{domain}/events"} <= set(document["paths"])
    text = orjson.dumps(document).decode()
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in document["components"]["schemas"]


async def test_a_request_has_an_id(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz", headers={"X-Request-ID": "mine-1"})).headers["x-request-id"] == "mine-1"
    made = (await client.get("/healthz", headers={"X-Request-ID": "not sane; {}"})).headers["x-request-id"]
    assert len(made) == 16


async def test_the_log_tells_the_request_and_hides_the_person(client: httpx.AsyncClient, service: Service) -> None:
    out = StringIO()
    before = logging.getLogger("factotum").handlers[:]
    logs.setup(stream=out)
    try:
        await client.post("/v1/anime/recommendations", json={"user_id": "somebody-secret"}, headers={"X-Request-ID": "r1"})
        await client.get("/v1/anime/users/somebody-secret", headers={"X-Request-ID": "r2"})
    finally:
        logging.getLogger("factotum").handlers[:] = before
        logging.getLogger("factotum").propagate = True
    lines = [orjson.loads(line) for line in out.getvalue().splitlines()]
    access = {line["request_id"]: line for line in lines if line["logger"] == "factotum.access"}
    assert access["r1"]["route"] == "/v1/{domain}/recommendations"
    assert access["r1"]["status"] == 200
    assert access["r1"]["person"] == access["r2"]["person"]
    assert "somebody-secret" not in out.getvalue()


def test_two_domains_may_not_want_the_same_address(tmp_path: Path, yaml_file: Path) -> None:
    twin = tmp_path / "twin.yaml"
    twin.write_text(yaml_file.read_text())
    with pytest.raises(ValueError, match="/top is asked for by anime and by twin"):
        create_app(Service(tmp_path, [str(yaml_file), str(twin)], Deployment()))


async def test_many_at_once_all_get_theirs(home: Path, yaml_file: Path, quick: Deployment, running: AsyncExitStack) -> None:
    service, client = await started(Service(home, [str(yaml_file)], quick), running)
    answers = await asyncio.gather(*(client.post("/v1/anime/recommendations", json={"user_id": 1 + n % 120}) for n in range(150)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["slate"] for answer in answers}) == 150
    assert not any(answer.json()["degraded"] for answer in answers)
    batches = service.metrics.registry.get_sample_value("factotum_recommender_batch_count")
    assert batches is not None
    assert batches < 150  # those that waited were answered together
