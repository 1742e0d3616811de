"""The only readers of YAML: `names()` says which domains there are, `load(name)` gives one, checked word by word."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from configs.deployment import Deployment
from configs.domain import Domain

_HERE = Path(__file__).parent
_Word = TypeVar("_Word", Domain, Deployment)


class ConfigError(ValueError):
    """A configuration that cannot be used: the message holds the file, the place in it, and what is allowed."""


class _Once(yaml.SafeLoader):
    """YAML itself lets a second mention of a word silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known: set[Any] = set()
        for key, _ in node.value:
            word = self.construct_object(key, deep=True)
            if isinstance(word, str | int) and word in known and word != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{word!r} stands twice", key.start_mark)
            if isinstance(word, str | int):
                known.add(word)
        return dict(super().construct_mapping(node, deep))


def names(folder: Path | None = None) -> tuple[str, ...]:
    """Names of the domains that have a YAML in `folder` (default: the ones that ship), sorted."""
    return tuple(sorted(path.stem for path in (folder or _HERE).glob("*.yaml")))


def load(name: str, folder: Path | None = None) -> Domain:
    """The domain `name`; `name` may also be the path of a YAML file anywhere.

    Raises ConfigError if there is no such domain, or if a word in its YAML is unknown or out of range.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else (folder or _HERE) / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no domain {name!r}: there is no {path.name}; known are {', '.join(names(folder)) or 'none'}")
    return _checked(Domain, path, {"name": path.stem})


def load_deployment(path: Path) -> Deployment:
    """Where things run, from a YAML file. Raises ConfigError as `load` does."""
    if not path.is_file():
        raise ConfigError(f"no deployment file {path}")
    return _checked(Deployment, path, {})


def _checked(word: type[_Word], path: Path, defaults: dict[str, Any]) -> _Word:
    try:
        text = _Once(path.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if text is None:
        text = {}
    if not isinstance(text, dict):
        raise ConfigError(
            f"{path}: holds {type(text).__name__}, expected a mapping of the words in configs/{word.__module__.split('.')[-1]}.py"
        )
    try:
        return word.model_validate({**defaults, **text})
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in fault['loc']) or '(top)'}: {fault['msg']}"
            + (f", got {fault['input']!r:.200}" if fault["type"] != "missing" and fault["loc"] else "")
            for fault in error.errors(include_url=False)
        ]
        raise ConfigError(f"{path}:\n" + "\n".join(lines)) from error
