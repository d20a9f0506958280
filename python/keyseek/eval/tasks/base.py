"""What a task gives: a prompt, and questions about it with their gold answers."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import InvalidArgument


@dataclass(frozen=True)
class Question:
    """What is asked after the prompt, and the answer that is right, as text."""

    text: str
    answer: str


@dataclass(frozen=True)
class Example:
    """Token ids: a prompt, and (question, gold answer) pairs, each asked by itself."""

    prompt: list[int]
    questions: list[tuple[list[int], list[int]]]


class Writer:
    """Tokens of texts, and filler: stretches of a long text, different for every seed."""

    def __init__(self, tokenizer: Any, filler: str) -> None:
        self._tokenizer = tokenizer
        self._filler = filler
        self.start = tokenizer("", verbose=False)["input_ids"]  # BOS, where the model wants it

    def ids(self, text: str) -> list[int]:
        encoded = self._tokenizer(text, add_special_tokens=False, verbose=False)
        return list(encoded["input_ids"])

    def filler(self, count: int, dice: random.Random) -> list[int]:
        """`count` tokens of filler, from the beginning of some line of it."""
        # No token is longer than 16 characters on average, nor a text of fewer than 1.
        characters = 8 * count + 1024
        last = max(0, len(self._filler) - characters)
        begin = self._filler.rfind("\n", 0, dice.randint(0, last) + 1) + 1
        ids = self.ids(self._filler[begin : begin + characters])
        if len(ids) < count:
            raise InvalidArgument(f"the filler has {len(ids)} tokens there, fewer than {count}")
        return ids[:count]


@dataclass(frozen=True)
class Task(ABC):
    """A kind of example; the same seed gives the same example at the same length."""

    name: ClassVar[str]

    @property
    def variant(self) -> str:
        """Which of several forms of the task this is, for rows; empty where there is one."""
        return ""

    def make(self, writer: Writer, tokens: int, seed: int) -> Example:
        """An example whose prompt, longest question and answer together have about `tokens`."""
        # A string seeds the same on every machine, unlike a tuple's hash.
        dice = random.Random(f"{self.name} {self.variant} {tokens} {seed}")
        return self.write(writer, tokens, dice)

    @abstractmethod
    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example: ...


def asked(writer: Writer, questions: list[Question]) -> list[tuple[list[int], list[int]]]:
    """Token ids of questions and answers."""
    return [(writer.ids(q.text), writer.ids(q.answer)) for q in questions]


def room_of(writer: Writer, tokens: int, questions: list[tuple[list[int], list[int]]]) -> int:
    """Tokens that are left for the prompt."""
    longest = max(len(question) + len(answer) for question, answer in questions)
    return tokens - longest - len(writer.start)


def hidden(
    writer: Writer,
    tokens: int,
    dice: random.Random,
    header: str,
    needles: list[tuple[float, str]],
    questions: list[Question],
) -> Example:
    """Filler in which (depth, needle) pairs are hidden; a depth is in [0, 1]."""
    pairs = asked(writer, questions)
    begin = writer.start + writer.ids(header)
    placed = [(depth, writer.ids(needle)) for depth, needle in sorted(needles)]
    room = room_of(writer, tokens, pairs) - len(writer.ids(header))
    room -= sum(len(needle) for _, needle in placed)
    if room < 1:
        raise InvalidArgument(f"tokens is {tokens}: header, needles and question leave no filler")
    filler = writer.filler(room, dice)
    prompt, done = list(begin), 0
    for depth, needle in placed:
        at = int(depth * room)
        prompt += filler[done:at] + needle
        done = at
    return Example(prompt + filler[done:], pairs)
