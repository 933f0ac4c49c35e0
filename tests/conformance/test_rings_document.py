"""The page about rings: its code runs, and the files it names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rings.md").read_text(encoding="utf-8")


def test_its_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/rings.md", "exec"), {})


def test_the_files_it_names_are_there():
    for name in re.findall(r"`((?:ring|paths|engine)/[\w/.]+)`", PAGE):
        assert (ROOT / "virtviz" / name).exists(), name
    for name in re.findall(r"`(\w+\.py)`", PAGE):
        assert (ROOT / "tests" / "conformance" / name).exists(), name
