"""A page of figures and tables from rows of `keyseek.bench` or `keyseek sweep`:
`python -m keyseek.report`.

`datasets` reads and sorts rows, `goals` compares them with what the project wants to reach,
`overview` sets the indexes side by side, `figures` draws, `page` and `tables` put it together, `files`
writes it.
"""
