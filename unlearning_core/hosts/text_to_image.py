"""The model interface over any text-to-image pipeline of diffusers that has a transformer, by its own `__call__`."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..digests import tensors
from ..model import Cond
from ..probes import FAILURES, one_line
from .calls import Calls
from .discrete import DiscreteModel
from .flow import FlowModel
from .texts import Window
from .transformer import TransformerModel

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

NEEDED = ("prompt", "height", "width", "latents")  # parameters of `__call__`


class TextToImage(TransformerModel):
    """A pipeline that draws pictures from prompts alone.

    Raises ValueError as `DiffusersModel`, and for a pipeline that does not.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        for module in self.denoiser.modules():
            if hasattr(module, "moe_infer"):  # which lets no gradient pass; training gives the same
                module.training = True
        try:
            self._calls = Calls(pipeline)
            self._check_prediction()
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            raise self._refused(f"drawing from a prompt alone fails: {one_line(error)}") from error

    def _refused(self, reason: str) -> ValueError:
        name = type(self.pipeline).__name__
        return ValueError(
            f"model: {name} cannot be trained ({reason}); use a text-to-image pipeline, or do this in ComfyUI"
        )

    def _check_parts(self) -> None:
        """Raises ValueError when it is no text-to-image pipeline with a transformer, or lacks what it needs."""
        parameters = inspect.signature(type(self.pipeline).__call__).parameters
        lacking = [name for name in NEEDED if name not in parameters]
        if lacking:
            raise self._refused(f"its __call__ takes no {lacking[0]}")
        if "num_frames" in parameters:
            raise self._refused("it makes videos")
        for method in ("encode_prompt", "prepare_latents"):
            if not hasattr(self.pipeline, method):
                raise self._refused(f"it has no method {method}")
        for part in ("transformer", "vae", "scheduler"):
            if part not in self.pipeline.components:
                raise self._refused(f"it has no {part}")
        super()._check_parts()

    def _check_prediction(self) -> None:
        """Raises ValueError when it calls its network otherwise than once a prediction, or lets no gradient pass."""
        counted: list[None] = []
        side = 2 * self.multiple
        x = self.noise([0], side, side).requires_grad_()
        hook = self.denoiser.register_forward_pre_hook(lambda module, inputs: counted.append(None))
        try:
            with torch.no_grad():
                conds = self.encoded([""])
            with torch.enable_grad():
                x0 = self.predict_x0(x, self.sigmas(2)[1:2], conds)
        finally:
            hook.remove()
        if len(counted) != 1:
            raise ValueError(f"its network is called {len(counted)} times for one prediction")
        torch.autograd.grad(x0.sum(), x)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self._calls.channels

    @property
    def downscale(self) -> int:
        """Pixels to a latent's pixel, along each side."""
        return self._calls.downscale

    @property
    def multiple(self) -> int:
        """Pixels that a picture's sides are multiples of, for the pipeline and for the network's patches."""
        patch = self.denoiser.config.get("patch_size") or 1
        sides = patch if isinstance(patch, list | tuple) else [patch]
        return math.lcm(self.pipeline.image_processor.config.vae_scale_factor, self.downscale * max(sides))

    @property
    def windows(self) -> list[Window]:
        """Of each tokenizer."""
        parts = self.pipeline.components
        tokenizers = [getattr(part, "tokenizer", part) for name, part in parts.items() if name.startswith("tokenizer")]
        longest = inspect.signature(type(self.pipeline).__call__).parameters.get("max_sequence_length")
        return [Window(each, longest.default if longest else each.model_max_length) for each in tokenizers]

    def encoded(self, prompts: Sequence[str]) -> list[Cond]:
        """What the pipeline's `encode_prompt` gives for each prompt, each time that its `__call__` asks it."""
        return [self._calls.encoded([prompt]) for prompt in prompts]

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        """The denoised latents of x [B, C, H, W] at sigma [B], each under its own conditioning; differentiable.

        One call of the network for each noise level and size of conditioning.
        """
        groups: dict[Any, list[int]] = {}
        for row, (level, cond) in enumerate(zip(sigma.tolist(), conds, strict=True)):
            sizes = tuple((place, tensor.shape) for place, tensor in tensors(cond).items())
            groups.setdefault((level, sizes), []).append(row)
        parts = [self._predict_group(x[rows], sigma[rows], [conds[row] for row in rows]) for rows in groups.values()]
        order = torch.tensor([row for rows in groups.values() for row in rows], device=x.device)
        return torch.cat(parts)[order.argsort()]

    @abstractmethod
    def _predict_group(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        """As `predict_x0`, all at one noise level and under conditionings of one size."""

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, H, W, 3] in 0..1 of clean latents [B, C, h, w]."""
        return self._calls.decoded(latents)

    def latents(self, pictures: Tensor) -> Tensor:
        """Raises ValueError: a pipeline's `__call__` tells how latents become pictures, not the reverse."""
        raise ValueError(f"pictures: {type(self.pipeline).__name__} makes no latents of pictures; do this in ComfyUI")


class FlowTextToImage(TextToImage, FlowModel):
    """One whose scheduler is of flow matching."""

    def _predict_group(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        timestep = sigma[0] * self.pipeline.scheduler.config.num_train_timesteps
        return x - sigma.view(-1, 1, 1, 1) * self._calls.predicted(x, timestep, conds)


class DiscreteTextToImage(TextToImage, DiscreteModel):
    """One whose scheduler is of discrete diffusion."""

    def _predict_group(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        scaled = x / (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5
        return self.denoised(x, sigma, self._calls.predicted(scaled, self.timesteps(sigma)[0], conds))


def text_to_image(pipeline: DiffusionPipeline) -> TextToImage:
    """The host of a pipeline that has no class of its own. Raises ValueError as `TextToImage`."""
    scheduler = getattr(pipeline, "scheduler", None)
    flow = scheduler is None or FlowModel.shift_of(scheduler) is not None or not hasattr(scheduler, "alphas_cumprod")
    return FlowTextToImage(pipeline) if flow else DiscreteTextToImage(pipeline)
