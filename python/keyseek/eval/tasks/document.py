"""Going on with a text: one of its own passages again, or what comes next."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import Example, Task, Writer


@dataclass(frozen=True)
class Copy(Task):
    """A passage from deep in the text is begun again, and has to be copied to its end."""

    name = "copy"
    begun: int = 32
    copied: int = 64

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        lead = writer.ids(
            "\n\nThe following passage is repeated from the text above, word by word:\n"
        )
        room = tokens - len(writer.start) - len(lead) - self.begun - self.copied
        filler = writer.filler(room, dice)
        # It is neither at the very beginning nor in the last part, which a window might hold.
        first = int(room * (0.1 + 0.6 * dice.random()))
        passage = filler[first : first + self.begun + self.copied]
        asked = (lead + passage[: self.begun], passage[self.begun :])
        return Example(writer.start + filler, [asked])


@dataclass(frozen=True)
class Tail(Task):
    """The last tokens of a text, each predicted from all before it."""

    name = "tail"
    steps: int = 128

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        text = writer.filler(tokens - len(writer.start), dice)
        cut = len(text) - self.steps - 1
        asked = (text[cut : cut + 1], text[cut + 1 :])
        return Example(writer.start + text[:cut], [asked])
