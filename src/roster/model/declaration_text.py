"""Owns the declaration as YAML text: one style, every error with file and line. Reads and writes no files.

What YAML 1.1 guesses (`no`, `012`, `1:30`, dates) is text here, as in YAML 1.2; names of members are always text.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, ClassVar

import yaml
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from roster.base.errors import Code, Error
from roster.base.values import canonical
from roster.model.declaration import Declaration, read_declaration, to_json

TEXT = "tag:yaml.org,2002:str"
_WIDE = 1_000_000
_PLAIN = {
    "tag:yaml.org,2002:bool": (re.compile(r"^(?:true|false)$"), "tf"),
    "tag:yaml.org,2002:null": (re.compile(r"^(?:~|null|)$"), ["~", "n", ""]),
    "tag:yaml.org,2002:int": (re.compile(r"^-?(?:0|[1-9][0-9]*)$"), "-0123456789"),
    "tag:yaml.org,2002:float": (re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$"), "-0123456789"),
}
"""What is no text when it stands without quotes: JSON's words and numbers."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Composes nodes; what they mean is said here, not by YAML."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node:
        if self.check_event(AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not read: write it out", problem_mark=mark)
        composed: Node = super().compose_node(parent, index)
        return composed


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes what either version of YAML would take for something else than text."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _text_node(dumper: _Dumper, text: str) -> ScalarNode:
    """Lines as lines; escaped where a character cannot be seen, or an empty line would end the part."""
    plain = text.replace("\n", "").isprintable() and not f"\n{text}".endswith("\n\n")
    style = '"' if not plain else "|" if "\n" in text else None
    node: ScalarNode = dumper.represent_scalar(TEXT, text, style=style)
    return node


_Dumper.add_representer(str, _text_node)
for _tag, (_form, _firsts) in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, _form, list(_firsts))
    _Dumper.add_implicit_resolver(_tag, _form, list(_firsts))


def write_text(declaration: Declaration, comments: tuple[str, ...] = ()) -> str:
    """The declaration as YAML under comments: equal declarations give equal text below them."""
    head = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    parts = [_dump({name: part}) for name, part in to_json(declaration).items()]
    return "\n".join([head, *parts] if head else parts)


def _dump(plain: dict[str, Any]) -> str:
    text: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDE)
    return text


class Places:
    """The line of every place of a file."""

    def __init__(self, name: str, lines: dict[str, int]) -> None:
        self._name = name
        self._lines = lines

    def of(self, pointer: str) -> str:
        """`file:line` of a pointer, else of the nearest place around it."""
        while pointer and pointer not in self._lines:
            pointer = pointer.rpartition("/")[0]
        return f"{self._name}:{self._lines.get(pointer, 1)}"

    def tell(self, error: Error, under: str = "") -> Error:
        """The same error with its line in front, when it points into what stands under the pointer `under`."""
        if not error.at.startswith(under or "/"):
            return error
        place = self.of(error.at.removeprefix(under).rstrip("/"))
        return Error(error.code, f"{place}: {error.message}", hint=error.hint)


def read_text(text: str, name: str) -> tuple[Declaration, Places]:
    """The declaration of a YAML text, and where its parts stand. Error: INVALID, its message begins `name:line: `."""
    lines: dict[str, int] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        plain = _read(node, "", lines, name) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        told = " ".join(part for part in (error.context, error.problem) if part)
        raise Error(Code.INVALID, f"{name}:{line}: {told}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise Error(Code.INVALID, f"{name}:{line}: a character that YAML does not allow ({error.reason})") from error
    except RecursionError as error:
        raise Error(Code.INVALID, f"{name}:1: it is nested too deeply") from error
    places = Places(name, lines)
    try:
        return read_declaration(plain), places
    except Error as error:
        raise places.tell(error) from error


def _read(node: Node, at: str, lines: dict[str, int], name: str) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    match node:
        case MappingNode():
            return _read_mapping(node, at, lines, name)
        case SequenceNode() if node.tag == "tag:yaml.org,2002:seq":
            return [_read(one, f"{at}/{i}", lines, name) for i, one in enumerate(node.value)]
        case ScalarNode() if node.tag == TEXT:
            _refuse_halves(node, name)
            return node.value
        case ScalarNode() if node.tag in _PLAIN and node.style is None:
            return _scalar(node, name)
    raise _wrong(node, name, f"the tag {node.tag!r} is not read")


def _scalar(node: ScalarNode, name: str) -> Any:
    if node.value in ("~", ""):
        return None
    try:
        value = json.loads(node.value)
    except ValueError as error:  # digits without end
        raise _wrong(node, name, "this number is too long") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(node, name, "this number is too large")
    return value


def _read_mapping(node: MappingNode, at: str, lines: dict[str, int], name: str) -> dict[str, Any]:
    if node.tag != "tag:yaml.org,2002:map":
        raise _wrong(node, name, f"the tag {node.tag!r} is not read")
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            raise _wrong(key, name, "a name of a member is a text")
        _refuse_halves(key, name)
        if key.value in found:
            raise _wrong(key, name, f"{key.value!r} comes twice")
        pointer = f"{at}/{key.value.replace('~', '~0').replace('/', '~1')}"
        lines[pointer] = key.start_mark.line + 1
        found[key.value] = _read(value, pointer, lines, name)
    return found


def _refuse_halves(node: ScalarNode, name: str) -> None:
    try:
        canonical(node.value).encode()
    except UnicodeEncodeError:
        raise _wrong(node, name, "half a surrogate pair is no character") from None


def _wrong(node: Node, name: str, message: str) -> Error:
    return Error(Code.INVALID, f"{name}:{node.start_mark.line + 1}: {message}")
