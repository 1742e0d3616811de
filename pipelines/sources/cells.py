"""Cells of events -> canonical values, vectorised; for each row the first reason why it is refused.

Parsers of cells with few distinct values (kinds, ratings, items) look at each distinct value once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from configs.domain import Domain, EventFile
from features.state import NO_TIME
from features.vocabulary import MAX_ID_BYTES

#: Reasons by code; code 0 is a good row.
REASONS = (
    "",
    "user: empty",
    f"user: longer than {MAX_ID_BYTES} bytes",
    "user: holds control characters",
    "item: empty",
    "item: unknown",
    "kind: unknown",
    "value: not a number",
    "value: outside the scale",
    "time: empty",
    "time: not a time",
    "time: in the future",
    "progress: not a number",
    "the same user, item and time twice",
)
DUPLICATE = len(REASONS) - 1
_CODE = {reason: code for code, reason in enumerate(REASONS)}

_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?$"
_EPOCH = r"^-?\d{9,17}(\.0*)?$"
_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
_DATE = r"[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?"
_ISO = rf"^{_DATE}([T ]{_CLOCK}(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)?)?$"


@dataclass(frozen=True)
class Rules:
    """What a row of one event file may hold."""

    kinds: Mapping[str, int]  # lower-case cell -> code of the kind
    kind: int  # where there is no column of kinds
    unrated: frozenset[str]
    low: float
    high: float
    latest: int  # microseconds UTC; a later event is refused

    @classmethod
    def of(cls, domain: Domain, file: EventFile, now: int) -> Rules:
        """`now` in microseconds UTC. A kind's own name is accepted besides the words the YAML maps."""
        codes = {name: code for code, name in enumerate(domain.events.kinds)}
        scale = domain.events.scale
        return cls(
            kinds={**codes, **{cell.strip().casefold(): codes[kind] for cell, kind in file.kinds.items()}},
            kind=codes[file.kind],
            unrated=frozenset(scale.unrated) if scale else frozenset({""}),
            low=scale.low if scale else -np.inf,
            high=scale.high if scale else np.inf,
            latest=now + domain.source.future_tolerance_s * 1_000_000,
        )


@dataclass(frozen=True)
class Parsed:
    """(n,) values of all rows, good and bad; `reasons` (n,) int8 says which, 0 = good."""

    users: pa.StringArray
    items: NDArray[np.int32]  # row in the table of items
    kinds: NDArray[np.int8]
    values: NDArray[np.float32]
    times: NDArray[np.int64]
    reasons: NDArray[np.int8]


def parse(columns: Mapping[str, pa.StringArray], rules: Rules, items: pa.StringArray, timed: bool) -> Parsed:
    """Reads trimmed cells. `items` are the ids of known items; `timed`: an empty time is a fault (else it means "unknown")."""
    n = len(columns["user"])
    reasons = np.zeros(n, dtype=np.int8)

    def refuse(mask: NDArray[np.bool_], reason: str) -> None:
        reasons[mask & (reasons == 0)] = _CODE[reason]

    for code, mask in _id_faults(columns["user"]):
        refuse(mask, REASONS[code])
    refuse(_mask(pc.equal(columns["item"], "")), "item: empty")
    rows = np.asarray(pc.fill_null(pc.index_in(columns["item"], value_set=items), -1), dtype=np.int32)
    refuse(rows < 0, "item: unknown")
    kinds = np.full(n, rules.kind, dtype=np.int8)
    if "kind" in columns:
        kinds = _kinds(columns["kind"], rules.kinds)
        refuse(kinds < 0, "kind: unknown")
    values = np.full(n, np.nan, dtype=np.float32)
    if "value" in columns:
        known, numbers = _per_distinct(columns["value"], lambda cells: _ratings(cells, rules))
        refuse(known == 0, "value: not a number")
        refuse(known == 2, "value: outside the scale")
        values = numbers.astype(np.float32)
    times = np.full(n, NO_TIME, dtype=np.int64)
    if "time" in columns:
        readable, times = moments(columns["time"])
        empty = _mask(pc.equal(columns["time"], ""))
        if timed:
            refuse(empty, "time: empty")
        refuse(~readable & ~empty, "time: not a time")
        refuse(readable & (times > rules.latest), "time: in the future")
    if "progress" in columns:
        known, _ = _per_distinct(columns["progress"], _counts)
        refuse(known == 0, "progress: not a number")
    return Parsed(columns["user"], rows, kinds, values, times, reasons)


