"""Content: what is alike, what a profile is, and items that came after the fit."""

from __future__ import annotations

import numpy as np
import pytest

from configs.domain import ContentModel
from tests.worlds import KINDS, World, genres, world
from training.candidates.content import Content


def learnt(place: World, **words: float) -> Content:
    model = Content(ContentModel.model_validate({"model": "content", "title_words": 64, "dimensions": 8, **words}))
    model.fit(place.data)
    return model


def test_likes_of_one_genre_bring_that_genre() -> None:
    place = genres()
    scores = learnt(place).scores([place.person([1, 2])], place.now)[0]
    assert scores[:6].min() > scores[6:].max()


def test_an_item_nobody_took_is_reached() -> None:
    place = genres()
    scores = learnt(place).scores([place.person([6, 8])], place.now)[0]
    assert scores[10] > scores[:6].max()


def test_a_shared_title_is_nearest_and_said_so() -> None:
    place = genres()
    model = learnt(place, title_weight=3.0)
    assert model.similar(0).argmax() == 5
    told = model.because(place.person([0]), np.array([5, 4], dtype=np.int32))
    assert told[0] is not None
    assert (told[0].kind, told[0].item) == ("item", 0)
    assert told[1] is not None
    assert told[1].feature == "genre:Comedy"


def test_a_rare_tag_says_more_than_a_common_one() -> None:
    place = world(["Common, Rare", "Rare, Other", "Common, Other", *["Common"] * 20], [[0, 1]])
    near = learnt(place, title_words=0).similar(0)
    assert near[1] > near[2]


def test_near_numbers_are_alike() -> None:
    place = world(["A"] * 5, [[0, 1]], lengths=[10.0, 12.0, 60.0, 500.0, 5000.0])
    near = learnt(place, title_words=0).similar(0)
    assert near[1] > near[2] > near[3] > near[4]


def test_a_dislike_turns_away() -> None:
    place = genres()
    model = learnt(place)
    liking = place.person([1, 7])
    disliking = liking.then(8, KINDS.code("dislike"), float("nan"), place.now)
    with_it, without = model.scores([disliking, liking], place.now)
    assert with_it[8] < without[8]


def test_a_newcomer_with_words_is_answered() -> None:
    place = genres()
    model = learnt(place)
    named, unknown, nobody = model.scores(
        [place.person([], genre=("Drama",)), place.person([], genre=("Unheard of",)), place.person([])], place.now
    )
    assert named[6:].min() > named[:6].max()
    assert np.isneginf(unknown).all()
    assert np.isneginf(nobody).all()


def test_a_new_item_is_placed_by_what_it_bears() -> None:
    place = genres()
    model = learnt(place)
    larger = place.catalogue.with_item("later", "Kilo", {"genre": ["Drama", "Brand new word"], "form": "Film", "length": 90, "members": 0})
    placed = model.place(larger)
    np.testing.assert_allclose(placed.similar(7)[:12], model.similar(7), rtol=1e-6)
    assert placed.similar(12)[6:12].min() > placed.similar(12)[:6].max()
    assert np.isfinite(placed.scores([place.person([12])], place.now)).all()
    with pytest.raises(IndexError):
        model.similar(12)


@pytest.mark.parametrize("words", [{"title_words": 0}, {"title_words": 16, "dimensions": 512}])
def test_titles_left_out_or_too_few(words: dict[str, float]) -> None:
    place = genres()
    scores = learnt(place, **words).scores([place.person([1])], place.now)[0]
    assert np.isfinite(scores).all()


def test_lengths_are_one() -> None:
    place = genres()
    np.testing.assert_allclose(np.linalg.norm(learnt(place)._vectors, axis=1), 1.0, rtol=1e-5)
