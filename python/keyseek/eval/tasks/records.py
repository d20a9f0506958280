"""Many exact values from one long record, and how many of its entries are of a kind.

Extraction after Text2JSON, aggregation after the counts of long-context benchmarks: nearly every
line of the prompt matters for the answer, so that nothing can be left out unnoticed.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from ...errors import InvalidArgument
from .base import Example, Question, Task, Writer, asked, room_of
from .needles import ADJECTIVES, NOUNS

CITIES = "Oslo Lima Cairo Delhi Paris Quito Seoul Tunis Vienna Warsaw Zagreb Athens".split()
COLOURS = "red blue green black white".split()


def names(dice: random.Random) -> list[str]:
    """Names in random order: 400 of two words, and for long prompts 7,600 of three."""
    short = [f"{adjective}-{noun}" for adjective in ADJECTIVES for noun in NOUNS]
    long = [f"{first}-{name}" for first in ADJECTIVES for name in short if first not in name]
    dice.shuffle(short)
    dice.shuffle(long)
    return short + long


def filled(writer: Writer, lines: list[str], room: int) -> int:
    """How many of the lines, from the first, have room for their tokens."""
    count = 0
    for line in lines:
        room -= len(writer.ids(line))
        if room < 0:
            break
        count += 1
    return count


@dataclass(frozen=True)
class Extract(Task):
    """Orders told in sentences, of which several, far apart, are to be written as JSON. The first
    of them is written already, to show how."""

    name = "extract"
    wanted: int = 6

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        orders = [
            (name, str(dice.randrange(1000, 10_000)), dice.choice(CITIES)) for name in names(dice)
        ]
        lines = [
            f"The order of {name} has the number {number} and goes to {city}.\n"
            for name, number, city in orders
        ]
        head = writer.start + writer.ids("The orders of the day:\n")
        longest = asked(writer, [_json_of(orders[: self.wanted])])
        count = filled(writer, lines, room_of(writer, tokens, longest) - len(head) - 8)
        if count < 2 * self.wanted:
            raise InvalidArgument(f"tokens is {tokens}: too few for {2 * self.wanted} orders")
        # One from each part of the record, in the order of the record.
        chosen = [
            orders[dice.randrange(count * i // self.wanted, count * (i + 1) // self.wanted)]
            for i in range(self.wanted)
        ]
        body = [token for line in lines[:count] for token in writer.ids(line)]
        return Example(head + body, asked(writer, [_json_of(chosen)]))


def _json_of(orders: list[tuple[str, str, str]]) -> Question:
    first, *others = [
        json.dumps({"name": name, "number": int(number), "city": city})
        for name, number, city in orders
    ]
    listed = ", ".join(name for name, _, _ in orders)
    return Question(
        f"\nThe orders of {listed} as JSON, one object a line:\n{first}\n", "\n".join(others)
    )


@dataclass(frozen=True)
class Count(Task):
    """How many entries of a list are of a kind, asked for every kind; every entry counts."""

    name = "count"

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        things = names(dice)
        kinds = dice.choices(COLOURS, [5, 4, 3, 2, 1], k=len(things))
        lines = [f"The {name} is {kind}.\n" for name, kind in zip(things, kinds, strict=True)]
        head = writer.start + writer.ids("A list of things and their colours:\n")
        longest = asked(writer, [_count_of(kind, 9999) for kind in COLOURS])
        count = filled(writer, lines, room_of(writer, tokens, longest) - len(head))
        if count < len(COLOURS):
            raise InvalidArgument(f"tokens is {tokens}: too few for {len(COLOURS)} things")
        body = [token for line in lines[:count] for token in writer.ids(line)]
        questions = [_count_of(kind, kinds[:count].count(kind)) for kind in COLOURS]
        return Example(head + body, asked(writer, questions))


def _count_of(kind: str, number: int) -> Question:
    return Question(
        f"\nQuestion: How many things in the list are {kind}? Answer: The number of things that "
        f"are {kind} is",
        f" {number}.",
    )
