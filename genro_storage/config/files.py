"""YAML and JSON files to plain values.

Owns the syntax and its errors: file, line, column. Stricter than the parsers beneath: a key that comes twice is an
error (they keep the last), keys are text, and dates stay text. What the values mean is nobody's business here.

No message or cause holds text of the file, because that may be a secret: YAML's own errors quote the line, and JSON's
carry the whole document. Hence ``from None`` where this package otherwise chains.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from genro_storage.config.positions import Positions
from genro_storage.errors import StorageConfigError, StorageNotFoundError, StoragePermissionError


class Parsed(msgspec.Struct, frozen=True):
    """What a file holds, and where in it that stands."""

    value: object
    positions: Positions


def read(path: str, origin: str) -> Parsed:
    """What a file holds; its ending says which syntax.

    Raises StorageNotFoundError, StoragePermissionError, StorageConfigError; messages begin with ``origin``.
    """
    with _translated(origin):
        os.stat(path)  # a missing file is told before a wrong ending
        parse = _PARSERS.get(os.path.splitext(path)[1].lower())
        if parse is None:
            raise StorageConfigError(f'{origin}: expected a file whose name ends in {", ".join(_PARSERS)}')
        with open(path, encoding='utf-8-sig') as file:
            text = file.read()
    if not text.strip():
        raise StorageConfigError(f"{origin}: the file is empty; expected a list of mounts or a mapping with 'mounts:'")
    try:
        return Parsed(parse(text, origin), Positions(text))
    except RecursionError:
        raise StorageConfigError(f'{origin}: nested too deeply') from None


def is_kept(path: str) -> bool:
    """Whether nobody but the caller and root could have written a file. Raises OSError."""
    # A link must be theirs too: a foreign one could point at any of the caller's own files.
    link, target = os.lstat(path), os.stat(path)
    owners = {link.st_uid, target.st_uid}
    return owners <= {os.geteuid(), 0} and not target.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextlib.contextmanager
def _translated(origin: str) -> Iterator[None]:
    try:
        yield
    except StorageConfigError:
        raise
    except FileNotFoundError as error:
        raise StorageNotFoundError(f'{origin}: no such configuration file') from error
    except PermissionError as error:
        raise StoragePermissionError(f'{origin}: not allowed to read this configuration file') from error
    except UnicodeDecodeError as error:
        raise StorageConfigError(f'{origin}: byte {error.start + 1} is not UTF-8') from None
    except IsADirectoryError as error:
        raise StorageConfigError(f'{origin}: expected a configuration file, this is a directory') from error
    except (OSError, ValueError) as error:
        raise StorageConfigError(f'{origin}: cannot be read as a configuration file: {error}') from error


def _parse_json(text: str, origin: str) -> object:
    import json

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise StorageConfigError(f'{origin}: key {twice!r} comes twice in one mapping')
        return mapping

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise StorageConfigError(f'{origin}: line {error.lineno}, column {error.colno}: {error.msg}') from None
    except StorageConfigError:
        raise
    except ValueError:
        raise StorageConfigError(f'{origin}: holds a number that is too long') from None


def _parse_yaml(text: str, origin: str) -> object:
    import yaml

    try:
        return yaml.load(text, _loader(yaml))  # noqa: S506 - derived from SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f'line {mark.line + 1}, column {mark.column + 1}: ' if mark else ''
        problem = ', '.join(filter(None, (error.context, error.problem)))
        raise StorageConfigError(f'{origin}: {place}{_without_quotes(problem)}') from None
    except yaml.reader.ReaderError as error:
        raise StorageConfigError(f'{origin}: character {error.position + 1}: {error.reason}') from None


def _without_quotes(problem: str) -> str:
    """YAML's sentence without names from the file: an unquoted password that begins with * or ! is quoted in it."""
    return re.sub(r"'(?!<)[^']{2,}'", "'…'", problem)


def _loader(yaml: Any) -> Any:
    """The strict loader; made here because the import of yaml is put off until a YAML file is read."""
    text_tag, merge_tag, date_tag = (f'tag:yaml.org,2002:{name}' for name in ('str', 'merge', 'timestamp'))

    class StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to declare them
            first: [(tag, pattern) for tag, pattern in resolvers if tag != date_tag]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_mapping_node(self, anchor: str | None) -> Any:
            # Checked here because merging (<<) writes into the nodes later on.
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if key.tag == merge_tag:
                    continue
                if key.tag != text_tag:
                    raise yaml.constructor.ConstructorError(
                        None, None, 'a key is no text; put it in quotes', key.start_mark
                    )
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'key "{key.value}" comes twice in one mapping', key.start_mark
                    )
                seen.add(key.value)
            return node

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            # PyYAML lets the errors of int(), float() and its tables through when a tag and its value disagree.
            try:
                return super().construct_object(node, deep)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                raise yaml.constructor.ConstructorError(
                    None, None, 'a value does not fit its type', node.start_mark
                ) from None

    return StrictLoader


_PARSERS: dict[str, Callable[[str, str], object]] = {'.yaml': _parse_yaml, '.yml': _parse_yaml, '.json': _parse_json}
