"""What holds for all tests: no example of a property fails because a machine was slow, or because something was compiled for it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("factotum", deadline=None)
settings.load_profile("factotum")
