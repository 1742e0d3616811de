"""The audit's table on both databases, and what waits while the database is away."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from serving.access.identity import Caller
from serving.audit import Audit, event_type, hashes_of
from serving.logs import person
from serving.metrics import Metrics
from serving.storage.audit import AuditEntry, AuditQuery, AuditRows
from serving.storage.database import Database
from tests.serving.test_service import until


def entry(at: int, **change: object) -> AuditEntry:
    made = AuditEntry(secrets.token_hex(16), at, "READ", "p1", "account", "gateway", "GET", "/v1", 200, "r", 1.5)
    return replace(made, **change)  # type: ignore[arg-type]


async def test_entries_are_found_by_what_they_say_newest_first(database: Database) -> None:
    rows = AuditRows(database)
    entries = [entry(1_000 + n // 2, person=f"p{n % 3}", response_status=200 + n % 2) for n in range(12)]
    entries.append(entry(2_000, event_type="LOGIN", endpoint="/v1/auth/login", person=None))
    await rows.add(entries)
    await rows.add(entries)  # written twice, there once
    expected = sorted(entries, key=lambda one: (one.at, one.entry), reverse=True)
    assert await rows.search(AuditQuery(size=100)) == expected
    assert [one.event_type for one in await rows.search(AuditQuery(endpoint="/v1/auth/login"))] == ["LOGIN"]
    assert await rows.search(AuditQuery(people=("p1",), status=201)) == [
        one for one in expected if one.person == "p1" and one.response_status == 201
    ]
    assert {one.at for one in await rows.search(AuditQuery(since=1_001, until=1_003))} == {1_001, 1_002}
    pages: list[AuditEntry] = []
    after: tuple[int, str] | None = None
    while page := await rows.search(AuditQuery(after=after, size=5)):
        pages += page
        after = (page[-1].at, page[-1].entry)
    assert pages == expected


async def test_a_request_becomes_an_entry_without_a_name(database: Database, tmp_path: Path) -> None:
    metrics = Metrics()
    audit = Audit(database, tmp_path, 1_000, metrics)
    await audit.start()
    audit.put("READ", "GET", "/v1/me", 200, "r1", 3.14159, Caller("account", "f" * 32), "asked about")
    audit.put("REFUSED", "GET", "/v1/{domain}/users/{user_id}", 401, "r2", 1.0, user="asked about")
    await until(lambda: metrics.registry.get_sample_value("factotum_audit_written_total") == 2)
    await audit.stop(1.0)
    found = await audit.search(AuditQuery())
    assert {(one.person, one.about, one.caller, one.endpoint, one.ms) for one in found} == {
        (person("f" * 32), person("asked about"), "account", "/v1/me", 3.142),
        (person("asked about"), None, "anonymous", "/v1/{domain}/users/{user_id}", 1.0),
    }
    assert [one.request_id for one in await audit.search(AuditQuery(about=hashes_of("asked about")))] == ["r1"]
    assert [one.request_id for one in await audit.search(AuditQuery(people=hashes_of("asked about")))] == ["r2"]


async def test_what_could_not_be_written_is_written_by_the_next_process(tmp_path: Path) -> None:
    home = tmp_path / "home"
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the database's folder should be")
    away = Database(f"sqlite+aiosqlite:///{blocked / 'factotum.db'}", wait_s=0.1)
    audit = Audit(away, home, 1_000, Metrics())
    await audit.start()
    audit.put("READ", "GET", "/v1", 200, "waited", 1.0)
    await audit.stop(0.3)
    await away.close()
    there = Database(f"sqlite+aiosqlite:///{home / 'factotum.db'}")
    metrics = Metrics()
    again = Audit(there, home, 1_000, metrics)
    await again.start()
    await until(lambda: metrics.registry.get_sample_value("factotum_audit_written_total") == 1)
    await again.stop(1.0)
    assert [one.request_id for one in await again.search(AuditQuery())] == ["waited"]
    await there.close()


def test_what_a_request_is_called() -> None:
    assert event_type("GET", 200) == event_type("POST", 200, question=True) == event_type("GET", 404) == "READ"
    assert event_type("POST", 201) == "CREATE"
    assert event_type("PATCH", 200) == event_type("PUT", 200) == "UPDATE"
    assert event_type("DELETE", 204) == "DELETE"
    assert event_type("POST", 200, login=True) == "LOGIN"
    assert {event_type("POST", status, login=True) for status in (401, 403, 429)} == {"REFUSED"}
    assert event_type("POST", 503, question=True) == "ERROR"
