"""What the user sees while nodes work, and the patch that stays of a run that was ended early."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import graphs
import pytest
import torch
from comfyui import Progress, Server
from torch import Tensor

from unlearning_core.patch import Record

Pack = Callable[[str], ModuleType]
STOP = "/unlearning/stop"


@pytest.fixture
def sent(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What goes to the front end, with previews on and all the time that they want."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(pack("nodes.host.live"), "send", lambda run, **content: messages.append(content))
    monkeypatch.setattr(pack("nodes.host.progress"), "show", lambda text, node_id: None)
    for name, value in {"SHARE": 1e9, "FIRST": 0.0, "EVERY": 0.0}.items():
        monkeypatch.setattr(pack("unlearning_core.progress").Budget, name, value)
    set_previews(pack, monkeypatch, "Latent2RGB")
    return messages


def set_previews(pack: Pack, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    preview = pack("nodes.host.preview")
    monkeypatch.setattr(preview.args, "preview_method", getattr(preview.LatentPreviewMethod, method))


def pairs(sent: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [content["pairs"] for content in sent if "pairs" in content]


def trained(pack: Pack, model: Any, clip: Any, method: str, cfg: float = 3.0) -> dict[str, Tensor]:
    """Of four steps as Unlearn Concept takes them, with what is shown meanwhile."""
    core = {name: pack(f"unlearning_core.{name}") for name in ("methods", "prompts", "settings", "unlearn")}
    prompts = core["prompts"].Prompts(("a cat face",), ("a dog face",), ("a car",))
    objective = core["methods"].METHODS[method]()
    settings = core["settings"].Settings(
        steps=4, learning_rate=1e-3, width=64, height=64, batch_size=1, runs=1, run_steps=3, run_cfg=cfg
    )
    opened = pack("nodes.host.unlearning").opened(model, clip, objective)
    watched = pack("nodes.host.watching").watched
    with torch.inference_mode(False), torch.enable_grad(), opened as host:
        host.encode(core["prompts"].all_prompts(prompts))
        with watched(host, objective, prompts, settings, "1", []) as on_progress:
            torch.manual_seed(7)
            patch = core["unlearn"].unlearn(host, objective, prompts, settings, on_progress)
            tensors: dict[str, Tensor] = patch.tensors
    return tensors


@pytest.mark.parametrize("run", [("ovw", 3.0), ("salun", 1.0)])
def test_previews_change_nothing(
    pack: Pack,
    monkeypatch: pytest.MonkeyPatch,
    sent: list[dict[str, Any]],
    model: Any,
    clip: Any,
    run: tuple[str, float],
) -> None:
    """With a method and a guidance scale."""
    watched = trained(pack, model, clip, *run)
    shown = pairs(sent)
    after = torch.rand(1)
    sent.clear()
    set_previews(pack, monkeypatch, "NoPreviews")
    unwatched = trained(pack, model, clip, *run)

    assert torch.equal(after, torch.rand(1))
    assert watched.keys() == unwatched.keys()
    assert all(torch.equal(watched[key], unwatched[key]) for key in watched)
    assert not pairs(sent)
    assert len(shown) == 3  # each step but the first
    assert [pair["prompt"] for pair in shown[-1]] == ["a cat face", "a car"]
    first, second, last = (each[0] for each in shown)
    assert first["base"] == second["base"] == last["base"]
    assert first["now"] is None
    assert len({second["now"], last["now"], last["base"]}) == 3


@pytest.mark.parametrize(("pace", "cost"), [(1.0, 0.6), (1.0, 1.2), (0.1, 0.05), (5.0, 1.0)])
def test_the_last_pictures_are_of_the_last_step(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, pace: float, cost: float
) -> None:
    """Whatever a step and pictures take, as long as the budget has room for two of the base and of the end."""
    core, preview, now = pack("unlearning_core.progress"), pack("nodes.host.preview"), [0.0]
    monkeypatch.setattr(preview, "monotonic", lambda: now[0])
    monkeypatch.setattr(preview, "Budget", lambda: core.Budget(lambda: now[0]))

    def draw(self: Any) -> list[str]:
        now[0] += cost
        return [f"at {now[0]}"]

    monkeypatch.setattr(preview.Previews, "_drawn", draw)
    host = SimpleNamespace(bare=nullcontext)
    shown: list[tuple[Any, int]] = []
    settings = pack("unlearning_core.settings").Settings(batch_size=10)
    previews = preview.Previews(host, None, ["a cat"], settings, lambda pairs, step: shown.append((pairs[0].now, step)))
    for step in range(1, 81):
        now[0] += pace
        previews(core.Progress(step, 80, 0.5, phase=core.TRAINING, step=step, steps=80))
    assert shown[0][0] is None
    assert shown[-1] == (f"at {now[0]}", 80)
    spent = cost * len(shown)
    assert spent <= core.Budget.SHARE * now[0]


def test_the_curve_has_every_loss(pack: Pack, sent: list[dict[str, Any]], model: Any, clip: Any) -> None:
    trained(pack, model, clip, "ovw")
    curves = [content for content in sent if "losses" in content]
    assert [content["training"] for content in curves] == [True] * (len(curves) - 1) + [False]
    assert (len(curves[-1]["losses"]), curves[-1]["step"], curves[-1]["steps"]) == (4, 4, 4)


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        ({"extra_pnginfo": {}}, True),
        ({"extra_pnginfo": {}, "preview_method": "none"}, False),
        ({}, False),  # without a page
    ],
)
def test_a_page_has_previews_unless_it_asks_for_none(
    pack: Pack, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], wanted: bool
) -> None:
    preview, run = pack("nodes.host.preview"), pack("nodes.host.live").Run("mine", "1")
    running: dict[int, tuple[Any, ...]] = {
        0: (0, "another", {}, {"extra_pnginfo": {}}, []),
        1: (1, "mine", {}, extra, []),
    }
    queue = SimpleNamespace(currently_running=running)
    monkeypatch.setattr(preview, "PromptServer", SimpleNamespace(instance=SimpleNamespace(prompt_queue=queue)))
    set_previews(pack, monkeypatch, "NoPreviews")
    assert preview.wanted(run) is wanted
    set_previews(pack, monkeypatch, "Latent2RGB")
    assert preview.wanted(run)


def test_without_deltas_the_base_predicts(pack: Pack, model: Any, clip: Any) -> None:
    settings = pack("unlearning_core.settings").Settings(width=64, height=64)
    with torch.inference_mode(False), torch.no_grad(), pack("nodes.host.private").private_copy(model) as private:
        host = pack("nodes.host.model").ComfyModel(private, clip)
        deltas = pack("unlearning_core.unlearn").new_deltas(host, settings)
        for delta in deltas.values():
            for parameter in delta.parameters():
                parameter.data.fill_(0.1)
        x, sigma, conds = host.noise([0], 64, 64), host.sigmas(1)[:1], host.encode(["a car"])
        base = host.predict_x0(x, sigma, conds)
        with host.attach(deltas):
            changed = host.predict_x0(x, sigma, conds)
            with host.bare():
                assert torch.equal(host.predict_x0(x, sigma, conds), base)
            assert torch.equal(host.predict_x0(x, sigma, conds), changed)
        assert not torch.equal(changed, base)
        assert torch.equal(host.predict_x0(x, sigma, conds), base)


def test_measuring_shows_pairs(pack: Pack, sent: list[dict[str, Any]], tmp_path: Path) -> None:
    """And the pictures are those of a studio that shows nothing."""
    studio, cache = pack("unlearning_core.metrics.studio"), pack("unlearning_core.metrics.cache")

    class Painter:
        """Draws grey pictures, those of each model in one shade."""

        sampling = pack("nodes.host.drawing").KSamplerSettings("euler", "simple", 1, 1.0, 512, 512)

        def draw(self, model: float, prompt_seeds: Any) -> Tensor:
            return torch.full((len(prompt_seeds), 128, 256, 3), model)

        def encode(self, prompt: str) -> Any:
            return torch.zeros(1)

        def settings(self, model: float) -> dict[str, Any]:
            return {"shade": model}

        surroundings = settings

        def identity(self, model: float) -> str:
            return str(model)

        def vae_digest(self) -> str:
            return ""

    base, unlearned = 0.25, 0.75
    asked = [(prompt, seed) for prompt in ("a", "b") for seed in range(5)]
    run = pack("nodes.host.live").Run("prompt", "1")
    showing = pack("nodes.host.preview").studio_for(Painter(), cache.PictureCache(tmp_path / "shown"), base, run)
    plain = studio.Studio(Painter(), cache.PictureCache(tmp_path / "plain"))
    for model in (base, unlearned):
        assert torch.equal(showing.cached(model)(asked), plain.cached(model)(asked))
    shown = [pair for [pair] in pairs(sent)]
    assert [pair["prompt"] for pair in shown] == ["a", "b", "b"] * 2  # the last of each four or fewer
    assert all(pair["base"] for pair in shown)
    assert [pair["now"] is not None for pair in shown] == [False] * 3 + [True] * 3


def test_another_run_is_not_stopped(pack: Pack) -> None:
    live, stopping, core = pack("nodes.host.live"), pack("nodes.host.stopping"), pack("unlearning_core.progress")
    run, training = live.Run("prompt", "12:7"), core.Progress(1, 2, phase=core.TRAINING)
    with stopping.stoppable(run) as on_progress:
        assert not stopping.stop(run)  # it samples the base still
        on_progress(training)
        assert not stopping.stop(live.Run("prompt", "7"))
        assert not stopping.stop(live.Run("another", "12:7"))
        on_progress(training)
        assert stopping.stop(run)
        with pytest.raises(core.Enough):
            on_progress(training)
    assert not stopping.stop(run)


def post(server: Server, body: Any) -> int:
    """The status that the stop route answers with."""
    try:
        server._request(STOP, body)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def test_stop_and_keep(server: Server) -> None:
    """The node goes on with a patch that says how far it came, and what is behind it runs."""
    prompt = server.post(graphs.training("stopped", steps=10_000))
    stopped_at = 0.0

    def stop(progress: Progress) -> None:
        nonlocal stopped_at
        if progress.node != "unlearn" or stopped_at:
            return
        assert post(server, {"prompt_id": prompt, "node_id": "save"}) == 404
        assert post(server, {"prompt_id": "another", "node_id": "unlearn"}) == 404
        if post(server, {"prompt_id": prompt, "node_id": "unlearn"}) == 200:
            stopped_at = time.monotonic()

    entry = server.wait(prompt, stop)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])
    [file] = (server.base_directory / "output").rglob("stopped_*.safetensors")
    record = Record.read(file)
    assert record.stopped is not None
    assert 0 < record.stopped < record.settings["steps"] == 10_000


@pytest.mark.parametrize("body", [[], {"prompt_id": "1"}, {"prompt_id": [], "node_id": {}}, "stop"])
def test_a_bad_body_is_refused(server: Server, body: Any) -> None:
    assert post(server, body) == 400
