"""keyseek.rope_shift against the rotary embeddings of the installed transformers.

The models compute angles in f32; hence small positions, where that costs less than TOLERANCE.
"""

import numpy as np
import pytest

import keyseek

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
STARTS = np.array([0, 3, 17, 30, 31, 63])
ENDS = np.array([40, 9, 17, 5, 32, 1])
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}


def random_queries(d):
    return np.random.default_rng(1).standard_normal((len(STARTS), d)).astype(np.float32)


def llama_embedding(d, theta, scaling=None):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = transformers.LlamaConfig(
        hidden_size=d,
        num_attention_heads=1,
        rope_theta=theta,
        rope_scaling=scaling,
        max_position_embeddings=131_072,
    )
    return LlamaRotaryEmbedding(config)


def embed(embedding, queries, positions):
    """Row i of `queries` at positions[i], as Llama does it."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q = torch.from_numpy(queries)[None, None]
    cos, sin = embedding(q, torch.from_numpy(positions)[None])
    return apply_rotary_pos_emb(q, q, cos, sin)[0][0, 0].numpy()


def embed_gptj(queries, positions):
    from transformers.models.gptj import modeling_gptj as gptj

    q = torch.from_numpy(queries)[None, :, None]
    table = gptj.create_sinusoidal_positions(64, queries.shape[1])[positions][None]
    sin, cos = table.chunk(2, dim=-1)
    return gptj.apply_rotary_pos_emb(q, sin, cos)[0, :, 0].numpy()


@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize("theta", [1e4, 1e5, 5e5, 1e6])
def test_shift_is_what_llama_would_do_at_the_other_position(theta, d):
    queries, embedding = random_queries(d), llama_embedding(d, theta)
    moved = keyseek.rope_shift(
        embed(embedding, queries, STARTS), (ENDS - STARTS).astype(np.float64), theta=theta
    )
    np.testing.assert_allclose(moved, embed(embedding, queries, ENDS), atol=TOLERANCE)


@pytest.mark.parametrize("scaling", [LLAMA3, YARN], ids=["llama3", "yarn"])
def test_frequencies_of_scaled_embeddings(scaling):
    queries, embedding = random_queries(128), llama_embedding(128, 5e5, scaling)
    moved = keyseek.rope_shift(
        embed(embedding, queries, STARTS),
        (ENDS - STARTS).astype(np.float64),
        frequencies=embedding.inv_freq.double().numpy(),
    )
    np.testing.assert_allclose(moved, embed(embedding, queries, ENDS), atol=TOLERANCE)


def test_interleaved_is_what_gptj_would_do():
    queries = random_queries(64)
    moved = keyseek.rope_shift(
        embed_gptj(queries, STARTS), (ENDS - STARTS).astype(np.float64), layout="interleaved"
    )
    np.testing.assert_allclose(moved, embed_gptj(queries, ENDS), atol=TOLERANCE)


def test_logits_depend_on_the_distance_only():
    """A query moved by 1,000 scores keys that moved along as the query did before."""
    queries, keys = random_queries(64), random_queries(64)[::-1].copy()
    shifts = np.full(len(queries), 1000.0)
    before = queries @ keys.T
    after = (
        keyseek.rope_shift(queries, shifts, theta=1e5)
        @ keyseek.rope_shift(keys, shifts, theta=1e5).T
    )
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_input_stays_and_only_the_rotary_part_moves():
    queries = random_queries(64)
    kept = queries.copy()
    moved = keyseek.rope_shift(queries, np.full(len(queries), 7.0), rotary_dim=16)
    np.testing.assert_array_equal(queries, kept)
    np.testing.assert_array_equal(moved[:, 16:], queries[:, 16:])
    assert not np.allclose(moved[:, :16], queries[:, :16])
