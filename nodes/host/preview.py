"""Pictures while a node works: of the model in training, and of what the measuring nodes draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import torch
import torch.nn.functional as F
from comfy.cli_args import LatentPreviewMethod, args
from comfy.model_patcher import ModelPatcher
from latent_preview import LatentPreviewer, get_previewer, preview_to_image
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...unlearning_core.metrics.cache import PictureCache
from ...unlearning_core.metrics.plan import Draw, PromptSeed, pictures_at_once
from ...unlearning_core.metrics.studio import Studio
from ...unlearning_core.model import noise_prediction
from ...unlearning_core.progress import TRAINING, Budget, OnProgress, Progress
from ...unlearning_core.prompts import Prompts
from ...unlearning_core.sampling import guided, sample_euler
from ...unlearning_core.settings import Settings
from .drawing import ComfyDrawing
from .live import SIDE, Pair, Run, send_pairs
from .model import ComfyModel

STEPS = 8  # of a preview's sampling, at most
PASSES = 1.8  # forward passes that a training step takes at least
KEPT = 1024  # small pictures of a base that wait for their pair

Show = Callable[[Sequence[Pair], int], None]  # of a training step


def wanted(run: Run) -> bool:
    """Whether there are previews: as ComfyUI's setting says, and on a page that leaves it at the default.

    ComfyUI's own default is none, also for programs that queue a run without a page.
    """
    if args.preview_method != LatentPreviewMethod.NoPreviews:
        return True
    queued = PromptServer.instance.prompt_queue.currently_running.values() if run.prompt_id else ()
    asked: dict[str, Any] = next((extra for _, prompt_id, _, extra, *_ in queued if prompt_id == run.prompt_id), {})
    return "extra_pnginfo" in asked and asked.get("preview_method") != LatentPreviewMethod.NoPreviews.value


def previewer_for(host: ComfyModel) -> LatentPreviewer | None:
    """ComfyUI's, and the cheap one where it has none by default; None when it cannot show this model's latents."""
    method = args.preview_method
    if method == LatentPreviewMethod.NoPreviews:
        args.preview_method = LatentPreviewMethod.Latent2RGB
    try:
        return get_previewer(host.device, host.latent_format)
    finally:
        args.preview_method = method


def previews(host: ComfyModel, prompts: Prompts, settings: Settings, show: Show) -> OnProgress:
    """Shows the first forget and the first retain prompt while training; nothing where ComfyUI cannot show this model's
    latents.
    """
    previewer = previewer_for(host)
    if previewer is None:
        return lambda progress: None
    return Previews(host, previewer, [prompts.forget[0], *prompts.retain[:1]], settings, show)


class Previews:
    """Draws with the base and with the model in training, at the training size with the trajectories' sampler.

    What is trained is bit for bit the same without it.
    """

    def __init__(
        self, host: ComfyModel, previewer: LatentPreviewer, prompts: Sequence[str], settings: Settings, show: Show
    ) -> None:
        self._host, self._previewer = host, previewer
        self._prompts = list(prompts)
        self._settings = settings
        self._steps = min(STEPS, settings.run_steps)
        self._show = show
        self._budget = Budget()
        self._base: list[Image.Image] = []
        self._first: tuple[int, float] | None = None  # the first training step that was told, and when

    def __call__(self, progress: Progress) -> None:
        """Told of each step; draws while the deltas are attached, after steps whose loss was waited for."""
        if progress.phase != TRAINING or progress.loss is None:
            return
        if self._first is None:
            self._first = progress.step, monotonic()
        elif self._fit(progress, (monotonic() - self._first[1]) / (progress.step - self._first[0])):
            with self._budget.spend():
                self._draw_and_show(progress.step)

    def _fit(self, progress: Progress, pace: float) -> bool:
        """Whether pictures fit now, at so many seconds a step: the last step's always have room left."""
        seconds, left = self._expected(pace), progress.steps - progress.step
        if not left:
            return self._budget.affords(seconds)
        return self._budget.allows(seconds) and self._budget.affords(2 * seconds, ahead=left * pace)

    def _expected(self, pace: float) -> float:
        """Seconds of the next pictures: those of the last ones, or for the first, what their rows take forward at the
        speed of training; few rows may take as long as many, but not longer than a training step.
        """
        if self._base:
            return self._budget.last
        rows = len(self._prompts) * (1 if self._settings.run_cfg == 1 else 2)
        return self._steps * pace * min(1.0, rows / (PASSES * self._settings.batch_size))

    def _draw_and_show(self, step: int) -> None:
        """The base's pictures the first time, and then those of the model as it is."""
        if self._base:
            now: Sequence[Image.Image | None] = self._drawn()
        else:
            now = [None] * len(self._prompts)
            with self._host.bare():
                self._base = self._drawn()
        self._show([Pair(*pair) for pair in zip(self._prompts, self._base, now, strict=True)], step)

    @torch.no_grad()
    def _drawn(self) -> list[Image.Image]:
        """A picture of each prompt, by the model as it is now."""
        host, settings = self._host, self._settings
        conds, empty = host.encode(self._prompts), host.encode([""]) * len(self._prompts)

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            if settings.run_cfg == 1:
                return noise_prediction(host, x, sigma.expand(len(x)), conds)
            both = noise_prediction(host, torch.cat([x, x]), sigma.expand(2 * len(x)), empty + conds)
            e_uncond, e_cond = both.chunk(2)
            return guided(e_uncond, e_cond, settings.run_cfg)

        with host.aside():
            x = host.noise([settings.seed] * len(conds), *settings.size)
            x0 = sample_euler(predict, x, host.sigmas(self._steps))
        return [self._previewer.decode_latent_to_preview(latent) for latent in x0.split(1)]


