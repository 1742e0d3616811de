"""What each kind of refusal means to whoever called the command line."""

from __future__ import annotations

from typer.exceptions import TyperException

from configs import ConfigError
from pipelines.ingest import IngestRefused
from pipelines.publish import NotPromotedError
from pipelines.serve import PortTakenError, ServeError
from pipelines.sources.tables import SourceError
from pipelines.steps import StepBusy
from serving.storage.backup import BackupError
from serving.storage.database import DatabaseAwayError
from serving.storage.upgrade import SchemaError
from training.bundle import BundleError

REFUSED, GATE, BUSY = 3, 4, 5


def exit_code(error: BaseException) -> int:
    """2 wrong command line, 3 refused, 4 held back by the gate, 5 busy, 1 anything nobody foresaw."""
    if isinstance(error, TyperException):
        return 2
    if isinstance(error, NotPromotedError):
        return GATE
    if isinstance(error, StepBusy | PortTakenError):
        return BUSY
    if isinstance(
        error,
        ConfigError
        | SourceError
        | IngestRefused
        | BundleError
        | DatabaseAwayError
        | SchemaError
        | BackupError
        | ServeError
        | FileNotFoundError
        | FileExistsError
        | ValueError,
    ):
        return REFUSED
    return 1
