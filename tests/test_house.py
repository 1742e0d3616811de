"""The rules that keep the code a house, where a tool can hold them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import configs

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("configs", "features", "training", "serving", "pipelines")
RAY_IS_ALLOWED = ("pipelines/", "serving/app.py", "training/tune.py", "training/distribute.py")
DRAWERS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "factory", "misc", "core"}
DOMAINS = ("anime", "shop", "bank", "festival", "assistant")


def _files(*rooms: str) -> Iterator[tuple[str, Path]]:
    for room in rooms or ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when the file is) of every import, those for type checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside: set[int] = set()
    typing: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside.update(id(child) for child in ast.walk(node))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing.update(id(child) for child in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, id(node) not in inside
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, id(node) not in inside


@pytest.mark.skipif(sys.platform == "win32", reason="import-linter's program is looked for beside the interpreter")
def test_imports_run_only_leftwards() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-1_000:]


def test_ray_is_imported_only_where_it_may_be() -> None:
    guilty = [
        f"{name}: {module}"
        for name, path in _files()
        if not name.startswith(RAY_IS_ALLOWED)
        for module, _ in _imports(path)
        if module == "ray" or module.startswith("ray.")
    ]
    assert not guilty


def test_nothing_that_serves_or_loads_models_unpickles() -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    guilty = [f"{name}: {module}" for name, path in _files() for module, _ in _imports(path) if module.split(".")[0] in forbidden]
    assert not guilty
    runs_code = (
        r"allow_pickle\s*=\s*True",
        r"torch\.load\(",
        r"weights_only\s*=\s*False",
        r"yaml\.(load|unsafe_load)\(",
        r"(?<![.\w])(eval|exec)\(",
    )
    calls = re.compile("|".join(runs_code))
    said = [f"{name}: {found.group()}" for name, path in _files() if (found := calls.search(path.read_text(encoding="utf-8")))]
    assert not said


def test_no_file_is_a_drawer() -> None:
    guilty = [name for name, path in _files() if DRAWERS & set(path.stem.lower().split("_")) and path.stem.lower() in DRAWERS]
    assert not guilty


def test_a_domains_name_stands_in_its_own_python_only() -> None:
    names = {*DOMAINS, *configs.names()}
    guilty = []
    for name, path in _files():
        if name.startswith(("pipelines/sources/", "pipelines/samples/")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
                guilty.append(f"{name}:{node.lineno}: {node.value!r}")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and set(node.name.lower().split("_")) & names:
                guilty.append(f"{name}:{node.lineno}: {node.name}")
    assert not guilty


def test_long_files_say_why() -> None:
    guilty = []
    for name, path in _files():
        text = path.read_text(encoding="utf-8")
        said = ast.get_docstring(ast.parse(text)) or ""
        if len(text.splitlines()) > 400 and "long" not in said.lower():
            guilty.append(name)
    assert not guilty


def test_every_file_says_what_it_is_for() -> None:
    assert not [name for name, path in _files() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("statement", ["import configs; configs.load(configs.names()[0])", "import features.state, features.catalogue"])
def test_reading_a_configuration_brings_no_heavy_library(statement: str) -> None:
    check = f"{statement}; import sys; print(sorted({{'torch', 'ray', 'vllm', 'lightgbm', 'fastapi'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_does_nothing(tmp_path: Path) -> None:
    """Every module is imported in an empty folder: no file appears, no handler is installed, no thread is started."""
    modules = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name, _ in _files()]
    scripts = ("__main__", "migrations.env")  # run by Python and by Alembic, imported by nobody
    modules = [module for module in modules if not module.endswith(scripts)]
    program = (
        "import importlib, logging, sys, threading\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "own = [n for n in logging.root.manager.loggerDict if n.startswith('factotum') and logging.getLogger(n).handlers]\n"
        "print(own, [t.name for t in threading.enumerate() if t.name != 'MainThread'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled", "MPLCONFIGDIR": str(tmp_path)}
    before = {key for key in environment if key.startswith("FACTOTUM_")}
    for key in before:
        del environment[key]
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.strip().splitlines()[-1] == "[] []"
    assert not [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_the_licence_is_agpl() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in text
    assert "13. Remote Network Interaction" in text
