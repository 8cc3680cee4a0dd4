"""The model interface over ComfyUI: a private copy of a MODEL, and the CLIP that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import torch
from comfy.conds import CONDConstant, CONDRegular
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy.supported_models_base import BASE
from torch import Tensor, nn

from ...unlearning_core.fingerprint import Fingerprint
from ...unlearning_core.model import check_size
from ...unlearning_core.nested import mapped, tensors_in
from ...unlearning_core.probes import FAILURES, one_line
from ...unlearning_core.recomputed import saving
from ...unlearning_core.vocabulary import NO_WORDS, Embedded, Vocabulary, embedded
from .calls import Isolated, Isolation
from .conditioning import check_alone, encode_prompt
from .copying import copying
from .storage import ordinary_weights
from .training import Backward, differentiable_attention, eager_kernels, training_mode
from .traits import fingerprint
from .weights import patch_places

ROWS = 3  # the fewest of which each has more than one other
KEPT = 2**30  # bytes of encoded prompts, and of what the network reads of them
SAME = 0.01  # relative difference of a batch and its rows, which take other kernels
Inputs = dict[str, CONDRegular]  # what the network reads of one prompt, by its argument's name


class ComfyModel:
    """A `DiffusionModel` of the library, over the copy that `private_copy` yields."""

    resident = True  # all of it on the device

    def __init__(self, private: ModelPatcher, clip: CLIP) -> None:
        self.patcher = private
        self.clip = clip
        self.model_sampling = private.get_model_object("model_sampling")
        self.latent_format = private.get_model_object("latent_format")
        self.places = patch_places(private)
        self.backward = Backward()
        self.isolated: Isolation = Isolated()
        self._schedule = torch.zeros(1)  # the last one that was asked for: distilled models look up the next level
        self._joining: bool | None = None
        self._attached: list[tuple[nn.Module, str, Any]] = []  # modules with deltas, and their functions without
        self._encoded: dict[str, Any] = {}
        self._model_conds: dict[tuple[int, torch.Size], tuple[Any, Inputs]] = {}  # with the conditioning of the id

    @property
    def device(self) -> torch.device:
        """Where latents and deltas live."""
        return self.patcher.load_device

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Any]:
        """ComfyUI's conditioning of each prompt; one that was encoded before is kept.

        Raises ValueError for a CLIP whose hooks make a prompt another one on the way.
        """
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._encoded]
        for prompt in new:
            cond = encode_prompt(self.clip, prompt)
            check_alone(cond)
            self._encoded[prompt] = cond
        conds = [self._encoded[prompt] for prompt in prompts]
        if new:
            self._return()
        _forget_oldest(self._encoded, like=conds)
        return conds

    def vocabulary(self) -> Vocabulary:
        """The words that the first text encoder has tokens for; none where it has no table of them."""
        found = self._word_encoder()
        if found is None:
            return NO_WORDS
        tokenizer, encoder = found
        tokens = {token: row for row, token in tokenizer.inv_vocab.items()}
        return Vocabulary.of(tokens, encoder.get_input_embeddings().weight.detach())

    def embedded(self, prompt: str) -> Embedded:
        """A prompt's conditioning, differentiable by the vectors of its tokens in the first text encoder.

        Raises as `vocabulary.embedded` does.
        """
        found = self._word_encoder()
        assert found is not None
        encoder = found[1]
        comfy.model_management.load_models_gpu([self.clip.patcher])  # before its weights are copied
        with ordinary_weights(encoder), eager_kernels(), copying() as saved, saving(saved):
            prompted = embedded(encoder.get_input_embeddings(), lambda: encode_prompt(self.clip, prompt))
        check_alone(prompted.cond)
        self._return()
        return prompted

    def _word_encoder(self) -> tuple[Any, Any] | None:
        """The first tokenizer that lists its tokens, and its encoder."""
        for name, tokenizer in vars(self.clip.tokenizer).items():
            encoder: Any = getattr(getattr(self.clip.cond_stage_model, name, None), "transformer", None)
            if hasattr(tokenizer, "inv_vocab") and hasattr(encoder, "get_input_embeddings"):
                return tokenizer, encoder
        return None

    def _return(self) -> None:
        """The text encoder may have taken the model's place on the device."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=self.resident)

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Any]) -> Tensor:
        """The denoised latents of x [B, C, H, W] at sigma [B], each under its own conditioning, through ComfyUI's own
        `apply_model`; differentiable, also by the conditioning's tensors.

        Prompts that ComfyUI would not join, such as those of unequal token counts, go through it group by group.
        """
        inputs = [self._conds_for(cond, x) for cond in conds]
        groups = (
            concatenable(inputs) if len(inputs) == 1 or self._joins(x, inputs) else [[row] for row in range(len(x))]
        )
        if len(groups) == 1:
            return self._apply(x, sigma, inputs)
        parts = [self._apply(x[group], sigma[group], [inputs[row] for row in group]) for group in groups]
        order = torch.tensor([row for group in groups for row in group], device=x.device)
        return torch.cat(parts)[order.argsort()]

    def _apply(self, x: Tensor, sigma: Tensor, inputs: Sequence[Inputs]) -> Tensor:
        """As `predict_x0`, of inputs that can be concatenated."""
        there = {id(entry): _moved(entry, lambda value: value.to(x.device, non_blocking=True)) for entry in inputs}
        batch = comfy.samplers.cond_cat([there[id(entry)] for entry in inputs])
        options = {
            **self.patcher.model_options["transformer_options"],
            "optimized_attention_override": differentiable_attention,
            "cond_or_uncond": [0] * len(inputs),
            "sigmas": sigma,
            "sample_sigmas": self._schedule,
        }
        with self.isolated(self.patcher.model.diffusion_model):
            return self.patcher.model.apply_model(x, sigma, transformer_options=options, **batch)

    @torch.no_grad()
    def _joins(self, x: Tensor, inputs: Sequence[Inputs]) -> bool:
        """Whether the network predicts a batch as it predicts its rows; some take the noise level of the first alone.

        Asked once, with latents of x at as many noise levels as there are ROWS, and under two texts.
        """
        if self._joining is None:
            levels = comfy.samplers.calculate_sigmas(self.model_sampling, "simple", ROWS + 1)[1 : ROWS + 1]
            sigma, latents = levels.to(self.device), x[torch.arange(ROWS, device=x.device) % len(x)]
            texts = [inputs[0], another_text(inputs[0]), inputs[0]]
            rows = zip(latents.split(1), sigma.split(1), texts, strict=True)
            alone = torch.cat([self._apply(latent, level, [text]) for latent, level, text in rows])
            try:
                joined = self._apply(latents, sigma, texts)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # of shapes that do not fit
                self._joining = False
            else:
                self._joining = float((joined - alone).norm()) <= SAME * float(alone.norm())
        return self._joining

    def _conds_for(self, cond: Any, x: Tensor) -> Inputs:
        """The model's own inputs for one prompt and this latent size, such as pooled text and size embeddings."""
        if any(tensor.requires_grad for tensor in tensors_in(cond)):
            return self._make_conds(cond, x[:1].detach())
        key = (id(cond), x.shape[1:])
        if key not in self._model_conds:
            with torch.no_grad():
                made = self._make_conds(cond, x[:1].detach())
            self._model_conds[key] = cond, _moved(made, _pinned) if self.device.type == "cuda" else made
        inputs = self._model_conds[key][1]
        _forget_oldest(self._model_conds, like=[cond])
        return inputs

    def _make_conds(self, cond: Any, like: Tensor) -> Inputs:
        entries = comfy.samplers.encode_model_conds(
            self.patcher.model.extra_conds,
            comfy.sampler_helpers.convert_cond(cond),
            torch.zeros_like(like),
            like.device,
            "positive",
            latent_image=torch.zeros_like(like),
            denoise_mask=None,
            seed=0,
        )
        return {name: value.process_cond(batch_size=1, area=None) for name, value in entries[0]["model_conds"].items()}

    def sigmas(self, steps: int) -> Tensor:
        """ComfyUI's "simple" noise levels: [steps + 1], falling, the last one 0."""
        self._schedule = comfy.samplers.calculate_sigmas(self.model_sampling, "simple", steps).to(self.device)
        return self._schedule

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        """KSampler's first latents [len(seeds), C, H, W]; size in pixels. Raises ValueError as `check_size`."""
        latent = empty_latent(self.patcher, width, height)
        noise = torch.cat([comfy.sample.prepare_noise(latent, seed) for seed in seeds]).to(self.device)
        sigma_max = self.model_sampling.sigma_max.to(noise)
        return self.model_sampling.noise_scaling(sigma_max, noise, torch.zeros_like(noise), max_denoise=True)

    @torch.no_grad()
    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Clean latents x0 [B, C, H, W] at noise level sigma [B], with unit noise of their shape."""
        return self.model_sampling.noise_scaling(sigma.view(-1, *[1] * (x0.ndim - 1)), noise, x0)

    def latents(self, samples: Tensor) -> Tensor:
        """LATENT samples [B, C, H, W] in the model's own scale."""
        return self.patcher.model.process_latent_in(samples)

    def weights(self) -> Mapping[str, Tensor]:
        """Every weight that a patch may change, under its patch name, with the patches on the MODEL."""
        network = self.patcher.model
        return {name: place.of(comfy.utils.get_attr(network, place.key)) for name, place in self.places.items()}

    def fingerprint(self) -> Fingerprint:
        """Of the MODEL that this is a copy of."""
        return fingerprint(self.patcher.parent)

    def module(self, name: str) -> nn.Module:
        """The module that owns the weight `name`, or the fused one that it is a part of."""
        return comfy.utils.get_attr(self.patcher.model, self.places[name].key.rpartition(".")[0])

    @contextmanager
    def attach(self, deltas: Mapping[str, nn.Module]) -> Iterator[None]:
        """Within the context, ComfyUI applies `deltas[name]` to each weight, and the network can be trained."""
        places = [self._functions(name) for name in deltas]
        before = self._attached, _values(places)
        self._attached = before[1]
        try:
            for (name, delta), (module, functions) in zip(deltas.items(), places, strict=True):
                setattr(module, functions, [*getattr(module, functions), partial(self.places[name].apply, delta)])
            trained = [parameter for delta in deltas.values() for parameter in delta.parameters()]
            with training_mode(self.patcher.model, self.backward, trained):
                yield
        finally:
            self._attached, values = before
            _set(values)

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Within the context, deltas that are attached do not act."""
        now = _values([(module, functions) for module, functions, _ in self._attached])
        _set(self._attached)
        try:
            yield
        finally:
            _set(now)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is predicted within the context leaves no trace: noise levels and random numbers are as before."""
        schedule, joining = self._schedule, self._joining
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            try:
                yield
            finally:
                self._schedule, self._joining = schedule, joining

    def check_backward(self, deltas: Mapping[str, nn.Module], width: int, height: int) -> Tensor:
        """Lets backward copy what the network overwrites, if it does; width and height in pixels, the smaller the
        faster. Returns two numbers for each parameter, its gradient's norm and a random sum of it: [N, 2].

        Raises ValueError for a network that has no backward pass even so.
        """
        try:
            return self._try_backward(deltas, width, height)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            if "inplace" in str(error) and not self.backward.copying:
                self.backward.copying = True
                return self.check_backward(deltas, width, height)
            if self.backward.checkpointing:
                raise no_checkpointing(one_line(error)) from error
            raise ValueError(
                f"model: its network has no backward pass ({one_line(error)}); choose the method UCE, which needs none"
            ) from error

    def _try_backward(self, deltas: Mapping[str, nn.Module], width: int, height: int) -> Tensor:
        """Of two predictions that differ in all: what the network keeps of one must not reach the other's gradient."""
        x, sigma = self.noise([0, 1], width, height), self.sigmas(2)[:2]
        [cond] = self.encode([""])
        inputs = self._conds_for(cond, x)
        with self.attach(deltas):
            x0 = self._apply(x[:1], sigma[:1], [inputs]), self._apply(x[1:], sigma[1:], [another_text(inputs)])
            trained = [parameter for delta in deltas.values() for parameter in delta.parameters()]
            gradients = torch.autograd.grad(torch.cat(x0).sum(), trained, allow_unused=True, materialize_grads=True)
            return torch.stack([_sketch(gradient) for gradient in gradients])

    def _functions(self, name: str) -> tuple[nn.Module, str]:
        """The module that owns a weight, and the name of its list of functions that ComfyUI applies to it."""
        return self.module(name), f"{name.rpartition('.')[2]}_function"


