"""The tasks: prompts of any length with questions whose answers are known."""

from .base import Example, Question, Task, Writer
from .digits import KeyValue, NumberString, Passkey
from .document import Copy, Tail
from .needles import MultiKey, MultiQuery, MultiValue, Needle, VariableTracking
from .words import CommonWords, FrequentWords

__all__ = [
    "CommonWords",
    "Copy",
    "Example",
    "FrequentWords",
    "KeyValue",
    "MultiKey",
    "MultiQuery",
    "MultiValue",
    "Needle",
    "NumberString",
    "Passkey",
    "Question",
    "Tail",
    "Task",
    "VariableTracking",
    "Writer",
]
