"""The exception of the dataset tools, and how a command line tool ends with it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable

from keyseek import Error, InvalidArgument


class DatasetError(InvalidArgument):
    """Wrong input or a missing package; the sentence names the argument and the value."""


def exit_status(tool: Callable[[Namespace], None], given: Namespace) -> int:
    """Run a tool: 0, or 2 with the error as one line on stderr."""
    try:
        tool(given)
    except Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
