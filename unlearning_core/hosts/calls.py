"""A pipeline's own `__call__`, ended where it has shown what is asked: an encoding, one prediction, or pictures."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SIDE = 1024  # pixels, where the size does not matter
GUIDANCE = 3.5  # of models that have it as an input: ComfyUI's value when no node sets another
OPTIONS = {
    "guidance_scale": 0.0,  # at which none guides: some do above 0, others above 1
    "true_cfg_scale": 1.0,
    "use_resolution_binning": False,
    "clean_caption": False,  # ComfyUI leaves prompts as they are
    "output_type": "pt",
    "return_dict": False,
}


class Calls:
    """What a text-to-image pipeline computes, through copies of it that have other parts.

    The pipeline stays as it is. Its latents are [B, C, H, W] here, however it packs them, and gradients pass through.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        """Looks at how the pipeline encodes and packs. Raises whatever a pipeline raises that needs more than prompts.

        Raises ValueError for one whose latents are no reordered noise.
        """
        self._pipeline: Any = pipeline
        self._call = inspect.unwrap(type(pipeline).__call__)  # without its no_grad
        parameters = inspect.signature(self._call).parameters
        self._options: dict[str, Any] = {
            name: value
            for name, value in OPTIONS.items()
            if name in parameters and parameters[name].default is not None
        }
        if "guidance_scale" in parameters and self._pipeline.transformer.config.get("guidance_embeds"):
            self._options["guidance_scale"] = GUIDANCE
        self._timesteps = torch.ones(1, device=pipeline.device)  # where they do not matter
        with torch.no_grad():
            self._alone, self._twice = self.encoded([""]), self.encoded(["", ""])
        packed = self._packed()
        self.downscale = SIDE // packed.shape[-1]  # pixels to a latent's pixel, along each side
        self.channels = packed.shape.numel() // math.prod(packed.shape[-2:])
        if not torch.equal(packed.places.sort().values.cpu(), torch.arange(packed.shape.numel())):
            raise ValueError("its latents are no reordered noise")

    def encoded(self, prompts: Sequence[str]) -> list[Any]:
        """What `encode_prompt` gives for a batch of prompts, each time that `__call__` asks it.

        Raises ValueError when it is asked for a prompt to guide away from.
        """
        results: list[Any] = []

        def encode(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            own = type(pipeline).encode_prompt
            if inspect.signature(own).bind(pipeline, *args, **kwargs).arguments.get("do_classifier_free_guidance"):
                raise ValueError("its guidance cannot be turned off")
            results.append(own(pipeline, *args, **kwargs))
            return results[-1]

        def end(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            raise _Ended(results)

        return self._run(list(prompts), (SIDE, SIDE), self._timesteps, encode_prompt=encode, prepare_latents=end)

    def predicted(self, x: Tensor, timestep: Tensor, texts: Sequence[Any]) -> Tensor:
        """What the scheduler gets of the network for x [B, C, H, W], at one timestep in the scheduler's unit.

        `texts` are B results of `encoded`, each of one prompt, whose tensors have the same shapes.
        """
        used: list[_Packed] = []

        def pack(packed: _Packed) -> Any:
            used.append(packed)
            return packed.of(x)

        output = self._drawn(texts, self._size(x), timestep[None], pack)
        flat = output.flatten().float()
        return torch.zeros_like(flat).index_copy(0, used[0].places, flat).view(x.shape)

    def decoded(self, latents: Tensor) -> Tensor:
        """Pictures [B, H, W, 3] in 0..1 of clean latents [B, C, h, w]."""
        texts = [self._alone] * len(latents)
        drawn = self._drawn(texts, self._size(latents), latents.new_zeros(0), lambda packed: packed.of(latents))
        return drawn[0].float().movedim(1, -1)

    def _packed(self) -> _Packed:
        """Of a picture of SIDE x SIDE pixels."""

        def end(packed: _Packed) -> Any:
            raise _Ended(packed)

        return self._drawn([self._alone], (SIDE, SIDE), self._timesteps, end)

    def _size(self, latents: Tensor) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.downscale * latents.shape[-2], self.downscale * latents.shape[-1]

    def _drawn(
        self, texts: Sequence[Any], size: tuple[int, int], timesteps: Tensor, pack: Callable[[_Packed], Any]
    ) -> Any:
        """What the pipeline draws from encoded prompts at these timesteps, and from the latents that `pack` returns."""
        results = joined(texts, self._alone, self._twice)

        def encode(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            return results.pop(0)

        def prepare(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            return pack(_prepared(pipeline, args, kwargs, size))

        return self._run([""] * len(texts), size, timesteps, encode_prompt=encode, prepare_latents=prepare)

    def _run(self, prompts: list[str], size: tuple[int, int], timesteps: Tensor, **methods: Callable[..., Any]) -> Any:
        """What `__call__` returns or is ended with, of a copy that has these timesteps and other methods."""
        pipeline = copy.copy(self._pipeline)
        parts = {name: functools.partial(method, pipeline) for name, method in methods.items()}
        scheduler = _OneLevel(pipeline.scheduler.config, timesteps)
        vars(pipeline).update(parts, scheduler=scheduler, _progress_bar_config={"disable": True})
        try:
            return self._call(pipeline, prompt=prompts, height=size[0], width=size[1], **self._options)
        except _Ended as ended:
            return ended.result


def joined(texts: Sequence[Any], alone: Any, twice: Any) -> Any:
    """Encodings of one prompt each as the encoding of a batch.

    `alone` and `twice` are a prompt's encoding and the one of it and itself: they tell where the batch is.
    """
    first = texts[0]
    if isinstance(first, Tensor):
        axes = [axis for axis, sizes in enumerate(zip(alone.shape, twice.shape, strict=True)) if len({*sizes}) == 2]
        return torch.cat(list(texts), axes[0]) if axes else first
    if isinstance(first, list | tuple):
        if len(alone) != len(twice):
            return [row for text in texts for row in text]
        return type(first)(joined(*parts) for parts in zip(zip(*texts, strict=True), alone, twice, strict=True))
    return first


class _Ended(Exception):
    """Ends a call that has shown what it was made for."""

    def __init__(self, result: Any) -> None:
        self.result = result


class _OneLevel:
    """In the place of a scheduler: one noise level or none, and no step."""

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, config: Any, timesteps: Tensor) -> None:
        self.config = config
        self.timesteps = timesteps

    def set_timesteps(
        self, num_inference_steps: Any = None, device: Any = None, timesteps: Any = None, sigmas: Any = None, **_: Any
    ) -> None:
        """Leaves it at its own."""

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Leaves it at its own."""

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample, which is scaled already."""
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **_: Any) -> Any:
        """Hands out what the network predicted."""
        raise _Ended(model_output)


class _Packed(NamedTuple):
    """What `prepare_latents` makes of noise whose numbers are their places in [B, C, H, W]."""

    latents: Tensor
    shape: torch.Size  # of the noise
    returned: Any  # with the latents, or the latents alone
    dtype: torch.dtype | None  # of the latents that the pipeline asks for

    @property
    def places(self) -> Tensor:
        """Of the latents' numbers, one after another."""
        return self.latents.flatten().long()

    def of(self, x: Tensor) -> Any:
        """What it would return for latents x [B, C, H, W]."""
        latents = x.flatten()[self.places].view(self.latents.shape).to(self.dtype)
        return (latents, *self.returned[1:]) if isinstance(self.returned, tuple) else latents


class _Numbered(TorchFunctionMode):
    """Within it torch.randn counts, in float64, whatever type it is asked for."""

    shape = torch.Size()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.randn:
            return func(*args, **(kwargs or {}))
        self.shape = torch.Size(args[0])
        return torch.arange(self.shape.numel(), dtype=torch.float64, device=kwargs.get("device")).view(self.shape)


def _prepared(pipeline: Any, args: Any, kwargs: Any, size: tuple[int, int]) -> _Packed:
    """What the pipeline's own `prepare_latents` makes, asked with these arguments, of a picture of this size."""
    prepare = type(pipeline).prepare_latents
    bound = inspect.signature(prepare).bind(pipeline, *args, **kwargs)
    bound.arguments |= {"height": size[0], "width": size[1], "latents": None}
    with torch.no_grad(), _Numbered() as numbered:
        made = prepare(*bound.args, **bound.kwargs)
    latents = made[0] if isinstance(made, tuple) else made
    return _Packed(latents, numbered.shape, made, bound.arguments.get("dtype"))