def _forget_oldest(kept: dict[Any, Any], like: Sequence[Any]) -> None:
    """Keeps as many as KEPT has room for, each as large as the largest of `like`: searches ask for thousands."""
    largest = max(sum(tensor.nbytes for tensor in tensors_in(cond)) for cond in like)
    for key in list(kept)[: -max(1, KEPT // largest)]:
        del kept[key]


def _moved(inputs: Inputs, move: Callable[[Tensor], Tensor]) -> Inputs:
    """Inputs with their tensors moved; ComfyUI leaves those in lists where they are."""
    return {
        name: _with(value, move(value.cond)) if isinstance(value.cond, Tensor) else value
        for name, value in inputs.items()
    }


def _pinned(value: Tensor) -> Tensor:
    """In memory that a GPU reads while it works: to copy from other memory is to wait for all that is queued there."""
    return value.pin_memory() if value.device.type == "cpu" else value


def _with(value: CONDRegular, cond: Any) -> CONDRegular:
    other = copy(value)
    other.cond = cond
    return other


def _values(places: Sequence[tuple[nn.Module, str]]) -> list[tuple[nn.Module, str, Any]]:
    """Modules' attributes of these names, with what they are now."""
    return [(module, name, getattr(module, name)) for module, name in places]


def _set(values: Sequence[tuple[nn.Module, str, Any]]) -> None:
    for module, name, value in values:
        setattr(module, name, value)


def no_checkpointing(reason: str) -> ValueError:
    """For a network that can be trained without gradient checkpointing only, and does not fit so."""
    return ValueError(
        f"model: training needs gradient checkpointing to fit, which this network cannot do ({reason}); choose a "
        "smaller width and height, a smaller micro_batch or batch_size, or the method UCE"
    )


def _sketch(gradient: Tensor) -> Tensor:
    generator = torch.Generator(gradient.device).manual_seed(0)
    noise = torch.randn(gradient.shape, generator=generator, device=gradient.device)
    return torch.stack([gradient.norm(), (gradient * noise).sum()])


def another_text(inputs: Inputs) -> Inputs:
    """What the network reads of a prompt, with the numbers of each vector in the reverse order."""
    return {name: _reversed(value) for name, value in inputs.items()}


def _reversed(value: CONDRegular) -> CONDRegular:
    if isinstance(value, CONDConstant):  # of a whole batch
        return value
    return _with(value, mapped(value.cond, lambda tensor: tensor.flip(-1) if tensor.is_floating_point() else tensor))


def concatenable(inputs: Sequence[Inputs]) -> list[list[int]]:
    """The rows of `inputs` in groups that ComfyUI's sampler would put into one batch, in the order of their first."""
    groups: list[list[int]] = []
    for row, entry in enumerate(inputs):
        fitting = (group for group in groups if comfy.samplers.cond_equal_size(inputs[group[0]], entry))
        group = next(fitting, None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return groups


def empty_latent(model: ModelPatcher, width: int, height: int) -> Tensor:
    """A zero latent [1, C, *spatial] for a picture of width x height pixels, of one frame where the model has frames.

    Raises ValueError as `check_size` does, and for a model of sound or of shapes, or one that looks at pictures.
    """
    latent_format = model.get_model_object("latent_format")
    sound = "audio_model" in model.model.model_config.unet_config
    described = next(kind for kind in type(model.model.model_config).__mro__ if "latent_format" in vars(kind))
    looks = described is BASE  # as ComfyUI describes networks that look at pictures
    if sound or looks or latent_format.latent_dimensions not in (2, 3):
        raise ValueError(f"model: {type(model.model).__name__} makes no pictures; use a text-to-image model")
    ratio = latent_format.spacial_downscale_ratio
    check_size(width, height, ratio)
    picture = torch.zeros(1, latent_format.latent_channels, height // ratio, width // ratio)
    return comfy.sample.fix_empty_latent_channels(model, picture)
