"""Texts to run the models on: a file, or the documents of a Debian package.

text = load_text("python3-doc")     # Debian's Python library reference, tags stripped
text = load_text("bible-kjv")       # King James Version, one verse per line
text = load_text("pydoc-topics")    # the reference texts that come with Python itself
text = load_text("notes.txt")       # any UTF-8 file
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from pydoc_data.topics import topics

from .errors import InvalidArgument

PYTHON_DOC = Path("/usr/share/doc/python3-doc/html")
BIBLE_COMMAND = "bible"

_BLOCKS = frozenset(
    "p div section dl dt dd ul ol li table tr pre blockquote h1 h2 h3 h4 h5 h6 br hr".split()
)
_UNREAD = frozenset("script style head nav".split())
_VOID = frozenset("br hr img input link meta area base col embed source track wbr".split())


@dataclass(frozen=True)
class Text:
    """A text and the sentence that says where it comes from (stored with every capture)."""

    content: str
    source: str


class _BodyText(HTMLParser):
    """Collects the readable text of one page.

    Sphinx marks the article with role="main"; what surrounds it (sidebars, search boxes) repeats
    on every page and would make a text of copies. A page without such a mark is read whole.
    """

    def __init__(self, main_only: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._open: list[tuple[str, frozenset[str]]] = []  # open elements: tag, what it starts
        self._needed = "main" if main_only else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self._newline()
        if tag not in _VOID:
            self._open.append((tag, _regions(tag, dict(attrs))))

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._newline()
        # An end tag also closes what was left open inside; one that nothing opened is ignored.
        if any(tag == opened for opened, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._inside("unread") or (self._needed and not self._inside(self._needed)):
            return
        self._parts.append(data if self._inside("pre") else _one_spaced(data))

    def _inside(self, region: str) -> bool:
        return any(region in regions for _, regions in self._open)

    def _newline(self) -> None:
        if self._parts and not self._parts[-1].endswith("\n"):
            self._parts.append("\n")

    def text(self) -> str:
        lines = (line.rstrip() for line in "".join(self._parts).split("\n"))
        return "\n".join(line for line in lines if line)


def _regions(tag: str, attrs: dict[str, str | None]) -> frozenset[str]:
    """What an element means for the text inside it."""
    # "headerlink" is the pilcrow that Sphinx puts behind each heading.
    headerlink = "headerlink" in (attrs.get("class") or "").split()
    found = {
        "unread": tag in _UNREAD or headerlink,
        "pre": tag == "pre",
        "main": attrs.get("role") == "main",
    }
    return frozenset(name for name, is_so in found.items() if is_so)


def _one_spaced(data: str) -> str:
    """Runs of white space become one space, as a browser shows them."""
    inner = " ".join(data.split())
    if not inner:
        return " " if data else ""
    return (" " if data[0].isspace() else "") + inner + (" " if data[-1].isspace() else "")


def strip_html(html: str) -> str:
    """The readable text of an HTML page: one block per line, <pre> kept as it is."""
    parser = _BodyText(main_only='role="main"' in html)
    parser.feed(html)
    parser.close()
    return parser.text()


def read_python_doc(root: Path = PYTHON_DOC) -> str:
    """The library reference of Debian's python3-doc, files in sorted order."""
    # Only library/: the index and contents pages beside it are lists of names, not prose.
    pages = sorted((root / "library").glob("*.html"))
    if not pages:
        raise InvalidArgument(
            f"text 'python3-doc': no HTML pages in {root / 'library'};"
            " install the Debian package python3-doc"
        )
    return "\n\n".join(strip_html(page.read_text(encoding="utf-8")) for page in pages)


def read_bible() -> str:
    """The King James Version from the Debian package bible-kjv, one verse per line."""
    command = shutil.which(BIBLE_COMMAND)
    if command is None:
        raise InvalidArgument(
            "text 'bible-kjv': no command 'bible' on the path; install the Debian package bible-kjv"
        )
    done = subprocess.run(
        [command, "-f", "gen1:1-rev22:21"], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode != 0 or not done.stdout.strip():
        raise InvalidArgument(
            f"text 'bible-kjv': {command} ended with status {done.returncode}:"
            f" {done.stderr.strip()}"
        )
    return strip_verse_numbers(done.stdout)


def read_pydoc_topics() -> str:
    """What Python's own help shows about its syntax, topics in sorted order."""
    return "\n".join(topics[name] for name in sorted(topics))


def strip_verse_numbers(verses: str) -> str:
    """'Ge1:1 In the beginning' becomes 'In the beginning': the words alone are the text."""
    return re.sub(r"^\w+:\d+ ", "", verses, flags=re.MULTILINE)


def read_file(path: Path) -> str:
    """A UTF-8 text file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidArgument(
            f"text '{path}': no such file, and not one of the named texts {', '.join(NAMED)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"text '{path}': cannot be read as UTF-8 text: {error}") from error


NAMED = {
    "python3-doc": (read_python_doc, "Debian python3-doc, library reference"),
    "bible-kjv": (read_bible, "Debian bible-kjv, King James Version"),
    "pydoc-topics": (read_pydoc_topics, "Python's own reference, pydoc_data.topics"),
}


def load_text(name: str) -> Text:
    """A named text or a file, refused when it is empty."""
    if name in NAMED:
        read, source = NAMED[name]
        content = read()
    else:
        content, source = read_file(Path(name)), f"file {Path(name).name}"
    if not content.strip():
        raise InvalidArgument(f"text '{name}' is empty")
    return Text(content, source)
