"""A word to the other processes of a home that something was written: a file that grows by a byte each time.

Looking whether it grew costs microseconds, a query of the database milliseconds; so a replica can look before each answer instead of being
late by its poll. Where the home is on no shared disk the other machines' replicas see nothing here and go on polling.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

NAME = "seats.bell"

log = logging.getLogger("factotum.seats")


class Bell:
    """Of one domain."""

    def __init__(self, home: Path, domain: str) -> None:
        self._path = home / domain / NAME

    def ring(self) -> None:
        """After the commit. What cannot be rung is only found later."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:  # bytes appended by several processes never lie on each other
                file.write(b".")
        except OSError as error:
            log.warning("other replicas are not told and find out by their poll", extra={"fields": {"why": str(error)}})

    def rung(self) -> int:
        """How often it was rung; 0 where it never was."""
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0
