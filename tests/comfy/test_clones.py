"""Clones of a MODEL share one network: what the last one that was drawn with has left there counts for it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from on_models import LEFT, Pack, drawing_with


@pytest.mark.parametrize("way", LEFT)
def test_another_clone_that_is_loaded_does_not_shine_through(
    pack: Pack, model: Any, clip: Any, trained: Callable[..., Any], way: str
) -> None:
    """Neither in patches, nor in fingerprints; and what it carries is there again when it draws."""
    from comfy.model_management import load_models_gpu, unload_all_models

    fingerprint = pack("nodes.host.traits").fingerprint
    expected = trained(model, "ovw", "uce")
    with torch.inference_mode():
        carrying = LEFT[way](model)
        drawing = drawing_with(pack, clip)
        of_model, of_carrying = (drawing.draw(each, [("a cat face", 0)]) for each in (model, carrying))
        for index, method in enumerate(("ovw", "uce")):
            unload_all_models()
            load_models_gpu([carrying], force_full_load=True)
            assert fingerprint(model) == expected[index].record.base
            assert torch.equal(drawing.draw(carrying, [("a cat face", 0)]), of_carrying)
            [patch] = trained(model, method)
            assert patch.record.base == expected[index].record.base
            assert all(torch.equal(patch.tensors[key], tensor) for key, tensor in expected[index].tensors.items())
            assert torch.equal(drawing.draw(model, [("a cat face", 0)]), of_model)
            assert torch.equal(drawing.draw(carrying, [("a cat face", 0)]), of_carrying)


@pytest.fixture(autouse=True)
def unloaded(pack: Pack) -> Iterator[None]:
    yield
    import comfy.model_management

    comfy.model_management.unload_all_models()
