"""YAML that a user writes, read so that nothing in it is lost or means something else.

PyYAML follows YAML 1.1. It keeps the last of two equal keys, reads ``no`` as false, ``010`` as 8,
``12:30`` as 750 and ``1e-3`` as text, builds dates and sets, and lets a few lines of aliases stand
for billions of values. Here a file has one document of plain values (text, numbers, true, false,
null, lists and mappings with text as keys) in UTF-8. A word that the versions of YAML read
differently has to be quoted or written another way, and whatever else is not plain is refused with
its line.
"""

from __future__ import annotations

import re
from pathlib import Path
from stat import S_ISREG
from typing import Any, ClassVar

import yaml
from pydantic import ConfigDict

from keygap.errors import UserError
from keygap.text import one_line

# Of the models of such a file: no unknown key, 3 where a number is meant and not "3" or true. The
# line under a key in the code says what it is.
STRICT = ConfigDict(
    extra="forbid",
    frozen=True,
    strict=True,
    allow_inf_nan=False,
    use_attribute_docstrings=True,
)
MOST_BYTES = 1_000_000  # of a file; experiments have some thousand
MOST_DEPTH = 40  # lists and mappings inside one another
MOST_VALUES = 100_000  # with every alias written out
MOST_DIGITS = 100  # of a number
_AMBIGUOUS = re.compile(
    r"(?:(?P<truth>yes|no|on|off)"
    r"|(?P<number>[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)(?P<exponent>e[-+]?[0-9]+)?"
    r"|[-+]?0[box][0-9a-f_]+"
    r"|[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?|[-+]?(nan|inf|infinity)))",
    re.IGNORECASE,
)
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))


class _Refused(yaml.MarkedYAMLError):
    """What is not plain."""

    def __init__(self, problem: str, node: Any) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)


class _Loader(yaml.SafeLoader):
    """A loader of plain values."""

    yaml_implicit_resolvers: ClassVar[Any] = {}  # type: ignore[misc]  # added below

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values: dict[yaml.Node, int] = {}  # how many values a node stands for

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, within the limits of depth and size."""
        event = self.peek_event()
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _Refused(f"more than {MOST_DEPTH} lists and mappings inside one another", event)
        if (tag := getattr(event, "tag", None)) is not None:
            raise _Refused(f"the tag {one_line(tag, 60)} is not allowed: write plain values", event)
        known = self.anchors.get(event.anchor) if isinstance(event, yaml.AliasEvent) else None
        if known is not None and known not in self._values:  # it is not complete yet
            raise _Refused(f"the alias {one_line(event.anchor, 60)} contains itself", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and node not in self._values:
            self._values[node] = 1 + sum(self._values[inner] for inner in _inner(node))
            if self._values[node] > MOST_VALUES:
                raise _Refused(f"more than {MOST_VALUES:,} values", node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping whose keys are text, each once."""
        found = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or key.tag in _PLAIN_TAGS:
                raise _Refused(
                    f"the key {one_line(name or 'of several values', 60)} is not text", key
                )
            if name in found:
                raise _Refused(f"the key {one_line(name, 60)!r} is there twice: remove one", key)
            found.add(name)
        return super().construct_mapping(node, deep)

    def construct_plain(self, node: yaml.ScalarNode) -> str:
        """Construct text, unless it is a word that could also be another value."""
        if node.style is None and (match := _AMBIGUOUS.fullmatch(node.value)):
            other = "true or false" if match["truth"] else "a decimal number"
            other += ", such as 0.001 or 1.0e-3" if match["exponent"] else ""
            raise _Refused(f"{one_line(node.value, 60)} may be read in two ways: write {other}, "
                           "or put the word into quotes", node)  # fmt: skip
        try:
            node.value.encode()
        except UnicodeEncodeError:
            raise _Refused("the text has half of a surrogate pair", node) from None
        return node.value

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Construct a number of a moderate length."""
        if len(node.value) > MOST_DIGITS:
            raise _Refused(f"a number of {len(node.value):,} characters", node)
        try:
            return int(node.value)
        except ValueError:
            pass
        try:
            return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise _Refused(f"{one_line(node.value, 60)} is not a number", node) from None


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


class _Dumper(yaml.SafeDumper):
    """A writer that puts every text into quotes that ``_Loader`` would not read as text."""


def _set_up() -> None:
    """The plain values: those whose spelling is the same in YAML 1.1 and 1.2."""
    for kind, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
        ("float", r"[-+]?(0|[1-9][0-9]*)\.[0-9]*([eE][-+][0-9]+)?|[-+]?\.[0-9]+([eE][-+][0-9]+)?"
                  r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
    ):  # fmt: skip
        regex = re.compile(rf"^(?:{pattern})$")
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", regex, list(first))
    _Dumper.add_implicit_resolver("ambiguous", re.compile(rf"{_AMBIGUOUS.pattern}$", re.I), None)
    base = yaml.constructor.SafeConstructor
    _Loader.yaml_constructors = {
        "tag:yaml.org,2002:null": base.construct_yaml_null,
        "tag:yaml.org,2002:bool": base.construct_yaml_bool,
        "tag:yaml.org,2002:int": _Loader.construct_number,
        "tag:yaml.org,2002:float": _Loader.construct_number,
        "tag:yaml.org,2002:str": _Loader.construct_plain,
        "tag:yaml.org,2002:seq": base.construct_yaml_seq,
        "tag:yaml.org,2002:map": base.construct_yaml_map,
    }


_set_up()


def dump(values: Any) -> str:
    """Write plain values as YAML that ``parse`` reads as the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def parse(text: str, where: str) -> Any:
    """Read the value of a YAML text.

    Args:
        text: the text.
        where: what the text is, for messages.

    Raises:
        UserError: it is not YAML, or not plain; the message names the line.
    """
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark and "\n" in text.strip() else ""
        raise UserError(f"{where} is not valid YAML: {line}{error.problem or error}") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UserError(f"{where} is not valid YAML: {one_line(error)}") from error


def read(path: Path, what: str = "file") -> Any:
    """Read the value of a YAML file.

    Args:
        path: the file.
        what: what it is, for the message if it is missing.

    Raises:
        UserError: the file cannot be read, is larger than ``MOST_BYTES``, is not UTF-8, is not YAML
            or is not plain.
    """
    missing = f"no {what} at {one_line(path, 200)}"
    try:
        status = path.stat()  # is_file() hides, from Python 3.14 on, why it says no
        if not S_ISREG(status.st_mode):
            raise UserError(missing)
        if status.st_size > MOST_BYTES:
            raise UserError(f"{path} has {status.st_size:,} bytes: at most {MOST_BYTES:,} are read")
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(missing) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{one_line(path, 200)} cannot be read: {one_line(error, 200)}") from error
    return parse(text, str(path))
