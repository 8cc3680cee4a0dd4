"""Judges for any model: zero-shot CLIP, and a diffusion model as its own classifier."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ..model import Cond, DiffusionModel, noise_prediction
from ..prompts import quoted
from .clip import Clip
from .forgetting import Domains
from .plan import batches, pictures_at_once

STAGES = ((2, 8), (6, 3), (16, 1))  # (noise draws so far, candidates kept): most are out after a few draws
HIGHEST, LOWEST = 0.85, 0.25  # share of the schedule's sigmas that the draws lie in


def parse_domains(text: str) -> dict[str, tuple[str, ...]]:
    """One domain per line, `caption with {}: label, label`: the caption is the domain's name, {} the label's place.

    Raises ValueError when there is no line, or a line has no {} or fewer than two labels.
    """
    domains = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        caption, _, listed = line.rpartition(":")
        labels = tuple(dict.fromkeys(label.strip() for label in listed.split(",") if label.strip()))
        if "{}" not in caption or len(labels) < 2:
            raise ValueError(
                f"labels: {quoted(line)} is not of the form 'a photo of a {{}}: cat, dog, horse', with two labels "
                "or more"
            )
        domains[caption.strip()] = labels
    if not domains:
        raise ValueError("labels: empty; write a line such as 'a photo of a {}: cat, dog, horse'")
    return domains


class ClipJudge:
    """Says which of a domain's captions is nearest in CLIP's space (Radford et al. 2021, arXiv 2103.00020)."""

    def __init__(self, clip: Clip, domains: Domains) -> None:
        """`domains` as `parse_domains` gives them."""
        self.name = f"zero-shot CLIP ({clip.name})"
        self.domains = domains
        self._clip = clip

    def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
        """For each of `domains`, the label that each of the pictures [B, H, W, 3] in 0..1 shows."""
        images = self._clip.embed_pictures(pictures)
        verdicts = {}
        for domain in domains:
            labels = self.domains[domain]
            nearest = (images @ self._clip.embed_prompts(captions(domain, labels)).T).argmax(1)
            verdicts[domain] = [labels[index] for index in nearest.tolist()]
        return verdicts


class DiffusionClassifier:
    """Says under which caption a diffusion model takes the noise out best (Li et al. 2023, arXiv 2303.16203).

    It needs no other weights than the base model's. All captions see the same noise at the same sigmas, and after a few
    draws only the best labels are kept, as in the paper.
    """

    def __init__(self, model: DiffusionModel, to_latents: Callable[[Tensor], Tensor], domains: Domains) -> None:
        """`to_latents` encodes pictures [B, H, W, 3] in 0..1. `domains` as `parse_domains` gives them."""
        self.name = "diffusion classifier (base model)"
        self.domains = domains
        self._model = model
        self._to_latents = to_latents
        self._conds = {domain: model.encode(captions(domain, labels)) for domain, labels in domains.items()}

    @torch.no_grad()
    def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
        """For each of `domains`, the label that each of the pictures [B, H, W, 3] in 0..1 shows."""
        encoded = [self._to_latents(batch).to(self._model.device, torch.float32) for batch in batches(pictures)]
        height, width = pictures.shape[1:3]
        at_once = pictures_at_once(width, height)
        return {domain: [self._label(domain, latent, at_once) for latent in torch.cat(encoded)] for domain in domains}

    def _label(self, domain: str, latent: Tensor, at_once: int) -> str:
        """The label under which one latent [C, H, W] is denoised best, with so many in one call of the network."""
        draws = STAGES[-1][0]
        sigmas = self._sigmas(draws)
        noise = torch.randn(draws, *latent.shape, generator=torch.Generator().manual_seed(0)).to(latent)
        x = self._model.noised(latent.expand(draws, *latent.shape), noise, sigmas)
        left = torch.arange(len(self.domains[domain]))
        errors = torch.zeros(len(left))
        done = 0
        for until, kept in STAGES:
            part = slice(done, until)
            conds = [self._conds[domain][index] for index in left]
            errors = errors + self._errors(x[part], sigmas[part], latent, conds, at_once)
            best = errors.topk(min(kept, len(left)), largest=False).indices
            left, errors, done = left[best], errors[best], until
        return self.domains[domain][int(left[0])]

    def _sigmas(self, draws: int) -> Tensor:
        """Sigmas [draws] from the middle of the schedule, shuffled so that each stage sees the whole range."""
        schedule = self._model.sigmas(1000)[:-1].flip(0)
        places = torch.linspace(LOWEST, HIGHEST, draws)[
            torch.randperm(draws, generator=torch.Generator().manual_seed(0))
        ]
        return schedule[(places * (len(schedule) - 1)).round().long().to(schedule.device)]

    def _errors(self, x: Tensor, sigmas: Tensor, latent: Tensor, conds: Sequence[Cond], at_once: int) -> Tensor:
        """Squared error of the noise prediction, summed over the draws x [draws, C, H, W]: one for each of `conds`."""
        target = (x - latent) / sigmas.view(-1, *[1] * latent.ndim)
        rows = [(draw, cond) for cond in conds for draw in range(len(x))]
        errors = []
        for start in range(0, len(rows), at_once):
            index = [draw for draw, _ in rows[start : start + at_once]]
            batch_conds = [cond for _, cond in rows[start : start + at_once]]
            predicted = noise_prediction(self._model, x[index], sigmas[index], batch_conds)
            errors.append((predicted - target[index]).square().flatten(1).mean(1).cpu())
        return torch.cat(errors).view(len(conds), -1).sum(1)


def captions(domain: str, labels: Sequence[str]) -> list[str]:
    """The domain's caption with each label in its place."""
    return [domain.replace("{}", label) for label in labels]
