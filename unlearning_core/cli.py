"""`unlearn …`: the same work without ComfyUI."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from . import __version__

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Names the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, False) or action.default == []
        return action.help if silent else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; what is missing, or wrong with options, files or input, is one line.

    One line also of several processes that a launcher started: see `launched`. The exit status is 1, 2 for options
    that are none, INTERRUPTED after Ctrl-C.
    """
    try:
        _run(arguments)
    except KeyboardInterrupt:
        _end("unlearn: stopped", INTERRUPTED)


def _run(arguments: Sequence[str] | None) -> None:
    # Imported here, because torch takes long enough for Ctrl-C.
    from .commands import attack, evaluate, export, train
    from .commands.shared import default_device
    from .launched import launched

    # Each has a docstring for its help, `add_arguments(parser)` and `run(args)`.
    commands = {"train": train, "evaluate": evaluate, "attack": attack, "export": export}
    parser = Parser(prog="unlearn", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        about = (command.__doc__ or "").splitlines()[0]
        command.add_arguments(subparsers.add_parser(name, help=about, description=about, formatter_class=Defaults))
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with _errors_in_one_line(f"unlearn {args.command}"):
        if args.command == "train":
            subparsers.choices[args.command].set_defaults(**train.defaults_of(args))
            args = parser.parse_args(arguments)
        with launched(args.device or default_device()):
            commands[args.command].run(args)


@contextmanager
def _errors_in_one_line(command: str) -> Iterator[None]:
    """Ends the process with exit status 1 for what can go wrong without a fault of the program."""
    import torch

    from .launched import ProcessLost, Stopped

    try:
        yield
    except Stopped:
        sys.exit(1)
    except ModuleNotFoundError as error:
        _end(f"{command}: {error.name} is not installed; run `pip install .` in {Path(__file__).parents[1]}")
    except (torch.OutOfMemoryError, MemoryError) as error:
        advice = "take smaller pictures or a smaller --batch-size, or close other programs"
        _end(f"{command}: out of memory ({_sentence(error)}); {advice}")
    except (ValueError, OSError, ProcessLost) as error:
        _end(f"{command}: {_sentence(error)}")


def _end(line: str, status: int = 1) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(status)


def _sentence(error: Exception) -> str:
    """What went wrong, on one line; of a file, with its name first."""
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return " ".join(text.split())


if __name__ == "__main__":
    main()
