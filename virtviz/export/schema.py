"""The trace format as a JSON Schema, made from the same types that write and read it."""

from __future__ import annotations

from typing import Any

import msgspec

from virtviz.export.lines import FORMAT_VERSION, Document, FooterLine, HeaderLine, StepLine

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def trace_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) that every line of a trace fits, and so does the document of `--format json`."""
    kinds = (HeaderLine, StepLine, FooterLine, Document)
    references, definitions = msgspec.json.schema_components(kinds)
    return {
        "$schema": DIALECT,
        "title": f"virtviz trace, version {FORMAT_VERSION}",
        "description": (
            "A trace file has a JSON object on each line: a header, one for each step, a footer. "
            "With `--format json` the same is one object with the keys header, steps and footer."
        ),
        "oneOf": list(references),
        "$defs": {name: _with_words(definition) for name, definition in sorted(definitions.items())},
    }


def _with_words(definition: dict[str, Any]) -> dict[str, Any]:
    """Let descriptions read as sentences, without the line breaks of the source."""
    if "description" in definition:
        definition["description"] = " ".join(definition["description"].split())
    return definition
