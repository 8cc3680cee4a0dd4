"""Networks that do what few do are trained as others are, or refused in one line before work."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import odd_networks
import pytest
import torch
from families import Family, random_model, read_families, text
from family_checks import (
    check_drawing,
    check_gradients,
    check_patches,
    gradient,
    host_of,
    predicted,
    prediction,
    trained,
)

Pack = Callable[[str], ModuleType]
SIDE = 64


@pytest.fixture(autouse=True)
def each_traced(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """These have the same names and sizes, by which traces are kept."""
    monkeypatch.setattr(pack("unlearning_core.selections"), "_reads", {})


def odd(network: type[odd_networks.Plain], tokens: int = 1) -> Family:
    return Family("", {"network": network}, text(tokens), SIDE)


@pytest.mark.parametrize(
    "network",
    [
        odd_networks.Plain,
        odd_networks.LevelOnBlocks,
        odd_networks.TextOnBlocks,
        odd_networks.Pointwise,
        odd_networks.FirstText,
        odd_networks.MisleadingName,
        odd_networks.HalfNamed,
        odd_networks.NamedOutput,
        odd_networks.Numbered,
        odd_networks.Bound,
        odd_networks.SharedBlock,
        odd_networks.Overwriting,
        odd_networks.Crowded,
    ],
)
def test_trained(pack: Pack, network: type[odd_networks.Plain]) -> None:
    family = odd(network)
    model = random_model(family)
    with host_of(pack, model, family) as host:
        assert "no" not in check_patches(pack, model, host, family).values()
        check_gradients(pack, host, family)
    check_drawing(pack, model, family)


@pytest.mark.parametrize(
    ("network", "method", "sentence"),
    [
        (odd_networks.Neighbours, "uce", r"weights: \S*reader\S* \(Conv1d\) does not read token by token, .*; choose"),
        (odd_networks.TwoTexts, "uce", r"weights: \S*reader\S* reads several texts in one prediction; choose a method"),
        (odd_networks.UntrainedText, "ovw", r"weights: no gradient passes to \S*reader\S*, .*; choose other weights"),
        (odd_networks.UntrainedBlocks, "ovw", r"weights: no gradient passes to \S*holds\S*, .*; choose other weights"),
    ],
)
def test_refused_by_one_method(pack: Pack, network: type[odd_networks.Plain], method: str, sentence: str) -> None:
    family = odd(network)
    others = {"ovw", "uce"} - {method}
    with host_of(pack, random_model(family), family) as host:
        with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
            trained(pack, host, family, method, None, 0)
        for other in others:
            trained(pack, host, family, other, None, 0)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (odd_networks.Locked, r"model: its network cannot be copied, .*lock.*; choose the method UCE"),
        (odd_networks.Hooked, r"model: it carries a hook on \S*reader, .* a network that comes with it cannot be"),
    ],
)
def test_not_copied(pack: Pack, network: type[odd_networks.Plain], sentence: str) -> None:
    family = odd(network)
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"), host_of(pack, random_model(family), family):
        pass


def test_a_network_that_cannot_be_checkpointed_is_trained_where_that_is_not_needed(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = odd(odd_networks.LevelOnNetwork)
    model = random_model(family)
    with host_of(pack, model, family) as host:
        assert "no" not in check_patches(pack, model, host, family).values()
        monkeypatch.setattr(pack("nodes.host.memory"), "_free", lambda host, need: 0)
        with pytest.raises(ValueError, match=r"^model: training needs gradient checkpointing to fit, .*; choose a"):
            trained(pack, host, family, "ovw", None, 0)


def test_a_block_in_two_places_is_one(pack: Pack) -> None:
    """What is trained is what the patched MODEL predicts."""
    family = odd(odd_networks.SharedBlock)
    model = random_model(family)
    with host_of(pack, model, family) as host:
        patch = trained(pack, host, family, "ovw", "all", 0)
        weights = host.weights()
        deltas = pack("unlearning_core.deltas").make_deltas(weights, 0, 0, host.device)
        for name, change in patch.changes().items():
            deltas[name].diff.data.copy_(change)
        with torch.no_grad(), host.attach(deltas):
            expected = predicted(host, family)
    assert not [name for name in weights if ".stack.1." in name or "_stack_1_" in name]
    found = prediction(pack, pack("nodes.host.patching").apply_patch(model, patch, 1.0), family)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_many_gradients_of_a_network_that_overwrites(pack: Pack) -> None:
    """What was copied for one must not come back in another."""
    family = odd(odd_networks.Overwriting)
    with host_of(pack, random_model(family), family) as host:
        matrices = {name: weight for name, weight in host.weights().items() if weight.ndim >= 2}
        deltas = pack("unlearning_core.deltas").make_deltas(matrices, 0, 0, host.device)
        parameters = [delta.diff for delta in deltas.values()]
        host.check_backward(deltas, SIDE, SIDE)
        assert host.backward.copying

        def total(seed: int) -> torch.Tensor:
            [cond] = host.encode(["a dog"])
            return host.predict_x0(host.noise([seed], SIDE, SIDE), host.sigmas(4)[1:2], [cond]).square().sum()

        with host.attach(deltas):
            together = [gradient(total(seed), parameters) for seed in range(20)]
        for seed, found in enumerate(together):
            with host.attach(deltas):
                torch.testing.assert_close(found, gradient(total(seed), parameters))


@pytest.mark.parametrize("method", ["sa", "salun"])
def test_many_batches_on_a_network_that_overwrites(pack: Pack, method: str) -> None:
    """Memory that is used again is not taken for what was there before."""
    family = odd(odd_networks.Overwriting)
    with host_of(pack, random_model(family), family) as host:
        for _ in range(3):
            trained(pack, host, family, method, "all", 0)


def test_a_batch_is_its_rows(pack: Pack) -> None:
    family = odd(odd_networks.Crowded)
    with host_of(pack, random_model(family), family) as host, torch.no_grad():
        x, sigma = host.noise(range(5), SIDE, SIDE), host.sigmas(6)[:5]
        conds = host.encode(["a dog", "a red car", "a cat", "a dog", ""])
        together = host.predict_x0(x, sigma, conds)
        rows = [host.predict_x0(x[row : row + 1], sigma[row : row + 1], conds[row : row + 1]) for row in range(5)]
    torch.testing.assert_close(together, torch.cat(rows), rtol=1e-4, atol=1e-5)


def test_prompts_that_are_joined_first_need_not_differ(pack: Pack) -> None:
    family = odd(odd_networks.FirstText, tokens=20)
    with host_of(pack, random_model(family), family) as host, torch.no_grad():
        x, sigma = host.noise([0, 1], SIDE, SIDE), host.sigmas(4)[1:3]
        same, other = host.encode(["a dog", "a red car"])
        host.predict_x0(x, sigma, [same, same])
        together = host.predict_x0(x, sigma, [same, other])
        alone = host.predict_x0(x[1:], sigma[1:], [other])
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 64])
def test_a_convolution_of_one_token_is_changed_as_a_layer_is(pack: Pack, tokens: int) -> None:
    """Also where a prompt has as many tokens as each has numbers."""
    linear, convolution = random_model(odd(odd_networks.Plain)), random_model(odd(odd_networks.Pointwise))
    with torch.inference_mode():
        for name, weight in convolution.model.diffusion_model.named_parameters():
            weight.copy_(linear.model.diffusion_model.get_parameter(name).view(weight.shape))
    changes = []
    for model, kind in ((linear, odd_networks.Plain), (convolution, odd_networks.Pointwise)):
        family = odd(kind, tokens)
        with host_of(pack, model, family) as host:
            changes.append(trained(pack, host, family, "uce", None, 0).changes())
    expected, found = changes
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        torch.testing.assert_close(found[name].flatten(1), change, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "selection", "layers"),
    [
        (odd_networks.Plain, "text_projections", {"reader", "holds", "says"}),
        (odd_networks.MisleadingName, "text_projections", {"reader"}),
        (odd_networks.HalfNamed, "text_projections", {"reader", "txt_in", "holds", "says"}),
        (odd_networks.Plain, "attention", {"asks", "holds", "says", "ends"}),
        (odd_networks.NamedOutput, "attention", {"asks", "holds", "says", "attn_out"}),
    ],
)
def test_selections(pack: Pack, network: type[odd_networks.Plain], selection: str, layers: set[str]) -> None:
    family = odd(network)
    with host_of(pack, random_model(family), family) as host:
        names = pack("unlearning_core.selections").selections_of(host, (SIDE, SIDE)).of(selection)
    assert {name.split(".")[-2] for name in names} == layers


@pytest.mark.parametrize(
    ("name", "selection", "layers"),
    [
        ("cogvideox", "attention", {"q", "k", "v", "attn_out"}),
        ("mochi", "attention", {"to_q", "to_kv", "to_out"}),
        ("hunyuan_dit", "attention", {"q_proj", "k_proj", "v_proj", "c_proj"}),
        ("hunyuan_video", "attention", {"linear1", "linear2"}),
        ("sd_x4", "text_projections", {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k"}),
    ],
)
def test_selections_of_families_whose_names_tell_a_part(
    pack: Pack, name: str, selection: str, layers: set[str]
) -> None:
    family = read_families()[name]
    with host_of(pack, random_model(family), family) as host:
        names = pack("unlearning_core.selections").selections_of(host, (family.side, family.side)).of(selection)
    found = {name.split(".")[-2] for name in names}
    assert layers <= found
    assert not found & {"ff_proj", "ff_out", "fc1", "fc2", "w1", "w2"}
