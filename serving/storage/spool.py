"""Rows on their way to the database: put without waiting, written in batches, kept in memory and in a file while the database is away.

Memory is bounded: beyond `bound` waiting rows the oldest are lost, and counted. What has waited for longer than `_PATIENCE_S`
is appended to a file of JSON lines in the home folder, one a process, so that a stop or a kill loses at most what was put in the last
moments. A process holds a lock on its file while it lives; a file without a lock belonged to one that is gone, and any
process takes it over: at its start and once a minute. Rows may so be written twice, and `write` must not mind.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import orjson

from serving.storage.database import DatabaseAwayError

BATCH = 200  # rows written at once
LINGER_S = 0.1  # a row waits at most so long for others to be written with
_PATIENCE_S = 0.5  # a row that could not be written for so long goes to the file as well
_LOOK_S = 0.25  # between looks at what waits
_SYNC_S = 2.0  # the file is brought to the disk so often; a killed process loses nothing that was appended, a machine so much
_ADOPT_S = 60.0  # between looks for files that a process left behind
_RETRY_S = 0.2

log = logging.getLogger("factotum.spool")

Row = TypeVar("Row")


class Spool(Generic[Row]):
    """Made anywhere; acts from `start` to `stop`, on one event loop.

    `name`: of the file, without blanks. `folder`: made when it is needed. `write` writes rows, leaves those that are there already
    as they are, and raises DatabaseAwayError where it may work later; what it refuses otherwise is lost. `dump` turns a row into
    plain JSON values, and `load` turns them back (KeyError, TypeError and ValueError: a damaged line, which is lost). `written` and
    `lost` are told numbers of rows.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        bound: int,
        write: Callable[[Sequence[Row]], Awaitable[None]],
        dump: Callable[[Row], Mapping[str, Any]],
        load: Callable[[dict[str, Any]], Row],
        written: Callable[[int], None],
        lost: Callable[[int], None],
    ) -> None:
        self._name, self._folder, self._bound = name, folder, bound
        self._write, self._dump, self._load = write, dump, load
        self._written, self._lost = written, lost
        self._waiting: OrderedDict[str, Row] = OrderedDict()
        self._unfiled: OrderedDict[str, float] = OrderedDict()  # those of them that are not in the file, and since when they wait
        self._file: _File | None = None
        self._filing = threading.Lock()
        self._woken, self._full = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: str, row: Row) -> None:
        """Never waits. A key that waits already is replaced."""
        if key not in self._waiting:
            while len(self._waiting) >= self._bound:
                oldest, _ = self._waiting.popitem(last=False)
                self._unfiled.pop(oldest, None)
                self._lost(1)
        self._waiting[key] = row
        self._unfiled[key] = time.monotonic()
        self._woken.set()
        if len(self._waiting) >= BATCH:
            self._full.set()

    def waiting(self, key: str) -> Row | None:
        """A row that is not written yet."""
        return self._waiting.get(key)

    def values(self) -> list[Row]:
        """All rows that are not written yet, oldest first."""
        return list(self._waiting.values())

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._write_on(), name=f"{self._name}-write"),
            asyncio.create_task(self._file_on(), name=f"{self._name}-file"),
            asyncio.create_task(self._adopt_on(), name=f"{self._name}-adopt"),
        ]

    async def stop(self, seconds: float) -> None:
        """Writes what waits, for at most so long; what is left then stays in the file for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(seconds):
                while self._waiting:
                    try:
                        await self._write_some()
                    except DatabaseAwayError:
                        await self._to_file(sync=True)  # first of all, in case the process is killed while it waits
                        await asyncio.sleep(_RETRY_S)
        except TimeoutError:
            await self._to_file(sync=True)
            if self._unfiled:
                self._lost(len(self._unfiled))
            fields = {"rows": len(self._waiting), "lost": len(self._unfiled), "spool": self._name}
            log.warning("the database was away when the server stopped: what waited is kept in a file", extra={"fields": fields})
            self._waiting.clear()
            self._unfiled.clear()
        with self._filing:
            if self._file is not None:
                self._file.close()
                self._file = None

    # ------------------------------------------------------------ to the database

    async def _write_on(self) -> None:
        pause = 0.0
        while True:
            await self._woken.wait()
            try:
                async with asyncio.timeout(LINGER_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            try:
                await self._write_some()
                pause = 0.0
            except DatabaseAwayError as error:
                pause = min(5.0, 2 * pause or 0.25)
                fields = {"spool": self._name, "waiting": len(self._waiting), "why": str(error)}
                log.warning("rows wait: the database is away", extra={"fields": fields})
                await asyncio.sleep(pause)
            if not self._waiting:
                self._woken.clear()
            if len(self._waiting) < BATCH:
                self._full.clear()

    async def _write_some(self) -> None:
        batch = {key: row for (key, row), _ in zip(self._waiting.items(), range(BATCH), strict=False)}
        if not batch:
            return
        await self._write_or_lose(list(batch.values()))
        for key, row in batch.items():
            if self._waiting.get(key) is row:  # else it overflowed meanwhile, or was said anew
                del self._waiting[key]
                self._unfiled.pop(key, None)
        if not self._waiting and self._file is not None:
            await asyncio.to_thread(self._empty)

    async def _write_or_lose(self, rows: Sequence[Row]) -> None:
        """Raises DatabaseAwayError. A row that the database refuses for good must not keep the others from being written."""
        try:
            await self._write(rows)
            self._written(len(rows))
        except DatabaseAwayError:
            raise
        except Exception as error:
            if len(rows) == 1:
                self._lost(1)
                log.exception("a row was refused", extra={"fields": {"spool": self._name, "why": type(error).__name__}})
                return
            for row in rows:
                await self._write_or_lose([row])

    # ------------------------------------------------------------ to the file

    async def _file_on(self) -> None:
        synced = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            oldest = next(iter(self._unfiled.values()), None)
            due = self._file is not None and time.monotonic() - synced > _SYNC_S
            if due or (oldest is not None and time.monotonic() - oldest > _PATIENCE_S):
                await self._to_file(sync=due)
                synced = time.monotonic() if due else synced

    async def _to_file(self, sync: bool) -> None:
        keys = list(self._unfiled)
        rows = [self._waiting[key] for key in keys]
        # Rows that were written or overflowed since stay in a file until it is done anew: at twice the bound, so that it is bounded too.
        everything = list(self._waiting.values()) if self._file is not None and self._file.rows + len(rows) > 2 * self._bound else None
        try:
            await asyncio.to_thread(self._append, rows, everything, sync)
        except OSError as error:
            log.error("the spool's file cannot be written", extra={"fields": {"spool": self._name, "why": str(error)}})
            return
        for key, row in zip(keys, rows, strict=True):
            if self._waiting.get(key) is row:
                self._unfiled.pop(key, None)

    def _append(self, rows: Sequence[Row], everything: Sequence[Row] | None, sync: bool) -> None:
        with self._filing:
            if everything is not None and self._file is not None:
                before, self._file = self._file, _File(self._folder, self._name)
                self._file.append([self._dump(row) for row in everything], sync=True)
                before.remove()
                return
            if self._file is None and rows:
                self._file = _File(self._folder, self._name)
            if self._file is not None:
                self._file.append([self._dump(row) for row in rows], sync)

    def _empty(self) -> None:
        """Everything was written: the file goes, unless something was put meanwhile."""
        with self._filing:
            if self._file is not None and len(self._waiting) == len(self._unfiled):
                self._file.remove()
                self._file = None

    # ------------------------------------------------------------ what others left behind

    async def _adopt_on(self) -> None:
        while True:
            try:
                for path in await asyncio.to_thread(lambda: sorted(self._folder.glob(f"{self._name}-*.jsonl"))):
                    await self._adopt(path)
            except OSError as error:
                log.error("a spool's file cannot be read", extra={"fields": {"spool": self._name, "why": str(error)}})
            await asyncio.sleep(_ADOPT_S)

    async def _adopt(self, path: Path) -> None:
        """Writes the rows of a file whose process is gone; the file goes when all of them are written."""
        file = await asyncio.to_thread(_File.orphan, path)
        if file is None:
            return
        told = 0
        try:
            for lines in file.pages(BATCH):
                rows: list[Row] = []
                for line in lines:
                    try:
                        rows.append(self._load(orjson.loads(line)))
                    except (KeyError, TypeError, ValueError):  # most likely the last line, cut off by a kill
                        self._lost(1)
                while rows:
                    try:
                        await self._write_or_lose(rows)
                        break
                    except DatabaseAwayError:
                        await asyncio.sleep(1.0)
                told += len(rows)
            file.remove()
        finally:
            file.close()
        log.info("rows of a process that is gone were written", extra={"fields": {"spool": self._name, "rows": told}})


class _File:
    """A file of JSON lines, locked while it is open. Raises OSError."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            self.path = folder / f"{name}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._stream: IO[bytes] = os.fdopen(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600), "ab+")
            self.rows = 0
            if _locked(self._stream):
                return
            self._stream.close()  # somebody else took the empty file for one that was left behind

    @classmethod
    def orphan(cls, path: Path) -> _File | None:
        """A file whose process is gone, locked; None while that lives."""
        try:
            stream = path.open("rb+")
        except FileNotFoundError:
            return None
        if not _locked(stream) or not path.exists():  # gone: another one wrote it meanwhile
            stream.close()
            return None
        file = cls.__new__(cls)
        file.path, file._stream, file.rows = path, stream, 0
        return file

    def append(self, rows: Sequence[Mapping[str, Any]], sync: bool) -> None:
        self._stream.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        self._stream.flush()
        self.rows += len(rows)
        if sync:
            os.fsync(self._stream.fileno())

    def pages(self, size: int) -> Iterator[list[bytes]]:
        self._stream.seek(0)
        page: list[bytes] = []
        for line in self._stream:
            page.append(line)
            if len(page) == size:
                yield page
                page = []
        if page:
            yield page

    def close(self) -> None:
        self._stream.close()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._stream.close()


def _locked(stream: IO[bytes]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
