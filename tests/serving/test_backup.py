"""A backup of one kind of database restored into the other, with the home it answers from; and everything that is refused."""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from configs.deployment import Deployment
from pipelines.backup import backup, restore
from pipelines.refusals import exit_code
from pipelines.servers import PostgresServer
from serving.service import Service
from serving.storage import backup as rows_of
from serving.storage import partitions
from serving.storage.backup import BackupError
from serving.storage.database import Database, now_us
from serving.storage.interactions import Interactions
from serving.storage.tables import StoredEvent, StoredItem
from tests.serving.conftest import started

Make = Callable[[str], Database]


def _bytes(file: Path) -> bytes:
    return file.read_bytes()


def silent(_what: str, _done: int) -> None:
    pass


@pytest.fixture
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """An empty database of a kind."""
    made: list[Database] = []

    def new(kind: str) -> Database:
        name = f"b{secrets.token_hex(6)}"
        if kind == "sqlite":
            url = f"sqlite+aiosqlite:///{tmp_path / name}.db"
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            url = server.create(name)
        made.append(Database(url))
        return made[-1]

    yield new
    for database in made:
        await database.close()


pairs = pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sqlite", "sqlite"),
        pytest.param("sqlite", "postgresql", marks=pytest.mark.postgres),
        pytest.param("postgresql", "sqlite", marks=pytest.mark.postgres),
        pytest.param("postgresql", "postgresql", marks=pytest.mark.postgres),
    ],
)


async def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    found = {}
    async with database.reading() as connection:
        for table in database.tables.metadata.sorted_tables:
            rows = (await connection.execute(sa.select(table).order_by(*table.primary_key.columns))).mappings().all()
            found[rows_of.entry(table)] = [dict(row) for row in rows]
    return found


def _odd(table: sa.Table, number: int) -> dict[str, Any]:
    """A row of any table, with what is hard to write down."""
    row: dict[str, Any] = {}
    for column in table.columns:
        kind = column.type
        if column.nullable and number % 2:
            row[column.name] = None
        elif isinstance(kind, sa.LargeBinary):
            row[column.name] = bytes(range(256))
        elif isinstance(kind, sa.Date):
            row[column.name] = date(2024, 2, 28 + number % 2)
        elif isinstance(kind, sa.Boolean):
            row[column.name] = bool(number % 2)
        elif isinstance(kind, sa.BigInteger):
            row[column.name] = (-1) ** number * (2**62 + number) if not table.info["by_range"] else now_us() + number
        elif isinstance(kind, sa.Integer):
            row[column.name] = number
        elif isinstance(kind, sa.Float):
            row[column.name] = [0.1 + 0.2, 5e-324, -1.7976931348623157e308, float("inf")][number % 4]
        else:
            length = getattr(kind, "length", None) or 200
            row[column.name] = f"{number} ключ'\n\"\u2028\\{{}}\x7f"[:length]
    return row


@pairs
async def test_every_value_of_every_table_comes_back(source: str, target: str, make: Make, tmp_path: Path) -> None:
    old, new = make(source), make(target)
    async with old.writing() as connection:
        for table in old.tables.metadata.sorted_tables:
            for number in range(5):
                await connection.execute(sa.insert(table).values(_odd(table, number)))
    made = await backup(old, tmp_path / "no-home", tmp_path / "x.backup", with_home=False, with_secrets=False, progress=silent)
    assert (tmp_path / "x.backup").stat().st_mode & 0o777 == 0o600
    await restore(new, tmp_path / "no-home", tmp_path / "x.backup", replace=False, progress=silent)
    was, now = await everything(old), await everything(new)
    assert len(was.pop("system.leases")) == 5
    assert now.pop("system.leases") == []
    assert now == was
    assert set(made.rows.values()) == {5}
    if target == "postgresql":  # rows have found their partitions
        async with new.reading() as connection:
            assert await connection.scalar(sa.text("SELECT count(*) FROM recommendations.slates_rest")) == 0