def numbers(cells: pa.StringArray) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(readable, value): decimal numbers with an optional exponent; not finite is not readable."""
    looks = pc.match_substring_regex(cells, _NUMBER)
    values = np.asarray(pc.if_else(looks, cells, "0").cast(pa.float64()))
    return _mask(looks) & np.isfinite(values), values


def moments(cells: pa.StringArray) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(readable, microseconds UTC). ISO 8601 with or without an offset (without: UTC), or an integer epoch: up to 11 digits are
    seconds, up to 14 milliseconds, up to 17 microseconds (fewer than 9 digits are refused: 20220517 is a date to some)."""
    out = np.full(len(cells), NO_TIME, dtype=np.int64)
    iso = _mask(pc.match_substring_regex(cells, _ISO))
    late = np.flatnonzero(iso & _mask(pc.match_substring_regex(cells, r"^\d{4}-\d\d-(29|3)")))
    if len(late):
        dates = pc.utf8_slice_codeunits(cells.take(pa.array(late)), 0, 10)
        month = np.asarray(pc.utf8_slice_codeunits(dates, 0, 7)).astype("datetime64[M]")
        length = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)
        iso[late[np.asarray(pc.utf8_slice_codeunits(dates, 8, 10).cast(pa.int64())) > length]] = False
    zoned = iso & _mask(pc.match_substring_regex(cells, _ZONE)) & _mask(pc.greater(pc.utf8_length(cells), 10))
    for mask, unit in ((zoned, pa.timestamp("us", "UTC")), (iso & ~zoned, pa.timestamp("us"))):
        if mask.any():
            chosen = cells if mask.all() else cells.filter(pa.array(mask))
            if pc.any(pc.match_substring_regex(chosen, r"\.\d{7}")).as_py():
                chosen = pc.replace_substring_regex(chosen, r"(\.\d{6})\d+", r"\1")
            out[mask] = np.asarray(chosen.cast(unit).cast(pa.int64()))
    epoch = _mask(pc.match_substring_regex(cells, _EPOCH)) & ~iso
    if epoch.any():
        whole = np.asarray(pc.replace_substring_regex(cells.filter(pa.array(epoch)), r"\.0*$", "").cast(pa.int64()))
        size = np.abs(whole)
        out[epoch] = whole * np.where(size < 10**11, 1_000_000, np.where(size < 10**14, 1_000, 1))
    return iso | epoch, out


def shards(users: pa.StringArray, count: int) -> NDArray[np.int64]:
    """(n,) int64 in 0..count-1: which partition a user belongs to; the same in every process and on every machine.

    A polynomial over the UTF-8 bytes modulo 2^64, then splitmix64's finaliser (Steele, Lea, Flood 2014). Empty ids go to 0.
    """
    distinct = users.dictionary_encode()
    words = distinct.dictionary.cast(pa.large_string())
    if not len(words):
        return np.zeros(0, dtype=np.int64)
    offsets = np.frombuffer(words.buffers()[1], dtype=np.int64)[words.offset : words.offset + len(words) + 1]
    lengths = np.diff(offsets)
    data = np.frombuffer(words.buffers()[2] or b"", dtype=np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(int(lengths.max()) + 1, 0x9E3779B97F4A7C15, dtype=np.uint64))
        place = np.arange(len(data)) - np.repeat(offsets[:-1] - offsets[0], lengths)
        sums = np.concatenate([[np.uint64(0)], np.cumsum((data + np.uint64(1)) * powers[place], dtype=np.uint64)])
        hashed = sums[offsets[1:] - offsets[0]] - sums[offsets[:-1] - offsets[0]]
        hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hashed = (hashed ^ (hashed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashed = hashed ^ (hashed >> np.uint64(31))
    shard: NDArray[np.int64] = (hashed % np.uint64(count)).astype(np.int64)[np.asarray(distinct.indices)]
    return shard


def _id_faults(cells: pa.StringArray) -> list[tuple[int, NDArray[np.bool_]]]:
    return [
        (1, _mask(pc.equal(cells, ""))),
        (2, _mask(pc.greater(pc.binary_length(cells), MAX_ID_BYTES))),
        (3, _mask(pc.match_substring_regex(cells, r"\p{Cc}"))),
    ]


def _kinds(cells: pa.StringArray, kinds: Mapping[str, int]) -> NDArray[np.int8]:
    distinct = cells.dictionary_encode()
    codes = np.array([_kind(cell, kinds) for cell in distinct.dictionary.to_pylist()], dtype=np.int8)
    each: NDArray[np.int8] = codes[np.asarray(distinct.indices)]
    return each


def _kind(cell: str, kinds: Mapping[str, int]) -> int:
    word = cell.casefold()
    code = kinds.get(word)
    if code is None and word.endswith(".0"):  # a number that a float column made "2.0" of
        code = kinds.get(word[:-2])
    return -1 if code is None else code


def _per_distinct(
    cells: pa.StringArray, reader: Callable[[pa.StringArray], tuple[NDArray[np.int8], NDArray[np.float64]]]
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    distinct = cells.dictionary_encode()
    known, values = reader(distinct.dictionary)
    indices = np.asarray(distinct.indices)
    return known[indices], values[indices]


def _ratings(cells: pa.StringArray, rules: Rules) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """known: 1 = a value or "unrated" (NaN), 0 = not a number, 2 = outside the scale."""
    readable, values = numbers(cells)
    unrated = _mask(pc.is_in(cells, value_set=pa.array(sorted(rules.unrated), pa.string())))
    outside = readable & ~unrated & ((values < rules.low) | (values > rules.high))
    known = np.where(outside, 2, (readable | unrated).astype(np.int8)).astype(np.int8)
    return known, np.where(unrated, np.nan, values)


def _counts(cells: pa.StringArray) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    readable, values = numbers(cells)
    empty = _mask(pc.equal(cells, ""))
    return (empty | (readable & (values >= 0))).astype(np.int8), values


def _mask(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(values).astype(np.bool_)
