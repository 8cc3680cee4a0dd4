"""Version and patch format are the same wherever they are stated."""

from __future__ import annotations

import re

from downloads import ROOT

from unlearning_core import __version__
from unlearning_core.patch import FORMAT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_version_is_the_same_everywhere() -> None:
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    _, first, *_ = re.findall(r"^## (\S+)", CHANGELOG, re.MULTILINE)
    assert first == __version__


def test_changelog_has_the_patch_format() -> None:
    newest = CHANGELOG.partition("\n## ")[2].partition("\n## ")[0]
    assert f"\nPatch format: {FORMAT}\n" in newest


def test_every_version_states_a_patch_format() -> None:
    for section in CHANGELOG.split("\n## ")[1:]:
        assert re.search(r"^Patch format: \d+", section, re.MULTILINE), section


def test_what_comfyui_reads_is_published() -> None:
    left_out = {line.strip("/") for line in (ROOT / ".comfyignore").read_text(encoding="utf-8").split()}
    for name in ("__init__.py", "locales", "nodes", "requirements.txt", "unlearning_core", "workflows"):
        assert (ROOT / name).exists() and name not in left_out, name