async def test_a_large_table_is_written_and_read_in_pages(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of, "PAGE", 7)
    old, new = make("sqlite"), make("sqlite")
    await Interactions(old).record_events("d", [StoredEvent(f"e{n}", "u", "i", "seen", None, n) for n in range(50)])
    seen: list[int] = []
    await backup(old, tmp_path, tmp_path / "x", False, False, lambda what, done: seen.append(done) if what.endswith(".events") else None)
    assert seen == [7, 14, 21, 28, 35, 42, 49, 50]
    await restore(new, tmp_path, tmp_path / "x", False, silent)
    assert (await everything(new))["recommendations.events"] == (await everything(old))["recommendations.events"]


async def test_a_backup_is_one_moment_though_others_write_meanwhile(database: Database, tmp_path: Path) -> None:
    await Interactions(database).record_events("d", [StoredEvent("before", "u", "i", "seen", None, 1)])
    async with database.apart(snapshot=True) as connection:
        pages = rows_of.dumped(connection, database, silent)
        first = [await anext(pages)]  # the transaction has begun
        await Interactions(database).record_events("d", [StoredEvent("after", "u", "i", "seen", None, 1)])
        pages_by_table = [*first, *[page async for page in pages]]
    lines = b"".join(lines for name, lines in pages_by_table if name == "recommendations.events")
    assert [json.loads(line)["event_id"] for line in lines.splitlines()] == ["before"]


# ------------------------------------------------------------ the same answers


@pairs
async def test_an_empty_machine_answers_the_same(
    source: str, target: str, make: Make, home: Path, yaml_file: Path, quick: Deployment, tmp_path: Path
) -> None:
    asks: list[dict[str, Any]] = [{"user_id": name, "k": 10} for name in ("1", "2", "77", "new")] + [{"history": ["1001", "1005"], "k": 8}]

    async def answers(at: Path, database: Database, fill: bool) -> tuple[list[Any], dict[str, Any]]:
        async with AsyncExitStack() as stack:
            service, client = await started(Service(at, [str(yaml_file)], quick, database=database), stack)
            if fill:
                liked = [
                    StoredEvent(f"e{n}", name, item, "like", None, now_us())
                    for n, (name, item) in enumerate([("1", "1002"), ("new", "1003")])
                ]
                await service.record("anime", liked)
                await service.add_item("anime", StoredItem("n1", "Новое", '{"genre":["Action"]}', True))
            given = [(await client.post("/v1/anime/recommendations", json=ask)).json() for ask in asks]
            kept = [{key: answer[key] for key in ("items", "model_version", "variant", "mode", "degraded")} for answer in given]
            return kept, given[0]

    first, served = await answers(home, origin := make(source), True)
    again = Database(origin._url.render_as_string(hide_password=False))
    await backup(again, home, tmp_path / "x.backup", with_home=True, with_secrets=False, progress=silent)
    await again.close()
    shutil.rmtree(home)
    empty, there = tmp_path / "empty", make(target)
    await restore(there, empty, tmp_path / "x.backup", replace=False, progress=silent)
    assert not (empty / "secrets.json").exists()
    assert (await everything(there))["recommendations.slates"][0]["items"] != ""
    assert served["slate"] in {row["slate"] for row in (await everything(there))["recommendations.slates"]}
    second, _ = await answers(empty, there, False)
    assert second == first


# ------------------------------------------------------------ refused


@pytest.fixture
async def made(make: Make, tmp_path: Path, world: Any) -> Path:
    """A backup with a home and one event."""
    world.publish(tmp_path / "origin")
    database = make("sqlite")
    await Interactions(database).record_events("d", [StoredEvent("e", "u", "i", "seen", 1.0, 1)])
    await backup(database, tmp_path / "origin", tmp_path / "made", True, False, silent)
    return tmp_path / "made"


async def test_a_database_that_holds_something_is_refused_or_replaced(database: Database, made: Path, tmp_path: Path) -> None:
    await Interactions(database).record_events("other", [StoredEvent("mine", "u", "i", "seen", None, 1)])
    with pytest.raises(BackupError, match=r"not empty: recommendations\.events has rows"):
        await restore(database, tmp_path / "h", made, False, silent)
    assert [row["event_id"] for row in (await everything(database))["recommendations.events"]] == ["mine"]
    await restore(database, tmp_path / "h", made, True, silent)
    assert [row["event_id"] for row in (await everything(database))["recommendations.events"]] == ["e"]


