"""The application without Ray: `uvicorn --factory serving.api.plain:application`, with as many workers as one likes.

FACTOTUM_HOME (default .factotum), FACTOTUM_DOMAINS (names or YAML files separated by commas; default: all that ship) and
FACTOTUM_DEPLOYMENT (a YAML file; default: the deployment's defaults) say what it serves.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI

import configs
from configs.deployment import Deployment
from serving import logs
from serving.api.application import create_app
from serving.service import Service


def application() -> FastAPI:
    """Raises ConfigError."""
    logs.setup()
    named = os.environ.get("FACTOTUM_DOMAINS", "")
    domains = [name.strip() for name in named.split(",") if name.strip()] or list(configs.names())
    file = os.environ.get("FACTOTUM_DEPLOYMENT")
    deployment = configs.load_deployment(Path(file)) if file else Deployment()
    return create_app(Service(Path(os.environ.get("FACTOTUM_HOME", ".factotum")), domains, deployment))
