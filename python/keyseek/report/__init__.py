"""A page of figures and tables from rows of `keyseek.bench` or `keyseek sweep`:
`python -m keyseek.report`.

`datasets` reads and sorts rows, `overview` shows all indexes side by side, `comparison` divides
keyseek's throughput by that of the others, `figures` draws, `page` and `tables` put it together,
`files` writes it.
"""
