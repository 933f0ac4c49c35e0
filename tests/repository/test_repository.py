"""What every file of the project has to keep to."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked(*patterns: str) -> list[Path]:
    found = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("not a git checkout: what is part of the project is not known")
    return [ROOT / line for line in found.stdout.splitlines() if (ROOT / line).is_file()]


def test_every_module_says_what_it_is():
    silent = [
        path for path in tracked("virtviz/*.py") if not path.read_text(encoding="utf-8").lstrip().startswith('"""')
    ]
    assert not silent


def test_files_are_utf8_with_unix_line_ends():
    for path in tracked("*.py", "*.md", "*.toml", "*.yaml", "*.tcss", "Makefile"):
        assert b"\r" not in path.read_bytes(), path
        path.read_text(encoding="utf-8")


def test_what_is_installed_contains_lessons_and_assets():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"lessons": "virtviz/_data/lessons", "assets": "virtviz/_data/assets"}


def test_documents_link_only_to_files_that_exist():
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in tracked("*.md")
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists()
    ]
    assert not broken


def test_the_readme_names_the_commands_that_the_makefile_has():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)\b", readme))
    assert named
    assert named <= targets
