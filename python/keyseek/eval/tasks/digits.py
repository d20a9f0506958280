"""Pass keys, numbers and pairs: infinity-Bench's retrieval tasks (arXiv 2402.13718)."""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import dataclass

from ...errors import InvalidArgument
from .base import Example, Question, Task, Writer, asked, room_of

NOISE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
)
PAIRS_HEADER = "Extract the value corresponding to the specified key in the JSON object below.\n"


def in_noise(
    writer: Writer, tokens: int, dice: random.Random, what: str, needle: str, question: Question
) -> Example:
    """One sentence somewhere in the same few sentences over and over."""
    pairs = asked(writer, [question])
    head = writer.start + writer.ids(
        f"There is {what} hidden inside a lot of irrelevant text. Find it and memorize it. "
        f"I will quiz you about it.\n"
    )
    noise, hidden = writer.ids(NOISE), writer.ids(needle)
    room = room_of(writer, tokens, pairs) + len(writer.start) - len(head) - len(hidden)
    times = room // len(noise)
    if times < 2:
        raise InvalidArgument(f"tokens is {tokens}: too few to hide anything")
    at = dice.randrange(1, times)
    return Example(head + at * noise + hidden + (times - at) * noise, pairs)


@dataclass(frozen=True)
class Passkey(Task):
    """A pass key of five digits."""

    name = "passkey"

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        key = str(dice.randrange(10_000, 100_000))
        return in_noise(
            writer,
            tokens,
            dice,
            "an important pass key",
            f"The pass key is {key}. Remember it. {key} is the pass key.\n",
            Question("\nWhat is the pass key? The pass key is", f" {key}"),
        )


@dataclass(frozen=True)
class NumberString(Task):
    """Ten digits, each of which may repeat."""

    name = "number-string"

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        digits = "".join(digit * dice.randint(1, 3) for digit in dice.choices("0123456789", k=10))
        digits = digits[:10]
        return in_noise(
            writer,
            tokens,
            dice,
            "an important sequence of digits",
            f"The sequence of digits is {digits}. Remember it. {digits} is the sequence of "
            "digits.\n",
            Question("\nWhat is the sequence of digits? The sequence of digits is", f" {digits}"),
        )


@dataclass(frozen=True)
class KeyValue(Task):
    """The value of one key in a JSON object of random identifiers."""

    name = "key-value"

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        def name() -> str:
            return str(uuid.UUID(int=dice.getrandbits(128), version=4))

        key, value = name(), name()
        text = f'\nKey: "{key}"\nThe value associated with the specified key is: "'
        pairs = asked(writer, [Question(text, value)])
        head = writer.start + writer.ids(PAIRS_HEADER + "JSON data: {")
        entries, end = [writer.ids(_entry(key, value))], writer.ids("}\n")
        room = room_of(writer, tokens, pairs) + len(writer.start) - len(head) - len(end)
        other = writer.ids(_entry(name(), name()))
        while sum(map(len, entries)) + len(other) <= room:
            entries.append(other)
            other = writer.ids(_entry(name(), name()))
        if len(entries) < 2:
            raise InvalidArgument(f"tokens is {tokens}: too few for two pairs")
        dice.shuffle(entries)
        return Example(head + [id_ for entry in entries for id_ in entry] + end, pairs)


def _entry(key: str, value: str) -> str:
    return f"{json.dumps(key)}: {json.dumps(value)}, "
