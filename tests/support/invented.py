"""Networks that no ComfyUI knows, in ComfyUI's BaseModel: a seed decides on layout and modules' names."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEXT = 64  # numbers in a token of the prompt
HEADS = 2
SYLLABLES = ("bor", "dal", "fim", "gul", "kes", "lun", "mip", "nar", "pol", "ruv", "sto", "tez")
ROLES = ("patches", "reader", "clock", "stack", "out", "norm", "query", "key", "value", "join", "widen", "narrow")


class Layout(NamedTuple):
    """What a seed decides on."""

    names: Mapping[str, str]  # of modules, by what they are for
    latents: str  # class in comfy.latent_formats; Wan21 and HunyuanVideo have frames
    prediction: str  # of comfy.model_base.ModelType
    joint: bool  # the text is in one sequence with the picture, else keys and values are made of it
    listed: bool  # blocks are in a list, else attributes
    in_place: bool  # blocks add to the picture in place
    depth: int
    width: int


def layout_of(seed: int) -> Layout:
    """The same one for a seed."""
    draw = random.Random(seed)
    names = draw.sample([first + second for first in SYLLABLES for second in SYLLABLES], len(ROLES))
    return Layout(
        names=dict(zip(ROLES, names, strict=True)),
        latents=draw.choice(["SDXL", "Flux", "Wan21", "HunyuanVideo"]),
        prediction=draw.choice(["EPS", "V_PREDICTION", "FLOW", "FLUX"]),
        joint=draw.random() < 0.5,
        listed=draw.random() < 0.5,
        in_place=draw.random() < 0.5,
        depth=draw.choice([1, 2, 3]),
        width=draw.choice([48, 64, 96]),
    )


class Named(nn.Module):
    """A module whose parts have the layout's names."""

    def __init__(self, layout: Layout, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layout = layout
        for role, part in parts.items():
            self.add_module(layout.names[role], part)

    def part(self, role: str) -> Any:
        """The one that is for this."""
        return getattr(self, self.layout.names[role])


class Block(Named):
    """Attention, of the picture to the text or of one sequence to itself, and two layers."""

    def __init__(self, layout: Layout, operations: Any, **where: Any) -> None:
        width = layout.width
        linear = partial(operations.Linear, **where)
        shapes = {"query": (width, width), "key": (width, width), "value": (width, width), "join": (width, width)}
        shapes |= {"widen": (width, 2 * width), "narrow": (2 * width, width)}
        parts: dict[str, nn.Module] = {role: linear(*shape) for role, shape in shapes.items()}
        super().__init__(layout, {"norm": operations.LayerNorm(width, **where), **parts})

    def forward(self, tokens: Tensor, text: Tensor | None, options: dict[str, Any]) -> Tensor:
        """Tokens [B, N, width] that attend to the text [B, T, width], or to themselves."""
        from comfy.ldm.modules.attention import optimized_attention

        own = self.part("norm")(tokens)
        other = own if text is None else text
        q, k, v = self.part("query")(own), self.part("key")(other), self.part("value")(other)
        attended = self.part("join")(optimized_attention(q, k, v, HEADS, transformer_options=options))
        tokens = tokens.add_(attended) if self.layout.in_place else tokens + attended
        return tokens + self.part("narrow")(F.gelu(self.part("widen")(tokens)))


class Network(Named):
    """A transformer on 2 x 2 patches of latents [B, C, H, W] or [B, C, T, H, W]."""

    def __init__(self, seed: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        import comfy.latent_formats

        layout, where = layout_of(seed), {"dtype": dtype, "device": device}
        channels, width = getattr(comfy.latent_formats, layout.latents).latent_channels, layout.width
        blocks = [Block(layout, operations, **where) for _ in range(layout.depth)]
        parts = {
            "patches": operations.Conv2d(channels, width, 2, stride=2, **where),
            "reader": operations.Linear(TEXT, width, **where),
            "clock": operations.Linear(width, width, **where),
            "out": operations.Linear(width, 4 * channels, **where),
        }
        if layout.listed:
            parts["stack"] = nn.ModuleList(blocks)
        super().__init__(layout, parts)
        self.dtype = dtype
        if not layout.listed:
            for number, block in enumerate(blocks):
                self.add_module(self._name(number), block)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, transformer_options: dict[str, Any], **_: Any
    ) -> Tensor:
        """The prediction, of the shape of x; context [B, T, TEXT]."""
        frames = x.movedim(2, 1).flatten(0, 1) if x.ndim == 5 else x  # of one frame each
        patches = self.part("patches")(frames)
        tokens = patches.flatten(2).transpose(1, 2) + self.part("clock")(waves(timesteps, self.layout.width))[:, None]
        text = self.part("reader")(context)
        if self.layout.joint:
            tokens, text = torch.cat([text, tokens], dim=1), None
        for block in self._blocks():
            tokens = block(tokens, text, transformer_options)
        drawn = self.part("out")(tokens[:, -patches[0, 0].numel() :])
        drawn = drawn.transpose(1, 2).unflatten(2, patches.shape[2:])
        return F.pixel_shuffle(drawn, 2).reshape(x.shape)

    def _blocks(self) -> Iterator[nn.Module]:
        if self.layout.listed:
            return iter(self.part("stack"))
        return (getattr(self, self._name(number)) for number in range(self.layout.depth))

    def _name(self, number: int) -> str:
        return f"{self.layout.names['stack']}_{number}"


def waves(timesteps: Tensor, width: int) -> Tensor:
    """Timesteps [B] as sines and cosines [B, width]."""
    speeds = torch.exp(-math.log(10000) * torch.arange(width // 2, device=timesteps.device) / (width // 2))
    angles = timesteps[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def config_class(seed: int) -> Callable[[dict[str, Any]], Any]:
    """As a class of comfy.supported_models, for the network of this seed."""
    layout = layout_of(seed)
    return config_of(Network, layout.latents, layout.prediction)


def config_of(network: type[nn.Module], latents: str, prediction: str) -> Callable[[dict[str, Any]], Any]:
    """As a class of comfy.supported_models, for any network that takes the text as it is."""
    import comfy.conds
    import comfy.latent_formats
    from comfy.model_base import BaseModel, ModelType
    from comfy.supported_models_base import BASE

    def extra_conds(self: Any, **given: Any) -> dict[str, Any]:
        # Prompts of unequal lengths are not joined, nor is their text repeated.
        return {"c_crossattn": comfy.conds.CONDRegular(given["cross_attn"])}

    model = type("Model", (BaseModel,), {"extra_conds": extra_conds})

    def get_model(self: Any, state_dict: dict[str, Any], prefix: str = "", device: Any = None) -> Any:
        return model(self, ModelType[prediction], device=device, unet_model=network)

    given = {"latent_format": getattr(comfy.latent_formats, latents), "unet_extra_config": {}, "get_model": get_model}
    return type("Config", (BASE,), given)
