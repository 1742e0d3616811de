"""A sixth domain is one YAML and its files: no Python knows of books, and yet they are recommended."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines import __main__ as command_line
from serving.engine import Engine
from serving.slate import Question, Range
from training import bundle

YAML = """
title: Books
items:
  noun: book
  nouns: books
  attributes:
    shelf: {type: tags, separator: "|", phrase: "the shelf {value}"}
    language: {type: category, missing: Unknown}
    pages: {type: number, low: 1, missing: mean}
events:
  scale: {low: 1, high: 5, liked_from: 4, disliked_to: 2}
  kinds:
    read:   {means: [seen], weight: 1.0}
    wished: {means: [interest], weight: 0.2}
  targets: [seen, liked]
  excluded: [seen, disliked]
source:
  items: {files: [library.csv], item: [isbn], title: [name], attributes: {shelf: [shelves], language: [lang], pages: [length]}}
  events:
    - files: [loans.csv]
      user: [reader]
      item: [isbn]
      value: [stars]
      time: [returned]
      kind_column: [what]
      kind: read
      kinds: {L: read, W: wished}
candidates:
  popular:    {model: popularity}
  content:    {model: content, title_words: 0}
  neighbours: {model: neighbours, neighbours: 20}
ranker: {candidates: 20, trees: 20, leaves: 5, leaf_rows: 5}
serving: {k: 5, exploration: {cold: 0.0}}
"""
BOOKS, READERS = 30, 80


def library(folder: Path) -> None:
    """Even readers read poetry (even books), odd ones travel (odd books); each has read 9 of the 15."""
    chance = np.random.default_rng(4)
    folder.mkdir(parents=True)
    with (folder / "library.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["isbn", "name", "shelves", "lang", "length"])
        for book in range(BOOKS):
            shelf = "Travel|Maps" if book % 2 else "Poetry"
            writer.writerow([f"978-{book:03d}", f"Book {book}", shelf, "" if book == 3 else "en", "" if book == 4 else 100 + book])
    loans = []
    for reader in range(READERS):
        for book in chance.choice(np.arange(reader % 2, BOOKS, 2), 9, replace=False):
            when = f"2025-{chance.integers(1, 7):02d}-{chance.integers(1, 29):02d}T{chance.integers(24):02d}:00:00Z"
            loans.append([when, f"r{reader}", f"978-{book:03d}", "L", chance.integers(3, 6)])
    with (folder / "loans.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["returned", "reader", "isbn", "what", "stars"])
        writer.writerows(sorted(loans))


@pytest.fixture(scope="module")
def engine(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """`factotum run books.yaml --data DIR --home DIR`, and the champion it made."""
    folder = tmp_path_factory.mktemp("books")
    (folder / "books.yaml").write_text(YAML)
    library(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        line = ["factotum", "run", folder / "books.yaml", "--data", folder / "data", "--home", folder / "home", "--quiet"]
        patch.setattr(sys, "argv", list(map(str, line)))
        command_line.main()
    version = bundle.alias(folder / "home", "books", "champion")
    assert version is not None
    return Engine(bundle.load(bundle.bundles_dir(folder / "home", "books") / version))


def test_every_reader_gets_their_own_shelf(engine: Engine) -> None:
    assert len(engine.users) == READERS
    assert len(engine.catalogue) == BOOKS
    right = 0
    for reader in range(READERS):
        row = engine.users.row(f"r{reader}")
        assert row is not None
        state = engine.histories.state(row)
        (slate,) = engine.recommend([Question(state, 5, engine.bundle.manifest.moment)])
        books = [int(item.item[4:]) for item in slate.items]
        assert len(books) == 5
        assert not {engine.catalogue.row(item.item) for item in slate.items} & set(state.excluded.tolist())
        right += sum(book % 2 == reader % 2 for book in books)
    assert right / (5 * READERS) > 0.95


def test_its_words_work_as_any_domains(engine: Engine) -> None:
    moment = engine.bundle.manifest.moment
    state = engine.histories.state(0)
    filters = {"shelf": ("maps",), "pages": Range(100, 110)}
    (slate,) = engine.recommend([Question(state, 10, moment, filters=filters, explain=True)])  # type: ignore[arg-type]
    assert {item.item for item in slate.items} == {f"978-{book:03d}" for book in (1, 3, 5, 7, 9)} - {
        engine.catalogue.ids.id(int(row)) for row in state.excluded
    }
    assert engine.catalogue.describe(3)["language"] == "Unknown"
    assert engine.catalogue.describe(4)["pages"] is None
    assert {item.item for item in engine.similar(0, 5)} <= {f"978-{book:03d}" for book in range(0, BOOKS, 2)}


def test_its_report_says_how_sure_it_is(engine: Engine) -> None:
    report = json.loads((engine.bundle.directory / "report.json").read_text())
    assert report["ordered"] is True
    assert report["verdict"]["passed"] is True
    assert report["rows"]["content"]["NDCG@10"]["mean"] > report["rows"]["popular"]["NDCG@10"]["mean"]
