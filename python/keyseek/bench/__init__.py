"""Our indexes and other libraries' on the same data, in one run: `python -m keyseek.bench`.

`__main__` reads the command line, `problem` the data, `ours` and `peer_process` are what is
measured, `rounds` measures them in turns, and `results` keeps a JSON row per point.
"""
