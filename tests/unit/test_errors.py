"""Whatever goes wrong on the command line is one line, and no traceback."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import together
import torch

from unlearning_core import __version__, cli
from unlearning_core.commands import train
from unlearning_core.tiny import MODEL

MISSING = "there-is-none"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a file of prompts, one that is no text, a folder with the name of a patch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a car\n", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\x00\xfe")
    (tmp_path / "folder.safetensors").mkdir()
    return tmp_path


def refused(command: str, capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        cli.main(command.split())
    assert ended.value.code == status
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("unlearn")
    return line


TRAIN = f"train --model {MODEL} --forget cat"
EVALUATE = f"evaluate --base {MODEL} --prompts prompts.txt"


@pytest.mark.parametrize(
    ("command", "said"),
    {
        f"train --recipe {MISSING}": MISSING,
        "train --recipe folder.safetensors": "folder.safetensors: Is a directory",
        "train --recipe binary": "binary: this is not text in UTF-8",
        f"train --model {MISSING} --forget cat --retain car": MISSING,
        "train --model binary --forget cat --retain car": "binary",
        "train --model . --forget cat --retain car": "model .:",
        f"{TRAIN} --config {MISSING} --retain car --model prompts.txt": "prompts.txt",
        f"{TRAIN} --out folder.safetensors": "folder.safetensors: no name for a patch",
        f"{TRAIN} --out prompts.txt/a.safetensors": "prompts.txt, this is no folder",
        f"{EVALUATE} --patch {MISSING}": f"--patch {MISSING}: there is no such file",
        f"{EVALUATE} --patch folder.safetensors": "folder.safetensors",
        f"{EVALUATE} --patch binary": "binary: this is not a safetensors file",
        f"evaluate --base {MODEL} --prompts . --patch binary": ".: Is a directory",
        f"evaluate --base {MODEL} --prompts binary --patch binary": "binary: this is not text in UTF-8",
        f"export {MISSING} out.safetensors --full": MISSING,
        "export folder.safetensors out.safetensors --full": "folder.safetensors",
        "export binary out.safetensors --full": "binary: this is not a safetensors file",
    }.items(),
)
def test_files(command: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert said in refused(command, capsys)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("command", "said"),
    {
        "": "the following arguments are required: command; see unlearn --help",
        "forget": "invalid choice: 'forget'",
        f"{TRAIN} --stepps 3": "unrecognized arguments: --stepps 3",
        f"{TRAIN} --steps many": "argument --steps: invalid int value: 'many'; see unlearn train --help",
        f"{TRAIN} --method none": "argument --method: invalid choice: 'none'",
        f"{TRAIN} --weights": "argument --weights: expected one argument",
        f"{EVALUATE} --patch a --strength=11": "argument --strength: 11.0 is out of range",
        "evaluate": "the following arguments are required: --base",
        "export a b": "one of the arguments --rank --full --merge is required",
    }.items(),
)
def test_options(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(command, capsys, 2)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "a/b.toml"), "unlearn train: a/b.toml: Permission denied"),
        (OSError(28, "No space left on device"), "unlearn train: [Errno 28] No space left on device"),
        (ModuleNotFoundError("", name="tqdm"), "unlearn train: tqdm is not installed; run `pip install .` in "),
        (torch.OutOfMemoryError("1\nGiB"), "unlearn train: out of memory (1 GiB); take smaller pictures"),
        (ValueError("two\nlines"), "unlearn train: two lines"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_happens_on_the_way(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> None:
        raise error

    monkeypatch.setattr(train, "run", fail)
    assert refused(TRAIN, capsys).startswith(said)


def test_a_fault_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> None:
        raise KeyError("fault")

    monkeypatch.setattr(train, "run", fail)
    with pytest.raises(KeyError, match="fault"):
        cli.main(TRAIN.split())


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert refused(TRAIN, capsys, cli.INTERRUPTED) == "unlearn: stopped"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_of_several_processes_is_one_line(tmp_path: Path) -> None:
    endless = [*TRAIN.split(), "--retain", "a car", "--method", "ovw", "--steps", "100000", "--batch-size", "2"]
    sizes = "--width 64 --height 64 --runs 2 --run-steps 2 --out"
    size = [*sizes.split(), str(tmp_path / "a.safetensors")]
    running = together.start(["-c", WITH_SIGN, str(tmp_path), *endless, *size])
    while len(list(tmp_path.glob("begun-*"))) < len(running) and all(each.poll() is None for each in running):
        time.sleep(0.05)
    for each in running:
        each.send_signal(signal.SIGINT)
    ended = together.ended(running)
    assert [text for _, _, text in ended] == ["unlearn: stopped\n", ""]
    assert [status for status, _, _ in ended] == [cli.INTERRUPTED, 1]
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.toml"))


# The command line, which makes a file in a folder when it takes its first training step. What a shell starts in the
# background ignores Ctrl-C, and so would all that is started from there.
WITH_SIGN = """
import os, pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from unlearning_core import cli, train
predict = train._predict
def begun(*step):
    pathlib.Path(sys.argv[1], f"begun-{os.environ['RANK']}").touch()
    return predict(*step)
train._predict = begun
cli.main(sys.argv[2:])
"""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"unlearn {__version__}\n"
