"""`unlearn …`: the same work without ComfyUI."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from .commands import evaluate, export, train

# Each has a docstring for its help, `add_arguments(parser)` and `run(args)`.
COMMANDS = {"train": train, "evaluate": evaluate, "export": export}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; what is wrong with files or input is one line, and exit status 1."""
    parser = argparse.ArgumentParser(prog="unlearn", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        about = (command.__doc__ or "").splitlines()[0]
        command.add_arguments(subparsers.add_parser(name, help=about, description=about))
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        COMMANDS[args.command].run(args)
    except (ValueError, OSError) as error:
        parser.exit(1, f"unlearn {args.command}: {error}\n")


if __name__ == "__main__":
    main()
