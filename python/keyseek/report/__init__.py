"""A page of figures and tables from rows of `keyseek.bench` or `keyseek sweep`:
`python -m keyseek.report`.

`datasets` reads and sorts rows, `comparison` sets keyseek's indexes against a scan and against the
others, `overview` shows all indexes side by side, `figures` draws, `page` and `tables` put it
together, `files` writes it.
"""
