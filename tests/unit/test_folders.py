"""diffusers folders that are broken: each is refused in one sentence, and none is completed with random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from unlearning_core import cli
from unlearning_core.hosts.families import load
from unlearning_core.tiny import MODEL

Break = Callable[[Path], object]


def index(text: str) -> Break:
    """Another model_index.json."""
    return lambda folder: (folder / "model_index.json").write_text(text)


def named(name: object) -> Break:
    """Of another pipeline."""

    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": name}))

    return change


def without(component: str) -> Break:
    return lambda folder: shutil.rmtree(folder / component)


def short_of_one(component: str) -> Break:
    """The file of one network lacks a tensor."""

    def change(folder: Path) -> None:
        [path] = (folder / component).glob("*.safetensors")
        tensors = load_file(path)
        del tensors[sorted(tensors)[len(tensors) // 2]]
        save_file(tensors, path, metadata={"format": "pt"})

    return change


BROKEN: dict[str, tuple[Break, str]] = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "model_index.json"),
    "index cut short": (index("{"), "not a valid JSON"),
    "empty index": (index("{}"), "names None, which is no pipeline"),
    "list": (index("[]"), "names None, which is no pipeline"),
    "unknown pipeline": (named("FooPipeline"), "names 'FooPipeline', which is no pipeline"),
    "network for a pipeline": (named("UNet2DConditionModel"), "which is no pipeline"),
    "number for a name": (named(3), "names 3, which is no pipeline"),
    "no network": (without("unet"), "config.json"),
    "no scheduler": (without("scheduler"), "scheduler_config.json"),
    "network of another size": (lambda folder: (folder / "unet" / "config.json").write_text("{}"), "shape"),
    **{f"short {name}": (short_of_one(name), f"its {name} lacks ") for name in ("unet", "text_encoder", "vae")},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_folder_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    broken, reason = BROKEN[kind]
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    broken(folder)
    with pytest.raises(ValueError, match=r"^model .*: it cannot be loaded as a diffusers folder") as caught:
        load(folder)
    assert reason in str(caught.value)


WEIGHTS = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")
JSON = sorted(str(path.relative_to(MODEL)) for path in MODEL.rglob("*.json"))
FILES = [*JSON, *(f"{name}.safetensors" for name in WEIGHTS)]
CONTENTS: dict[str, bytes | None] = {
    "gone": None,
    "empty": b"",
    "cut short": b'{"a": [1, 2',
    "a list": b"[]",
    "nothing": b"null",
    "a number": b"3",
    "no text": b"\xff\xfe\x00",
    "deep": b'{"a":' * 100_000,
}


def loads_or_is_refused(folder: Path) -> None:
    """Any other end is an error of the libraries below."""
    try:
        load(folder)
    except ValueError as error:
        assert str(error).startswith("model") and "\n" not in str(error)


@pytest.mark.parametrize("content", CONTENTS)
def test_every_file_of_a_folder_may_be_damaged(content: str, tmp_path: Path) -> None:
    damaged = CONTENTS[content]
    for name in FILES:
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(MODEL, folder)
        if damaged is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(damaged)
        loads_or_is_refused(folder)


WRONG: list[Any] = [None, True, -1, 0, 1, 7, 0.5, -1.0, 1e300, "", "x", [], [0.1], {}, ["transformers", "X"]]


@given(data=st.data())
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_of_a_configuration_may_be_wrong(data: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MODEL, folder)
    path = folder / data.draw(st.sampled_from([name for name in JSON if "tokenizer" not in name]))
    fields = json.loads(path.read_text())
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(st.sampled_from(WRONG))
    path.write_text(json.dumps(fields))
    loads_or_is_refused(folder)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", "hpu"])
def test_a_device_that_is_not_there_is_named(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--model", str(MODEL), "--forget", "a cat", "--device", device]
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--out", str(tmp_path / "patch.safetensors")])
    assert f"unlearn train: --device {device}: " in capsys.readouterr().err
