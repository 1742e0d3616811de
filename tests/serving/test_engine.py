"""Question -> slate, on a small trained world: what may never be shown, how many, in which order, by chance or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.compute import attribute_vectors
from features.state import UserState
from serving import explain
from serving.engine import Engine
from serving.filters import FilterError
from serving.slate import Question, Range, Slate, Words
from tests.serving.small_world import GENRES, ITEMS, MOMENT, PEOPLE, SmallWorld
from training import bundle, metrics
from training.contract import CandidateModel, Evidence

NOW = MOMENT + 3_600_000_000
NAN = float("nan")


@pytest.fixture(scope="session")
def engine(world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    home = tmp_path_factory.mktemp("engine")
    return Engine(bundle.load(bundle.bundles_dir(home, "anime") / world.publish(home)))


@pytest.fixture(scope="session")
def one_source(world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    home = tmp_path_factory.mktemp("engine")
    return Engine(bundle.load(bundle.bundles_dir(home, "anime") / world.publish(home, mode="als")))


def ask(engine: Engine, person: int | UserState, k: int = 10, **words: Any) -> Question:
    state = engine.histories.state(person) if isinstance(person, int) else person
    return replace(Question(state, k, NOW, exploration=0.0), **words)


def one(engine: Engine, question: Question) -> Slate:
    (slate,) = engine.recommend([question])
    return slate


def shown(slate: Slate) -> list[str]:
    return [item.item for item in slate.items]


def rows_of(engine: Engine, slate: Slate) -> NDArray[np.int32]:
    return np.array([engine.catalogue.row(item.item) for item in slate.items], dtype=np.int32)


def genre(engine: Engine, item: str) -> set[str]:
    row = engine.catalogue.row(item)
    assert row is not None
    words = engine.catalogue.describe(row)["genre"]
    assert isinstance(words, list)
    return set(words)


def newcomer(engine: Engine, **preferences: tuple[str, ...]) -> UserState:
    return UserState.empty(engine.kinds, preferences)


# ------------------------------------------------------------ any question at all

FILTERS: list[dict[str, Words | Range]] = [
    {},
    {"genre": ("Comedy",)},
    {"genre": ("drama", "ACTION")},
    {"type": ("Movie",)},
    {"episodes": Range(10, 30)},
    {"rating": Range(None, 6.0), "genre": ("Horror",)},
    {"episodes": Range(1000, None)},
]


@st.composite
def questions(draw: st.DrawFn) -> tuple[int, list[tuple[int, str]], dict[str, Any]]:
    """A person (-1: nobody), what happened to them since, and the words of a question."""
    person = draw(st.integers(-1, PEOPLE - 1))
    kinds = st.sampled_from(["completed", "planned", "dropped", "dislike", "like", "click", "impression", "undo"])
    since = draw(st.lists(st.tuples(st.integers(0, ITEMS - 1), kinds), max_size=6))
    words: dict[str, Any] = {
        "k": draw(st.sampled_from([1, 3, 10, 25, 80])),
        "filters": draw(st.sampled_from(FILTERS)),
        "exclude": tuple(draw(st.lists(st.integers(0, ITEMS - 1), max_size=5))),
        "diversity": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "exploration": draw(st.sampled_from([None, 0.0, 0.5, 1.0])),
        "seed": draw(st.sampled_from([None, 1, 7])),
        "sources": draw(st.sampled_from([None, None, ("als",), ("content",), ("sasrec",), ("popular",)])),
        "explain": draw(st.booleans()),
    }
    return person, since, words


def built(engine: Engine, person: int, since: Sequence[tuple[int, str]], words: dict[str, Any]) -> Question:
    state = engine.histories.state(person) if person >= 0 else newcomer(engine)
    for place, (item, kind) in enumerate(since):
        state = state.then(item, engine.kinds.code(kind), NAN, MOMENT + place)
    return ask(engine, state, **words)


ANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANY
@given(asked=questions())
def test_whatever_is_asked_the_rules_hold(engine: Engine, asked: tuple[int, list[tuple[int, str]], dict[str, Any]]) -> None:
    question = built(engine, *asked)
    slate = one(engine, question)
    rows = rows_of(engine, slate)
    allowed = engine.allowed(question.filters).copy()
    allowed[question.state.excluded] = False
    allowed[list(question.exclude)] = False
    assert allowed[rows].all()  # neither seen, nor disliked, nor forbidden, nor unavailable
    assert len(set(rows.tolist())) == len(rows) == min(question.k, int(allowed.sum()))  # k is honoured whenever the catalogue allows
    assert [item.rank for item in slate.items] == list(range(1, len(rows) + 1))
    assert all(0.0 < item.propensity <= 1.0 for item in slate.items)
    assert all(np.isfinite(item.score) for item in slate.items)
    assert all(item.sources and set(item.sources) <= set(engine.sources) for item in slate.items)
    assert all(item.title == engine.catalogue.titles[row] for item, row in zip(slate.items, rows, strict=True))
    known = {engine.catalogue.ids.id(int(row)) for row in question.state.folded.items}
    for item in slate.items:
        assert item.reasons
        for reason in item.reasons:
            assert reason.kind in {"item", "attribute", "popular", "cluster", "new", "feature"}
            assert reason.sign in (-1, 0, 1)
            assert 0.0 <= reason.share <= 1.0
            assert reason.kind != "item" or reason.item in known
        assert sum(reason.share for reason in item.reasons) <= 1.0 + 1e-3
        assert question.explain or item.explanation is None
    again = one(engine, question)
    assert again.items == slate.items
    assert again.slate != slate.slate


@settings(parent=ANY, max_examples=15)
@given(batch=st.lists(questions(), min_size=2, max_size=6))
def test_a_mixed_batch_is_answered_as_one_by_one(
    engine: Engine, one_source: Engine, batch: list[tuple[int, list[tuple[int, str]], dict[str, Any]]]
) -> None:
    for serving in (engine, one_source):
        asked = [built(serving, *each) for each in batch]
        for question, together in zip(asked, serving.recommend(asked), strict=True):
            alone = one(serving, question)
            assert shown(together) == shown(alone)
            np.testing.assert_allclose([item.score for item in together.items], [item.score for item in alone.items], atol=1e-5)
            assert [item.propensity for item in together.items] == [item.propensity for item in alone.items]
            assert together.mode == alone.mode
            assert together.notes == alone.notes


# ------------------------------------------------------------ what is found


def test_people_get_what_their_kind_watches(engine: Engine) -> None:
    for person in (3, 30, 59, 60, 90, 119):
        wanted = {"Action", "Comedy"} if person < 60 else {"Drama", "Horror"}
        top = shown(one(engine, ask(engine, person, 5)))
        assert sum(bool(genre(engine, item) & wanted) for item in top) >= 4


def test_what_was_just_seen_or_disliked_is_gone_and_comes_back_when_undone(engine: Engine) -> None:
    state = engine.histories.state(3)
    first = shown(one(engine, ask(engine, state)))[0]
    row = engine.catalogue.row(first)
    assert row is not None
    for kind in ("completed", "dislike", "dropped"):
        later = state.then(row, engine.kinds.code(kind), NAN, NOW)
        assert first not in shown(one(engine, ask(engine, later, 60)))
        undone = later.then(row, engine.kinds.code("undo"), NAN, NOW + 1)
        assert shown(one(engine, ask(engine, undone))) == shown(one(engine, ask(engine, state)))


def test_an_event_changes_the_next_answer(engine: Engine) -> None:
    state = newcomer(engine)
    for row in (2, 6, 10):  # three dramas
        state = state.then(row, engine.kinds.code("like"), NAN, NOW - 10)
    before, after = (shown(one(engine, ask(engine, each))) for each in (newcomer(engine), state))
    assert before != after
    assert sum("Drama" in genre(engine, item) or "Horror" in genre(engine, item) for item in after) > 5


def test_somebody_known_only_by_a_few_titles(engine: Engine) -> None:
    rows = [1, 5, 9]  # comedies, sent with the request
    state = UserState.of_items(engine.kinds, rows, engine.kinds.code("completed"), NOW)
    slate = one(engine, ask(engine, state))
    assert not slate.notes
    assert sum(bool(genre(engine, item) & {"Action", "Comedy"}) for item in shown(slate)[:5]) >= 4
    assert {"als", "sasrec", "content"} <= {source for item in slate.items for source in item.sources}


def test_a_cold_start_says_so_and_named_genres_come_first(engine: Engine) -> None:
    slate = one(engine, ask(engine, newcomer(engine, genre=("Horror",)), 12))
    assert slate.notes
    assert slate.notes[0].startswith("cold start")
    assert len(range(3, ITEMS - 1, 4)) == 14
    assert all(genre(engine, item) == {"Horror"} for item in shown(slate))
    plain = one(engine, ask(engine, newcomer(engine), 12))
    assert shown(plain) == [item.item for item in engine.popular(12)]


def test_a_cold_slate_explores_by_default_and_a_warm_one_does_not(engine: Engine) -> None:
    cold = one(engine, ask(engine, newcomer(engine), exploration=None, seed=1))
    assert sum(item.propensity < 1.0 for item in cold.items) == 2  # a fifth of ten
    warm = one(engine, ask(engine, 3, exploration=None, seed=1))
    assert all(item.propensity == 1.0 for item in warm.items)


@pytest.mark.parametrize("k", [30, 45])
def test_a_long_slate_explores_too(engine: Engine, k: int) -> None:
    cold = one(engine, ask(engine, newcomer(engine), k, exploration=0.2, seed=1))
    assert sum(item.propensity < 1.0 for item in cold.items) == round(0.2 * k)


def test_propensities_are_the_frequencies(engine: Engine) -> None:
    rounds = 400
    asked = [ask(engine, newcomer(engine), exploration=0.5, seed=seed, reasons=False) for seed in range(rounds)]
    counted: dict[str, int] = {}
    said: dict[str, float] = {}
    for slate in engine.recommend(asked):
        for item in slate.items:
            counted[item.item] = counted.get(item.item, 0) + 1
            said[item.item] = item.propensity
    assert len(said) == 5 + 50  # five kept, the rest from the pool
    for name, count in counted.items():
        sigma = np.sqrt(said[name] * (1.0 - said[name]) / rounds)
        assert abs(count / rounds - said[name]) <= 4 * sigma + 1e-9
    assert sum(said.values()) == pytest.approx(10.0, abs=1e-3)  # every place is somebody's


def test_the_seed_is_the_persons_the_days_and_the_models(engine: Engine) -> None:
    def drawn(**words: Any) -> list[str]:
        return shown(one(engine, ask(engine, newcomer(engine), exploration=0.8, **words)))

    assert drawn(user="u1") == drawn(user="u1")
    assert drawn(user="u1", now=NOW + 1) == drawn(user="u1")
    others = [drawn(user="u2"), drawn(user="u1", now=NOW + 86_400_000_000), drawn(user="u1", seed=5)]
    assert all(other != drawn(user="u1") for other in others)
    assert drawn(user="u1", seed=5) == drawn(user="u2", seed=5)


def test_diversity_makes_a_slate_less_alike(engine: Engine) -> None:
    vectors = attribute_vectors(engine.catalogue)

    def alike(diversity: float) -> float:
        asked = [ask(engine, person, diversity=diversity, reasons=False) for person in range(0, PEOPLE, 6)]
        return float(metrics.diversity([rows_of(engine, slate) for slate in engine.recommend(asked)], vectors).mean())

    assert alike(0.0) < alike(0.5) < alike(1.0) + 0.02
    assert shown(one(engine, ask(engine, 3, diversity=0.0))) == shown(one(engine, ask(engine, 3)))


def test_ties_break_by_the_catalogue(engine: Engine) -> None:
    state = newcomer(engine)
    scores = [(item.score, engine.catalogue.row(item.item)) for item in one(engine, ask(engine, state, 59)).items]
    assert scores == sorted(scores, key=lambda pair: (-pair[0], pair[1]))


def test_k_beyond_candidates_and_catalogue(engine: Engine) -> None:
    state = engine.histories.state(3)
    free = int(engine.catalogue.available.sum()) - len(state.excluded)
    for k in (free - 1, free, free + 1, 1000):
        assert len(one(engine, ask(engine, state, k)).items) == min(k, free)
    everything = tuple(range(ITEMS))
    assert one(engine, ask(engine, state, exclude=everything)).items == ()


def test_one_source_alone_keeps_its_own_order(engine: Engine, world: SmallWorld) -> None:
    state = engine.histories.state(3)
    slate = one(engine, ask(engine, state, sources=("als",)))
    scores = world.models["als"].scores([state], NOW)[0]
    scores[state.excluded] = -np.inf
    scores[~engine.catalogue.available] = -np.inf
    assert rows_of(engine, slate).tolist() == np.lexsort((np.arange(ITEMS), -scores))[:10].tolist()
    assert slate.mode == "als"


# ------------------------------------------------------------ filters


@pytest.mark.parametrize(
    ("filters", "allowed"),
    [
        ({"genre": ("Western",)}, GENRES),
        ({"type": ("TV", "Radio")}, ("Movie", "TV")),
        ({"colour": ("red",)}, ("genre", "type", "episodes", "rating", "members")),
    ],
)
def test_an_unknown_word_is_refused_with_what_is_allowed(
    engine: Engine, filters: dict[str, Words | Range], allowed: tuple[str, ...]
) -> None:
    for refused in (lambda: engine.check(filters), lambda: one(engine, ask(engine, 3, filters=filters))):
        with pytest.raises(FilterError) as caught:
            refused()
        assert caught.value.attribute == next(iter(filters))
        assert set(caught.value.allowed) == set(allowed)
        assert next(iter(filters)) in str(caught.value)


def test_a_range_of_words_and_a_word_for_a_number_are_refused(engine: Engine) -> None:
    with pytest.raises(FilterError, match="not a range"):
        engine.check({"genre": Range(1, 2)})
    with pytest.raises(FilterError, match="not a range"):
        engine.check({"type": Range(1, 2)})
    with pytest.raises(FilterError, match="give a range"):
        engine.check({"episodes": ("12",)})


@settings(parent=ANY, max_examples=60)
@given(
    words=st.lists(st.sampled_from(GENRES), min_size=1, max_size=4),
    kinds=st.lists(st.sampled_from(["TV", "Movie"]), min_size=1, max_size=2),
    low=st.floats(0, 70),
    width=st.floats(0, 40),
)
def test_a_filter_allows_exactly_what_it_says(engine: Engine, words: list[str], kinds: list[str], low: float, width: float) -> None:
    mask = engine.allowed({"genre": tuple(words), "type": tuple(kinds), "episodes": Range(low, low + width)})
    for row in range(ITEMS):
        said = engine.catalogue.describe(row)
        fits = GENRES[row % 4] in words and said["type"] in kinds and low <= 1 + row <= low + width
        assert mask[row] == (fits and row != ITEMS - 1)


def test_no_mask_can_be_changed_by_who_asked(engine: Engine) -> None:
    before = engine.allowed({"genre": ("Comedy",)}).copy()
    one(engine, ask(engine, 3, filters={"genre": ("Comedy",)}, exclude=(1, 5)))
    np.testing.assert_array_equal(engine.allowed({"genre": ("Comedy",)}), before)


# ------------------------------------------------------------ without a person, and items that come later


def test_popular_is_the_available_most_chosen(engine: Engine) -> None:
    items = engine.popular(10)
    assert [item.rank for item in items] == list(range(1, 11))
    assert [item.score for item in items] == sorted((item.score for item in items), reverse=True)
    assert len(engine.popular(1000)) == ITEMS - 1


def test_similar_items_share_what_they_are(engine: Engine) -> None:
    items = engine.similar(0, 8)
    assert len(items) == 8
    assert "1000" not in {item.item for item in items}
    assert all("Action" in genre(engine, item.item) for item in items[:4])
    assert all(item.sources == ("content",) for item in items)
    assert len(engine.similar(0, 1000)) == ITEMS - 2  # not itself, not what cannot be had
    for row in (-1, ITEMS):
        with pytest.raises(IndexError):
            engine.similar(row, 3)


def test_a_new_item_is_reachable_at_once_and_the_old_engine_knows_nothing_of_it(engine: Engine) -> None:
    before = shown(one(engine, ask(engine, 100, 60)))
    newer = engine.with_item("new", "Horror story, newly made", {"genre": "Horror", "type": "TV", "episodes": 13, "rating": 8})
    row = newer.catalogue.row("new")
    assert row == ITEMS
    assert engine.catalogue.row("new") is None
    assert shown(one(engine, ask(engine, 100, 60))) == before
    fan = UserState.of_items(newer.kinds, [3, 7, 11, 15], newer.kinds.code("completed"), NOW)
    by_content = one(newer, ask(newer, fan, 5, sources=("content",)))
    assert "new" in shown(by_content)
    slate = one(newer, ask(newer, fan, 60, filters={"episodes": Range(13, 13)}))
    assert "new" in shown(slate)
    assert "content" in next(item for item in slate.items if item.item == "new").sources
    assert "new" in {item.item for item in newer.similar(3, 20)}
    assert newer.similar(ITEMS, 3)
    assert len(newer.popular(1000)) == ITEMS
    seen = fan.then(ITEMS, newer.kinds.code("completed"), NAN, NOW)
    assert "new" not in shown(one(newer, ask(newer, seen, 60)))


def test_a_new_genre_can_be_filtered_by(engine: Engine) -> None:
    newer = engine.with_item("opera", "An opera", {"genre": "Music", "type": "Stage"})
    assert shown(one(newer, ask(newer, 3, filters={"genre": ("Music",)}))) == ["opera"]
    with pytest.raises(FilterError):
        engine.check({"genre": ("Music",)})


def test_two_engines_that_grow_apart_do_not_disturb_each_other(engine: Engine) -> None:
    first = engine.with_item("left", "Left", {"genre": "Comedy"})
    second = engine.with_item("right", "Right", {"genre": "Drama"})
    assert (first.catalogue.row("left"), first.catalogue.row("right")) == (ITEMS, None)
    assert (second.catalogue.row("left"), second.catalogue.row("right")) == (None, ITEMS)
    assert shown(one(second, ask(second, 3, filters={"episodes": Range(None, None), "genre": ("Drama",)}, k=60))).count("right") <= 1
    assert {item.item for item in second.popular(1000)} >= {"right"}


# ------------------------------------------------------------ when a source fails


class Failing:
    """A source of the bundle that stopped working."""

    def __init__(self, model: CandidateModel, where: str) -> None:
        self._model, self._where = model, where

    def scores(self, states: Sequence[UserState], now: int) -> NDArray[np.float32]:
        if self._where == "scores":
            raise RuntimeError("the arrays are gone")
        return self._model.scores(states, now)

    def because(self, state: UserState, items: NDArray[np.int32], thorough: bool = False) -> list[Evidence | None]:
        raise RuntimeError("the arrays are gone")

    def fit(self, data: object, progress: object = None) -> None:
        raise RuntimeError("the arrays are gone")

    def save(self, directory: Path) -> None:
        raise RuntimeError("the arrays are gone")

    @classmethod
    def load(cls, directory: Path) -> Failing:
        raise RuntimeError("the arrays are gone")


def with_failing(engine: Engine, where: str, *names: str) -> Engine:
    models = {name: Failing(model, where) if name in names else model for name, model in engine.models.items()}
    return Engine(engine.bundle, models=models)


def test_a_source_that_fails_is_named_and_the_others_answer(engine: Engine) -> None:
    slate = one(with_failing(engine, "scores", "als"), ask(engine, 3))
    assert slate.degraded == ("als",)
    assert len(slate.items) == 10
    assert all("als" not in item.sources for item in slate.items)


def test_if_all_sources_fail_the_popular_items_answer(engine: Engine) -> None:
    slate = one(with_failing(engine, "scores", *engine.sources), ask(engine, 3, explain=True))
    assert set(slate.degraded) == set(engine.sources)
    assert len(slate.items) == 10
    assert all(item.reasons for item in slate.items)


def test_a_source_that_cannot_say_why_does_not_take_the_answer_with_it(engine: Engine) -> None:
    whole = one(engine, ask(engine, 3))
    slate = one(with_failing(engine, "because", "als"), ask(engine, 3))
    assert shown(slate) == shown(whole)
    assert all(item.reasons for item in slate.items)
    assert not any("als" in (reason.source or "") for item in slate.items for reason in item.reasons)


def test_without_time_all_sources_are_left_out_and_named(engine: Engine) -> None:
    slate = one(engine, ask(engine, 3, budget_s=-1.0))
    assert set(slate.degraded) == set(engine.sources)
    assert len(slate.items) == 10


# ------------------------------------------------------------ why


@pytest.mark.parametrize("language", ["en", "ru"])
def test_sentences_hold_only_what_the_reasons_hold(engine: Engine, language: str) -> None:
    slates = engine.recommend([ask(engine, person, explain=True, language=language) for person in (0, 40, 80, 110)])
    said = 0
    for slate in slates:
        for item in slate.items:
            assert item.explanation is not None
            said += 1
            named = {reason.item for reason in item.reasons if reason.kind == "item" and reason.sign >= 0}
            for row, title in enumerate(engine.catalogue.titles):
                if any(f"{left}{title}{right}" in item.explanation for left, right in ("“”", "«»")):
                    assert engine.catalogue.ids.id(row) in named
            words = {(reason.feature or "").partition(":")[2] for reason in item.reasons if reason.kind == "attribute"}
            quoted = item.explanation
            for title in engine.catalogue.titles:
                quoted = quoted.replace(title, "")
            assert all(word in words for word in GENRES if word in quoted)
    assert said == 40


def test_asked_to_explain_shares_are_of_the_rankers_contributions(engine: Engine) -> None:
    slate = one(engine, ask(engine, 3, explain=True))
    assert any(reason.kind == "feature" for item in slate.items for reason in item.reasons)
    plain = one(engine, ask(engine, 3))
    assert shown(plain) == shown(slate)
    assert not any(reason.kind == "feature" for item in plain.items for reason in item.reasons)
    for item in plain.items:  # by the places the sources gave it
        assert sum(reason.share for reason in item.reasons) <= 1.0 + 1e-3


def test_what_the_ranker_contributes_sums_to_the_score_that_is_shown(engine: Engine) -> None:
    question = ask(engine, 3, explain=True)
    ranked = engine._parts.rank([question])
    assert ranked.rows is not None
    ranker = engine.bundle.ranker
    assert ranker is not None
    at = ranked.rankings[0].at[ranked.rankings[0].at >= 0]
    sums = ranker.contributions(ranked.rows[at]).sum(axis=1)
    np.testing.assert_allclose(sums, ranked.rankings[0].scores[: len(at)], atol=1e-6)
    for place, item in enumerate(one(engine, question).items):
        assert item.score == pytest.approx(float(sums[place]), abs=1e-5)
        by_source, others = explain.split_contributions(
            ranker.names, ranker.sources, ranker.contributions(ranked.rows[at[place : place + 1]])[0]
        )
        total = sum(map(abs, (*by_source.values(), *others.values())))
        for reason in item.reasons:
            assert reason.sign in (-1, 0, 1)
            if reason.kind == "feature":
                assert reason.value == pytest.approx(others[str(reason.feature)], abs=1e-5)
                assert reason.share == pytest.approx(abs(reason.value) / total, abs=1e-3)
            else:
                assert reason.share <= sum(abs(by_source[source]) for source in str(reason.source).split("+")) / total + 1e-3


def test_an_explanation_names_several_items_that_carry_the_score(engine: Engine) -> None:
    slates = engine.recommend([ask(engine, person, explain=True) for person in range(0, PEOPLE, 4)])
    named = [
        sum(reason.kind == "item" and "als" in str(reason.source).split("+") for reason in item.reasons)
        for slate in slates
        for item in slate.items
    ]
    assert max(named) >= 2


def test_without_reasons_the_answer_is_the_same(engine: Engine) -> None:
    assert shown(one(engine, ask(engine, 3, reasons=False))) == shown(one(engine, ask(engine, 3)))


def test_the_slate_names_its_stages_version_and_variant(engine: Engine) -> None:
    slate = one(engine, ask(engine, 3, variant="diverse"))
    assert (slate.domain, slate.version, slate.variant, slate.mode) == ("anime", engine.version, "diverse", "two-stage")
    assert {"candidates", "rank", "rerank", "reasons", *(f"source.{name}" for name in engine.sources)} == set(slate.stages_ms)
