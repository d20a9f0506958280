"""Which words are most frequent: RULER's aggregation tasks (arXiv 2404.06654)."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from .base import Example, Question, Task, Writer, asked, room_of
from .needles import ADJECTIVES, NOUNS

COMMON_TIMES, OTHER_TIMES = 30, 3  # in a list that is long enough
EXPONENT = 2.0  # of the Zeta distribution
CODED = 200  # different coded words


@dataclass(frozen=True)
class CommonWords(Task):
    """A numbered list where ten words come up 30 times, the others 3 times.

    In a short list the common ones fill half of it; the rest of it is others.
    """

    name = "common-words"
    common: int = 10

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        words = [f"{adjective}{noun}" for adjective in ADJECTIVES for noun in NOUNS]
        dice.shuffle(words)
        common, others = words[: self.common], words[self.common :]
        pairs = asked(
            writer,
            [
                Question(
                    f"\nQuestion: What are the {self.common} most common words in the above list? "
                    f"Answer: The top {self.common} words that appear most often in the list are:",
                    " " + " ".join(common),
                )
            ],
        )
        head = writer.start + writer.ids(
            "Below is a numbered list of words. In these words, some appear more often than "
            "others. Memorize the ones that appear most often.\n"
        )
        room = room_of(writer, tokens, pairs) + len(writer.start) - len(head)
        count = room // _tokens_per_word(writer, words)
        times = min(COMMON_TIMES, max(OTHER_TIMES + 1, count // (2 * self.common)))
        repeated = [word for word in others for _ in range(OTHER_TIMES)]
        listed = common * times + repeated[: max(0, count - times * self.common)]
        dice.shuffle(listed)
        return Example(head + writer.ids(_numbered(listed)), pairs)


def _numbered(words: list[str]) -> str:
    return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))


def _tokens_per_word(writer: Writer, words: list[str]) -> int:
    """Tokens of a word in a numbered list, rounded up."""
    return -(-len(writer.ids(_numbered(words))) // len(words))


@dataclass(frozen=True)
class FrequentWords(Task):
    """Coded words whose numbers follow a Zeta distribution: the three most frequent."""

    name = "frequent-words"
    asked_for: int = 3

    def write(self, writer: Writer, tokens: int, dice: random.Random) -> Example:
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = ["".join(dice.choices(letters, k=6)) for _ in range(CODED)]
        head = writer.start + writer.ids(
            "Read the following coded text and track the frequency of each coded word. Find the "
            "three most frequently appeared coded words.\n"
        )
        room = room_of(writer, tokens, asked(writer, [_frequent(words[: self.asked_for])]))
        room -= len(head) - len(writer.start)
        per_word = -(-len(writer.ids(" ".join(words))) // len(words))
        weights = [1 / rank**EXPONENT for rank in range(1, CODED + 1)]
        drawn = dice.choices(words, weights, k=room // per_word)
        shown = [word if dice.random() < 0.9 else "...." for word in drawn]
        body = writer.ids(" ".join(shown))
        counts = Counter(word for word in shown if word != "....")
        most = [word for word, _ in counts.most_common(self.asked_for)]
        return Example(head + body, asked(writer, [_frequent(most)]))


def _frequent(words: list[str]) -> Question:
    return Question(
        "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the "
        "three most frequently appeared words in the above coded text? Answer: According to the "
        "coded text above, the three most frequently appeared words are:",
        " " + " ".join(words),
    )
