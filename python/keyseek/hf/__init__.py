"""Retrieval attention inside transformers: full prefill, then decode steps that retrieve keys.

    import keyseek.hf

    model = AutoModelForCausalLM.from_pretrained(...)
    with keyseek.hf.retrieval(model, max_error=0.05) as cache:
        model.generate(**inputs)
    print(cache.report())

For a model that keeps retrieving, and texts that go on, make the cache yourself:

    cache = keyseek.hf.RetrievalCache.from_model(model, max_error=0.05)
    model.generate(**inputs, past_key_values=cache)

Importing the module registers the attention "keyseek", by which a model retrieves; without a
RetrievalCache it is full attention. Layers that attend to a sliding window are left alone, and so
is every layer that cannot retrieve: `report` names the reason.

transformers 4.57 and later. With a model on a CUDA device and a build with KEYSEEK_CUDA, prompts
stay on the device until they are planned, and decoding attends to sink and window there while the
CPU retrieves.
"""

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"keyseek.hf needs {error.name}, which is not installed: pip install 'keyseek[hf]'",
        name=error.name,
    ) from error

from .attention import ATTENTION_NAME, attention
from .cache import RetrievalCache
from .loading import refuse_at_load
from .report import CacheReport, HeadReport, LayerReport, RetrievalWarning
from .switch import retrieval

refuse_at_load()

__all__ = [
    "ATTENTION_NAME",
    "CacheReport",
    "HeadReport",
    "LayerReport",
    "RetrievalCache",
    "RetrievalWarning",
    "attention",
    "retrieval",
]
