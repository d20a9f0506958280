"""Retrieval attention inside transformers: full prefill, then decode steps that retrieve keys.

    import keyseek.hf

    model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="keyseek")
    cache = keyseek.hf.RetrievalCache(model.config, max_error=0.05)
    model.generate(**inputs, past_key_values=cache)
    print(cache.plan_table())

Importing the module registers the attention "keyseek"; a model that is loaded already is switched
with model.set_attn_implementation("keyseek"). Without a RetrievalCache that attention is
PyTorch's own. Layers that attend to a sliding window are left alone.

Models with rotary embedding of Llama's kind, transformers 4.57 and later. With a model on a CUDA
device and a build with KEYSEEK_CUDA, prompts stay on the device until they are planned, and
decoding attends to sink and window there while the CPU retrieves.
"""

from .attention import ATTENTION_NAME, attention
from .cache import RetrievalCache

__all__ = ["ATTENTION_NAME", "RetrievalCache", "attention"]
