"""Real servers beside Factotum, for tests and benchmarks: PostgreSQL and Redis of the system's programs, and librdkafka's mock broker.

Each listens on a free port of the loopback interface, keeps that port and its data from one start to the next, and is ended by its
own process id. Benchmarks kill them as a machine fails: at once, without a farewell.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

_READY_S = 20.0
_END_S = 20.0


class ServerError(RuntimeError):
    """A server's programs are missing, or it did not start; the message says what it wrote."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def programs() -> Path | None:
    """The folder of initdb, postgres, pg_dump and their like, the newest version first; None where they are not installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: [int(part) for part in path.parts[4].split(".")], reverse=True
    )
    if found:
        return found[0].parent
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere and shutil.which("postgres") else None


class PostgresServer:
    """A PostgreSQL of its own in `folder`. `stop`, `kill` and `start` again at will: the data and the port stay.

    Run by root it changes to the user `postgres`, who must be able to reach `folder` through its parents. Raises ServerError.
    """

    def __init__(self, folder: Path) -> None:
        found = programs()
        if found is None:
            raise ServerError("PostgreSQL's programs are not installed (Debian: apt install postgresql)")
        self._programs = found
        self._data = folder / "data"
        self._socket = folder / "socket"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._socket.mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(self._socket, "postgres", "postgres")
        initdb = [str(found / "initdb"), "-D", str(self._data), "-U", "factotum", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        made = subprocess.run(self._as_postgres(initdb), check=False, capture_output=True, cwd="/")
        if made.returncode != 0:
            raise ServerError(f"initdb failed in {self._data}:\n{made.stderr.decode(errors='replace')}")

    @staticmethod
    def found() -> bool:
        """Whether the programs are there."""
        return programs() is not None

    @staticmethod
    def _as_postgres(command: list[str]) -> list[str]:
        """The server refuses to run as root."""
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command] if os.geteuid() == 0 else command

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+asyncpg://factotum@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """An empty database of this name beside the first one; its address. The server must run."""
        command = [str(self._programs / "createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "factotum", database]
        subprocess.run(command, check=True, capture_output=True, cwd="/")
        return self.url_of(database)

    def start(self) -> None:
        """Returns when it answers. Raises ServerError."""
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={self._socket}", "max_connections=100", "fsync=off"]
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += [part for setting in settings for part in ("-c", setting)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._as_postgres(command), stdout=log, stderr=log, cwd="/", start_new_session=True)
        ready = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "factotum", "-q"]
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise ServerError(f"postgres ended:\n{self._log.read_text()}")
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise ServerError(f"postgres is not ready after {_READY_S:.0f} s:\n{self._log.read_text()}")

    def stop(self) -> None:
        """Open transactions are broken off; what was committed stays."""
        self.resume()
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """SIGKILL to the server and all its own processes, as when its machine goes. What was committed is recovered at the next start."""
        self.resume()  # processes that are stopped would not see their server go
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP to the server and all its own processes: connections stay open, new ones are taken by the kernel, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        """Each of its processes has a group of its own."""
        if self._process is None or self._process.poll() is not None:
            return
        server = self._process.pid
        for process in [server, *(found for found, parent in _parents() if parent == server)]:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _end(self, number: signal.Signals) -> None:
        _end(self._process, number)


class RedisServer:
    """A Redis that keeps nothing on disk: after `kill` or `stop` the next `start` is empty, on the same port. Raises ServerError."""

    def __init__(self, folder: Path, password: str | None = None) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ServerError("redis-server is not installed (Debian: apt install redis-server)")
        self._program = program
        self._folder = folder
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def found() -> bool:
        """Whether the program is there."""
        return shutil.which("redis-server") is not None

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """The address of one of the sixteen numbered databases."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Returns when it answers. Raises ServerError."""
        words = ["bind 127.0.0.1", f"port {self.port}", 'save ""', "appendonly no", f'dir "{self._folder}"']
        if self._password:
            words.append(f"requirepass {json.dumps(self._password)}")
        log = self._folder / "log"
        with log.open("ab") as out:
            # settings come by the standard input: a password on the command line could be read by everybody on the machine
            self._process = subprocess.Popen([self._program, "-"], stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)
        assert self._process.stdin is not None
        self._process.stdin.write("\n".join(words).encode() + b"\n")
        self._process.stdin.close()
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise ServerError(f"redis-server ended:\n{log.read_text()}")
            if self._answers():
                return
            time.sleep(0.02)
        raise ServerError(f"redis-server is not ready after {_READY_S:.0f} s:\n{log.read_text()}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def stop(self) -> None:
        _end(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: clients see their connections break."""
        _end(self._process, signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, as when a network swallows packets."""
        _signal(self._process, signal.SIGSTOP)

    def resume(self) -> None:
        _signal(self._process, signal.SIGCONT)


def _until_still(pid: int, seconds: float = 5.0) -> None:
    """A signal stops a process's threads one by one; a busy machine takes its time over that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            stats = [(thread / "stat").read_bytes() for thread in Path(f"/proc/{pid}/task").iterdir()]
        except OSError:
            return  # it ended, or this system has no such files
        if all(stat[stat.rindex(b")") + 2 :][:1] in (b"T", b"t") for stat in stats):
            return
        time.sleep(0.005)


class MockKafka:
    """librdkafka's mock cluster (one broker) in a process of its own.

    It speaks Kafka's protocol for producing, consuming and groups, and keeps topics in memory. It is no Kafka: it cannot keep its port
    or its data over a new start, so that a broker that goes away is shown by `pause` and `resume`. Raises ServerError.
    """

    def __init__(self, folder: Path, brokers: int = 1) -> None:
        if not self.found():
            raise ServerError("confluent-kafka is not installed (pip install factotum[kafka])")
        self._folder = folder
        self._count = brokers
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""
        folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def found() -> bool:
        """Whether the library is there."""
        return find_spec("confluent_kafka") is not None

    @property
    def brokers(self) -> str:
        """host:port of each broker, with commas between, as FACTOTUM_KAFKA_BROKERS takes them; empty before `start`."""
        return self._address

    def start(self) -> None:
        """Returns when the brokers answer. A second start makes a new cluster with other ports. Raises ServerError."""
        command = [sys.executable, "-m", "pipelines.servers", str(self._count)]
        here = Path(__file__).resolve().parent.parent
        log = self._folder / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, cwd=here, start_new_session=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            self._address = str(json.loads(line)["brokers"])
        except (ValueError, KeyError):
            self.kill()
            raise ServerError(f"the mock broker did not start:\n{log.read_text()}") from None

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: everything in its topics is lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers, nothing is lost. Returns once every thread of it stands still."""
        _signal(self._process, signal.SIGSTOP)
        if self._process is not None:
            _until_still(self._process.pid)

    def resume(self) -> None:
        _signal(self._process, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        _end(process, number)
        for stream in (process.stdin, process.stdout) if process is not None else ():
            if stream is not None:
                stream.close()


def _parents() -> Iterator[tuple[int, int]]:
    """Each process of this machine and its parent."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def _signal(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(number)


def _end(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    """Ends a process: by `number`, by SIGKILL if it does not obey. One that is stopped is woken first."""
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """`python -m pipelines.servers BROKERS`: a mock cluster until the standard input ends, so that none outlives who started it."""
    from confluent_kafka import Producer

    # the cluster lives inside a client; this one only holds it
    holder = Producer({"test.mock.num.brokers": int(sys.argv[1]), "log_level": 0})
    known = holder.list_topics(timeout=10.0).brokers.values()
    print(json.dumps({"brokers": ",".join(f"{broker.host}:{broker.port}" for broker in known)}), flush=True)
    sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
