"""Which items may be shown: available ones that every filter allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from configs.domain import Category, Tags
from features.catalogue import Catalogue
from serving.slate import Range, Words

_MOST_KEPT = 256  # masks remembered: filters come from outside, so there is a bound


class FilterError(ValueError):
    """A filter that the catalogue has no such attribute or word for; the message says what is allowed."""

    def __init__(self, attribute: str, message: str, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.attribute = attribute
        self.allowed = tuple(allowed)


class Filters:
    """Masks over one catalogue, remembered by what was asked."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._masks: dict[str, NDArray[np.bool_]] = {}

    def mask(self, filters: Mapping[str, Words | Range]) -> NDArray[np.bool_]:
        """(items,) bool: available and allowed by every filter. Raises FilterError."""
        if not filters:
            return self._catalogue.available
        key = repr(sorted(filters.items(), key=lambda pair: pair[0]))
        cached = self._masks.get(key)
        if cached is not None:
            return cached
        allowed = self._catalogue.available.copy()
        for name, wanted in filters.items():
            allowed &= self._one_filter(name, wanted)
        if len(self._masks) < _MOST_KEPT:
            self._masks[key] = allowed
        return allowed

    def _one_filter(self, name: str, wanted: Words | Range) -> NDArray[np.bool_]:
        catalogue = self._catalogue
        attribute = catalogue.schema.attributes.get(name)
        if attribute is None:
            raise FilterError(name, f"no attribute {name!r}", tuple(catalogue.schema.attributes))
        if isinstance(wanted, Range):
            if isinstance(attribute, Tags | Category):
                raise FilterError(name, f"{name} holds words: give one or a list of them, not a range", ())
            column = catalogue.number(name)
            values = column.values.astype(np.float64)  # a bound is not rounded to the width of the column
            low, high = wanted.low if wanted.low is not None else -np.inf, wanted.high if wanted.high is not None else np.inf
            return (values >= low) & (values <= high) & ~column.missing
        if isinstance(attribute, Tags):
            tags = catalogue.tags(name)
            codes = self._codes(name, wanted, tags.words)
            hit = np.isin(tags.codes, codes)
            counted = np.concatenate([[0], np.cumsum(hit)])
            return counted[tags.indptr[1:]] > counted[tags.indptr[:-1]]
        if isinstance(attribute, Category):
            category = catalogue.category(name)
            return np.isin(category.codes, self._codes(name, wanted, category.words))
        raise FilterError(name, f"{name} is a number: give a range {{low, high}}", ())

    @staticmethod
    def _codes(name: str, wanted: Words, words: tuple[str, ...]) -> list[int]:
        by_folded = {word.casefold(): code for code, word in enumerate(words)}
        unknown = [word for word in wanted if word.casefold() not in by_folded]
        if unknown:
            raise FilterError(name, f"no {name} {unknown[0]!r}", words)
        return [by_folded[word.casefold()] for word in wanted]
