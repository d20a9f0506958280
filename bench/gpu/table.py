"""The rows of a decode step on a GPU as a table, one line for each context length.

    python3 bench/gpu/table.py build/gpu-check.jsonl

Microseconds of one layer. What heads do on the CPU is summed and divided by the threads that share
them. `step` is what the host saw: the device attends while the CPU searches, so it is less than the
sum of its parts.
"""

import json
import sys

FULL = "full attention, "


def columns(rows):
    """{context length: {column: us}}; what does not depend on the length is in each of them."""
    fixed = {row["part"]: row["us"] for row in rows}
    table = {}
    for row in rows:
        line = table.setdefault(row["tokens"], {})
        if row["part"] == "search":
            line["search"] = row["us"]
        elif row["part"] == "attention on the CPU":
            line["attention"] = row["us"] + fixed["attention"]
            line["copies"] = fixed["copy down"] + fixed["copy up"]
            line["append, merge"] = fixed["append"] + fixed["merge"]
        elif row["part"] == "step":
            line["step"] = row["us"]
        elif row["part"].startswith(FULL):
            line[row["part"]] = row["us"]
    return {tokens: line for tokens, line in sorted(table.items()) if "search" in line}


def table(rows):
    lines = columns(rows)
    names = ["search", "attention", "copies", "append, merge", "step"]
    names += sorted({name for line in lines.values() for name in line if name.startswith(FULL)})
    text = ["| tokens | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for tokens, line in lines.items():
        cells = [f"{line[name]:.1f}" if name in line else "" for name in names]
        text.append(f"| {tokens} | " + " | ".join(cells) + " |")
    return "\n".join(text)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(table([json.loads(line) for line in file]))
