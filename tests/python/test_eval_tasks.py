"""The tasks of keyseek.eval: lengths, seeds, and answers that the prompt gives."""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import keyseek
from keyseek.eval.tasks import TASKS, Copy, Tail, Writer

LINES = "".join(f"Line {i} of the filler says {i * 7919 % 1000}.\n" for i in range(4000))
FORMS = [form for forms in TASKS.values() for form in forms]
NAMES = [f"{form.name} {form.variant}".strip() for form in FORMS]


class Characters:
    """A tokenizer whose tokens are characters; BOS is 1."""

    def __call__(self, text, add_special_tokens=True, verbose=True):
        return {"input_ids": [1] * add_special_tokens + [ord(c) for c in text]}


def text_of(ids):
    return "".join(map(chr, ids))


@pytest.fixture(scope="module")
def writer():
    return Writer(Characters(), LINES)


@pytest.mark.parametrize("task", FORMS, ids=NAMES)
@pytest.mark.parametrize("tokens", [4096, 9000])
def test_examples_have_their_length(task, tokens, writer):
    example = task.make(writer, tokens, 1)
    longest = max(len(question) + len(answer) for question, answer in example.questions)
    assert 0.85 * tokens <= len(example.prompt) + longest <= tokens
    assert example.prompt[0] == 1
    assert 1 not in example.prompt[1:]
    assert all(question and answer for question, answer in example.questions)


@pytest.mark.parametrize("task", FORMS, ids=NAMES)
def test_a_seed_decides_everything(task, writer):
    first, again, other = (task.make(writer, 4096, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.prompt != other.prompt
    assert first.questions != other.questions


@pytest.mark.parametrize(
    "name",
    [
        "needle",
        "multi-key",
        "multi-value",
        "multi-query",
        "passkey",
        "number-string",
        "key-value",
        "variables",
    ],
)
def test_the_answer_is_in_the_prompt_once_told(name, writer):
    for task in TASKS[name]:
        example = task.make(writer, 4096, 3)
        prompt = text_of(example.prompt)
        for _, answer in example.questions:
            for word in text_of(answer).replace(",", "").split():
                assert word in prompt


def test_a_needle_lies_at_its_depth(writer):
    for task in TASKS["needle"]:
        example = task.make(writer, 8192, 1)
        number = text_of(example.questions[0][1]).strip()
        at = text_of(example.prompt).index(number) / len(example.prompt)
        assert at == pytest.approx(task.depth, abs=0.05)


def test_the_key_that_is_asked_has_the_value_that_is_right(writer):
    example = TASKS["key-value"][0].make(writer, 4096, 1)
    question, answer = map(text_of, example.questions[0])
    key = question.split('Key: "')[1].split('"')[0]
    assert f'"{key}": "{answer}"' in text_of(example.prompt)


def test_variables_form_one_chain(writer):
    example = TASKS["variables"][0].make(writer, 4096, 1)
    prompt, names = text_of(example.prompt), text_of(example.questions[0][1]).split()
    for before, name in pairwise(names):
        assert prompt.index(f"VAR {before} =") < prompt.index(f"VAR {name} = VAR {before}.")


@pytest.mark.parametrize("name", ["common-words", "frequent-words"])
def test_the_words_asked_for_are_the_most_frequent(name, writer):
    example = TASKS[name][0].make(writer, 9000, 1)
    listed = text_of(example.prompt).split("\n", 1)[1].split()
    words = [word for word in listed if word.isalpha()]
    wanted = text_of(example.questions[0][1]).split()
    least = min(words.count(word) for word in wanted)
    assert least > max(words.count(word) for word in set(words) - set(wanted))


def test_what_is_extracted_is_what_the_record_says(writer):
    example = TASKS["extract"][0].make(writer, 9000, 1)
    (question, answer), prompt = map(text_of, example.questions[0]), text_of(example.prompt)
    lines = [question.strip().split("\n")[-1], *answer.split("\n")]  # the first is shown
    objects = [json.loads(line) for line in lines]
    assert len(objects) == 6
    places = []
    for one in objects:
        assert one["name"] in question
        sentence = "The order of {name} has the number {number} and goes to {city}.\n"
        places.append(prompt.index(sentence.format(**one)))
    assert places == sorted(places)
    assert places[0] < 0.2 * len(prompt) < 0.8 * len(prompt) < places[-1]


def test_counts_are_those_of_the_list(writer):
    example = TASKS["count"][0].make(writer, 9000, 1)
    prompt, total = text_of(example.prompt), 0
    for question, answer in example.questions:
        kind = text_of(question).rsplit(" is", 1)[0].split()[-1]
        assert text_of(answer) == f" {prompt.count(f'is {kind}.')}."
        total += prompt.count(f"is {kind}.")
    assert len(example.questions) == 5
    assert total == prompt.count("The ")


def test_every_hop_is_told_once_and_leads_on(writer):
    example = TASKS["multi-hop"][0].make(writer, 4096, 1)
    (question, answer), prompt = map(text_of, example.questions[0]), text_of(example.prompt)
    first = question.rsplit("The key in the box ", 1)[1].split()[0]
    way = [first, *answer.strip(" .").split(", then ")]
    shown = re.search(r"in the box (\S+) opens (.*)\.", question)
    for chain in (way, [shown[1], *shown[2].split(", then ")]):
        for box, other in pairwise(chain):
            assert f"In the box {box} lies the key to the box {other}." in prompt
    assert len(way) == 4
    for box, other in pairwise(way):
        assert prompt.count(f"In the box {box} lies") == 1
        assert f"In the box {box} lies the key to the box {other}." in prompt
    assert f"In the box {way[-1]} lies" not in prompt
    assert prompt.count("lies the key to the box") == 9


def test_labels_are_those_of_the_examples(writer):
    example = TASKS["many-shot"][0].make(writer, 9000, 1)
    prompt = text_of(example.prompt)
    places = [prompt.index(text_of(question + answer)) for question, answer in example.questions]
    assert len(places) == 4
    assert places == sorted(places)
    assert prompt.count("Input: ") == len(set(re.findall("Input: (.*)\n", prompt)))
    assert len(set(re.findall("Output: (.*)\n", prompt))) == 8


def test_a_copy_goes_on_as_the_passage_did(writer):
    example = Copy().make(writer, 4096, 1)
    question, answer = map(text_of, example.questions[0])
    assert question[-32:] + answer in text_of(example.prompt)


def test_a_tail_is_what_comes_next(writer):
    example = Tail().make(writer, 4096, 1)
    ((question, answer),) = example.questions
    assert len(question) == 1
    assert text_of(example.prompt[1:] + question + answer) in LINES


def test_filler_begins_with_a_line_and_is_long_enough(writer):
    for seed in range(5):
        assert text_of(writer.filler(100, random.Random(seed))).startswith("Line ")
    with pytest.raises(keyseek.InvalidArgument, match="fewer than"):
        writer.filler(10**6, random.Random(1))


def test_too_few_tokens_are_refused(writer):
    for name in ("needle", "passkey", "key-value", "extract", "count", "multi-hop", "many-shot"):
        with pytest.raises(keyseek.InvalidArgument, match=r"tokens is \d+"):
            TASKS[name][0].make(writer, 500 if name == "multi-hop" else 200, 1)
