"""The only readers of YAML: `names()` says which domains there are, `load(name)` gives one, checked word by word.

What a search found and somebody adopted stands beside the domain's YAML, in NAME.adopted.yaml, and is read with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from configs.deployment import Deployment
from configs.domain import Adopted, Domain, Word

_HERE = Path(__file__).parent
_ADOPTED = ".adopted.yaml"


class _Entries(Word):
    entries: dict[str, Adopted]


_Word = TypeVar("_Word", Domain, Deployment, _Entries)


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
    return tuple(sorted(path.stem for path in (folder or _HERE).glob("*.yaml") if not path.name.endswith(_ADOPTED)))


def load(name: str, folder: Path | None = None) -> Domain:
    """The domain `name`; `name` may also be the path of a YAML file anywhere.

    Raises ConfigError if there is no such domain, if a word in its YAML is unknown or out of range, or if something was adopted that
    does not fit what the YAML says now.
    """
    path = yaml_path(name, folder)
    domain = written(name, folder)
    entries = adopted(name, folder)
    if not entries:
        return domain
    document = domain.model_dump(mode="json")
    for source, entry in entries.items():
        words = document["ranker"] if source == "ranker" else document["candidates"].get(source)
        if words is None:
            raise ConfigError(f"{adopted_path(path)}: {source}: neither a source ({', '.join(domain.candidates)}) nor the ranker")
        for word, value in entry.words.items():
            if word not in words or word == "model":
                raise ConfigError(f"{adopted_path(path)}: {source}.{word}: not a word of it; allowed are {', '.join(sorted(words))}")
            if words[word] != entry.over.get(word):
                raise ConfigError(
                    f"{adopted_path(path)}: {source}.{word}: {value!r} was adopted over {entry.over.get(word)!r}, but {path.name} now says "
                    f"{words[word]!r}; take one of them out (`factotum adopt {name} --model {source} --undo` takes out the first)"
                )
            words[word] = value
    try:
        return Domain.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{adopted_path(path)}:\n" + _faults(error)) from error


def written(name: str, folder: Path | None = None) -> Domain:
    """The domain as its YAML alone says, without what was adopted. Raises ConfigError as `load` does."""
    path = yaml_path(name, folder)
    if not path.is_file():
        raise ConfigError(f"no domain {name!r}: there is no {path.name}; known are {', '.join(names(folder)) or 'none'}")
    return _checked(Domain, path, {"name": path.stem})


def adopted(name: str, folder: Path | None = None) -> dict[str, Adopted]:
    """What was adopted for each source of a domain, or for `ranker`; nothing where nothing was. Raises ConfigError."""
    path = adopted_path(yaml_path(name, folder))
    return dict(_checked(_Entries, path, {}, "entries").entries) if path.is_file() else {}


def adopted_path(yaml_file: Path) -> Path:
    """Where what was adopted for a domain's YAML stands."""
    return yaml_file.with_name(yaml_file.stem + _ADOPTED)


def yaml_path(name: str, folder: Path | None = None) -> Path:
    """The file that `load` reads for this name; it need not be there."""
    return Path(name) if name.endswith((".yaml", ".yml")) else (folder or _HERE) / f"{name}.yaml"


def load_deployment(path: Path) -> Deployment:
    """Where things run, from a YAML file. Raises ConfigError as `load` does."""
    if not path.is_file():
        raise ConfigError(f"no deployment file {path}")
    return _checked(Deployment, path, {})


def _checked(word: type[_Word], path: Path, defaults: dict[str, Any], under: str | None = None) -> _Word:
    """`under`: the file's mapping is the value of this word."""
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
        return word.model_validate({**defaults, **text} if under is None else {under: text})
    except ValidationError as error:
        raise ConfigError(f"{path}:\n" + _faults(error)) from error


def _faults(error: ValidationError) -> str:
    return "\n".join(
        f"  {'.'.join(str(part) for part in fault['loc']) or '(top)'}: {fault['msg']}"
        + (f", got {fault['input']!r:.200}" if fault["type"] != "missing" and fault["loc"] else "")
        for fault in error.errors(include_url=False)
    )
