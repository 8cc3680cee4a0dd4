"""Closed forms: how tokens are read, summed up and turned into changes, against the plain formulas."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event

import pipelines
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unlearning_core.deltas import low_rank_product
from unlearning_core.hosts.base import DiffusersModel, Text
from unlearning_core.hosts.families import host_of
from unlearning_core.methods import METHODS, ClosedForm
from unlearning_core.methods.base import TextSums
from unlearning_core.methods.nullspace import NullSpace
from unlearning_core.methods.uce import Uce
from unlearning_core.progress import Progress, Reporter
from unlearning_core.prompts import Prompts, all_prompts, held_prompts
from unlearning_core.selections import selections_of
from unlearning_core.settings import Settings
from unlearning_core.solve import Sums, aligned, factors, solve
from unlearning_core.texts import TextReader
from unlearning_core.unlearn import unlearn

FAMILIES = ["sd15", "sdxl", "sd3", "flux"]
SIZE = (64, 64)
PROMPTS = Prompts(("a cat", "a dog on a lawn"), ("a bear",), ("a red car", "a house by the sea"))


@pytest.fixture(scope="module")
def host(comfyui_path: Path, family: str) -> DiffusersModel:
    return host_of(pipelines.make_pipeline(family, comfyui_path))


def names_of(host: DiffusersModel) -> list[str]:
    return selections_of(host, SIZE).of("text_projections")


def tokens_of(host: DiffusersModel, names: list[str]) -> dict[str, dict[str, Tensor]]:
    """For each prompt what reaches each layer, from a network that answers every time."""
    tokens = {}
    for prompt in all_prompts(PROMPTS):
        reader = TextReader(host, names, SIZE)
        tokens[prompt] = {
            name: read.double()
            for group, read in zip(reader.groups, reader.read(prompt), strict=True)
            for name in group
        }
    return tokens


def plain_sums(tokens: Mapping[str, Tensor]) -> TextSums:
    """By definition: token by token."""
    sums = TextSums(*(torch.zeros(tokens[""].shape[1], tokens[""].shape[1]).double() for _ in range(3)))
    for forget, overwrite in PROMPTS.pairs:
        for c, target in zip(*aligned(tokens[forget], tokens[overwrite]), strict=True):
            sums.forget.add_(torch.outer(c, c))
            sums.moved.add_(torch.outer(target - c, c))
    for prompt in held_prompts(PROMPTS):
        for c in tokens[prompt]:
            sums.retain.add_(torch.outer(c, c))
    return sums


@pytest.mark.parametrize("family", FAMILIES, scope="module")
class TestFamilies:
    """In each layout of text layers."""

    @pytest.mark.parametrize("method", [Uce(), NullSpace(tolerance=0.05)], ids=["uce", "nullspace"])
    def test_a_change_is_the_weight_times_the_map(self, host: DiffusersModel, method: ClosedForm) -> None:
        names = names_of(host)
        settings = Settings(width=64, height=64, weights="text_projections")
        changes = unlearn(host, method, PROMPTS, settings).changes()
        assert sorted(changes) == names
        tokens, weights = tokens_of(host, names), host.weights()
        for name, change in changes.items():
            sums = plain_sums({prompt: read[name] for prompt, read in tokens.items()})
            expected = weights[name].double().flatten(1) @ method.map(sums)
            off = (change.double().flatten(1) - expected).norm() / expected.norm()
            assert off < 1e-6, name

    def test_the_encoders_output_is_read_as_the_network_reads_it(self, host: DiffusersModel) -> None:
        reader = TextReader(host, names_of(host), SIZE)
        reader.read("a cat")
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        handle = host.denoiser.register_forward_pre_hook(count)
        read = {prompt: reader.read(prompt) for prompt in ("a red car in a garden", "a dog")}
        handle.remove()
        for prompt, tokens in read.items():
            seen = reader._from_network(prompt, [group[0] for group in reader.groups])
            for group, own in zip(reader.groups, tokens, strict=True):
                torch.testing.assert_close(own, seen[group[0]].double(), rtol=1e-6, atol=1e-7)
        assert calls in (0, 2)  # 2 where some layer reads what the network made of the text


def test_u_nets_are_left_alone_from_the_third_prompt_on(comfyui_path: Path) -> None:
    host = host_of(pipelines.make_pipeline("sdxl", comfyui_path))
    names, calls = names_of(host), 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    host.denoiser.register_forward_pre_hook(count)
    solve(host, Uce(), PROMPTS, names, SIZE, Reporter())
    assert calls == 3  # the smallest size that works, and two prompts


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_factors_are_the_map(count: int, rank: int, seed: int) -> None:
    """Of moves that are combinations of fewer ones."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    moves = random(count, rank) @ random(rank, 32)
    solved = moves.T @ random(count, 32)
    found = factors(solved, moves)
    assert len(found.right) <= min(count, rank)
    torch.testing.assert_close(found.left @ found.right, solved, rtol=1e-6, atol=1e-6 * float(solved.norm()))
    wider = found.padded(20)
    torch.testing.assert_close(wider.left @ wider.right, found.left @ found.right)


