"""Run the tests: `python scripts/test.py [pytest arguments]`.

Everything is installed into .venv and .cache of this repository; a later run reuses both.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys

from downloads import ROOT
from environment import PYTHON, prepare


def main() -> int:
    """Run the command and return pytest's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare(test_tools=True)
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    with subprocess.Popen([PYTHON, "-m", "pytest", *sys.argv[1:]], cwd=ROOT) as tests:
        # pytest gets Ctrl-C too, and needs time to stop its ComfyUI.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return tests.wait()


if __name__ == "__main__":
    sys.exit(main())
