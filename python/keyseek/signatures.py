"""Calls that fit no signature of the native module, in a sentence that names the argument."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

_WORDS = {
    "str | os.PathLike": "a path",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "numpy.typing.NDArray": "an array",
}
# Name, type, whether it may be left out, and whether it is given by name alone.
_Parameter = tuple[str, str, bool, bool]


def explain(text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What is wrong with a call, by nanobind's own account of it and what was given."""
    found = re.search(r"^ *1\. (\w+)\((.*)\) -> ", text, re.MULTILINE)
    if found is None:
        return text
    name, parameters = found[1], _parameters(found[2])
    method = bool(parameters) and parameters[0][0] == "self"
    args, parameters = args[method:], parameters[method:]
    shown = text.partition("(")[0] if name == "__init__" else name
    fault = _fault(args, kwargs, parameters)
    if fault is None:
        given = ", ".join([type(a).__name__ for a in args] + [f"{n}=..." for n in kwargs])
        return f"{shown}() takes ({found[2]}), but was given ({given})"
    return f"{shown}(): {fault}"


def _split(text: str) -> list[str]:
    """Splits a text at the commas outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [p for p in [*parts, text[start:].strip()] if p]


def _parameters(text: str) -> list[_Parameter]:
    found, by_name = [], False
    for part in _split(text):
        if part in ("*", "/"):
            by_name = by_name or part == "*"
            continue
        head, _, default = part.partition(" = ")
        name, _, annotation = head.partition(": ")
        found.append((name.strip(), annotation.strip(), bool(default), by_name))
    return found


def _fault(
    args: tuple[Any, ...], kwargs: dict[str, Any], parameters: list[_Parameter]
) -> str | None:
    """The first argument that is unknown, missing or of another type, as a sentence."""
    names = [name for name, *_ in parameters]
    positional = [name for name, _, _, by_name in parameters if not by_name]
    for name in kwargs:
        if name not in names:
            return f"there is no argument {name}, but {', '.join(names) or 'none at all'}"
    if len(args) > len(positional):
        rest = [name for name in names if name not in positional]
        hint = f"; {', '.join(rest)} are given by name" if rest else ""
        return (
            f"{len(args)} arguments are given by position, at most {len(positional)} may be{hint}"
        )
    given = dict(zip(positional, args, strict=False))
    for name in kwargs:
        if name in given:
            return f"{name} is given twice"
    given |= kwargs
    for name, annotation, optional, _ in parameters:
        if name not in given:
            if not optional:
                return f"{name} is missing"
        elif not _fits(given[name], annotation):
            return f"{name} is {_shown(given[name])}, must be {_said(annotation)}"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    kind = type(value).__name__
    return kind if value is None or len(text) > 60 or "\n" in text else f"{text} ({kind})"


def _said(annotation: str) -> str:
    optional = annotation.endswith(" | None")
    plain = annotation.removesuffix(" | None").replace("keyseek._core.", "")
    options = [plain] if plain in _WORDS else plain.split(" | ")
    words = [_WORDS.get(option, option) for option in options] + ["None"] * optional
    return " or ".join(words)


def _fits(value: Any, annotation: str) -> bool:
    if annotation.endswith(" | None"):
        return value is None or _fits(value, annotation.removesuffix(" | None"))
    if annotation == "bool":
        return isinstance(value, bool)
    if annotation == "str":
        return isinstance(value, str)
    if "os.PathLike" in annotation:
        return isinstance(value, (str, os.PathLike))
    if " | " in annotation and "[" not in annotation:
        return any(_fits(value, option) for option in annotation.split(" | "))
    if annotation == "numpy.typing.NDArray":
        return value is not None
    if annotation == "int":
        return _is_int(value)
    if annotation == "float":
        return hasattr(value, "__float__") or _is_int(value)
    items = re.fullmatch(r"(?:collections\.abc\.)?(?:Sequence|list)\[(.*)\]", annotation)
    if items:
        sized = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
        return sized and all(_fits(item, items[1]) for item in value)
    if annotation.startswith(("collections.abc.Callable", "Callable", "typing.Callable")):
        return callable(value)
    if annotation.startswith("keyseek._core."):
        return type(value).__name__ == annotation.rpartition(".")[2]
    return True


def _is_int(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
