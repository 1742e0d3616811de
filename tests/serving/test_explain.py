"""Evidence -> reasons -> sentences, by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from configs.domain import Category, Items, Number, Tags
from features.catalogue import build
from serving.explain import MOST_REASONS, reasons, sentence, split_contributions
from serving.slate import Reason
from training.contract import Evidence

SCHEMA = Items(
    noun="title",
    nouns="titles",
    attributes={
        "genre": Tags(type="tags", phrase="the genre {value}"),
        "form": Category(type="category", phrase="the form {value}"),
        "members": Number(type="number", missing=0.0, prior=True, phrase="the size of its audience"),
    },
)
CATALOGUE = build(SCHEMA, ["a", "b"], ["Moon Cafe", "Harbour"], [True, True], {"genre": ["Comedy", "Drama"]})
TITLES = {"a": "Moon Cafe", "b": "Harbour"}


def told(*why: Reason, language: str = "en") -> str | None:
    return sentence(why, TITLES.__getitem__, SCHEMA, "ru" if language == "ru" else "en")


def test_shares_are_of_all_that_mattered_largest_first() -> None:
    got = reasons(
        {"als": [Evidence("item", 0.9, item=0)], "popular": [Evidence("popular", 40.0)]},
        {"als": 0.5, "popular": 1.0, "content": 0.5},
        {},
        CATALOGUE,
    )
    assert [(reason.kind, reason.item, reason.source, reason.share, reason.sign) for reason in got] == [
        ("popular", None, "popular", 0.5, 1),
        ("item", "a", "als", 0.25, 1),
    ]


def test_the_same_evidence_of_two_sources_is_one_reason() -> None:
    got = reasons(
        {"als": [Evidence("item", 0.2, item=1)], "sasrec": [Evidence("item", 0.7, item=1)]}, {"als": 0.25, "sasrec": 0.75}, {}, CATALOGUE
    )
    assert len(got) == 1
    assert (got[0].source, got[0].share, got[0].value, got[0].item) == ("als+sasrec", 1.0, 0.7, "b")


def test_contributions_have_their_sign_and_two_features_are_named() -> None:
    got = reasons(
        {"als": [Evidence("item", 0.9, item=0)]},
        {"als": -0.4},
        {"item.recent": 0.3, "pair.genre_affinity": -0.2, "user.history": 0.1, "item.trend": 0.0},
        CATALOGUE,
    )
    assert [(reason.kind, reason.feature, reason.sign, reason.share) for reason in got] == [
        ("item", None, -1, 0.4),
        ("feature", "item.recent", 1, 0.3),
        ("feature", "pair.genre_affinity", -1, 0.2),
    ]


def test_parts_of_a_score_share_what_their_source_contributed() -> None:
    """ALS contributed 0.8 of 1.0: half of it by the first item, a quarter against it by the second; the genre stands alone."""
    parts = [Evidence("item", 0.6, item=0, share=0.5), Evidence("item", -0.3, item=1, share=0.25)]
    got = reasons(
        {"als": parts, "content": [Evidence("attribute", 0.4, feature="genre:Comedy")]}, {"als": 0.8, "content": 0.2}, {}, CATALOGUE
    )
    assert [(reason.item, reason.feature, reason.share, reason.sign, reason.value) for reason in got] == [
        ("a", None, 0.4, 1, 0.6),
        (None, "genre:Comedy", 0.2, 1, 0.4),
        ("b", None, 0.2, -1, -0.3),
    ]
    turned = reasons({"als": parts}, {"als": -0.8}, {}, CATALOGUE)  # the ranker holds the source's word against the item
    assert [(reason.item, reason.sign) for reason in turned] == [("a", -1), ("b", 1)]


def test_at_most_so_many_and_the_same_order_every_time() -> None:
    evidence = {f"s{number}": [Evidence("attribute", 1.0, feature=f"genre:{number}")] for number in range(9)}
    strengths = dict.fromkeys(evidence, 1.0)
    got = reasons(evidence, strengths, {}, CATALOGUE)
    assert len(got) == MOST_REASONS
    backwards = reasons(dict(reversed(list(evidence.items()))), strengths, {}, CATALOGUE)
    assert [reason.feature for reason in backwards] == [reason.feature for reason in got]


def test_nothing_said_is_no_reason() -> None:
    assert reasons({}, {}, {}, CATALOGUE) == ()
    assert told() is None


def test_contributions_are_split_between_sources_and_features() -> None:
    names = ("als.score", "new.als.score", "als.place", "sources", "item.score")
    by_source, others = split_contributions(names, ("als", "new.als"), np.array([0.1, 0.4, 0.2, 0.3, 0.5, 9.0]))
    assert by_source == pytest.approx({"als": 0.3, "new.als": 0.4})
    assert others == pytest.approx({"sources": 0.3, "item.score": 0.5})


ITEM = Reason("item", 0.9, 1, 0.5, item="a")
GENRE = Reason("attribute", 0.9, 1, 0.3, feature="genre:Comedy")
MANY = Reason("popular", 1234.0, 1, 0.2)


def test_sentences_in_english() -> None:
    assert told(ITEM) == "It goes with “Moon Cafe”, which you know."
    assert told(ITEM, Reason("item", 0.5, 1, 0.2, item="b")) == "It goes with “Moon Cafe” and “Harbour”, which you know."
    assert told(GENRE, MANY) == "It shares the genre Comedy with what you like and 1,234 people chose it."
    assert told(Reason("cluster", 0.25, 1, 1.0)) == "25% of people with a taste like yours chose it."
    assert told(Reason("new", 1.0, 1, 1.0)) == "It is new among the titles."


def test_sentences_in_russian() -> None:
    assert told(ITEM, language="ru") == "Подходит к тому, что вы знаете: «Moon Cafe»."
    assert told(GENRE, MANY, language="ru") == "Общее с тем, что вам нравится: Comedy и выбрали столько людей: 1234."


def test_the_catalogues_own_count_is_not_said_to_be_people_who_chose() -> None:
    prior = Reason("popular", 5000.0, 1, 1.0, feature="members")
    assert told(prior) == "It is known for the size of its audience."
    assert "выбрали" not in (told(prior, language="ru") or "")


def test_two_reasons_at_most_and_none_that_speaks_against_it() -> None:
    against = Reason("item", 0.9, -1, 0.9, item="b")
    feature = Reason("feature", 0.9, 1, 0.9, feature="item.recent")
    assert told(against, feature) is None
    assert told(against, ITEM, GENRE, MANY) == "It goes with “Moon Cafe”, which you know and it shares the genre Comedy with what you like."


@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_kind_of_evidence_has_a_sentence(language: str) -> None:
    for kind in ("item", "attribute", "popular", "cluster", "new"):
        said = told(
            Reason(kind, 0.4, 1, 1.0, item="b" if kind == "item" else None, feature="genre:Drama" if kind == "attribute" else None),
            language=language,
        )
        assert said is not None
        assert said[0] == said[0].upper()
        assert said.endswith(".")
        assert not re.search(r"\{|\}|None", said)


def test_braces_in_a_word_are_no_placeholders() -> None:
    assert "{value}" in (told(Reason("attribute", 0.4, 1, 1.0, feature="genre:{value}")) or "")
