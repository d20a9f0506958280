"""One layer's KV heads while decoding: plan after prefill, then a step for every token.

    python examples/decode_layer.py

Made-up vectors stand for a model's keys, values and queries after rotary embedding.
"""

import numpy as np

import keyseek

HEADS, GROUP, DIM, PROMPT, STEPS = 2, 3, 64, 4000, 20


def main() -> None:
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((40, DIM)).astype("f4")

    def vectors(count: int, noise: float) -> np.ndarray:
        return topics[rng.integers(40, size=count)] + noise * rng.standard_normal(
            (count, DIM)
        ).astype("f4")

    heads = []
    for _ in range(HEADS):
        keys, values = vectors(PROMPT, 0.5), vectors(PROMPT, 1.0)
        queries = vectors(1200 * GROUP, 0.3)  # of the newest 1,200 positions, G rows each
        heads.append(
            keyseek.HeadCache.prefill(
                keys.astype("f2"), values.astype("f2"), queries, GROUP,
                max_error=0.1, scale=DIM**-0.5, shift=False,
            )
        )  # fmt: skip
        print(heads[-1], heads[-1].plan)

    for _ in range(STEPS):
        queries, keys, values = (
            vectors(HEADS * GROUP, 0.3),
            vectors(HEADS, 0.5),
            vectors(HEADS, 1.0),
        )
        out = keyseek.step_heads(heads, queries, keys, values)
    print(
        f"output {out.shape}; bytes read by head 0 in the last step: {heads[0].stats.bytes_read:,}"
    )


if __name__ == "__main__":
    main()