async def test_a_file_that_exists_is_not_written_over(made: Path, make: Make, tmp_path: Path) -> None:
    before = _bytes(made)
    with pytest.raises(FileExistsError):
        await backup(make("sqlite"), tmp_path, made, False, False, silent)
    assert _bytes(made) == before


async def test_a_home_with_another_bundle_of_that_name_is_refused(made: Path, make: Make, tmp_path: Path) -> None:
    home = tmp_path / "h"
    (home / "anime" / "bundles").mkdir(parents=True)
    (home / "anime" / "bundles" / "champion").write_text("somebody-else\n")
    with pytest.raises(BackupError, match=r"champion exists and is another one"):
        await restore(make("sqlite"), home, made, False, silent)
    assert (home / "anime" / "bundles" / "champion").read_text() == "somebody-else\n"


def _rewritten(file: Path, change: Callable[[str, bytes], bytes | None], also: dict[str, bytes] | None = None) -> Path:
    out = file.with_name(f"{secrets.token_hex(6)}.rewritten")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in (also or {}).items():
            new.writestr(name, data)
    return out


async def test_a_damaged_file_is_refused_and_nothing_is_changed(made: Path, make: Make, tmp_path: Path) -> None:
    whole = _bytes(made)
    with zipfile.ZipFile(made) as archive:
        at = archive.getinfo("tables/recommendations.events.jsonl").header_offset + 60
    events = "tables/recommendations.events.jsonl"
    damaged: dict[str, bytes] = {
        "cut off": whole[: len(whole) // 2],
        "empty": b"",
        "rubbish": b"rubbish" * 1_000,
        "one byte": whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :],
        "a changed row": _rewritten(made, lambda n, d: d.replace(b'"u"', b'"v"') if n == events else d).read_bytes(),
        "a missing table": _rewritten(made, lambda n, d: None if n == events else d).read_bytes(),
        "no manifest": _rewritten(made, lambda n, d: None if n == "manifest.json" else d).read_bytes(),
        "another manifest": _rewritten(made, lambda n, d: b"[]" if n == "manifest.json" else d).read_bytes(),
        "one more entry": _rewritten(made, lambda n, d: d, {"home/../../evil": b"x"}).read_bytes(),
    }
    database = make("sqlite")
    await database.ping()
    for what, content in damaged.items():
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(BackupError) as refused:
            await restore(database, tmp_path / "h", tmp_path / "bad", True, silent)
        assert exit_code(refused.value) == 3, what
        assert not (tmp_path / "h").exists(), what
    assert (await everything(database))["recommendations.events"] == []
    with pytest.raises(FileNotFoundError):
        await restore(database, tmp_path / "h", tmp_path / "nowhere", True, silent)


def _manifest(file: Path, **said: Any) -> Path:
    def change(name: str, data: bytes) -> bytes:
        return json.dumps({**json.loads(data), **said}).encode() if name == "manifest.json" else data

    return _rewritten(file, change)


async def test_a_backup_of_a_newer_version_is_refused(made: Path, make: Make, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="of revision 9999, which this version of Factotum does not know"):
        await restore(make("sqlite"), tmp_path / "h", _manifest(made, revision="9999"), False, silent)
    assert not (tmp_path / "h").exists()


async def test_an_entry_may_not_lead_out_of_the_home(made: Path, make: Make, tmp_path: Path) -> None:
    import hashlib

    for evil in ("home/../evil", "/etc/evil", "home", "other/x"):
        with zipfile.ZipFile(made) as archive:
            files = json.loads(archive.read("manifest.json"))["files"]
        files[evil] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
        bad = _rewritten(_manifest(made, files=files), lambda n, d: d, {evil: b"x"})
        with pytest.raises(BackupError, match="no backup of Factotum's"):
            await restore(make("sqlite"), tmp_path / "h", bad, False, silent)
        assert not (tmp_path / "evil").exists()


