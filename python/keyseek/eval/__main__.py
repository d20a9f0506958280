"""How much sparse attention changes a real model's answers.

python -m keyseek.eval faithfulness --model smollm2-135m --tokens 8192 --steps 256
"""

from __future__ import annotations

import argparse
import sys

from ..errors import Error
from . import faithfulness, report, run

COMMANDS = {"faithfulness": faithfulness, "run": run, "report": report}


def parser() -> argparse.ArgumentParser:
    summary, example = (__doc__ or "").strip().split("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m keyseek.eval", description=summary, epilog=f"Example: {example}"
    )
    commands = p.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").split("\n\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
    return p


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        COMMANDS[given.command].run(given)
    except Error as error:
        print(f"keyseek.eval: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keyseek.eval: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
