"""Serving on this machine: starts the Ray Serve application, says when it is ready, and ends everything it started.

Two processes. This one stands in the terminal: it takes Ctrl-C, keeps the time limit and afterwards makes sure that nothing is left.
The other (pipelines/serve_ray.py) holds Ray and stands in a session of its own, because Ctrl-C in a terminal goes to every
process of the terminal's group, and a proxy that ends at once cannot let requests finish. What belongs to that session was
started by us: that is how leftovers of a crash are known for certain.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import configs
from configs.deployment import Deployment
from pipelines import processes
from pipelines.steps import Reporter, StepBusy, write_json

RECORD = "serving.json"
LOG = "serve.log"
END_S = 15.0  # from the first signal to the last process
_START_S = 300.0
_LOG_BYTES = 8 * 2**20
_LOG_FILES = 12  # of replicas, the newest


class ServeError(RuntimeError):
    """Serving could not start, or ended by itself; the message says why and where to read more."""


class PortTakenError(ServeError):
    """Somebody else listens on the port."""


class AlreadyServingError(ServeError, StepBusy):
    """Another process serves from the same home."""


def port_free(host: str, port: int) -> None:
    """Raises PortTakenError naming the port, or ServeError if `host` is no address of this machine. Cheap: call it before long work."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free; one that is listened on is not
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(f"port {port} on {host} is taken by another program; end it, or choose another with --port") from None
            raise ServeError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(
    home: Path,
    domains: Sequence[str],
    deployment: Deployment,
    reporter: Reporter,
    once_ready: Callable[[str], None] | None = None,
) -> int:
    """Serves until SIGINT or SIGTERM, then drains; a second signal ends at once. Returns the exit code, 0 after a signal.

    once_ready: called once with the address (http://host:port) when /readyz says yes; None: prints it with a first curl.
    Raises ServeError (PortTakenError, AlreadyServingError) before anything was started; what happens later is said through
    `reporter` and the exit code.
    """
    home = home.absolute()
    host, port = deployment.http.host, deployment.http.port
    with _only_one(home):
        end_leftovers(home, reporter)
        port_free(host, port)
        reporter.step("serve")
        return _Run(home, domains, deployment, reporter, once_ready).to_the_end()


