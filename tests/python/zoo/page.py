"""docs/models.md: what comes of every model class, a section for each version of transformers."""

from __future__ import annotations

import re
from pathlib import Path

from .outcome import Outcome

PAGE = Path(__file__).resolve().parents[3] / "docs/models.md"
SECTION = re.compile(r"^## transformers (\S+)\n", re.M)
GROUP = re.compile(r"^- \*\*(.+?)\*\* \(\d+\): (.+)$", re.M)


def recorded(version: str) -> dict[str, str] | None:
    """The outcome of each class in that version's section; None: the page has no such section."""
    body = _sections(PAGE.read_text())[1].get(version)
    if body is None:
        return None
    return {name: what for what, names in GROUP.findall(body) for name in names.split(", ")}


def record(version: str, name: str, outcome: Outcome | None) -> None:
    """Writes one class's outcome into its section; None takes the class out."""
    head, sections = _sections(PAGE.read_text())
    known = recorded(version) or {}
    known.pop(name, None)
    if outcome is not None:
        known[name] = shown(name, outcome)
    sections[version] = _body(known)
    text = head + "".join(
        f"## transformers {each}\n{body}" for each, body in sorted(sections.items(), key=_order)
    )
    PAGE.write_text(text.rstrip() + "\n")


def shown(name: str, outcome: Outcome) -> str:
    """Without the class's own name, so that classes of one outcome stand together."""
    return " ".join(str(outcome).replace(name, "the class").replace("**", "").split())


def _sections(text: str) -> tuple[str, dict[str, str]]:
    head, *rest = SECTION.split(text)
    return head, dict(zip(rest[::2], rest[1::2], strict=True))


def _order(section: tuple[str, str]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", section[0])]


def _body(known: dict[str, str]) -> str:
    """Groups of classes with the same outcome: by kind, the largest first."""
    groups: dict[str, list[str]] = {}
    for name, what in sorted(known.items()):
        groups.setdefault(what, []).append(name)
    kinds = ["retrieves", "attended", "refused", "not"]
    place = {what: kinds.index(re.split("[ :]", what)[0]) for what in groups}
    ordered = sorted(groups.items(), key=lambda group: (place[group[0]], -len(group[1]), group[0]))
    lines = [f"- **{what}** ({len(names)}): {', '.join(names)}" for what, names in ordered]
    counts = {kind: sum(w.startswith(kind) for w in known.values()) for kind in kinds}
    summary = (
        f"{len(known)} classes: {counts['retrieves']} retrieve, {counts['attended']} are attended "
        f"in full, {counts['refused']} are refused, {counts['not']} are not buildable."
    )
    return "\n".join(["", summary, "", *lines, "", ""])
