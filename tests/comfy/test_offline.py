"""The workflows that need no download need none: no network, and nothing in any cache."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import comfyui
import own_home
import pytest
from graphs import shortened
from workflow_files import TINY_WORKFLOWS

# Python imports this first. What asks for another host gets an error, and is written down.
NO_NETWORK = """
import os
import socket

HERE = (None, "", "0.0.0.0", "127.0.0.1", "::", "::1", "localhost")


def guarded(call, host_of):
    def guard(*arguments, **options):
        host = host_of(*arguments)
        if host not in HERE:
            with open(os.environ["ASKED_HOSTS"], "a", encoding="utf-8") as file:
                print(host, file=file)
            raise OSError(f"no network in this test: {host}")
        return call(*arguments, **options)

    return guard


def of_socket(self, address):
    return address[0] if self.family in (socket.AF_INET, socket.AF_INET6) else ""


socket.socket.connect = guarded(socket.socket.connect, of_socket)
socket.socket.connect_ex = guarded(socket.socket.connect_ex, of_socket)
socket.getaddrinfo = guarded(socket.getaddrinfo, lambda host, *rest: host)
"""


def test_quickstart_asks_no_other_host_and_no_cache(
    comfyui_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, place in own_home.PLACES.items():
        monkeypatch.setenv(name, str(tmp_path / "home" / place))
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    asked = tmp_path / "asked"
    monkeypatch.setenv("ASKED_HOSTS", str(asked))
    quickstart = shortened(json.loads(TINY_WORKFLOWS[0].api_file.read_text(encoding="utf-8")))

    with comfyui.Server(comfyui_path, Path(sys.executable), tmp_path / "server") as server:
        entry = server.run(quickstart)

    [metric] = [output for output in entry["outputs"].values() if "retention" in output]
    assert metric["retention"][0]["integrity"] > 0
    assert not asked.exists(), f"asked for: {asked.read_text(encoding='utf-8')}"
