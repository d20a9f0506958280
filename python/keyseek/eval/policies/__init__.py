"""The policies: which of a prompt's tokens decoding attends."""

from .base import LayerPolicy, Policy
from .exact import Full, OracleTopK
from .ours import Keyseek

__all__ = ["Full", "Keyseek", "LayerPolicy", "OracleTopK", "Policy"]
