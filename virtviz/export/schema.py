"""The trace format as a JSON Schema, made from the same types that write and read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from virtviz.export.lines import FORMAT_VERSION, Document, FooterLine, HeaderLine, StepLine

if TYPE_CHECKING:
    from collections.abc import Sequence

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def trace_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) that every line of a trace fits, and so does the document of `--format json`."""
    return schema_of(
        (HeaderLine, StepLine, FooterLine, Document),
        f"virtviz trace, version {FORMAT_VERSION}",
        "A trace file has a JSON object on each line: a header, one for each step, a footer. "
        "With `--format json` the same is one object with the keys header, steps and footer.",
    )


def schema_of(kinds: Sequence[type], title: str, description: str) -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a format: an object of one of several types."""
    references, definitions = msgspec.json.schema_components(kinds)
    which = {"oneOf": list(references)} if len(references) > 1 else dict(references[0])
    return {
        "$schema": DIALECT,
        "title": title,
        "description": description,
        **which,
        "$defs": {name: _with_words(definition) for name, definition in sorted(definitions.items())},
    }


def _with_words(definition: dict[str, Any]) -> dict[str, Any]:
    """Let descriptions read as sentences, without the line breaks of the source."""
    if "description" in definition:
        definition["description"] = " ".join(definition["description"].split())
    return definition
