"""The house: packages on floors, imports that run down, no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import genedml
import genedml_cli

FLOORS = (
    "app",
    "commands",
    "demo",
    "cohort",
    "report benchmark",
    "runs",
    "training evaluation",
    "prediction",
    "references",
    "features pseudo_spots",
    "outputs",
    "datasets",
    "expression",
    "spots doctor",
    "slides figures",
    "files",
    "machine",
    "console",
    "text notes",
)
"""From the top down; what stands on one line knows nothing of its neighbours."""
FLOOR = {package: floor for floor, line in enumerate(FLOORS) for package in line.split()}
ROOTS = {package.__name__: Path(package.__file__).parent for package in (genedml, genedml_cli)}


def modules() -> dict[str, Path]:
    names = {}
    for top, folder in ROOTS.items():
        for file in folder.rglob("*.py"):
            parts = (top, *file.relative_to(folder).with_suffix("").parts)
            names[".".join(parts).removesuffix(".__init__")] = file
    return names


def imports() -> dict[str, set[str]]:
    """Every module of ours with those that it imports, wherever in it."""
    files = modules()
    found: dict[str, set[str]] = {}
    for name, file in files.items():
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        found[name] = {other for other in names if other in files and not name.startswith(other)}
    return found


def package(module: str) -> str:
    """The package or file of ``genedml_cli`` that a module stands in."""
    return module.split(".")[1]


def arrows() -> list[tuple[str, str]]:
    """Imports within ``genedml_cli`` from one of its packages to another, by module."""
    found = [(name, other) for name, others in imports().items() for other in others]
    ours = [pair for pair in found if all(module.startswith("genedml_cli.") for module in pair)]
    return sorted((name, other) for name, other in ours if package(name) != package(other))


def test_no_import_runs_up():
    up = [f"{name} -> {other}" for name, other in arrows() if FLOOR[package(name)] >= FLOOR[package(other)]]
    assert not up


def test_every_package_has_a_floor():
    assert {package(name) for name in modules() if name.startswith("genedml_cli.")} == set(FLOOR)


def test_the_models_know_nothing_of_the_command_line():
    of_models = {name: others for name, others in imports().items() if name.startswith("genedml.")}
    assert not [name for name, others in of_models.items() if any(other.startswith("genedml_cli") for other in others)]


def test_no_module_imports_itself_by_way_of_others():
    order = list(TopologicalSorter(imports()).static_order())  # raises CycleError, with the names
    assert set(order) == set(modules())


def test_no_module_takes_what_another_keeps_to_itself():
    private = []
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOTS:
                names = [alias.name for alias in node.names]
                private += [f"{name}: {other}" for other in names if other.startswith("_") and other != "__version__"]
    assert not private
