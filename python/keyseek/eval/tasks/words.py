"""Which words are most frequent: RULER's aggregation tasks (arXiv 2404.06654)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import Example, Question, Task, Writer, asked, room_of
from .needles import ADJECTIVES, NOUNS

COMMON_TIMES, OTHER_TIMES = 30, 3
EXPONENT = 2.0  # of the Zeta distribution


@dataclass(frozen=True)
class CommonWords(Task):
    """A numbered list where ten words come up 30 times, the others 3 times."""

    name = "common-words"
    common: int = 10

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        words = [f"{a}{n}" for a in ADJECTIVES for n in NOUNS]
        dice.shuffle(words)
        common, others = words[: self.common], words[self.common :]
        pairs = asked(writer, [Question(
            f"\nQuestion: What are the {self.common} most common words in the above list? "
            f"Answer: The top {self.common} words that appear most often in the list are:",
            " " + " ".join(common),
        )])
        head = writer.start + writer.ids(
            "Below is a numbered list of words. In these words, some appear more often than others. "
            "Memorize the ones that appear most often.\n"
        )
        room = room_of(writer, tokens, pairs) + len(writer.start) - len(head)
        times = max(2, min(COMMON_TIMES, room // (12 * self.common)))
        drawn = common * times + [w for w in others for _ in range(OTHER_TIMES)]
        # As many others as there is room for: the common ones are always in the list.
        kept = [*drawn[: self.common * times], *_sample(drawn[self.common * times :], room, times,
                                                        self.common)]
        dice.shuffle(kept)
        body = writer.ids(" ".join(f"{i}. {word}" for i, word in enumerate(kept, 1)))
        return Example(head + body[:room], pairs)


def _sample(others: list[str], room: int, times: int, common: int) -> list[str]:
    """So many of the other words that the list is about as long as its room."""
    per_word = 9  # tokens of a numbered word, about
    return others[: max(0, room // per_word - times * common)]


@dataclass(frozen=True)
class FrequentWords(Task):
    """Coded words whose numbers follow a Zeta distribution: the three most frequent."""

    name = "frequent-words"
    asked_for: int = 3

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = ["".join(dice.choices(letters, k=6)) for _ in range(200)]
        pairs = asked(writer, [Question(
            "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the "
            "three most frequently appeared words in the above coded text? Answer: According to the "
            "coded text above, the three most frequently appeared words are:",
            " " + " ".join(words[: self.asked_for]),
        )])
        head = writer.start + writer.ids(
            "Read the following coded text and track the frequency of each coded word. Find the "
            "three most frequently appeared coded words.\n"
        )
        room = room_of(writer, tokens, pairs) + len(writer.start) - len(head)
        weights = [1 / rank**EXPONENT for rank in range(1, len(words) + 1)]
        drawn = dice.choices(words, weights, k=room)
        body = writer.ids(" ".join(word if dice.random() < 0.9 else "...." for word in drawn))
        return Example(head + body[:room], pairs)
