"""The graph that Ray Serve runs: build(args) -> Application. The only file of this package that knows Ray.

packed: Gateway replicas, each with its engines in its own process. One hop, and what a small machine needs.
spread: Gateway replicas ask Recommender replicas through a handle; the two scale apart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

import configs
from configs.deployment import Deployment, Replicas
from serving import counting, logs
from serving.api.application import create_app
from serving.filters import FilterError
from serving.recommender import Ask, Recommender, UnreachableError
from serving.service import Service, recommender_alone
from serving.slate import Slate

NAME = "factotum"
GATEWAY = "Gateway"
RECOMMENDER = "Recommender"
LOOPBACK = "127.0.0.1"
LOG_DIR = "FACTOTUM_LOG_DIR"
_LOG_BYTES = 32 * 2**20
_HEALTH_PERIOD_S = 2.0
_HEALTH_TIMEOUT_S = 15.0


class Args(BaseModel):
    """What an application is built from; the same words as `args:` in a Serve YAML, or `serve run serving.app:build home=...`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(default_factory=lambda: Path(os.environ.get("FACTOTUM_HOME", ".factotum")).absolute())
    domains: tuple[str, ...] | str = ()  # names, or one string of names with commas between; none: all that ship
    deployment: Deployment | Path = Deployment()  # the words of configs/deployment.py, or a file that holds them

    def names(self) -> tuple[str, ...]:
        given = self.domains.split(",") if isinstance(self.domains, str) else self.domains
        return tuple(name.strip() for name in given if name.strip()) or configs.names()

    def settings(self) -> Deployment:
        """Raises ConfigError if the file named cannot be used."""
        return configs.load_deployment(self.deployment) if isinstance(self.deployment, Path) else self.deployment


class Refused(BaseModel):
    """A FilterError as plain values: an exception with arguments of its own does not survive the way between processes."""

    attribute: str
    message: str
    allowed: tuple[str, ...]


class HandleRecommender:
    """The recommender port over a Serve handle: the engines live in other processes, maybe on other machines."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def start(self) -> None:
        """Nothing to do: Serve starts what the handle leads to."""

    async def stop(self) -> None:
        """Nothing to do: Serve ends what the handle leads to."""

    async def recommend(self, ask: Ask) -> Slate:
        """Raises FilterError, UnreachableError, and what the engine raised. The caller bounds the time."""
        try:
            answer: Slate | Refused = await self._handle.recommend.remote(ask)
        except RayTaskError:
            raise  # it was asked, and failed
        except (RayError, RayServeException) as error:
            raise UnreachableError(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
        if isinstance(answer, Refused):
            raise FilterError(answer.attribute, answer.message, answer.allowed)
        return answer


class RecommenderReplica:
    """Engines behind a handle (layout `spread`)."""

    def __init__(self, home: Path, domains: tuple[str, ...], deployment: Deployment) -> None:
        _keep_to_loopback()
        _log()
        self._recommender: Recommender = recommender_alone(home, domains, deployment)
        self._starting: asyncio.Task[None] | None = None

    async def recommend(self, ask: Ask) -> Slate | Refused:
        await self._started()
        try:
            return await self._recommender.recommend(ask)
        except FilterError as error:
            return Refused(attribute=error.attribute, message=str(error), allowed=error.allowed)

    async def check_health(self) -> None:
        """Serve asks before it sends the first request, and every few seconds from then on."""
        await self._started()

    async def _started(self) -> None:
        if self._starting is None:
            self._starting = asyncio.create_task(self._recommender.start())
        await asyncio.shield(self._starting)

    async def __del__(self) -> None:
        if self._starting is not None:
            await self._recommender.stop()


class GatewayReplica:
    """HTTP in front of a Service. The FastAPI application's lifespan starts and stops the Service, under Serve as under uvicorn."""

    def __init__(
        self, home: Path, domains: tuple[str, ...], deployment: Deployment, recommender: DeploymentHandle[Any] | None = None
    ) -> None:
        _keep_to_loopback()
        _log()
        asked = None if recommender is None else HandleRecommender(recommender)
        self._service = Service(home, domains, deployment, recommender=asked)
        _end_streams_first(self._service)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service)


