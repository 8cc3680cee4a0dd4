"""The seam over a diffusers Stable Diffusion pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..model import Cond
from ..patch import UnlearningPatch

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel


class DiffusersModel:
    """A `DiffusionModel` over a pipeline whose denoiser predicts eps or v."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        self.pipeline = pipeline
        self.unet: UNet2DConditionModel = pipeline.unet.requires_grad_(False).eval()
        config = pipeline.scheduler.config
        self.prediction_type: str = config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"model: prediction type {self.prediction_type!r} is not supported; use epsilon or v_prediction"
            )
        alphas_cumprod = pipeline.scheduler.alphas_cumprod.to(self.device, torch.float32)
        self.training_sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5  # [timesteps], rising
        named = dict(self.unet.named_parameters())
        self._parameters = {_patch_name(name): parameter for name, parameter in named.items()}
        self._owners = {_patch_name(name): self.unet.get_submodule(name.rpartition(".")[0]) for name in named}
        self._originals: dict[str, Tensor] = {}  # of weights that patches have changed
        self._changes: dict[str, Tensor] = {}

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DiffusersModel:
        """From a pipeline folder; nothing is downloaded."""
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, dtype=dtype, safety_checker=None, requires_safety_checker=False, local_files_only=True
        )
        return cls(pipeline.to(device))

    @property
    def device(self) -> torch.device:
        return self.pipeline.device

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Cond]:
        tokenizer = self.pipeline.tokenizer
        tokens = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return list(self.pipeline.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state)

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        # As in k-diffusion's DiscreteEpsDDPMDenoiser: the nearest trained timestep in log sigma.
        distance = (sigma.log()[:, None] - self.training_sigmas.log()[None]).abs()  # [B, timesteps]
        s = sigma.view(-1, 1, 1, 1)
        scaled = (x / (s**2 + 1) ** 0.5).to(self.unet.dtype)
        out = self.unet(scaled, distance.argmin(dim=1), torch.stack(list(conds))).sample.float()
        if self.prediction_type == "epsilon":
            return x - s * out
        return x / (s**2 + 1) - out * s / (s**2 + 1) ** 0.5

    def sigmas(self, steps: int) -> Tensor:
        # ComfyUI's "simple" scheduler.
        stride = len(self.training_sigmas) / steps
        picked = [self.training_sigmas[-(1 + int(index * stride))] for index in range(steps)]
        return torch.stack([*picked, torch.zeros_like(picked[0])])

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        factor = 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)
        shape = (1, self.unet.config.in_channels, height // factor, width // factor)
        noise = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        return noise.to(self.device) * (self.training_sigmas[-1] ** 2 + 1) ** 0.5

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        pictures = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
        return ((pictures + 1) / 2).clamp(0, 1).movedim(1, -1)

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return x0 + sigma.view(-1, 1, 1, 1) * noise

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """Clean latents [B, C, h, w] of pictures [B, H, W, 3] in 0..1."""
        vae = self.pipeline.vae
        encoded = vae.encode((pictures.movedim(-1, 1) * 2 - 1).to(self.device, vae.dtype))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latents.float() * vae.config.scaling_factor

    def weights(self) -> dict[str, Tensor]:
        return {name: self._originals.get(name, parameter.data) for name, parameter in self._parameters.items()}

    def changes(self) -> dict[str, Tensor]:
        return dict(self._changes)

    def module(self, name: str) -> nn.Module:
        return self._owners[name]

    @contextmanager
    def attach(self, deltas: Mapping[str, nn.Module]) -> Iterator[None]:
        attached = []
        try:
            for name, delta in deltas.items():
                place = (self.module(name), name.rpartition(".")[2])
                parametrize.register_parametrization(*place, delta)
                attached.append(place)
            yield
        finally:
            for module, parameter in attached:
                parametrize.remove_parametrizations(module, parameter, leave_parametrized=False)

    @contextmanager
    def patched(self, patch: UnlearningPatch, strength: float = 1.0) -> Iterator[None]:
        """Within the context the model has the patch too. Raises ValueError when it does not fit the model."""
        changes = patch.changes()
        missing = sorted(changes.keys() - self._parameters.keys())
        if missing:
            raise ValueError(
                f"patch for {', '.join(patch.record.forget)}: this model lacks {len(missing)} of the {len(changes)} "
                f"weights that it changes, such as {missing[0]}; load the base model that the patch was made for"
            )
        before = {name: self._parameters[name].data for name in changes}
        outside = self._originals, self._changes
        self._originals = {**before, **self._originals}
        scaled = {name: strength * change.to(before[name]) for name, change in changes.items()}
        self._changes = self._changes | {name: self._changes.get(name, 0) + change for name, change in scaled.items()}
        try:
            for name, change in scaled.items():
                self._parameters[name].data = before[name] + change
            yield
        finally:
            for name, weight in before.items():
                self._parameters[name].data = weight
            self._originals, self._changes = outside


def _patch_name(name: str) -> str:
    """`down_blocks.0.….to_k.weight` -> `lora_unet_down_blocks_0_…_to_k.weight`."""
    module, _, kind = name.rpartition(".")
    return f"lora_unet_{module.replace('.', '_')}.{kind}"
