"""One Ray for all tests of the pipelines that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines import cluster
from tests.pipelines.small_run import small_run, whole_run

__all__ = ["small_run", "whole_run"]


@pytest.fixture(scope="session")
def one_ray() -> Iterator[None]:
    with cluster.started(cpus=2, object_store_bytes=128 * 2**20):
        yield
