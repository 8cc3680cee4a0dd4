"""MODELs under attack: each is a private copy while it is attacked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ...unlearning_core.attacks.base import Attack, Host, Task
from ...unlearning_core.attacks.examine import Examination, Examiner, Opened
from ...unlearning_core.metrics.forgetting import Judge
from ...unlearning_core.metrics.studio import DIGITS
from ...unlearning_core.probes import small_size
from ...unlearning_core.progress import OnProgress
from ...unlearning_core.settings import Settings
from ...unlearning_core.unlearn import new_deltas
from .identity import model_identity
from .model import ComfyModel
from .private import private_copy


class Stage:
    """Where MODELs are attacked one after the other, under a judge that may need the device too; itself a `Judge`.

    Use it under `torch.inference_mode(False)`.
    """

    def __init__(self, clip: CLIP, vae: VAE, judge: Judge) -> None:
        self.name, self.domains = judge.name, judge.domains
        self._clip, self._vae, self._judge = clip, vae, judge
        self._attacked: list[ModelPatcher] = []  # the one that is

    def opened(self, model: ModelPatcher, training: Settings | None) -> Opened:
        """The MODEL's private copy. With `training`, its backward pass is tried at that size; raises ValueError then as
        `check_backward`.
        """

        @contextmanager
        def open_() -> Iterator[Host]:
            with private_copy(model) as private:
                host = ComfyModel(private, self._clip)
                if training:
                    host.check_backward(new_deltas(host, training), *small_size(host, *training.size))
                self._attacked.append(private)
                try:
                    yield Host(host, lambda latents: self._decoded(private, latents))
                finally:
                    self._attacked.clear()

        return open_

    def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
        """What the judge says; afterwards the attacked model is on its device."""
        with torch.inference_mode():
            labels = self._judge.classify(pictures, domains)
        self._return()
        return labels

    def _decoded(self, private: ModelPatcher, latents: Tensor) -> Tensor:
        """Pictures [B, H, W, 3] in 0..1 on the CPU of clean latents in the model's scale."""
        with torch.inference_mode():
            pictures = self._vae.decode(private.model.process_latent_out(latents))
        self._return()
        return pictures.reshape(-1, *pictures.shape[-3:]).float().cpu().clone().clamp(0, 1)

    def _return(self) -> None:
        """VAE and judge may have taken the model's place."""
        comfy.model_management.load_models_gpu(self._attacked, force_full_load=True)


def examined(
    base: ModelPatcher,
    unlearned: Mapping[str, ModelPatcher],
    stage: Stage,
    attacks: Mapping[str, Attack],
    task: Task,
    on_progress: OnProgress,
) -> Examination:
    """Every attack on every model, by name. Raises ValueError as `Stage.opened` and `Examiner.examine` do."""
    trains = any(attack.trains for attack in attacks.values())
    training = Settings(width=task.sampling.width, height=task.sampling.height) if trains else None
    with torch.inference_mode(False), torch.enable_grad():
        opened = {name: stage.opened(model, training) for name, model in unlearned.items()}
        examiner = Examiner(attacks, stage, task, on_progress)
        return examiner.examine(stage.opened(base, training), opened, identities(base, unlearned))


def identities(base: ModelPatcher, unlearned: Mapping[str, ModelPatcher]) -> dict[str, str]:
    """Which models are attacked, for a report."""
    digests = {name: model_identity(model)[:DIGITS] for name, model in {"base": base, **unlearned}.items()}
    precision = str(base.model.get_dtype_inference()).removeprefix("torch.")
    return {"model": type(base.model.model_config).__name__, **digests, "precision": precision}
