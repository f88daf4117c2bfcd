"""A YAML file that knows on which line each value stands, so that a mistake can be pointed at."""

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from esteira.exceptions import PipelineInvalid

T = TypeVar("T")


class YamlDocument:
    """One mapping of keys, read from a file."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            PipelineInvalid: it is missing, not YAML, not one mapping, or says a key twice.
        """
        self.path = path
        try:
            root = yaml.compose(path.read_text("utf-8"), Loader=yaml.CSafeLoader)
            self._root = self._checked(root)
            self.content: dict[str, Any] = yaml.CSafeLoader("").construct_document(self._root)
        except FileNotFoundError:
            raise PipelineInvalid(
                f"{path}: missing; a pipeline is a folder with pipeline.yaml and features.sql"
            ) from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            what = f"not YAML: {error.problem}; mend the indentation (spaces, no tabs) or the quoting"
            raise PipelineInvalid(f"{path}:{line}: {what}") from error
        except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
            raise PipelineInvalid(f"{path}:1: not YAML: {error}; save it as UTF-8 text, quote what looks so") from error

    def convert(self, value: Any, kind: type[T], *above: str) -> T:
        """Converts `value`, which stands at the keys `above`.

        Raises:
            PipelineInvalid: it is not of that kind; names line and key.
        """
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise self._invalid(error, list(above)) from error

    def error(self, message: str, *keys: str) -> PipelineInvalid:
        """An error that points at the value at `keys`."""
        return PipelineInvalid(f"{self.path}:{self.line(*keys)}: {message}")

    def line(self, *keys: str) -> int:
        """The line of the value at `keys`, or of the nearest part above it that exists, from 1."""
        node: yaml.Node = self._root
        line: int = node.start_mark.line
        for key in keys:
            found = _child(node, key)
            if found is None:
                break
            line, node = found
        return line + 1

    def _invalid(self, error: msgspec.ValidationError, above: list[str]) -> PipelineInvalid:
        """Translates `Expected `int`, got `str` - at `$.a[0].b`` into file, line, key and what to do."""
        what, _, where = str(error).partition(" - at ")
        keys = above + re.findall(r"[^.\[\]`$]+", where.replace("key in ", "").replace("[...]", ""))
        unknown = re.search(r"unknown field `(.+)`", what)
        if unknown:
            return self.error(f"unknown key {unknown[1]!r}; remove it or mend its spelling", *keys, unknown[1])
        missing = re.search(r"missing required field `(.+)`", what)
        if missing:
            return self.error(f"{'.'.join(keys) or 'the file'} lacks the key {missing[1]!r}; add it", *keys)
        kind = "a key of " if "key in " in where else ""
        return self.error(f"{kind}{'.'.join(keys)}: {what[0].lower()}{what[1:]}; mend it", *keys)

    def _checked(self, root: yaml.Node | None) -> yaml.MappingNode:
        if not isinstance(root, yaml.MappingNode):
            example = f"such as `pipeline: {self.path.parent.name}`"
            raise PipelineInvalid(f"{self.path}:1: expected a mapping of keys; begin with one, {example}")
        self._check(root, [])
        return root

    def _check(self, node: yaml.Node, above: list[yaml.Node]) -> None:
        if node in above:
            raise self._error_at(node, "an anchor holds an alias of itself; write the values out")
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._check(item, [*above, node])
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            for _, value in node.value:
                self._check(value, [*above, node])

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """YAML would keep the last of two equal keys and say nothing."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error_at(key, "a key must be one word; write it so")
            if key.value in seen:
                raise self._error_at(key, f"the key {key.value!r} stands twice; remove one")
            seen.add(key.value)

    def _error_at(self, node: yaml.Node, message: str) -> PipelineInvalid:
        return PipelineInvalid(f"{self.path}:{node.start_mark.line + 1}: {message}")


def _child(node: yaml.Node, key: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((name.start_mark.line, value) for name, value in node.value if name.value == key), None)
    if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
        return node.value[int(key)].start_mark.line, node.value[int(key)]
    return None
