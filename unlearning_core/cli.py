"""`unlearn …`: the same work without ComfyUI."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from .commands import attack, evaluate, export, train
from .commands.shared import default_device
from .launched import ProcessLost, Stopped, launched

# Each has a docstring for its help, `add_arguments(parser)` and `run(args)`.
COMMANDS = {"train": train, "evaluate": evaluate, "attack": attack, "export": export}


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, False) or action.default == []
        return action.help if silent else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; what is missing, or wrong with files or input, is one line, and exit status 1.

    One line also of several processes that a launcher started: see `launched`.
    """
    parser = argparse.ArgumentParser(prog="unlearn", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        about = (command.__doc__ or "").splitlines()[0]
        command.add_arguments(subparsers.add_parser(name, help=about, description=about, formatter_class=Defaults))
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with launched(args.device or default_device()):
            COMMANDS[args.command].run(args)
    except Stopped:
        parser.exit(1)
    except ModuleNotFoundError as error:
        advice = f"run `pip install .` in {Path(__file__).parents[1]}"
        parser.exit(1, f"unlearn {args.command}: {error.name} is not installed; {advice}\n")
    except (ValueError, OSError, ProcessLost) as error:
        parser.exit(1, f"unlearn {args.command}: {error}\n")


if __name__ == "__main__":
    main()
