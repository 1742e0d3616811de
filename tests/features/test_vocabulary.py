from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.vocabulary import MAX_ID_BYTES, Vocabulary

identifier = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
ids = st.lists(identifier, unique=True, max_size=20)


@given(ids, ids, identifier)
def test_rows_and_ids_are_each_others_inverse(first: list[str], later: list[str], stranger: str) -> None:
    known = Vocabulary(first)
    more = known
    for one in later:
        more = more.plus(one)
        assert more.add(one) == more.row(one)
    order = list(dict.fromkeys([*first, *later]))
    assert more.ids(range(len(more))) == order
    assert [more.row(one) for one in order] == list(range(len(order)))
    assert more.rows(order).tolist() == list(range(len(order)))
    assert (more.row(stranger) is None) == (stranger not in order)
    assert more.rows([stranger, *order])[0] == (order.index(stranger) if stranger in order else -1)
    assert len(known) == len(first), "the first one stays as it was"
    assert all(known.row(one) is None for one in later if one not in first)


@given(ids, ids)
def test_it_comes_back_from_disk(tmp_path_factory: pytest.TempPathFactory, first: list[str], later: list[str]) -> None:
    vocabulary = Vocabulary(first)
    for one in later:
        vocabulary.add(one)
    directory = tmp_path_factory.mktemp("ids")
    vocabulary.save(directory)
    back = Vocabulary.load(directory)
    assert back.ids(range(len(back))) == vocabulary.ids(range(len(vocabulary)))
    assert all(back.row(one) == vocabulary.row(one) for one in [*first, *later])


def test_what_is_no_id_is_refused() -> None:
    for wrong in ("", "a\0b", "x" * (MAX_ID_BYTES + 1), "é" * (MAX_ID_BYTES // 2 + 1)):
        with pytest.raises(ValueError, match="not an id"):
            Vocabulary([wrong])
        with pytest.raises(ValueError, match="not an id"):
            Vocabulary(["a"]).plus(wrong)
        assert Vocabulary(["a"]).row(wrong) is None
    with pytest.raises(ValueError, match="'a' occurs twice"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(ValueError, match="'a' occurs twice"):
        Vocabulary.of_bytes(np.array([b"a", b"b", b"a"]))
    assert Vocabulary(["a"]).row("\ud800") is None
    for beyond in (-1, 1):
        with pytest.raises(IndexError):
            Vocabulary(["a"]).id(beyond)


def test_ids_longer_than_all_known_are_unknown_and_not_cut() -> None:
    vocabulary = Vocabulary(["ab", "cd"])
    assert vocabulary.row("abc") is None
    assert vocabulary.rows(["abc", "ab", "a"]).tolist() == [-1, 0, -1]


def test_ids_as_bytes_are_the_same_vocabulary(tmp_path: Path) -> None:
    words = ["b", "a", "漢字"]
    made = Vocabulary.of_bytes(np.array([word.encode() for word in words]))
    assert (made.ids(range(3)), made.rows(words).tolist()) == (words, [0, 1, 2])
    assert len(Vocabulary.of_bytes(np.empty(0, dtype="S1"))) == 0
