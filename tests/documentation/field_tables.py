"""The tables of fields in docs/messages.md and docs/documents.md, from the JSON Schemas."""

from __future__ import annotations

import json
from typing import Any

from .json_schemas import SCHEMAS


def cell(text: str) -> str:
    """A text as it stands in a table."""
    return text.replace("|", "\\|")


def _kind(schema: dict[str, Any]) -> str:
    """The type of a value in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    kind = schema.get("type", "")
    if kind == "object" and "propertyNames" in schema:
        inner = _kind(schema["additionalProperties"])
        return f"{{{_kind(schema['propertyNames'])}: {inner}}}"
    if kind == "array":
        return f"[{_kind(schema['items'])}]"
    names = {"string": "text", "object": "map"}
    kinds: list[str] = kind if isinstance(kind, list) else [kind]
    return " or ".join(names.get(one, one) for one in kinds) or "text"


def _about(schema: dict[str, Any]) -> str:
    found = str(schema.get("description", ""))
    if "default" in schema:
        found += f" Default: `{json.dumps(schema['default'])}`."
    if "examples" in schema:
        found += " As " + ", ".join(f"`{one}`" for one in schema["examples"]) + "."
    return cell(found.strip())


def _fields(schema: dict[str, Any], defined: dict[str, Any]) -> list[str]:
    """The table of a map's fields."""
    optional = schema["properties"].keys() - set(schema["required"])
    lines = ["| field | type | is |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        about = _about(field) or _about(defined.get(_kind(field), {}))
        prefix = "Optional. " if name in optional else ""
        lines.append(f"| `{name}` | {cell(_kind(field))} | {prefix}{about} |")
    return lines


def _described(schema: dict[str, Any], title: str, defined: dict[str, Any]) -> list[str]:
    return [title, "", _about(schema), "", *_fields(schema, defined), ""]


def fields(part: str) -> str:
    """What stands in the docs between `<!-- fields: PART -->` and `<!-- end -->`."""
    message, change = SCHEMAS["message"], SCHEMAS["change"]
    names = message["properties"]["msg"]["enum"]
    parts = {name: one for name, one in message["$defs"].items() if name not in names}
    lines: list[str] = []
    if part == "messages":
        for name in names:
            lines += _described(message["$defs"][name], f"### {name}", parts)
    elif part == "parts":
        for name, one in parts.items():
            if "properties" in one:
                lines += _described(one, f"#### {name}", parts)
    elif part == "kinds":
        lines = ["| kind | is |", "|---|---|"]
        for name, one in parts.items():
            if "properties" not in one:
                values = ", ".join(
                    f"`{value or json.dumps(value)}`" for value in one.get("enum", ())
                )
                lines.append(
                    f"| {name} | {_about(one)}{' One of ' + values + '.' if values else ''} |"
                )
    elif part == "change":
        for name, one in change["$defs"].items():
            lines += [f"### On the wire: {name}", "", _about(one), ""]
            (only, *others) = one["properties"].items()
            if not others and "properties" in only[1]:
                lines += [f"A map `{only[0]}` of:", ""]
                one = only[1]
            lines += [*_fields(one, parts), ""]
            if name == "message":
                lines += ["And the fields of [a message](#a-message).", ""]
    else:
        document = SCHEMAS[part]
        lines = [*_fields(document, document["$defs"]), ""]
        for name, one in document["$defs"].items():
            if "properties" in one:
                lines += _described(one, f"### {name}", document["$defs"])
    return "\n".join(lines).strip()
