"""The commands that the documents show are commands that work."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/comparing.md", "docs/conformance.md", "docs/performance.md")
OWN_LESSON = "my-lesson.yaml"


def shown_commands() -> list[str]:
    found: dict[str, None] = {}
    for name in DOCUMENTS:
        for block in re.findall(r"```console\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("$ virtviz "):
                    found.setdefault(line.removeprefix("$ ").partition("#")[0].strip())
    return list(found)


def test_there_are_commands_to_try():
    assert len(shown_commands()) >= 5


@pytest.mark.parametrize("command", shown_commands())
def test_a_command_that_a_document_shows_works(command, tmp_path):
    words = shlex.split(command)
    lesson = (ROOT / "lessons" / "3-vhost.yaml").read_text(encoding="utf-8")
    (tmp_path / OWN_LESSON).write_text(lesson.replace("id: 3-vhost", "id: my-lesson", 1), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "virtviz", *words[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
