"""Run the tests: `python scripts/test.py [pytest arguments]`.

Everything is installed into .venv and .cache of this repository; a later run reuses both. Tests run side by side, one
a core; `--numprocesses=0` runs them in one process, for a debugger.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys

from comfyui import OLDEST, pinned_comfyui
from downloads import ROOT
from environment import PYTHON, prepare

SIDE_BY_SIDE = ["--numprocesses=logical", "--maxprocesses=4", "--dist=worksteal"]


def main() -> int:
    """Run the command and return pytest's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare(test_tools=True)
        if os.environ.get("UNLEARNING_TEST_OLDEST") == "1":  # see tests/conftest.py
            pinned_comfyui(OLDEST, PYTHON)
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([PYTHON, "-m", "pytest", *SIDE_BY_SIDE, *sys.argv[1:]], cwd=ROOT, env=one_thread) as tests:
        # pytest gets Ctrl-C too, and needs time to stop its ComfyUI.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return tests.wait()


if __name__ == "__main__":
    sys.exit(main())
