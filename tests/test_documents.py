"""What stands beside the code agrees with it: versions, and the tests on real data."""

import ast
import re
import tomllib
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
REAL = {"her2st", "her2st_counts", "her2st_spots", "real_slides"}
"""Fixtures that read ``../shared/data``."""


def names_of_real() -> set[str]:
    """``file.py::test`` of every test that takes such a fixture, or whose fixtures do, or that names the folder."""
    names = set()
    for file in sorted(TESTS.glob("test_*.py")):
        functions = {node.name: node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
        needing = set(REAL)
        for name, node in functions.items():  # fixtures stand above what takes them
            words = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
            if {argument.arg for argument in node.args.args} & needing or "SHARED_DATA" in words:
                needing.add(name)
        names |= {f"{file.name}::{name}" for name in needing - REAL if name.startswith("test_")}
    return names


def test_names_of_real_are_those_of_their_table():
    table = re.findall(r"^\| `(test_\w+\.py::test_\w+)` \|", (TESTS / "README.md").read_text(), re.MULTILINE)
    assert set(table) == names_of_real()
    assert len(table) == len(set(table))


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation


def test_the_workflow_runs_the_gate_on_the_versions_that_are_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line.split(" :: ")[-1] for line in project["classifiers"] if "Python :: 3" in line]
    workflow = (ROOT / ".github/workflows/gate.yml").read_text()
    assert re.findall(r'"(3\.\d+)"', workflow) == named
    assert "bash .ci/run" in workflow