def studio_for(drawing: ComfyDrawing, cache: PictureCache, base: ModelPatcher, run: Run) -> Studio[ModelPatcher]:
    """A studio that shows its pictures as they come, where previews are wanted."""
    return ShowingStudio(drawing, cache, base, run) if wanted(run) else Studio(drawing, cache)


class ShowingStudio(Studio[ModelPatcher]):
    """Shows the newest picture of a model beside the base's, in the time of a `Budget`."""

    def __init__(self, drawing: ComfyDrawing, cache: PictureCache, base: ModelPatcher, run: Run) -> None:
        super().__init__(drawing, cache)
        self._at_once = pictures_at_once(drawing.sampling.width, drawing.sampling.height)
        self._base, self._run = base, run
        self._budget = Budget()
        self._small: dict[PromptSeed, Image.Image] = {}  # of the base

    def cached(self, model: ModelPatcher) -> Draw:
        """As of a `Studio`, in parts that share a call of the network."""
        draw = super().cached(model)

        def shown(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
            starts = range(0, len(prompt_seeds), self._at_once)
            parts = [prompt_seeds[start : start + self._at_once] for start in starts]
            return torch.cat([self._shown(model, part, draw(part)) for part in parts])

        return shown

    def _shown(self, model: ModelPatcher, prompt_seeds: Sequence[PromptSeed], pictures: Tensor) -> Tensor:
        known = prompt_seeds[-1] in self._small
        if model is self._base and not known:
            self._small.update(zip(prompt_seeds, map(small, pictures), strict=True))
            for oldest in list(self._small)[:-KEPT]:
                del self._small[oldest]
        if (model is not self._base or not known) and self._budget.allows(self._budget.last):
            with self._budget.spend():
                now = None if model is self._base else small(pictures[-1])
                send_pairs(self._run, [Pair(prompt_seeds[-1][0], self._small.get(prompt_seeds[-1]), now)])
        return pictures


def small(picture: Tensor) -> Image.Image:
    """A picture [H, W, 3] in 0..1 with sides of at most SIDE pixels."""
    scale = min(1.0, SIDE / max(picture.shape[:2]))
    smaller = F.interpolate(picture.movedim(-1, 0)[None], scale_factor=scale, mode="area")[0].movedim(0, -1)
    return preview_to_image(smaller, do_scale=False)
