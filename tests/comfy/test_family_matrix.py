"""Small random networks of every family that ComfyUI supports: trained, or refused by name before work."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from families import INVENTED, random_model, read_families
from family_checks import check_drawing, check_gradients, check_patches, check_refused, host_of, trained
from family_table import REFUSED, note
from invented import Network
from text_to_image import COUNTERPARTS

Pack = Callable[[str], ModuleType]
FAMILIES = read_families()
# Each for a mechanism of its own.
FAST = ("z_image", "qwen_image", "ltxv", "flux_dev_long_prompt", "cascade_c", "stable_audio", "pid", "sam3", *INVENTED)
# Where the same weights predict the same in diffusers: by tests/comfy/test_hosts.py or test_text_to_image.py.
DIFFUSERS = {"flux_dev": "own class", "sd35_large": "own class", **dict.fromkeys(COUNTERPARTS, "yes")}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.families]) for name in FAMILIES]
)
def test_family(pack: Pack, name: str) -> None:
    family = FAMILIES[name]
    model = random_model(family)
    before = {key: weight.clone() for key, weight in model.model.named_parameters()}
    row: dict[str, str] = {}
    with host_of(pack, model, family) as host:
        if family.refusal:
            row[REFUSED] = check_refused(pack, host, family)
        else:
            row = check_patches(pack, model, host, family)
            row["checkpointing"] = check_gradients(pack, host, family)
            row["metric"] = check_drawing(pack, model, family)
            row["diffusers"] = DIFFUSERS.get(name, "")
    assert all(torch.equal(weight, before[key]) for key, weight in model.model.named_parameters())
    if family.kind and os.environ.get("UNLEARNING_TEST_OLDEST") != "1":
        note(name, row)


@pytest.mark.families
def test_no_family_is_left_out(pack: Pack) -> None:
    """Their classes, of the ComfyUI that the tests are made for or an older one."""
    import comfy.supported_models

    assert {kind.__name__ for kind in comfy.supported_models.models} <= {family.kind for family in FAMILIES.values()}


def test_network_without_backward_is_refused(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "forward", torch.no_grad()(Network.forward))
    family = FAMILIES[next(iter(INVENTED))]
    with host_of(pack, random_model(family), family) as host:
        with pytest.raises(ValueError, match=r"^model: its network has no backward pass .*; choose the method UCE"):
            trained(pack, host, family, "ovw", None, 0)
        trained(pack, host, family, "uce", None, 0)
