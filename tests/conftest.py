"""What holds for all tests: no example of a property fails because a machine was slow, or because something was compiled for it; and Ray's
workers are no less than the tests beside them, which would keep them waiting otherwise."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("RAY_worker_niceness", "0")

settings.register_profile("factotum", deadline=None)
settings.load_profile("factotum")
