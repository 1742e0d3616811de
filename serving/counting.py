"""Where a deployment counts requests: joins its words, its database and Redis' address."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

from sqlalchemy.engine import make_url

from configs import ConfigError
from configs.deployment import Deployment
from serving.access import limits
from serving.access.breakers import Breakers
from serving.storage.database import address

REDIS_URL = "FACTOTUM_REDIS_URL"
LIMITER = "limiter"  # its breaker


def limiter(home: Path, deployment: Deployment, redis_url: str | None, breakers: Breakers) -> limits.Limiter:
    """The one count of a deployment's requests. Raises ConfigError where its gateways could not share one, and says what is allowed."""
    try:
        guard: limits.Guard = nullcontext
        if redis_url:
            from redis.exceptions import RedisError

            guard = breakers.of(LIMITER, (RedisError, OSError))
        return limits.choose(deployment.limits, deployment.gateways, redis_url, home, _lite(home, deployment), guard)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check(home: Path, deployment: Deployment) -> None:
    """What `limiter` would refuse, before anything is started. Raises ConfigError."""
    try:
        limits.store(deployment.limits, deployment.gateways, os.environ.get(REDIS_URL), _lite(home, deployment))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _lite(home: Path, deployment: Deployment) -> bool:
    """Whether the database is SQLite. Raises ValueError for one that is neither that nor PostgreSQL."""
    return bool(make_url(address(home, deployment.storage.url)).get_backend_name() == "sqlite")
