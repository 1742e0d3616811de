"""Pictures and documents: well-formed, escaped, inside their frame, and the same figures in both forms."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines import drawing
from pipelines.document import MISSED, OPEN, REACHED, Block, Cells, Heading, Listing, Picture, Said, Side, html, markdown
from pipelines.drawing import Axis, Point

VALUES = st.floats(-1e6, 1e6, allow_nan=False)


def places(drawn: str, tag: str, *names: str) -> list[float]:
    return [float(element.get(name, "nan")) for element in ElementTree.fromstring(drawn).iter(tag) for name in names]


@settings(max_examples=60)
@example([(5e-324, 1.0)], True, False)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=12), st.booleans(), st.booleans())
def test_points_lie_inside_the_frame_and_markup_is_well_formed(pairs: list[tuple[float, float]], log: bool, named: bool) -> None:
    points = [Point(x, y, f"<{place}>&\"'", place) for place, (x, y) in enumerate(pairs)]
    drawn = drawing.scatter("a <b> & c", points, Axis("x", log=log), Axis("y"), named)
    kept = [x for x, _ in pairs if x >= drawing.LEAST or not log]
    if not kept:
        assert drawn == ""
        return
    across, up = places(drawn, "circle", "cx"), places(drawn, "circle", "cy")
    assert len(across) == len(kept)
    assert all(0 <= x <= drawing.WIDE for x in across)
    assert all(0 <= y <= drawing.HIGH for y in up)


def test_larger_is_further_right_and_higher() -> None:
    points = [Point(value, value, str(value)) for value in (1.0, 2.0, 4.0)]
    drawn = drawing.scatter("t", points, Axis("x", log=True), Axis("y"), named=False)
    by_name = {element[0].text: element for element in ElementTree.fromstring(drawn).iter("circle")}
    x = [float(by_name[f"{value}: {value:g}, {value:g}"].get("cx", "")) for value in (1.0, 2.0, 4.0)]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)  # evenly in the logarithm
    assert float(by_name["4.0: 4, 4"].get("cy", "")) < float(by_name["1.0: 1, 1"].get("cy", ""))


def test_names_cover_neither_each_other_nor_a_point() -> None:
    points = [Point(0.2 + 0.001 * place, 0.3 + 0.002 * place, f"source{place}") for place in range(4)] + [Point(0.9, 0.9, "far")]
    root = ElementTree.fromstring(drawing.scatter("t", points, Axis("x", low=0.0), Axis("y", low=0.0)))
    boxes = []
    for text in root.iter("text"):
        if text.get("class") == "halo":
            wide = 7.2 * len(text.text or "")
            left = float(text.get("x", "")) - (wide if text.get("text-anchor") == "end" else 0.0)
            boxes.append((left, float(text.get("y", "")) - 11, left + wide, float(text.get("y", "")) + 3))
    assert len(boxes) >= 4
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert drawing.scatter("t", [], Axis("x"), Axis("y")) == ""
    assert drawing.curves("t", {"a": [(1.0, math.nan)]}, Axis("x"), Axis("y")) == ""
    assert drawing.bars("t", {}) == ""
    assert drawing.intervals("t", {}, Axis("x")) == ""
    one = drawing.curves("t", {"a": [(1.0, 2.0)], "b": []}, Axis("x"), Axis("y"))
    assert one.count("<circle") == 1
    assert "polyline" not in one


def test_bars_are_as_long_as_their_values() -> None:
    wide = places(drawing.bars("t", {"a": 4.0, "b": 1.0, "c": -1.0}), "rect", "width")
    assert wide[0] == pytest.approx(4 * wide[1], abs=0.2)
    assert wide[2] == 0.0


def test_an_interval_holds_its_mean_and_the_line_to_compare_with_is_named() -> None:
    drawn = drawing.intervals("t", {"a": (0.5, 0.4, 0.7)}, Axis("x"), {"best known": 0.6})
    root = ElementTree.fromstring(drawn)
    (dot,) = root.iter("circle")
    low, high = next(
        (float(line.get("x1", "")), float(line.get("x2", ""))) for line in root.iter("line") if line.get("stroke") == "var(--s0)"
    )
    assert low < float(dot.get("cx", "")) < high
    assert "best known" in drawn


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0"), (0.25, "0.25"), (-3.0, "-3"), (1234.0, "1,234"), (45_600.0, "45.6k"), (2e6, "2M"), (0.00012, "0.00012")]
)
def test_numbers_as_people_write_them(value: float, said: str) -> None:
    assert drawing.number(value) == said


BLOCKS: list[Block] = [
    Heading(1, "All & <more>"),
    Heading(2, "One part"),
    Said("It is a|b", "run <this>"),
    Cells(["", "NDCG@10", "verdict"], [["als_1", "0.2 [0.1, 0.3]", REACHED], ["b", "0.1 [0.0, 0.2]", MISSED], ["c", "", OPEN]], best=0),
    Side([Picture(drawing.bars("t", {"a": 1.0}), "A bar."), Picture("", "nothing")]),
    Listing(["a < b", "c"]),
]


def test_a_page_is_whole_by_itself_and_escaped() -> None:
    page = html("T & t", BLOCKS)
    assert page.startswith("<!doctype html>")
    assert '<a href="#one-part">One part</a>' in page
    assert '<h2 id="one-part">' in page
    assert "<h1>All &amp; &lt;more&gt;</h1>" in page
    assert '0.2 <span class="interval">[0.1, 0.3]</span>' in page
    assert '<tr class="best"><td>als_1' in page
    assert [found for found in re.findall(r'class="(reached|missed|open)"', page)] == ["reached", "missed", "open"]  # noqa: C416
    assert "a &lt; b\nc" in page
    assert page.count("<figure>") == 1
    assert not re.search(r"<script|<link|src=|url\(|https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_markdown_says_the_same_without_pictures() -> None:
    text = markdown(BLOCKS)
    assert text.startswith("# All & \\<more\\>\n\n## One part\n\nIt is a\\|b `run <this>`\n")
    assert "|  | NDCG@10 | verdict |\n| :-- | --: | --: |\n| **als\\_1** | **0.2 [0.1, 0.3]** | **reached** |\n| b |" in text
    assert "```\na < b\nc\n```" in text
    assert "<svg" not in text
    assert "A bar" not in text
