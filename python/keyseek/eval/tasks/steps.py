"""Answers that take several looks: a chain of places, and labels that only examples tell."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from ...errors import InvalidArgument
from .base import Example, Question, Task, Writer, asked, hidden, room_of
from .needles import depths, subjects
from .records import filled, names


@dataclass(frozen=True)
class MultiHop(Task):
    """Keys in boxes, each of which opens the next, among others that lead elsewhere; the sentences
    stand in any order, so that each hop has to be looked for anew. One chain is answered, to show
    how."""

    name = "multi-hop"
    hops: int = 3
    chains: int = 3

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        length = self.hops + 1
        boxes = subjects(self.chains * length, dice)
        chains = [boxes[length * i : length * (i + 1)] for i in range(self.chains)]
        told = [
            f" In the box {box} lies the key to the box {other}. "
            for chain in chains
            for box, other in pairwise(chain)
        ]
        dice.shuffle(told)
        placed = list(zip(depths(len(told), dice), told, strict=True))
        shown, way = chains[:2]
        question = Question(
            f"\nWhich boxes can be opened, one with the key that lies in the other?\n"
            f"{_told(shown)}\nThe key in the box {way[0]} opens",
            _told(way).split(" opens", 1)[1],
        )
        header = "Sentences about boxes and keys are hidden in the following text.\n"
        return hidden(writer, tokens, dice, header, placed, [question])


def _told(way: list[str]) -> str:
    return f"The key in the box {way[0]} opens {', then '.join(way[1:])}."


@dataclass(frozen=True)
class ManyShot(Task):
    """Long in-context learning: which group a thing is in is told by examples alone, of which a
    thing has one; several things are asked."""

    name = "many-shot"
    groups: int = 8
    questions: int = 4

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        labels = [str(number) for number in dice.sample(range(100, 1000), self.groups)]
        things = [(name, dice.choice(labels)) for name in names(dice)]
        lines = [f"Input: {name}\nOutput: {label}\n" for name, label in things]
        head = writer.start + writer.ids("Give the output that belongs to the input.\n")
        longest = asked(writer, [_asking(max(names(dice), key=len), labels[0])])
        count = filled(writer, lines, room_of(writer, tokens, longest) - len(head))
        if count < 2 * self.questions:
            raise InvalidArgument(f"tokens is {tokens}: too few for {2 * self.questions} examples")
        # One from each part of the examples.
        part = count / self.questions
        chosen = [things[int((i + dice.random()) * part)] for i in range(self.questions)]
        body = [token for line in lines[:count] for token in writer.ids(line)]
        return Example(head + body, asked(writer, [_asking(*one) for one in chosen]))


def _asking(thing: str, label: str) -> Question:
    return Question(f"Input: {thing}\nOutput:", f" {label}\n")
