"""Sentences hidden in a long text: RULER's needle tasks (arXiv 2404.06654)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import Example, Question, Task, Writer, hidden

ADJECTIVES = (
    "quiet brave gentle bright wooden silver hollow crimson frozen golden humble lively mellow "
    "narrow proud rapid sturdy tender velvet windy"
).split()
NOUNS = (
    "falcon lantern meadow harbor anchor basket candle desert engine forest garden hammer island "
    "jacket kettle ladder magnet needle orchard pebble"
).split()

HEADER = (
    "{some} special magic {numbers} hidden within the following text. Make sure to memorize "
    "{it}. I will quiz you about the {numbers_alone} afterwards.\n"
)


def header(count: int) -> str:
    one = count == 1
    return HEADER.format(
        some="A" if one else "Some",
        numbers="number is" if one else "numbers are",
        it="it" if one else "them",
        numbers_alone="number" if one else "numbers",
    )


def needle(subject: str, number: str) -> str:
    return f" One of the special magic numbers for {subject} is: {number}. "


def question(subject: str, numbers: list[str]) -> Question:
    what, verb = ("number", "is") if len(numbers) == 1 else ("numbers", "are")
    text = (
        f"\nWhat {verb} {'all ' if len(numbers) > 1 else ''}the special magic {what} for {subject} "
        f"mentioned in the provided text? The special magic {what} for {subject} mentioned in the "
        f"provided text {verb}"
    )
    return Question(text, " " + ", ".join(numbers))


def subjects(count: int, dice: random.Random) -> list[str]:
    pairs = [f"{adjective}-{noun}" for adjective in ADJECTIVES for noun in NOUNS]
    return dice.sample(pairs, count)


def numbers(count: int, dice: random.Random) -> list[str]:
    return [str(number) for number in dice.sample(range(10_000, 100_000), count)]


def depths(count: int, dice: random.Random) -> list[float]:
    """Spread over the text, each at random within its own part."""
    return [(i + dice.random()) / count for i in range(count)]


@dataclass(frozen=True)
class Needle(Task):
    """One number, at a given depth."""

    name = "needle"
    depth: float = 0.5

    @property
    def variant(self) -> str:
        return f"depth {self.depth:g}"

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        subject, number = subjects(1, dice)[0], numbers(1, dice)[0]
        placed = [(self.depth, needle(subject, number))]
        return hidden(writer, tokens, dice, header(1), placed, [question(subject, [number])])


@dataclass(frozen=True)
class MultiKey(Task):
    """Numbers for several subjects, of which one is asked."""

    name = "multi-key"
    keys: int = 4

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        names, values = subjects(self.keys, dice), numbers(self.keys, dice)
        where = depths(self.keys, dice)
        placed = [(d, needle(s, v)) for d, s, v in zip(where, names, values, strict=True)]
        wanted = dice.randrange(self.keys)
        asked = [question(names[wanted], [values[wanted]])]
        return hidden(writer, tokens, dice, header(self.keys), placed, asked)


@dataclass(frozen=True)
class MultiValue(Task):
    """Several numbers for one subject, all of them asked, in the order of the text."""

    name = "multi-value"
    values: int = 4

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        subject, values = subjects(1, dice)[0], numbers(self.values, dice)
        where = depths(self.values, dice)
        placed = [(d, needle(subject, v)) for d, v in zip(where, values, strict=True)]
        asked = [question(subject, values)]
        return hidden(writer, tokens, dice, header(self.values), placed, asked)


@dataclass(frozen=True)
class MultiQuery(Task):
    """Numbers for several subjects, each asked in a question of its own."""

    name = "multi-query"
    queries: int = 4

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        names, values = subjects(self.queries, dice), numbers(self.queries, dice)
        where = depths(self.queries, dice)
        placed = [(d, needle(s, v)) for d, s, v in zip(where, names, values, strict=True)]
        asked = [question(s, [v]) for s, v in zip(names, values, strict=True)]
        return hidden(writer, tokens, dice, header(self.queries), placed, asked)


@dataclass(frozen=True)
class VariableTracking(Task):
    """A value that is handed from variable to variable: which of them hold it?"""

    name = "variables"
    hops: int = 4

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        names = ["".join(dice.sample(letters, 5)) for _ in range(self.hops + 1)]
        value = numbers(1, dice)[0]
        held = [value, *(f"VAR {name}" for name in names[:-1])]
        sentences = [f" VAR {n} = {what}. " for n, what in zip(names, held, strict=True)]
        placed = list(zip(sorted(depths(len(names), dice)), sentences, strict=True))
        header = (
            "Memorize and track the chain(s) of variable assignment hidden in the following text.\n"
        )
        asked = Question(
            f"\nQuestion: Find all variables that are assigned the value {value} in the text "
            f"above. Answer: According to the chain(s) of variable assignment in the text above, "
            f"{len(names)} variables are assigned the value {value}, they are:",
            " " + " ".join(names),
        )
        return hidden(writer, tokens, dice, header, placed, [asked])
