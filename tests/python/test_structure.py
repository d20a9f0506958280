"""The shape of the sources: includes and imports run one way, files and functions are small."""

from __future__ import annotations

import ast
import re
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


def rooms() -> dict[str, list[str]]:
    """The rooms of docs/architecture.md in their order, each with its public headers."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("| room | header |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\|", table, re.MULTILINE)
    return {room: re.findall(r"`(\w+\.hpp)`", headers) for room, headers in rows}


ROOMS = list(rooms())
ROOM_OF_HEADER = {header: room for room, headers in rooms().items() for header in headers}
# These see public headers, their own room, and what is named here.
OUTSIDE = {"sweep": {"base/fail.hpp"}, "cli": {"base/fail.hpp", "sweep"}, "helper": set()}
EDGE = {"io", "measure"}
SOURCES = [file for file in sorted((ROOT / "src").rglob("*")) if file.is_file()]
PUBLIC = [ROOT / "include" / "keyseek" / header for header in sorted(ROOM_OF_HEADER)]


def room_of(file: Path) -> str:
    if file in PUBLIC:
        return ROOM_OF_HEADER[file.name]
    return file.relative_to(ROOT / "src").with_suffix("").parts[0]


def is_allowed(room: str, included: str) -> bool:
    """Whether a file of `room` may include "<included>" by the rules of docs/architecture.md."""
    folder, _, name = included.partition("/")
    if included == "keyseek/version.hpp":
        return True
    if room in OUTSIDE and folder != "keyseek":
        return folder == room or not OUTSIDE[room].isdisjoint({folder, included})
    target = ROOM_OF_HEADER[name] if folder == "keyseek" else folder
    if target in EDGE and target != room:
        return room in OUTSIDE
    return ROOMS.index(target) <= ROOMS.index(room)


@pytest.mark.parametrize("file", [*SOURCES, *PUBLIC], ids=lambda file: str(file.relative_to(ROOT)))
def test_includes_run_towards_earlier_rooms(file):
    included = re.findall(r'^#include "([^"]+)"', file.read_text(), re.MULTILINE)
    if file in PUBLIC:
        assert all(name.startswith("keyseek/") for name in included)
    assert [name for name in included if not is_allowed(room_of(file), name)] == []


def test_every_room_and_public_header_is_in_the_table():
    assert {room_of(file) for file in SOURCES} <= set(ROOMS)
    headers = {file.name for file in (ROOT / "include" / "keyseek").glob("*.hpp")}
    assert headers - {"keyseek.hpp"} == set(ROOM_OF_HEADER)


def test_includes_against_the_order_are_seen():
    assert not is_allowed("base", "keyseek/matrix.hpp")
    assert not is_allowed("search", "index/tuning.hpp")
    assert not is_allowed("decode", "keyseek/io.hpp")
    assert not is_allowed("sweep", "cli/console.hpp")
    assert not is_allowed("cli", "score/kernels.hpp")


@pytest.mark.parametrize("folder", ["src", "cuda", "bench", "examples", "python/src"])
def test_sources_open_with_their_purpose(folder):
    files = [file for end in ("cpp", "cu") for file in (ROOT / folder).rglob(f"*.{end}")]
    assert files
    silent = [str(file) for file in files if not file.read_text().startswith("//")]
    assert silent == []
