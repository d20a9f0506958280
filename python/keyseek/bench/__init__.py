"""Our indexes and other libraries' on the same data, in one run: `python -m keyseek.bench`.

`__main__` reads the command line, `problem` the data, and `peer_process` runs another library's
index. Rounds and rows are those of `keyseek sweep`, in C++ (`src/sweep/`).
"""
