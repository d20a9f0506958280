"""Make a maximum inner product set from the output layer of a language model.

Keys are the rows of the output embedding, one per token of the vocabulary; queries are the final
hidden states of a text; the largest inner products are the likeliest next tokens. The file it
writes (benchmark HDF5) is described in README.md beside this tool.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor

from errors import DatasetError, exit_status
from forward import run_pass
from hdf5 import check_out, new_file
from keyseek.models import (
    MODELS,
    Model,
    encode,
    encode_first,
    linear_type,
    load_model,
    source_of,
    speed_up_linears,
)
from keyseek.texts import NAMED, load_text

FORMAT_VERSION = 1
NEIGHBORS = 100
BLOCK = 256

EXAMPLE = """example:
  python datasets/output_layer.py --model gemma3-270m --text python3-doc \\
      --tokens 32768 --learn 20000 --test 1000 --out gemma-output.h5
"""


@dataclass(frozen=True)
class Split:
    """Positions of the training and the test queries: all training before all test positions."""

    learn: Tensor
    test: Tensor

    @classmethod
    def of(cls, tokens: int, learn: int, test: int) -> Split:
        """Training queries spread evenly over the first three quarters, test over the last."""
        middle = tokens * 3 // 4
        if not 1 <= learn <= middle - 1:
            raise DatasetError(
                f"--learn {learn} is not within 1 and {middle - 1} (three quarters of --tokens)"
            )
        if not 1 <= test <= tokens - middle:
            raise DatasetError(
                f"--test {test} is not within 1 and {tokens - middle} (a quarter of --tokens)"
            )
        # The first token of the text predicts from nothing and is left out.
        return cls(_spread(1, middle, learn), _spread(middle, tokens, test))


def _spread(begin: int, end: int, count: int) -> Tensor:
    """`count` distinct positions spread evenly over [begin, end)."""
    return begin + torch.arange(count) * (end - begin) // count


def exact_neighbors(queries: Tensor, keys: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact top-k by inner product: ids [m, k] int32 and inner products [m, k] float32.

    Ordered by inner product, the largest first; ties go to the smaller id.
    """
    found = [_block_neighbors(block, keys, k) for block in _blocks(queries)]
    return np.concatenate([ids for ids, _ in found]), np.concatenate([p for _, p in found])


def _blocks(queries: Tensor) -> Iterator[Tensor]:
    for number, block in enumerate(queries.split(BLOCK)):
        print(f"neighbors {number * BLOCK}/{len(queries)}", file=sys.stderr, flush=True)
        yield block


def _block_neighbors(queries: Tensor, keys: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = queries @ keys.T
    top = scores.topk(k, dim=1)
    ids, products = top.indices.numpy(), top.values.numpy()
    # topk picks any of the keys that tie for the last place: take the smallest ids instead.
    tied = (scores >= top.values[:, -1:]).sum(dim=1) > k
    for row in torch.nonzero(tied).flatten().tolist():
        found = torch.nonzero(scores[row] >= top.values[row, -1]).flatten().numpy()
        best = np.lexsort((found, -scores[row].numpy()[found]))[:k]
        ids[row], products[row] = found[best], scores[row].numpy()[found[best]]
    order = np.lexsort((ids, -products), axis=1)
    ids = np.take_along_axis(ids, order, axis=1).astype(np.int32)
    return ids, np.take_along_axis(products, order, axis=1)


def final_states(model: Model, ids: list[int]) -> tuple[Tensor, float]:
    """Final hidden states [n, hidden] of a text, and the next-token loss of its last pass.

    A text longer than the context is read in passes of about equal length. Each begins as the
    model was trained to begin (with BOS, for Gemma), and knows nothing of the passes before it.
    """
    start = encode(model.name, "")
    room = model.context if len(ids) <= model.context else model.context - len(start)
    length = -(-len(ids) // -(-len(ids) // room))
    hidden, loss = [], math.nan
    for begin in range(0, len(ids), length):
        extra = start if begin > 0 else []
        done = run_pass(model.network, torch.tensor(extra + ids[begin : begin + length]))
        hidden.append(done.hidden[len(extra) :])
        loss = done.loss
    return torch.cat(hidden), loss


def write_set(
    out: Path, keys: Tensor, hidden: Tensor, split: Split, attributes: dict[str, object]
) -> None:
    """Write the benchmark file: keys [v, hidden], hidden states [n, hidden] of the whole text."""
    learn, test = hidden[split.learn], hidden[split.test]
    if not torch.isfinite(hidden).all():
        raise DatasetError("a final hidden state is not finite, nothing was written")
    learn_ids, _ = exact_neighbors(learn, keys, NEIGHBORS)
    test_ids, products = exact_neighbors(test, keys, NEIGHBORS)
    with new_file(out) as file:
        file["train"] = keys.numpy()
        file["learn"] = learn.numpy()
        file["learn_neighbors"] = learn_ids
        file["test"] = test.numpy()
        file["neighbors"] = test_ids
        file["distances"] = -products
        file.attrs.update(
            format_version=FORMAT_VERSION,
            distance="ip",
            dimension=keys.shape[1],
            point_type="float",
            group=1,
            **attributes,
        )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help=MODELS)
    parser.add_argument("--text", required=True, help=", ".join(NAMED) + ", or a UTF-8 file")
    parser.add_argument("--tokens", type=int, default=32768, help="length of the text (32768)")
    parser.add_argument("--learn", type=int, default=20000, help="training queries (20000)")
    parser.add_argument("--test", type=int, default=1000, help="test queries (1000)")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, *.h5")
    return parser.parse_args(arguments)


def run(given: argparse.Namespace) -> None:
    """Check what can be checked, then load the model, read the text, and find the neighbours."""
    begin = time.monotonic()
    source_of(given.model)
    split = Split.of(given.tokens, given.learn, given.test)
    check_out(given.out)
    text = load_text(given.text)
    ids = encode_first(given.model, text.content, given.tokens)
    model = load_model(given.model)
    keys = model.network.lm_head.weight.detach()
    speed_up_linears(model.network)
    hidden, loss = final_states(model, ids)
    how = (
        f"final hidden states of {given.tokens} tokens in passes of at most {model.context},"
        f" training queries from the first three quarters, test queries from the last,"
        f" linear layers in {linear_type(model.network)}, transformers {transformers.__version__},"
        f" torch {torch.__version__}"
    )
    attributes = {
        "model": model.title,
        "text": text.source,
        "capture": how,
        "next_token_loss": loss,
    }
    write_set(given.out, keys, hidden, split, attributes)
    print(
        f"{given.out}: {len(keys)} keys, {given.learn} training and {given.test} test queries,"
        f" next-token loss {loss:.3f} nats, {time.monotonic() - begin:.0f} s"
    )


def main(arguments: list[str] | None = None) -> int:
    return exit_status(run, parse_arguments(arguments))


if __name__ == "__main__":
    sys.exit(main())