def end_leftovers(home: Path, reporter: Reporter) -> int:
    """Ends what an earlier `serve` of this home left behind when it was killed, and only that. How many processes that were."""
    record = home / RECORD
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
        session, started, folder = int(said["session"]), int(said["started"]), Path(said["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    count = processes.end(lambda: processes.of_session(session, started))
    if count:
        reporter.say(f"ended {count} processes that an earlier run had left behind")
    if folder.name.startswith(_FOLDER) and folder.is_dir() and folder.stat().st_uid == os.getuid():
        shutil.rmtree(folder, ignore_errors=True)
    record.unlink(missing_ok=True)
    return count


_FOLDER = "fct-"


class _Run:
    def __init__(
        self, home: Path, domains: Sequence[str], deployment: Deployment, reporter: Reporter, once_ready: Callable[[str], None] | None
    ) -> None:
        self.home, self.domains, self.deployment, self.reporter, self.once_ready = home, domains, deployment, reporter, once_ready
        shown = "127.0.0.1" if deployment.http.host in ("0.0.0.0", "::") else deployment.http.host
        self.address = f"http://{f'[{shown}]' if ':' in shown else shown}:{deployment.http.port}"
        self.log = home / "logs" / LOG
        self.signals = 0
        self.signalled_at = 0.0
        self.waited_for: list[str] = []  # what was said of it already
        self.said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def to_the_end(self) -> int:
        began = time.monotonic()
        folder = _short_folder()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(self.log.parent.glob("replica-*.jsonl*"), key=lambda path: path.stat().st_mtime)[:-_LOG_FILES]:
            old.unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self._signals(), self.log.open("ab") as log:
            child = self._start(folder, log)
            try:
                code = self._attend(child, began)
            finally:
                self._finish(child, folder)
        if self.signals:
            self.reporter.say(f"ended in {time.monotonic() - self.signalled_at:.1f} s; nothing is left running")
        return code

    def _start(self, folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
        arguments = {
            "home": str(self.home),
            "domains": list(self.domains),
            "deployment": self.deployment.model_dump(mode="json"),
            "folder": str(folder),
        }
        child = subprocess.Popen(
            [sys.executable, "-m", "pipelines.serve_ray", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())},
        )
        me = processes.look(child.pid)
        record = {"session": child.pid, "started": me.started if me else 0, "folder": str(folder), "address": self.address}
        write_json(self.home / RECORD, record)
        threading.Thread(target=self._listen, args=(child.stdout,), daemon=True, name="serve-output").start()
        return child

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            try:
                self.said.put(json.loads(line))
            except ValueError:
                continue

    def _attend(self, child: subprocess.Popen[bytes], began: float) -> int:
        """Until the other process has ended, or may no longer go on."""
        ready = deployed = draining = False
        while child.poll() is None:
            try:
                said = self.said.get(timeout=0.1)
                deployed = deployed or said.get("event") == "deployed"
                if "text" in said:
                    self.reporter.say(str(said["text"]))
            except queue.Empty:
                pass
            if self.signals and not draining:
                draining = True
                self.reporter.say("draining: requests under way are finished; Ctrl-C again ends at once")
                _tell(child)
            if draining and (not deployed or self.signals > 1 or time.monotonic() - self.signalled_at > END_S - 3.0):
                return 0
            if deployed and not ready and not draining and self._ready():
                ready = True
                self.reporter.say(f"ready after {time.monotonic() - began:.1f} s: {self.address}")
                if self.once_ready is not None:
                    self.once_ready(self.address)
                else:
                    print(f"\n{self.address}\n{first_curl(self.address, self.domains[0])}\n", flush=True)
            if not ready and not draining and time.monotonic() - began > _START_S:
                self.reporter.say(f"not ready after {_START_S:.0f} s; {self.log} says more")
                return 1
        if draining:
            return 0
        self.reporter.say(f"serving ended by itself (exit code {child.returncode}); {self.log} says more:")
        for line in _tail(self.log, 15):
            self.reporter.say(f"  {line}")
        return 1

    def _ready(self) -> bool:
        """What keeps it from being ready is said once."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            with suppress(OSError, ValueError, KeyError, TypeError):  # not our own words: a proxy's
                for reason in json.loads(error.read())["waits_for"]:
                    if reason not in self.waited_for:
                        self.waited_for.append(reason)
                        self.reporter.say(f"not ready yet: it waits for this: {reason}")
            return False
        except OSError:
            return False

    def _finish(self, child: subprocess.Popen[bytes], folder: Path) -> None:
        """Nothing of the session outlives this call. The logs of Ray's own processes are kept until the next run ends."""
        record = self.home / RECORD
        try:
            started = int(json.loads(record.read_text(encoding="utf-8"))["started"])
        except (OSError, ValueError, KeyError):
            started = 0
        if child.poll() is None and self.signals == 0:
            _tell(child)  # an error on our side: the application may still drain
            with suppress(subprocess.TimeoutExpired):
                child.wait(END_S - 3.0)
        processes.end(lambda: processes.of_session(child.pid, started))
        if child.poll() is None:
            child.kill()
        child.wait()
        _keep_logs(folder, self.home / "logs" / "ray")
        shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, frame: FrameType | None) -> None:
            self.signals += 1
            if self.signals == 1:
                self.signalled_at = time.monotonic()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def first_curl(address: str, domain: str) -> str:
    """A first question to ask of a running application, to be pasted into a shell."""
    words = configs.load(domain)
    body = json.dumps({"k": 3, "explain": True})
    return f"curl -s {address}/v1/{words.name}/recommendations -H 'Content-Type: application/json' -d '{body}'"


def _tell(child: subprocess.Popen[bytes]) -> None:
    """The other process drains when its standard input ends: so it does too if this one is killed."""
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()


def _import_path() -> Sequence[str]:
    """The folder of these packages first, so that the other process imports what this one did, wherever it was started."""
    here = str(Path(__file__).resolve().parent.parent)
    before = os.environ.get("PYTHONPATH", "")
    return [here, *([before] if before else [])]


def _short_folder() -> Path:
    """A private folder for Ray's sockets, the proxy's state and logs. Unix sockets allow about 100 bytes of path: it has to be short."""
    where = tempfile.gettempdir()
    if len(where) > 24 and os.path.isdir("/tmp") and os.access("/tmp", os.W_OK):
        where = "/tmp"
    folder = Path(where) / f"{_FOLDER}{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    return folder


def _keep_logs(folder: Path, where: Path) -> None:
    sessions = [path / "logs" for path in folder.glob("r/session_*") if path.is_dir() and not path.is_symlink()]
    if sessions and sessions[0].is_dir():
        shutil.rmtree(where, ignore_errors=True)
        try:
            shutil.move(sessions[0], where)
        except OSError:
            return


def _tail(path: Path, lines: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8_192))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Holds the home's serving lock. The system gives it back when the process ends, however it ends. Raises AlreadyServingError."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serving.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServingError(f"{home} is being served already{_where(home)}; end that first, or give another --home") from None
        yield


def _where(home: Path) -> str:
    try:
        said: Mapping[str, Any] = json.loads((home / RECORD).read_text(encoding="utf-8"))
        return f" at {said['address']}"
    except (OSError, ValueError, KeyError):
        return ""


def main() -> int:
    """`python -m pipelines.serve JSON`: serves with nothing else in memory; the CLI puts this in its own place after training."""
    said = json.loads(sys.argv[1])
    deployment = Deployment.model_validate(said["deployment"])
    with Reporter(quiet=said["quiet"], json=said["json"]) as reporter:
        try:
            return serve(Path(said["home"]), said["domains"], deployment, reporter)
        except ServeError as error:
            print(f"factotum: {error}", file=sys.stderr)
            return 1


def become(home: Path, domains: Sequence[str], deployment: Deployment, quiet: bool = False, as_json: bool = False) -> None:
    """Replaces this process by one that serves and has nothing of what training needed in its memory. Does not return."""
    said = {"home": str(home), "domains": list(domains), "deployment": deployment.model_dump(mode="json"), "quiet": quiet, "json": as_json}
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ["PYTHONPATH"] = os.pathsep.join(_import_path())
    os.execv(sys.executable, [sys.executable, "-m", "pipelines.serve", json.dumps(said)])


if __name__ == "__main__":
    sys.exit(main())
