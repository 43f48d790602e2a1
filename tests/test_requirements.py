"""The requirements are what the code imports, in the versions that are installed and tried."""

import ast
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
OURS = {"gpt_core", "dashboard"}


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(
        re.fullmatch(r"([\w-]+)==(\S+)", line).groups() for line in lines if line and line[0] not in "#-"
    )


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}


def imported_modules() -> set[str]:
    found = set()
    for folder in OURS:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.split(".")[0])
    return found - OURS - set(sys.stdlib_module_names)


def test_pinned_is_what_the_code_imports():
    assert set(pins("requirements.txt")) == imported_modules()


def test_the_package_declares_the_same_and_allows_the_pinned_versions():
    pinned = pins("requirements.txt")
    assert set(declared()) == set(pinned)
    assert [name for name, wanted in declared().items() if pinned[name] not in wanted.specifier] == []


def test_tried_with_the_pinned_versions():
    pinned = pins("requirements.txt") | pins("requirements-dev.txt")
    assert {name: version(name).partition("+")[0] for name in pinned} == pinned
