"""A backup: one file, a zip, with all rows of the database and, if asked, what answers (bundles and their aliases) and the secrets.

`tables/<schema>.<table>.jsonl` are the rows (serving/storage/backup.py says in which form), `home/...` the files, and
`manifest.json`, which is written last, holds the sha256 of each. A zip, because its entries are written without knowing their size
before, and read one by one. The file is readable by its owner alone: it holds what people did, and hashes of passwords.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.exc import DBAPIError

from serving.storage.backup import BackupError, Progress, dumped, load
from serving.storage.database import Database
from serving.storage.migrations import HEAD
from serving.storage.upgrade import known
from training import bundle

_MANIFEST = "manifest.json"
_SECRETS = "secrets.json"
_CHUNK = 1 << 20
_LEVEL = 3  # of compression: rows shrink about tenfold, and the disk stays the slower part


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int


class BackupManifest(BaseModel):
    """`database`: the kind it was made of; `revision`: of its tables. `files`: entry of the zip -> what it must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    made: str  # ISO 8601, UTC
    database: Literal["sqlite", "postgresql"]
    revision: str
    rows: dict[str, int]
    files: dict[str, Entry]


async def backup(database: Database, home: Path, out: Path, with_home: bool, with_secrets: bool, progress: Progress) -> BackupManifest:
    """Writes `out`, whole or not at all, while everything runs on. Raises BackupError, DatabaseAwayError, FileExistsError, OSError."""
    if os.path.lexists(out):  # noqa: ASYNC240 - a command's, nothing else runs
        raise FileExistsError(f"{out} exists already")
    draft = out.with_name(f".{out.name}.{os.getpid()}.draft")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
                writer = _Writer(archive)
                rows = await _write_tables(writer, database, progress)
                for path in _home_files(home, with_home, with_secrets):
                    name = f"home/{path.relative_to(home).as_posix()}"
                    with path.open("rb") as source:
                        writer.write(name, iter(lambda source=source: source.read(_CHUNK), b""))  # type: ignore[misc]
                    progress(name, 1)
                manifest = BackupManifest(
                    made=datetime.now(UTC).isoformat(timespec="seconds"),
                    database="sqlite" if database.lite else "postgresql",
                    revision=HEAD,
                    rows=rows,
                    files=writer.entries,
                )
                archive.writestr(_MANIFEST, manifest.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)
    return manifest


async def _write_tables(writer: _Writer, database: Database, progress: Progress) -> dict[str, int]:
    rows: dict[str, int] = {}
    failed: OSError | None = None
    async with database.apart(snapshot=True) as connection:
        try:
            async for table, lines in dumped(connection, database, progress):
                name = f"tables/{table}.jsonl"
                try:
                    if writer.open != name:
                        writer.begin(name)
                    writer.add(lines)
                except OSError as error:  # of the file, not of the database
                    failed = error
                    break
                rows[table] = rows.get(table, 0) + lines.count(b"\n")
        except DBAPIError as error:
            raise BackupError(f"reading the database failed: {str(error).splitlines()[0]}") from error
        finally:
            if failed is None:
                writer.end()
    if failed is not None:
        raise failed
    return rows


def _home_files(home: Path, with_home: bool, with_secrets: bool) -> Iterator[Path]:
    """Of each domain the bundles that answer, or that a rollback would go back to, and the aliases, which come last."""
    if with_secrets and (home / _SECRETS).is_file():
        yield home / _SECRETS
    if not with_home:
        return
    for folder in sorted(home.glob("*/bundles")):
        domain = folder.parent.name
        wanted: set[str] = set()
        for name in get_args(bundle.Alias):
            wanted |= {version for version in (bundle.alias(home, domain, name), bundle.pointed_before(home, domain, name)) if version}
        for version in sorted(wanted):
            yield from sorted(path for path in (folder / version).rglob("*") if path.is_file())
        for name in get_args(bundle.Alias):
            yield from (path for path in (folder / f"{name}.history", folder / name) if path.is_file())


