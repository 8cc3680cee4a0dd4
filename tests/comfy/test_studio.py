"""Which pictures the measuring nodes draw again, and which they take from the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearning_core.metrics.plan import PromptSeed
from unlearning_core.tiny import MODEL

KEY = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
SAMPLING = {"sampler_name": "euler", "scheduler": "simple", "steps": 2, "cfg": 3.0, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def vae(pack: Callable[[str], ModuleType]) -> Any:
    with torch.inference_mode():
        return pack("nodes.host.tiny").load_vae(MODEL)


@pytest.fixture
def drawn(
    pack: Callable[[str], ModuleType], model: Any, clip: Any, vae: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Draws one picture in a new studio and returns how many went through sampling."""
    drawing, library = pack("nodes.host.drawing"), pack("unlearning_core.metrics.studio")
    monkeypatch.setattr(drawing.folder_paths, "get_temp_directory", lambda: str(tmp_path))
    asked: list[int] = []

    def counting(self: Any, model: Any, prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        asked.append(len(prompt_seeds))
        return picture()

    monkeypatch.setattr(drawing.ComfyDrawing, "draw", counting)

    def draw(patcher: Any = model, prompt: str = "a frog", fresh: bool = False, **changes: Any) -> int:
        asked.clear()
        settings = drawing.KSamplerSettings(**(SAMPLING | changes))
        with torch.inference_mode():
            made = drawing.ComfyDrawing(clip, vae, settings, lambda count: None)
            library.Studio(made, drawing.picture_cache(fresh)).cached(patcher)([(prompt, 0)])
        return sum(asked)

    return draw


def picture() -> Tensor:
    return torch.zeros(1, 64, 64, 3)


def scaled(model: Any, strength: float) -> Any:
    """A clone with a patch on one weight."""
    patched = model.clone()
    patched.add_patches({KEY: ("diff", (torch.ones_like(model.model.state_dict()[KEY]),))}, strength)
    return patched


def test_the_same_picture_is_drawn_once(drawn: Callable[..., int], model: Any) -> None:
    assert drawn() == 1
    assert drawn() == 0
    assert drawn(model.clone()) == 0


@pytest.mark.parametrize(
    "changes",
    [{"sampler_name": "heun"}, {"scheduler": "normal"}, {"steps": 3}, {"cfg": 2.0}, {"width": 72}, {"prompt": "a car"}],
    ids=lambda changes: next(iter(changes)),
)
def test_other_settings_draw_another_picture(drawn: Callable[..., int], changes: dict[str, Any]) -> None:
    drawn()
    assert drawn(**changes) == 1


def test_patches_count_with_their_values_and_strength(drawn: Callable[..., int], model: Any) -> None:
    drawn()
    assert drawn(scaled(model, 1.0)) == 1
    assert drawn(scaled(model, 1.0)) == 0
    assert drawn(scaled(model, 0.5)) == 1


def test_a_patched_text_encoder_counts(drawn: Callable[..., int], clip: Any, model: Any) -> None:
    drawn()
    before = clip.layer_idx
    try:
        clip.clip_layer(-2)
        assert drawn() == 1
    finally:
        clip.clip_layer(before)


def test_code_on_a_model_is_never_taken_for_the_same(drawn: Callable[..., int], model: Any) -> None:
    hooked = model.clone()
    hooked.set_model_sampler_cfg_function(lambda arguments: arguments["uncond"])
    assert drawn(hooked) == drawn(hooked) == 1


def test_fresh_pictures_empty_the_cache(drawn: Callable[..., int]) -> None:
    drawn()
    assert drawn(fresh=True) == 1
