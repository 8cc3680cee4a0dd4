"""The model interface over diffusers pipelines: what all families share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..fingerprint import Fingerprint
from ..model import Cond, check_size
from ..patch import UnlearningPatch
from ..settings import USUAL_SIDE
from ..vocabulary import NO_WORDS, Embedded, Vocabulary, embedded
from .network import check_network
from .texts import Window, check_plain, check_windows

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "unet", "vae")  # begin components' names


class Text(NamedTuple):
    """An encoded prompt: tokens [T, D], and the pooled text [P] of the families that use it."""

    tokens: Tensor
    pooled: Tensor | None = None


class DiffusersModel(ABC):
    """A `DiffusionModel` over a pipeline; `families.load` finds the subclass of its family.

    Raises ValueError as `check_network`, for a pipeline that is not whole, and for a scheduler whose noise levels the
    family cannot read.
    """

    network: ClassVar[str]  # the pipeline's component that is trained
    patch_size: ClassVar[int] = 1  # latent's pixels to a token, along each side
    may_lack: ClassVar[tuple[str, ...]] = ()  # components that its pipelines can do without
    prediction_type: str  # what it predicts, in diffusers' words

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.pipeline: Any = pipeline
        self._check_parts()
        check_network(getattr(pipeline, self.network))
        self.denoiser: Any = getattr(pipeline, self.network).requires_grad_(False).eval()
        named = dict(self.denoiser.named_parameters())
        owners = {name: self.denoiser.get_submodule(name.rpartition(".")[0]) for name in named}
        kept = [name for name, parameter in named.items() if self.may_change(owners[name], parameter)]
        self._parameters = {self.patch_name(name): named[name] for name in kept}
        self._owners = {self.patch_name(name): owners[name] for name in kept}
        self._originals: dict[str, Tensor] = {}  # of weights that patches have changed
        self._changes: dict[str, Tensor] = {}

    def _check_parts(self) -> None:
        """Raises ValueError when the pipeline lacks what the family needs."""
        parts = self.pipeline.components.items()
        lacking = [name for name, part in parts if part is None and name.startswith(PARTS)]
        missing = next((name for name in lacking if name not in self.may_lack), None)
        if missing:
            raise ValueError(f"model: its pipeline has no {missing}; load a pipeline that is whole")

    def check_sigmas(self) -> None:
        """Raises ValueError for a scheduler whose noise levels are none."""
        sigmas = self.training_sigmas
        if not len(sigmas) or not (sigmas.isfinite().all() and (sigmas > 0).all() and (sigmas.diff() >= 0).all()):
            raise ValueError(
                f"model: the noise levels of its {type(self.pipeline.scheduler).__name__} are not numbers above 0 that "
                "rise; correct scheduler_config.json"
            )

    @property
    def device(self) -> torch.device:
        """Where latents and deltas live."""
        return next(self.denoiser.parameters()).device  # a pipeline looks through all its modules

    @property
    def usual_side(self) -> int:
        """Of a training picture in pixels, where none is given: USUAL_SIDE, or the network's own if that is less."""
        own = self.denoiser.config.get("sample_size")
        return min(USUAL_SIDE, self.downscale * own) if isinstance(own, int) else USUAL_SIDE

    @staticmethod
    @abstractmethod
    def may_change(module: nn.Module, parameter: Tensor) -> bool:
        """Whether LoRA loaders can change such a parameter of a module of this family."""

    @staticmethod
    @abstractmethod
    def patch_name(name: str) -> str:
        """The patch name of a parameter."""

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Cond]:
        """One conditioning for each prompt. Raises ValueError as `check_prompts`."""
        self.check_prompts(prompts)
        return self.encoded(prompts)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raises ValueError for a prompt in ComfyUI's syntax, or one that is longer than what the model reads."""
        check_plain(prompts)
        check_windows(prompts, self.windows)

    @property
    @abstractmethod
    def windows(self) -> list[Window]:
        """What reads the tokens that the network sees."""

    @abstractmethod
    def encoded(self, prompts: Sequence[str]) -> list[Cond]:
        """One conditioning for each prompt, of those that `check_prompts` lets through; differentiable."""

    def vocabulary(self) -> Vocabulary:
        """The words that the first text encoder has tokens for; none where it has no table of them."""
        tokenizer: Any = getattr(self.pipeline, "tokenizer", None)
        encoder: Any = getattr(self.pipeline, "text_encoder", None)
        if tokenizer is None or not hasattr(encoder, "get_input_embeddings"):
            return NO_WORDS
        return Vocabulary.of(tokenizer.get_vocab(), encoder.get_input_embeddings().weight.detach())

    def embedded(self, prompt: str) -> Embedded:
        """A prompt's conditioning, differentiable by the vectors of its tokens in the first text encoder.

        Raises ValueError as `check_prompts`, and as `vocabulary.embedded` does.
        """
        self.check_prompts([prompt])
        layer = self.pipeline.text_encoder.get_input_embeddings()
        return embedded(layer, lambda: self.encoded([prompt])[0])

    @abstractmethod
    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        """The denoised latents of x [B, C, H, W] at sigma [B], each under its own conditioning; differentiable."""

    @property
    @abstractmethod
    def training_sigmas(self) -> Tensor:
        """The noise levels that the model was trained on, rising."""

    @property
    @abstractmethod
    def noise_scale(self) -> float:
        """The standard deviation of latents at the highest noise level."""

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self.denoiser.config.in_channels

    @property
    def downscale(self) -> int:
        """Pixels to a latent's pixel, along each side."""
        return 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """Pixels that a picture's sides are multiples of."""
        return self.downscale * self.patch_size

    def sigmas(self, steps: int) -> Tensor:
        """Noise levels [steps + 1], falling, the last one 0: ComfyUI's "simple" scheduler."""
        sigmas = self.training_sigmas
        picked = [sigmas[-(1 + int(index * len(sigmas) / steps))] for index in range(steps)]
        return torch.stack([*picked, torch.zeros_like(picked[0])])

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        """Pure-noise latents [len(seeds), C, H, W] at the highest sigma, the same as ComfyUI's; size in pixels.

        Raises ValueError as `check_size`.
        """
        check_size(width, height, self.multiple)
        shape = (1, self.channels, height // self.downscale, width // self.downscale)
        noise = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        return noise.to(self.device) * self.noise_scale

    @abstractmethod
    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Clean latents x0 [B, C, H, W] at noise level sigma [B], with unit noise of their shape."""

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, H, W, 3] in 0..1 of clean latents [B, C, h, w]."""
        vae = self.pipeline.vae
        pictures = vae.decode((latents / vae.config.scaling_factor + self._shift).to(vae.dtype)).sample.float()
        return ((pictures + 1) / 2).clamp(0, 1).movedim(1, -1)

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """Clean latents [B, C, h, w] of pictures [B, H, W, 3] in 0..1."""
        vae = self.pipeline.vae
        encoded = vae.encode((pictures.movedim(-1, 1) * 2 - 1).to(self.device, vae.dtype))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return (latents.float() - self._shift) * vae.config.scaling_factor

    @property
    def _shift(self) -> float:
        return self.pipeline.vae.config.get("shift_factor") or 0.0

    def weights(self) -> dict[str, Tensor]:
        """Every weight that a patch may change, under its patch name, with the patches on it."""
        return {name: parameter.data for name, parameter in self._parameters.items()}

    def fingerprint(self) -> Fingerprint:
        """Of the pipeline's weights, the patches on them and what the model predicts."""
        return Fingerprint.of({**self.weights(), **self._originals}, self._changes, prediction=self.prediction_type)

    def module(self, name: str) -> nn.Module:
        """The module that owns the weight `name`."""
        return self._owners[name]

    @contextmanager
    def attach(self, deltas: Mapping[str, nn.Module]) -> Iterator[None]:
        """Within the context, the weight `name` is `deltas[name](weight)`; after it, everything is as before."""
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
        """Within the context the model has the patch, on top of those it has.

        Raises ValueError when the model lacks weights that it changes, or has them in another shape.
        """
        patch.check_fit({name: tuple(parameter.shape) for name, parameter in self._parameters.items()})
        changes = patch.changes()
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
