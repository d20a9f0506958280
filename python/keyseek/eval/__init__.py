"""How much sparse attention changes a real model's answers: `python -m keyseek.eval`.

`prompt` reads a text once with full attention, `policies` decode from it, `block` is the
attention that most of them share, `score` compares their predictions with full attention's,
`faithfulness` prints that for the tail of a document. `tasks` are prompts with questions, `run`
fills a file of `rows` with policies over tasks, lengths, seeds and budgets, and `report` makes a
page of their `means` with `figures`, and the tables `standing` and `summary`. Commands are in the
files of their names.
"""
