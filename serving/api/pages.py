"""/docs: Swagger UI over the OpenAPI document, from files of this machine: nothing is asked of anybody else's server.

The files are those of the package fastapi-offline, which ships Swagger UI; the package itself is not imported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse

PACKAGE = "fastapi_offline"
_FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}
_KEPT = {"Cache-Control": "public, max-age=86400"}


def install(app: FastAPI) -> None:
    """Adds /docs and its files. Without the package there is no page, and /openapi.json is all there is."""
    folder = _folder()
    if folder is None:
        return

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=app.openapi_url or "/openapi.json",
            title=app.title,
            swagger_js_url="/docs/swagger-ui-bundle.js",
            swagger_css_url="/docs/swagger-ui.css",
            swagger_favicon_url="/docs/favicon.png",
            swagger_ui_parameters={"tryItOutEnabled": True, "persistAuthorization": False},
        )

    app.add_api_route("/docs", page, methods=["GET"], include_in_schema=False)
    for name, kind in _FILES.items():
        app.add_api_route(f"/docs/{name}", _sender(folder / name, kind), methods=["GET"], include_in_schema=False)


def _sender(path: Path, kind: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return FileResponse(path, media_type=kind, headers=_KEPT)

    return send


def _folder() -> Path | None:
    """Where the package's files lie; None where it is not installed or does not hold them."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "static"
    return folder if all((folder / name).is_file() for name in _FILES) else None