async def test_rows_that_do_not_fit_leave_the_database_as_it_was(database: Database, made: Path, tmp_path: Path) -> None:
    import hashlib

    await Interactions(database).record_events("other", [StoredEvent("mine", "u", "i", "seen", None, 1)])
    events = "tables/recommendations.events.jsonl"
    for bad_line in (b'{"domain":"d"}\n', b'{"stranger":1}\n', b"no json\n", b"[1]\n"):
        with zipfile.ZipFile(made) as archive:
            lines = archive.read(events) + bad_line
            files = json.loads(archive.read("manifest.json"))["files"]
        files[events] = {"sha256": hashlib.sha256(lines).hexdigest(), "bytes": len(lines)}
        bad = _rewritten(_manifest(made, files=files), lambda n, d, lines=lines: lines if n == events else d)  # type: ignore[misc]
        with pytest.raises(BackupError, match=r"recommendations\.events, line"):
            await restore(database, tmp_path / "h", bad, True, silent)
        assert [row["event_id"] for row in (await everything(database))["recommendations.events"]] == ["mine"]


async def test_rows_of_the_first_revision_are_restored_and_upgraded(database: Database, tmp_path: Path) -> None:
    import hashlib

    def line(**row: object) -> bytes:
        return json.dumps(row).encode() + b"\n"

    day = partitions.microseconds(date(2024, 5, 6))
    tables = {
        "events": line(domain="d", event_id="e", user="u", item="i", kind="seen", value=None, time=1, recorded_at=2),
        "slates": line(
            slate="s",
            domain="d",
            user=None,
            version="v",
            variant="x",
            mode="m",
            degraded="",
            notes="[]",
            request="{}",
            items="[]",
            created=day,
        ),
        "items": line(domain="d", item="i", title="T", cells="{}", available=True, recorded_at=3),
    }
    files = {f"tables/{n}.jsonl": {"sha256": hashlib.sha256(lines).hexdigest(), "bytes": len(lines)} for n, lines in tables.items()}
    with zipfile.ZipFile(tmp_path / "old", "w") as archive:
        for name, lines in tables.items():
            archive.writestr(f"tables/{name}.jsonl", lines)
        manifest = {"made": "2024-05-06T00:00:00+00:00", "database": "sqlite", "revision": "0001", "rows": {}, "files": files}
        archive.writestr("manifest.json", json.dumps(manifest))
    await restore(database, tmp_path / "h", tmp_path / "old", True, silent)
    found = await everything(database)
    assert [row["event_id"] for row in found["recommendations.events"]] == ["e"]
    assert [(row["slate"], row["created"]) for row in found["recommendations.slates"]] == [("s", day)]
    assert [row["available"] for row in found["recommendations.items"]] == [True]


async def test_secrets_are_in_a_backup_only_if_asked(make: Make, tmp_path: Path) -> None:
    home = tmp_path / "origin"
    home.mkdir()
    (home / "secrets.json").write_text('{"signing":"x"}')
    database = make("sqlite")
    for with_secrets in (False, True):
        out = tmp_path / f"b{with_secrets}"
        await backup(database, home, out, True, with_secrets, silent)
        with zipfile.ZipFile(out) as archive:
            assert ("home/secrets.json" in archive.namelist()) == with_secrets
    await restore(make("sqlite"), tmp_path / "h", tmp_path / "bTrue", False, silent)
    assert (tmp_path / "h" / "secrets.json").read_text() == '{"signing":"x"}'
    assert (tmp_path / "h" / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_the_command_line(tmp_path: Path) -> None:
    import subprocess
    import sys

    def factotum(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines", "db", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])

    home, other, file = str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "x.backup")
    assert factotum("status", "--home", home).returncode == 3
    assert not (tmp_path / "a").exists()
    assert factotum("upgrade", "--home", home).returncode == 0
    with sqlite3.connect(tmp_path / "a" / "factotum.db") as connection:
        connection.execute("INSERT INTO recommendations_events VALUES ('d', 'e', 'u', 'i', 'seen', NULL, 1, 2)")
    made = factotum("backup", "--out", file, "--home", home, "--json")
    assert json.loads(made.stdout)["rows"]["recommendations.events"] == 1
    assert factotum("restore", file, "--home", other).returncode == 0
    again = factotum("restore", file, "--home", other)
    assert again.returncode == 3
    assert "not empty" in again.stderr
    assert "Traceback" not in again.stderr
    told = json.loads(factotum("status", "--home", other, "--json").stdout)
    assert {table["table"]: table["rows"] for table in told["tables"]}["recommendations.events"] == 1
    with sqlite3.connect(tmp_path / "b" / "factotum.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    newer = factotum("upgrade", "--home", other)
    assert (newer.returncode, "9999" in newer.stderr) == (3, True)
