"""What a YAML may say: everything else is refused with the file, the place in it and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from configs import ConfigError
from configs.domain import Domain

HERE = Path(configs.__file__).parent


def plain() -> dict[str, Any]:
    """The smallest whole domain."""
    return {
        "title": "Books",
        "items": {"attributes": {"genre": {"type": "tags"}, "pages": {"type": "number", "low": 1}}},
        "events": {
            "kinds": {"read": {"means": ["seen"]}, "hated": {"means": ["disliked"], "weight": 0}},
            "scale": {"low": 1, "high": 5, "liked_from": 4, "disliked_to": 2},
        },
        "source": {"items": {"files": ["items.csv"]}, "events": [{"files": ["events.csv"], "kind": "read"}]},
        "candidates": {"popular": {"model": "popularity"}, "als": {"model": "als"}},
    }


def written(folder: Path, document: object, name: str = "books.yaml") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def test_every_domain_that_ships_can_be_loaded() -> None:
    assert "anime" in configs.names()
    for name in configs.names():
        assert configs.load(name).name == name
    assert list(configs.names()) == sorted(configs.names())


def test_names_and_paths(tmp_path: Path) -> None:
    path = written(tmp_path, plain())
    written(tmp_path, plain(), "albums.yaml")
    assert configs.names(tmp_path) == ("albums", "books")
    assert configs.load("books", tmp_path) == configs.load(str(path))
    assert configs.load(str(path)).name == "books"


def test_an_unknown_domain_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no domain 'cinema': there is no cinema\.yaml; known are .*anime"):
        configs.load("cinema")
    with pytest.raises(ConfigError, match="known are none"):
        configs.load("cinema", tmp_path)
    with pytest.raises(ConfigError, match=r"there is no cinema\.yaml"):
        configs.load(str(tmp_path / "cinema.yaml"))


Change = Callable[[dict[str, Any]], object]


def put(*path: str, value: object) -> Change:
    def change(document: dict[str, Any]) -> None:
        place = document
        for word in path[:-1]:
            place = place[word]
        place[path[-1]] = value

    return change


def itinerary(**words: Any) -> Change:
    """The section of the domain that ships, some of its words replaced."""
    whole = yaml.safe_load((HERE / "festival.yaml").read_text(encoding="utf-8"))["itinerary"]
    return put("itinerary", value={**whole, **words})


WRONG: dict[str, tuple[Change, str, str]] = {
    "unknown word": (put("colour", value="red"), "colour", "Extra inputs are not permitted, got 'red'"),
    "unknown word inside": (put("items", "attributes", "genre", "sep", value=";"), "items.attributes.genre.tags.sep", "Extra inputs"),
    "unknown type": (put("items", "attributes", "genre", value={"type": "tag"}), "items.attributes.genre", "'tags', 'category', 'number'"),
    "unknown model": (put("candidates", "als", value={"model": "svd"}), "candidates.als", "'popularity', 'content', 'als'"),
    "unknown meaning": (put("events", "kinds", "read", value={"means": ["saw"]}), "events.kinds.read.means.0", "'seen', 'liked'"),
    "missing word": (lambda document: document.pop("source"), "source", "Field required"),
    "out of range": (put("candidates", "als", "factors", value=2), "candidates.als.als.factors", "greater than or equal to 4, got 2"),
    "not a number": (put("candidates", "als", "alpha", value="much"), "candidates.als.als.alpha", "got 'much'"),
    "not finite": (put("candidates", "als", "alpha", value=float("inf")), "candidates.als.als.alpha", "finite number"),
    "bad name": (put("candidates", "My ALS", value={"model": "als"}), "candidates.My ALS", "should match pattern"),
    "scale upside down": (put("events", "scale", "liked_from", value=1), "events.scale", "low <= disliked_to < liked_from <= high"),
    "two capacities": (
        put("items", "attributes", value={name: {"type": "number", "capacity": True} for name in ("seats", "stock")}),
        "items",
        "seats, stock are all marked `capacity`; one at most is allowed",
    ),
    "demand without a capacity": (
        put("candidates", "popular", value={"model": "popularity", "demand": 3}),
        "(top)",
        "candidates.popular: `demand` needs an attribute of items that is marked `capacity`",
    ),
    "no kinds": (put("events", "kinds", value={}), "events", "at least one kind"),
    "kind that is not there": (
        put("source", "events", value=[{"files": ["e.csv"], "kind": "bought"}]),
        "(top)",
        "becomes 'bought', which is not among events.kinds (read, hated)",
    ),
    "attribute that is not there": (
        put("source", "items", "attributes", value={"colour": ["c"]}),
        "(top)",
        "source.items.attributes: 'colour' is not among items.attributes",
    ),
    "no popularity": (put("candidates", value={"als": {"model": "als"}}), "(top)", "one of them must be of model popularity"),
    "search for nothing": (
        put("search", value={"svd": {"words": {"factors": {"choices": [8]}}}}),
        "(top)",
        "'svd' is neither a source (popular, als)",
    ),
    "search for an unknown word": (
        put("search", value={"als": {"words": {"rank": {"choices": [8]}}}}),
        "(top)",
        "search.als: 'rank' is not a word of it",
    ),
    "search backwards": (put("search", value={"als": {"words": {"alpha": {"low": 3, "high": 1}}}}), "search.als.words.alpha", "low < high"),
    "call without a source": (
        put("calls", value=[{"method": "GET", "path": "/x", "answers": "svd"}]),
        "(top)",
        "answers 'svd'; allowed are als, popular, similar",
    ),
    "call without a key": (
        put("calls", value=[{"method": "GET", "path": "/x", "answers": "als"}]),
        "(top)",
        "every answer but popular needs a key",
    ),
    "shares of an experiment": (put("experiment", value={"a": {"share": 0.4}, "b": {"share": 0.4}}), "(top)", "must sum to 1"),
    "k above its limit": (put("serving", value={"k": 50, "max_k": 20}), "(top)", "k is above max_k"),
    "heads that do not divide": (
        put("candidates", "s", value={"model": "sasrec", "dimensions": 10, "heads": 4}),
        "candidates.s.sasrec",
        "multiple of heads (4)",
    ),
    "cron of four fields": (put("schedule", value={"n": {"run": "clean", "cron": "0 2 * *"}}), "schedule.n.cron", "should match pattern"),
    "seats without an itinerary": (
        put("schedule", value={"n": {"run": "seats", "cron": "*/5 * * * *"}}),
        "(top)",
        "schedule.n: `seats` needs a section `itinerary`",
    ),
    "timetable without an itinerary": (put("source", "reader", value="timetable"), "(top)", "`timetable` needs a section `itinerary`"),
    "zone that is none": (itinerary(zone="Mars/Olympus"), "itinerary.zone", "'Mars/Olympus' is no time zone; names of the IANA data base"),
    "zone that is a folder": (itinerary(zone="Europe"), "itinerary.zone", "'Europe' is no time zone"),
    "day that begins never": (itinerary(day_begins=24), "itinerary.day_begins", "less than or equal to 23, got 24"),
    "label without words": (
        itinerary(labels={"star": {"words": {"en": "a star"}}}),
        "itinerary",
        "labels.star: no words in ru; every language of `words` needs them",
    ),
    "order to nowhere": (itinerary(orders_to="somebody"), "itinerary.orders_to", "should match pattern"),
    "rule that is none": (itinerary(labels={"star": {"rule": "best"}}), "itinerary.labels.star.rule", "'repeat' or 'main'"),
    "job that is none": (put("schedule", value={"n": {"run": "dance", "cron": "0 2 * * *"}}), "schedule.n.run", "'run', 'ingest'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_word_is_refused_with_file_and_place(tmp_path: Path, case: str) -> None:
    change, place, said = WRONG[case]
    document = plain()
    change(document)
    path = written(tmp_path, document)
    with pytest.raises(ConfigError) as caught:
        configs.load(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:\n")
    assert any(line.startswith(f"  {place}") and said in line for line in message.splitlines()), message


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    document = plain()
    document["colour"] = "red"
    document["candidates"]["als"]["factors"] = 0
    with pytest.raises(ConfigError) as caught:
        configs.load(str(written(tmp_path, document)))
    assert "colour" in str(caught.value)
    assert "factors" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: [", "not YAML"),
        ("- a\n- b\n", "holds list, expected a mapping"),
        ("just words", "holds str"),
        ("", "title: Field required"),
        ("title: A\ntitle: B\n", "'title' stands twice"),
        ("candidates:\n  als: {model: als}\n  als: {model: als}\n", "'als' stands twice"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=said) as caught:
        configs.load(str(path))
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "books.yaml"
    path.write_bytes(b"title: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"books\.yaml: not YAML"):
        configs.load(str(path))


def test_a_file_s_name_must_be_a_domain_s_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name: String should match pattern"):
        configs.load(str(written(tmp_path, plain(), "my-books.yaml")))


def test_a_configuration_survives_json() -> None:
    for name in configs.names():
        domain = configs.load(name)
        assert Domain.model_validate_json(domain.model_dump_json()) == domain


def test_a_configuration_cannot_be_changed() -> None:
    domain = configs.load("anime")
    with pytest.raises(ValueError, match="frozen"):
        domain.title = "Other"  # type: ignore[misc]


def test_where_things_run(tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text("http: {port: 9000}\nreplicas: {layout: spread}\n")
    words = configs.load_deployment(path)
    assert (words.http.port, words.http.host, words.replicas.layout) == (9000, "127.0.0.1", "spread")
    path.write_text("http: {port: 99999}\npassword: secret\n")
    with pytest.raises(ConfigError) as caught:
        configs.load_deployment(path)
    assert "http.port" in str(caught.value)
    assert "password" in str(caught.value)
    with pytest.raises(ConfigError, match="no deployment file"):
        configs.load_deployment(tmp_path / "none.yaml")
    path.write_text("")
    assert configs.load_deployment(path).http.port == 8000


@pytest.mark.parametrize("statement", ["import configs; configs.load('anime')", "import pipelines.__main__"])
def test_reading_a_configuration_imports_nothing_heavy(statement: str) -> None:
    heavy = ("torch", "ray", "vllm", "lightgbm", "pyarrow.dataset", "sklearn")
    code = f"import sys; {statement}; print([module for module in {heavy} if module in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE.parent)
    assert done.stdout.strip() == "[]"