def build(args: Args) -> Application:
    """The application of these arguments. Raises ConfigError for a deployment or a domain that cannot be used."""
    deployment, domains, home = args.settings(), args.names(), args.home.absolute()
    for domain in domains:
        configs.load(domain)
    counting.check(home, deployment)
    replicas = deployment.replicas
    gateway = serve.deployment(
        **_options(deployment, replicas.gateways, replicas.most_gateways),
        name=GATEWAY,
        graceful_shutdown_timeout_s=deployment.drain_s + 2.0,
    )(serve.ingress()(GatewayReplica))
    if replicas.layout == "packed":
        return gateway.bind(home, domains, deployment)
    recommender = serve.deployment(
        **_options(deployment, replicas.recommenders, replicas.most_recommenders),
        name=RECOMMENDER,
        graceful_shutdown_timeout_s=deployment.drain_s,
    )(RecommenderReplica)
    return gateway.bind(home, domains, deployment, recommender.bind(home, domains, deployment))


def _options(deployment: Deployment, count: int, most: int | None) -> Mapping[str, Any]:
    replicas: Replicas = deployment.replicas
    scale: dict[str, Any] = {"num_replicas": count}
    if most is not None and most > count:
        scaling = {"min_replicas": count, "max_replicas": most, "initial_replicas": count, "target_ongoing_requests": replicas.busy}
        scale = {"autoscaling_config": {**scaling, "upscale_delay_s": 10.0, "downscale_delay_s": 300.0}}
    return {
        **scale,
        "max_ongoing_requests": replicas.ongoing,
        "max_queued_requests": replicas.queued,
        "health_check_period_s": _HEALTH_PERIOD_S,
        "health_check_timeout_s": _HEALTH_TIMEOUT_S,
        "graceful_shutdown_wait_loop_s": 0.2,
        "ray_actor_options": {"num_cpus": replicas.cpus},
    }


def _log() -> None:
    """JSON lines to a file of this process in FACTOTUM_LOG_DIR, which is rotated; where that is not set, to standard error.

    Not to `sys.stderr`: Ray Serve puts an object there that walks the whole stack for each line, a fifth of a short request's time.
    """
    logs.setup(stream=sys.__stderr__)
    folder = os.environ.get(LOG_DIR)
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = _Rotating(Path(folder) / f"replica-{os.getpid()}.jsonl", maxBytes=_LOG_BYTES, backupCount=2, encoding="utf-8")
        file.setFormatter(logs.JsonLines())
        logging.getLogger("factotum").handlers[:] = [file]


class _Rotating(RotatingFileHandler):
    """Rotates by what this process wrote: the library looks at the file twice for every line."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 (the library's name)
        return self.stream is not None and self.stream.tell() >= self.maxBytes


def _keep_to_loopback() -> None:
    """Where this node's own address is the loopback one, the replica's internal server listens there too.

    Ray Serve binds it to "[::]" whatever it is told, and that server unpickles what it is sent. There is no setting for it, so
    the one function that binds is wrapped; Serve calls it after this constructor. On a cluster it stays open to the
    other nodes: there RAY_USE_TLS=1 (both sides show a certificate) or a network policy closes it.
    """
    if ray.util.get_node_ip_address() != LOOPBACK:
        return
    from ray.serve._private import replica

    names = vars(replica)
    bind = names["add_port_to_grpc_server"]

    def bind_to_loopback(server: Any, address: str) -> int:
        port: int = bind(server, address.replace("[::]", LOOPBACK))
        return port

    names["add_port_to_grpc_server"] = bind_to_loopback


def _end_streams_first(service: Service) -> None:
    """A replica that is to end waits for what it is answering, and a stream is answered for as long as it may last: streams end when
    draining begins. Serve tells nobody of that moment, so the one method with which it begins is wrapped."""
    from ray.serve._private import replica

    runs: Any = vars(replica)["Replica"]
    drain = runs._perform_graceful_shutdown

    async def end_streams(this: Any) -> None:
        service.streams.close()
        await drain(this)

    runs._perform_graceful_shutdown = end_streams
