"""The page of the reference about the keys of an experiment file.

Keys, types, limits and defaults come from the JSON schema of ``Experiment``, and what a key is from
the line under it in the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from keygap.arguments import MOST, MOST_RESAMPLINGS, MOST_SEEDS

EXAMPLE = Path(__file__).parent.parent / "experiments" / "micro.yaml"
INTRO = """\
# Experiment files

`keygap run FILE` runs the study that a YAML file describes: every model with every benchmark, each
pair in a run folder of its own. The file is validated as a whole before anything runs. A key that
is left out has its default, and a key that does not exist is an error. The folder `experiments` of
the repository holds examples; this is `experiments/{name}`:

```yaml
{text}
```
"""
LARGEST = {MOST, MOST_RESAMPLINGS, MOST_SEEDS - 1}  # limits that hardly any file comes near
PLAIN = {"string": "text", "integer": "integer", "number": "number", "boolean": "`true` or `false`"}


def experiment_page() -> str:
    """The page."""
    from keygap.study.experiment import Experiment

    schema = Experiment.model_json_schema()
    known = schema["$defs"]
    places = dict(_places(schema, known, ""))
    parts = [INTRO.format(name=EXAMPLE.name, text=EXAMPLE.read_text().strip()).rstrip()]
    parts += ["## Keys of the file", _table(schema, places)]
    for name, place in places.items():
        about = _code(known[name]["description"])
        parts += [f"## {place} {{ #{name.lower()} }}", about, _table(known[name], places)]
    return "\n\n".join(parts) + "\n"


def _places(section: dict[str, Any], known: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """The sections inside a section, by name, each with the keys that lead to it."""
    keys: dict[str, list[str]] = {}
    for key, value in section["properties"].items():
        for name in dict.fromkeys(re.findall(r"'#/\$defs/(\w+)'", str(value))):
            keys.setdefault(name, []).append(key)
    for name, own in keys.items():  # two keys of one kind share a table
        place = f"{path}.{', '.join(own)}".lstrip(".")
        yield name, place
        yield from _places(known[name], known, place)


def _table(section: dict[str, Any], places: dict[str, str]) -> str:
    rows = ["| key | what it is | value | default |", "|---|---|---|---|"]
    for key, value in section["properties"].items():
        default = "required" if key in section.get("required", ()) else _default(value)
        about = _code(value["description"])
        rows.append(f"| `{key}` | {about} | {_kind(value, places)} | {default} |")
    return "\n".join(rows)


def _kind(value: dict[str, Any], places: dict[str, str]) -> str:
    """The values that a key takes, in words."""
    if "anyOf" in value:
        kinds = [_kind(each, places) for each in value["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"keys of [{places[name]}](#{name.lower()})"
    match value["type"]:
        case "array" if "prefixItems" in value:
            return f"list of {len(value['prefixItems'])}: {_kind(value['prefixItems'][0], places)}"
        case "array":
            return f"list: {_kind(value['items'], places)}"
        case "object":
            return "mapping"
        case kind:
            return PLAIN[kind] + _limits(value)


def _limits(value: dict[str, Any]) -> str:
    limits = {
        "at least": value.get("minimum"),
        "more than": value.get("exclusiveMinimum"),
        "at most": value.get("maximum"),
    }
    said = [f"{word} {end:g}" for word, end in limits.items() if end not in (None, *LARGEST)]
    return f", {' and '.join(said)}" if said else ""


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if default is None or "$ref" in value:
        return ""
    written = yaml.safe_dump(default, default_flow_style=True, sort_keys=False)
    written = written.removesuffix("...\n")  # ends a document that is one value
    return f"`{written.strip()}`"


def _code(text: str) -> str:
    """Text with Markdown's single backticks."""
    return text.replace("``", "`").replace("|", "\\|").replace("\n", " ").strip()
