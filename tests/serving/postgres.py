"""A real PostgreSQL server of Debian's programs, in a temporary folder, ended by its own process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path


def programs() -> Path | None:
    """The folder of initdb and postgres, the newest version first; None where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    return found[0].parent if found else None


class PostgresServer:
    """`stop` and `start` again at will: the data and the port stay."""

    def __init__(self, folder: Path) -> None:
        found = programs()
        assert found is not None
        self._programs = found
        self._data = folder / "data"
        self._socket = folder / "socket"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        folder.mkdir(parents=True, exist_ok=True)
        self._socket.mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(self._socket, "postgres", "postgres")
        initdb = [str(found / "initdb"), "-D", str(self._data), "-U", "factotum", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(self._as_postgres(initdb), check=True, capture_output=True, cwd="/")

    @staticmethod
    def _as_postgres(command: list[str]) -> list[str]:
        """The server refuses to run as root."""
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command] if os.geteuid() == 0 else command

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://factotum@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={self._socket}", "max_connections=60", "fsync=off"]
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += [part for setting in settings for part in ("-c", setting)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._as_postgres(command), stdout=log, stderr=log, cwd="/")
        ready = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "factotum", "-q"]
        for _ in range(200):
            if self._process.poll() is not None:
                raise RuntimeError(f"postgres ended:\n{self._log.read_text()}")
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"postgres is not ready after 10 s:\n{self._log.read_text()}")

    def stop(self) -> None:
        """At once: open transactions are lost, as when the machine of the server goes."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: immediate shutdown
            self._process.wait(20)
            self._process = None