class _Writer:
    """Entries of a zip, one open at a time, each with its sha256."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._stream: IO[bytes] | None = None
        self._digest, self._bytes = hashlib.sha256(), 0
        self.open: str | None = None
        self.entries: dict[str, Entry] = {}

    def begin(self, name: str) -> None:
        self.end()
        self.open, self._digest, self._bytes = name, hashlib.sha256(), 0
        self._stream = self._archive.open(name, "w", force_zip64=True)

    def add(self, data: bytes) -> None:
        assert self._stream is not None
        self._stream.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    def end(self) -> None:
        if self._stream is not None and self.open is not None:
            self._stream.close()
            self.entries[self.open] = Entry(sha256=self._digest.hexdigest(), bytes=self._bytes)
            self._stream = self.open = None

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        self.begin(name)
        for chunk in chunks:
            self.add(chunk)
        self.end()


# ------------------------------------------------------------ back


async def restore(database: Database, home: Path, file: Path, replace: bool, progress: Progress) -> BackupManifest:
    """Reads the whole file first, and refuses it if anything is damaged. Then the bundles, the rows in one transaction, and the aliases:
    interrupted at any point, the same command does it again. `replace`: the database's rows go, files that differ are overwritten.
    Raises BackupError, DatabaseAwayError, FileNotFoundError."""
    with _opened(file) as archive:
        manifest = check(archive, file, progress)
        if not known(manifest.revision):
            raise BackupError(
                f"{file} is of revision {manifest.revision}, which this version of Factotum does not know (its newest is {HEAD}): "
                "restore it with the version that made it"
            )
        names = [name for name in manifest.files if name.startswith("home/")]
        last = [name for name in names if PurePosixPath(name).parent.name == "bundles"]
        _refuse_other_files(home, manifest, names, replace)
        _extract(archive, home, manifest, [name for name in names if name not in last], progress)
        tables = {
            name.removeprefix("tables/").removesuffix(".jsonl"): _lines(archive, name)
            for name in manifest.files
            if name.startswith("tables/")
        }
        await load(database, manifest.revision, tables, replace, progress)
        _extract(archive, home, manifest, last, progress)
    return manifest


def read_manifest(file: Path) -> BackupManifest:
    """Raises BackupError, FileNotFoundError."""
    with _opened(file) as archive:
        return _manifest(archive, file)


def check(archive: zipfile.ZipFile, file: Path, progress: Progress) -> BackupManifest:
    """That a backup is what was written. Raises BackupError."""
    manifest = _manifest(archive, file)
    there = set(archive.namelist()) - {_MANIFEST}
    if there != set(manifest.files):
        odd = sorted(there ^ set(manifest.files))
        raise BackupError(f"{file} is damaged: {odd[0]} is {'not in its manifest' if odd[0] in there else 'missing'}")
    for number, (name, said) in enumerate(manifest.files.items(), 1):
        parts = PurePosixPath(name).parts
        if parts[0] not in ("home", "tables") or ".." in parts or len(parts) < 2 or "\\" in name:
            raise BackupError(f"{file} is no backup of Factotum's: it has an entry {name!r}")
        digest = hashlib.sha256()
        try:
            with archive.open(name) as source:
                for chunk in iter(lambda source=source: source.read(_CHUNK), b""):  # type: ignore[misc]
                    digest.update(chunk)
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
            raise BackupError(f"{file} is damaged at {name}: {error}") from error
        except Exception as error:  # zlib.error
            raise BackupError(f"{file} is damaged at {name}: {type(error).__name__}: {error}") from error
        if digest.hexdigest() != said.sha256:
            raise BackupError(f"{file} is damaged: {name} is not what was written")
        progress("check", number)
    return manifest


def _opened(file: Path) -> zipfile.ZipFile:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError) as error:
        raise BackupError(f"{file} is no whole backup: {error}") from error


def _manifest(archive: zipfile.ZipFile, file: Path) -> BackupManifest:
    try:
        return BackupManifest.model_validate_json(archive.read(_MANIFEST))
    except KeyError:
        raise BackupError(f"{file} is no whole backup: there is no {_MANIFEST}") from None
    except (zipfile.BadZipFile, ValidationError, OSError, ValueError) as error:
        raise BackupError(f"{file} is damaged: its {_MANIFEST} cannot be read ({str(error).splitlines()[0]})") from error


def _lines(archive: zipfile.ZipFile, name: str) -> Callable[[], Iterator[bytes]]:
    def read() -> Iterator[bytes]:
        with archive.open(name) as source:
            yield from source

    return read


def _target(home: Path, name: str) -> Path:
    return home.joinpath(*PurePosixPath(name).parts[1:])


def _refuse_other_files(home: Path, manifest: BackupManifest, names: Sequence[str], replace: bool) -> None:
    for name in names:
        path = _target(home, name)
        if not replace and path.is_file() and _sha256(path) != manifest.files[name].sha256:
            raise BackupError(f"{path} exists and is another one; name an empty home, or replace what is there (--replace)")


def _extract(archive: zipfile.ZipFile, home: Path, manifest: BackupManifest, names: Sequence[str], progress: Progress) -> None:
    """A bundle's manifest comes last of its files, as it does when a bundle is written: without it nobody takes it for whole."""
    for number, name in enumerate(sorted(names, key=lambda name: (PurePosixPath(name).name == _MANIFEST, name.endswith("/champion"))), 1):
        path = _target(home, name)
        if not (path.is_file() and _sha256(path) == manifest.files[name].sha256):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
            with archive.open(name) as source, os.fdopen(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
                target.flush()
                os.fsync(target.fileno())
            draft.replace(path)
        progress("home", number)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
