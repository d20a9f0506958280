"""The shape of the package's sources: imports run one way, files and functions stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "python" / "keyseek").rglob("*.py"))
TESTS = sorted((ROOT / "tests" / "python").rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 60


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT / "python").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): ast.parse(file.read_text()) for file in FILES}


def imports(name: str, tree: ast.Module, is_package: bool) -> Iterator[str]:
    """Modules of ours that a module imports anywhere, in functions and for types as well."""
    package = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                inside = f"{source}.{alias.name}"
                found = inside if inside in MODULES else source
                if found in MODULES:
                    yield found


def test_imports_run_one_way():
    packages = {name_of(file) for file in FILES if file.name == "__init__.py"}
    graph = {name: set(imports(name, tree, name in packages)) for name, tree in MODULES.items()}
    assert graph["keyseek.hf.cache"] >= {"keyseek.hf.layer", "keyseek.errors"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("file", [*FILES, *TESTS], ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_are_small(file):
    text = file.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name
