from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest

from pipelines.steps import Reporter, Step, StepBusy, atomic, files_state, fingerprint, latest, upstream, write_json


def test_a_fingerprint_depends_on_content_and_not_on_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint("a", "b") != fingerprint("ab")
    assert len(fingerprint()) == 16
    with pytest.raises(ValueError, match="Out of range"):
        fingerprint(float("nan"))


def test_a_files_state_tells_a_change(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("a")
    before = files_state([path])
    os.utime(path, ns=(1, 1))
    assert files_state([path]) != before
    assert files_state([path]) == [("f", 1, 1)]


def test_what_is_written_atomically_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}

    def fails_half_way() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fails_half_way()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.json"]


def test_a_step_is_done_when_it_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "toy" / "ingest" / "abc"
    with Step(directory) as step:
        assert step.done is None
        with pytest.raises(StepBusy, match="another process is at work"), Step(directory):
            pass
        with pytest.raises(FileNotFoundError, match="no finished step"):
            upstream(directory)
        step.finish({"rows": 3})
    with Step(directory) as again:
        assert again.done is not None
        assert again.done["rows"] == 3
    assert upstream(directory) == "abc"


def test_latest_is_what_was_finished_last(tmp_path: Path) -> None:
    assert latest(tmp_path, "toy", "ingest") is None
    for age, name in ((30, "b"), (10, "a"), (20, "c")):
        with Step(tmp_path / "toy" / "ingest" / name) as step:
            step.finish({})
        when = time.time() - age
        os.utime(tmp_path / "toy" / "ingest" / name / "DONE.json", (when, when))
    (tmp_path / "toy" / "ingest" / "unfinished").mkdir()
    assert latest(tmp_path, "toy", "ingest") == tmp_path / "toy" / "ingest" / "a"


def test_the_reporter_writes_lines_json_or_nothing() -> None:
    def told(**how: bool) -> str:
        stream = io.StringIO()
        with Reporter(stream=stream, **how) as reporter:
            reporter.step("ingest")
            reporter.say("hello")
            for share in (0.0, 0.1, 0.2, 1.0, 1.0):
                reporter.progress("rows", share)
        return stream.getvalue()

    assert told() == "== ingest\n   hello\n   rows 0%\n   rows 100%\n"
    assert told(quiet=True) == ""
    lines = [json.loads(line) for line in told(json=True).splitlines()]
    assert [line["event"] for line in lines] == ["step", "say", "progress", "progress"]
    assert lines[-1]["share"] == 1.0
    assert {line["step"] for line in lines} == {"ingest"}


def test_on_a_terminal_the_bar_goes_away() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    reporter = Reporter(stream=stream)

    def interrupted() -> None:
        with reporter:
            reporter.step("train")
            reporter.progress("epochs", 0.5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    reporter.say("after")
    assert "epochs" in stream.getvalue()
    assert stream.getvalue().endswith("   after\n")
