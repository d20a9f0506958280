"""Writes rope_golden.hpp: rotations as transformers' models do them, for rope_test.cpp.

    pip install torch transformers
    python tests/data/make_rope_golden.py > tests/data/rope_golden.hpp

Each row is one vector embedded at two positions, `before` and `after`, `shift` apart. The
models compute angles in f32, which is coarse at large positions; so the cases that keep the
model's own angles stay at small ones, and the others take the model's frequencies and
rotation, but angles in f64.
"""

import torch
import transformers
from transformers import GPTNeoXConfig, LlamaConfig
from transformers.models.gpt_neox import modeling_gpt_neox as neox
from transformers.models.gptj import modeling_gptj as gptj
from transformers.models.llama import modeling_llama as llama

NEAR = [(3, 9), (0, 21), (17, 17), (30, 5)]
FAR = [(3, 40_000), (31_000, 32_768), (131_071, 131_072), (32_000, 100)]


def llama_embedding(d, theta, scaling=None, trained=131_072):
    config = LlamaConfig(
        hidden_size=d,
        num_attention_heads=1,
        rope_theta=theta,
        rope_scaling=scaling,
        max_position_embeddings=trained,
    )
    return llama.LlamaRotaryEmbedding(config)


def neox_embedding(d, share):
    return neox.GPTNeoXRotaryEmbedding(
        GPTNeoXConfig(hidden_size=d, num_attention_heads=1, rotary_pct=share)
    )


def embed(module, embedding, x, position, exact):
    """x [d] at a position, by the model's code; `exact`: with angles in f64."""
    if exact:
        angles = position * embedding.inv_freq.double()
        angles = torch.cat((angles, angles))[None, None, :]
        cos = angles.cos() * embedding.attention_scaling
        sin = angles.sin() * embedding.attention_scaling
    else:
        cos, sin = embedding(x[None], torch.tensor([[position]]))
    q = x[None, None, None, :]
    return module.apply_rotary_pos_emb(q, q, cos, sin)[0].reshape(-1).float()


def embed_gptj(x, position, rotary_dim):
    table = gptj.create_sinusoidal_positions(64, rotary_dim)[position][None, None, :]
    sin, cos = table.chunk(2, dim=-1)
    rotated = gptj.apply_rotary_pos_emb(x[None, None, None, :rotary_dim], sin, cos)
    return torch.cat((rotated.reshape(-1), x[rotary_dim:]))


def braces(values, digits=9):
    return "{" + ", ".join(f"{v:.{digits}g}" for v in values) + "}"


def case(name, d, embed_at, pairs, *, rotary_dim=0, theta=10_000.0, table=None, interleaved=False):
    rows = []
    for start, end in pairs:
        x = torch.randn(d)
        before, after = embed_at(x, start), embed_at(x, end)
        rows.append(f"      {{{end - start},\n       {braces(before)},\n       {braces(after)}}},")
    layout = "interleaved" if interleaved else "half_split"
    frequencies = "{}" if table is None else braces(table.tolist(), digits=17)
    print(f'    {{"{name}",')
    print(f"     {{{theta:.9g}, {rotary_dim}, RopeLayout::{layout}, {frequencies}}},")
    print("     {\n" + "\n".join(rows) + "\n     }},")


def from_theta(theta):
    embedding = llama_embedding(16, theta)
    case(
        f"llama, theta {theta:g}",
        16,
        lambda x, p: embed(llama, embedding, x, p, exact=False),
        NEAR,
        theta=theta,
    )


def from_table(name, embedding, d):
    case(
        name,
        d,
        lambda x, p: embed(llama, embedding, x, p, exact=True),
        FAR,
        table=embedding.inv_freq.double(),
    )


def main():
    torch.manual_seed(0)
    print(HEADER.format(version=transformers.__version__))
    for theta in (10_000.0, 500_000.0, 1_000_000.0):
        from_theta(theta)
    from_table("llama, theta 1e6, far", llama_embedding(16, 1e6), 16)
    from_table("linear", llama_embedding(16, 1e4, {"rope_type": "linear", "factor": 8.0}), 16)
    llama3 = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    from_table("llama3", llama_embedding(16, 5e5, llama3), 16)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}
    from_table("yarn", llama_embedding(16, 1e6, yarn), 16)
    partial = neox_embedding(16, 0.25)
    case(
        "gpt-neox, a quarter",
        16,
        lambda x, p: embed(neox, partial, x, p, exact=False),
        NEAR,
        rotary_dim=4,
    )
    case(
        "gpt-j",
        16,
        lambda x, p: embed_gptj(x, p, 12),
        NEAR,
        rotary_dim=12,
        interleaved=True,
    )
    print("};\n\n}  // namespace keyseek::test\n// clang-format on")


HEADER = """/// Written by make_rope_golden.py with transformers {version}: do not edit.
#pragma once

#include <string>
#include <vector>

#include "keyseek/rope.hpp"

// clang-format off
namespace keyseek::test {{

struct RopeGoldenRow {{
  double shift;
  std::vector<double> before;
  std::vector<double> after;
}};

struct RopeGoldenCase {{
  std::string name;
  RopeParams rope;
  std::vector<RopeGoldenRow> rows;
}};

inline const std::vector<RopeGoldenCase> kRopeGolden = {{"""


if __name__ == "__main__":
    main()
