"""The tasks: prompts of any length with questions whose answers are known."""

from .base import Example, Question, Task, Writer
from .digits import KeyValue, NumberString, Passkey
from .document import Copy, Tail
from .needles import MultiKey, MultiQuery, MultiValue, Needle, VariableTracking
from .records import Count, Extract
from .steps import ManyShot, MultiHop
from .words import CommonWords, FrequentWords

# The forms of each task by its name; the needle comes at several depths.
TASKS: dict[str, list[Task]] = {
    "needle": [Needle(depth) for depth in (0.1, 0.3, 0.5, 0.7, 0.9)],
    **{
        task.name: [task]
        for task in (
            MultiKey(),
            MultiValue(),
            MultiQuery(),
            VariableTracking(),
            CommonWords(),
            FrequentWords(),
            Passkey(),
            NumberString(),
            KeyValue(),
            Extract(),
            Count(),
            MultiHop(),
            ManyShot(),
            Copy(),
            Tail(),
        )
    },
}

__all__ = [
    "TASKS",
    "CommonWords",
    "Copy",
    "Count",
    "Example",
    "Extract",
    "FrequentWords",
    "KeyValue",
    "ManyShot",
    "MultiHop",
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
