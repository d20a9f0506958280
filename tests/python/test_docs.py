"""The Python examples of the documentation run, in order, in the repository's root."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_layer_example_runs(capsys):
    runpy.run_path(str(ROOT / "examples" / "decode_layer.py"), run_name="__main__")
    assert "output (6, 64)" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_examples_run(page, tmp_path, monkeypatch):
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    monkeypatch.chdir(tmp_path)  # what examples write does not end up in the repository
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    names.clear()  # a search written in Python and the cache that it serves hold each other
