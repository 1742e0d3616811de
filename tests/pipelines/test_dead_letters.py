"""`factotum dead-letters` and `factotum events`, as they are called."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import announce
from pipelines.steps import Reporter
from serving.storage.database import Database, address
from serving.storage.dead_letters import DeadLetters
from serving.storage.outbox import Envelope, Outbox, encode
from training import bundle

ROOT = Path(__file__).resolve().parents[2]


def call(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *words, "--home", str(home)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a letter of a secret and two plain ones."""

    async def write() -> None:
        database = Database(address(tmp_path))
        letters = DeadLetters(database)
        async with database.writing() as connection:
            for number, (consumer, kind) in enumerate(
                [("mail", "mail.requested"), ("security", "account.registered"), ("security", "x.y")]
            ):
                envelope = Envelope(kind, "a", {"account": "a", "values": {"token": "geheim"}}, f"event{number}")
                await letters.add(connection, consumer, envelope.event_id, encode(envelope), "it broke", 8)
        await database.close()

    asyncio.run(write())
    return tmp_path


def test_they_are_listed_shown_replayed_and_dropped(home: Path) -> None:
    listed = json.loads(call("dead-letters", "list", "--json", home=home).stdout)["dead_letters"]
    assert {letter["event_id"] for letter in listed} == {"event0", "event1", "event2"}
    shown = call("dead-letters", "show", "event0", home=home)
    assert "it broke" in shown.stdout
    assert "geheim" not in shown.stdout  # what is private is nobody's to read
    assert "geheim" in call("dead-letters", "show", "event1", home=home).stdout

    assert call("dead-letters", "replay", home=home).returncode == 3  # which ones must be said
    assert json.loads(call("dead-letters", "replay", "--consumer", "security", "--json", home=home).stdout)["replayed"] == 2
    assert json.loads(call("dead-letters", "replay", "--all", "--json", home=home).stdout) == {"replayed": 1, "not_replayed": []}
    assert json.loads(call("events", "status", "--json", home=home).stdout)["waiting"] == 3
    assert "no dead letters" in call("dead-letters", "list", home=home).stdout
    assert call("dead-letters", "drop", "event0", home=home).returncode == 0
    gone = call("dead-letters", "drop", "event0", home=home)
    assert gone.returncode == 3
    assert "event0" in gone.stderr


def test_a_new_champion_is_announced_once_a_change(tmp_path: Path) -> None:
    folder = bundle.bundles_dir(tmp_path, "anime")
    folder.mkdir(parents=True)
    (folder / "champion.history").write_text("2026-01-01 v1\n", encoding="utf-8")
    with Reporter(quiet=True, json=False) as reporter:
        for _ in range(2):
            announce.champion(tmp_path, "anime", "bundle.promoted", "v1", None, "", reporter)

    async def waiting() -> int:
        database = Database(address(tmp_path))
        try:
            return (await Outbox(database, False).waiting()).count
        finally:
            await database.close()

    assert asyncio.run(waiting()) == 1


def test_a_database_that_is_away_does_not_undo_a_promotion(tmp_path: Path) -> None:
    folder = bundle.bundles_dir(tmp_path, "anime")
    folder.mkdir(parents=True)
    (folder / "champion.history").write_text("2026-01-01 v1\n", encoding="utf-8")
    with Reporter(quiet=True, json=False) as reporter:
        announce.champion(tmp_path, "anime", "bundle.promoted", "v1", None, "postgresql://nobody@127.0.0.1:1/none", reporter)
