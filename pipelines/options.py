"""Options that many verbs of the command line have in common: one spelling, one help text, one default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DomainName = Annotated[str, typer.Argument(help="a domain of configs/, or the path of a domain's YAML", metavar="DOMAIN")]
DataDir = Annotated[
    Path | None, typer.Option("--data", help="folder with the domain's files; without it a sample is made", file_okay=False, exists=True)
]
#: Where nothing is made for somebody who has no files.
FilesDir = Annotated[Path | None, typer.Option("--data", help="folder with the domain's files", file_okay=False, exists=True)]
HomeDir = Annotated[Path, typer.Option("--home", envvar="FACTOTUM_HOME", help="where everything is kept")]
DeploymentFile = Annotated[
    Path | None,
    typer.Option("--deployment", envvar="FACTOTUM_DEPLOYMENT", help="YAML: where things run (configs/deployment.py)", exists=True),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress")]
AsJson = Annotated[bool, typer.Option("--json", help="results on stdout and progress on stderr as JSON")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done")]
HOME = Path(".factotum")
