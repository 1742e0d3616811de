"""Who is in which arm of an experiment: a hash of the person, so that everybody stays where they are without a table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from configs.domain import Variant

DEFAULT = "default"


def assign(arms: Mapping[str, Variant], domain: str, user: str | None) -> tuple[str, Variant | None]:
    """The name of a person's arm and what it changes; ("default", None) where no experiment runs or nobody is named.

    The arms share the unit interval in the order of the YAML; a person's place in it is uniform in their hash."""
    if not arms or user is None:
        return DEFAULT, None
    digest = hashlib.blake2b(f"{domain}|{'|'.join(arms)}|{user}".encode("utf-8", "replace"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2.0**64
    reached = 0.0
    for name, arm in arms.items():
        reached += arm.share
        if place < reached:
            return name, arm
    last = list(arms)[-1]  # the shares sum to 1 but for rounding
    return last, arms[last]