def test_few_moves_make_a_small_patch(comfyui_path: Path) -> None:
    """A prompt's tokens are fewer than the text's dimensions in every large model: there the change is a LoRA."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 8, 64, generator=generator, dtype=torch.float64)
    sums = Sums(tokens[0])
    sums.move(*tokens)
    sums.retain(tokens[1])
    solved, found = sums.map(Uce())
    assert found is not None and len(found.right) <= 8
    weight = torch.randn(48, 64, generator=generator)
    up, down = weight @ found.left.float(), found.right.float()
    expected = weight.double() @ solved
    assert (low_rank_product(up, down).double() - expected).norm() < 1e-6 * expected.norm()
    for _ in range(4):
        sums.move(*tokens)
    assert sums.map(Uce())[1] is None  # as many tokens as half the dimensions: nothing to save


def test_a_wide_text_gives_a_lora_that_diffusers_opens(
    comfyui_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "WIDTH", 512)
    monkeypatch.setattr(pipelines, "CHANNELS", (320, 320))
    host = host_of(pipelines.make_pipeline("sd15", comfyui_path))
    settings = Settings(width=64, height=64, weights="text_projections")
    patch = unlearn(host, METHODS["uce"](), Prompts(("a cat",), ("a dog",), ("a car",)), settings)
    pairs = {key: tensor for key, tensor in patch.tensors.items() if key.endswith("lora_down.weight")}
    assert len(pairs) == len(names_of(host))
    assert len({len(down) for down in pairs.values()}) == 1 and len(next(iter(pairs.values()))) <= 77
    patch.save(tmp_path / "patch.safetensors")
    x, cond = host.noise([0], *SIZE), host.encode(["a cat"])
    with torch.no_grad():
        with host.patched(patch):
            expected = host.predict_x0(x, host.sigmas(4)[1:2], cond)
        base = host.predict_x0(x, host.sigmas(4)[1:2], cond)
        host.pipeline.load_lora_weights(tmp_path / "patch.safetensors")
        loaded = host.predict_x0(x, host.sigmas(4)[1:2], cond)
    assert (loaded - expected).norm() < 1e-4 * (expected - base).norm()


def test_a_ridge_that_leaves_no_digits_is_refused() -> None:
    tokens = torch.randn(20, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for size, method in ((1e6, Uce(ridge=1e-6)), (1.0, NullSpace(ridge=1e-12, tolerance=1e-3)), (1e9, NullSpace())):
        sums = Sums(tokens)
        sums.move(size * tokens[:8], size * tokens[8:16])
        with pytest.raises(ValueError, match=r"ridge: it is too small"):
            sums.map(method)


def test_a_run_ends_inside_one_long_operation() -> None:
    """Within two looks, while the operation goes on in its thread."""
    released = Event()

    def cancelled(progress: Progress) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            Reporter(cancelled, 1).during(lambda: released.wait(30))
        assert time.monotonic() - began < 10
    finally:
        released.set()


def test_what_a_long_operation_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        Reporter(lambda progress: None, 1).during(lambda: 1 // 0)


def test_prompts_whose_tokens_are_alike_are_refused(comfyui_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They differ in the pooled text alone, which the layers of a closed form do not read."""
    host = host_of(pipelines.make_pipeline("sdxl", comfyui_path))
    encoded = type(host).encoded

    def alike(self: DiffusersModel, prompts: Sequence[str]) -> list[Text]:
        [same] = encoded(self, ["a cat"])
        return [same._replace(pooled=text.pooled) for text in encoded(self, prompts)]

    monkeypatch.setattr(type(host), "encoded", alike)
    with pytest.raises(ValueError, match="forget prompts: the tokens of each are those of its overwrite prompt"):
        unlearn(host, Uce(), PROMPTS, Settings(width=64, height=64, weights=Uce.weights))
