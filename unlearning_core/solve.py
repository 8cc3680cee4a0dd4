"""Closed forms: what the prompts feed into the layers is summed up, and one map for each kind of tokens solved for.

A layer's change is its weight times that map. The map moves the forget tokens alone, so its rank is that of the ways
in which they are moved, and the change is a LoRA without loss.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .changes import change_shapes
from .deltas import full_tensors, low_rank_tensors
from .methods import ClosedForm
from .methods.base import TextSums
from .model import DiffusionModel
from .names import loras_reach
from .probes import Size
from .progress import Reporter
from .prompts import Prompts, all_prompts, held_prompts
from .selections import selections_of
from .texts import TextReader

CUT = 1e-8  # share of a map's norm that its factors may leave out
AT_ONCE = 2048  # tokens that are summed up together


class Factors(NamedTuple):
    """A map [D, D] as the product of two: [D, r] and [r, D]."""

    left: Tensor
    right: Tensor

    def padded(self, rank: int) -> Factors:
        """The same product of factors of a rank that is not below their own."""
        more = rank - len(self.right)
        return Factors(F.pad(self.left, (0, more)), F.pad(self.right, (0, 0, 0, more)))


class Sums:
    """`TextSums` of one kind of tokens, prompt by prompt, and the differences that span what a map can reach."""

    def __init__(self, like: Tensor) -> None:
        """`like` [T, D] in float64."""
        self._width = like.shape[1]
        self._sums = TextSums(*(like.new_zeros(self._width, self._width) for _ in TextSums._fields))
        self._waiting: list[tuple[Tensor, Tensor]] = []  # forget tokens and their moves, not summed up yet
        self._moves: list[Tensor] | None = []
        self.moved = False  # whether any token is

    def move(self, forget: Tensor, overwrite: Tensor) -> None:
        """Tokens [T, D] to forget, and what is to come in their place."""
        forget, overwrite = aligned(forget, overwrite)
        moves = overwrite - forget
        self.moved = self.moved or bool(moves.any())
        self._waiting.append((forget, moves))
        if sum(len(tokens) for tokens, _ in self._waiting) >= AT_ONCE:
            self._add_up()

    def retain(self, tokens: Tensor) -> None:
        """Tokens [T, D] to keep."""
        self._sums.retain.addmm_(tokens.T, tokens)

    @torch.no_grad()
    def map(self, method: ClosedForm) -> tuple[Tensor, Factors | None]:
        """The method's map [D, D], and its factors where they are smaller. Raises ValueError as `ClosedForm.map`."""
        self._add_up()
        solved = method.map(self._sums)
        return solved, None if self._moves is None else factors(solved, torch.cat(self._moves))

    def _add_up(self) -> None:
        """Products of many tokens at once are far faster than of one prompt's."""
        if not self._waiting:
            return
        forget, moved = (torch.cat(tokens) for tokens in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self._sums.forget.addmm_(forget.T, forget)
        self._sums.moved.addmm_(moved.T, forget)
        if self._moves is not None:
            self._moves.append(moved[moved.any(dim=1)])
            if sum(map(len, self._moves)) > self._width // 2:  # tokens, above which factors save nothing
                self._moves = None


def factors(solved: Tensor, moves: Tensor) -> Factors:
    """A map [D, D] that gives sums of the rows of `moves` [N, D], as a product of the least rank that CUT allows."""
    if not len(moves):
        return Factors(solved.new_zeros(len(solved), 1), solved.new_zeros(1, len(solved)))
    basis = torch.linalg.qr(moves.T)[0]
    u, s, vh = torch.linalg.svd(basis.T @ solved, full_matrices=False)
    left_out = s.square().flip(0).cumsum(0).flip(0).sqrt()  # when the rank is the index
    rank = max(1, int((left_out > CUT * s.norm()).sum()))
    return Factors(basis @ (u[:, :rank] * s[:rank]), vh[:rank])


@torch.no_grad()
def solve(
    model: DiffusionModel,
    method: ClosedForm,
    prompts: Prompts,
    names: Sequence[str],
    size: Size,
    report: Reporter,
) -> dict[str, Tensor]:
    """The method's change of the weights `names` under LoRA-file keys, in factors where these are smaller.

    `size` is of a picture in pixels that the model draws. Raises ValueError as `ClosedForm.map`, and when no tokens
    move.
    """
    reader = TextReader(model, names, size, one_text=selections_of(model, size).proven)
    steps = len(all_prompts(prompts))
    report.expect(steps)
    report.begin("reading the prompts", steps)
    sums = _summed(reader, prompts, report)
    if not any(own.moved for own in sums):
        raise ValueError(
            "forget prompts: the tokens of each are those of its overwrite prompt, and the rest of their encodings "
            f"does not reach the layers that {method.label} changes; choose a method that trains, or other prompts"
        )
    report.begin("solving", 0)
    maps = [report.during(partial(own.map, method)) for own in sums]
    factored = [factors for _, factors in maps if factors]
    if len(factored) == len(maps) and all(map(loras_reach, names)):
        rank = max(len(factors.right) for factors in factored)  # of all, as LoRA loaders expect it
        tensors = _low_rank(model, reader.groups, [factors.padded(rank) for factors in factored])
        if sum(map(Tensor.numel, tensors.values())) < sum(map(math.prod, change_shapes(tensors).values())):
            return tensors
    return _full(model, reader.groups, [solved for solved, _ in maps])


def _summed(reader: TextReader, prompts: Prompts, report: Callable[[], None]) -> list[Sums]:
    """Over all prompts, for each group of layers. Tokens are in memory until the last pair that needs them."""
    uses = Counter(prompt for pair in prompts.pairs for prompt in pair)
    held = dict.fromkeys(held_prompts(prompts))
    kept: dict[str, list[Tensor]] = {}
    sums: list[Sums] = []

    def read(prompt: str) -> list[Tensor]:
        if prompt not in kept:
            kept[prompt] = reader.read(prompt)
            if not sums:
                sums.extend(map(Sums, kept[prompt]))
            if prompt in held:
                for own, tokens in zip(sums, kept[prompt], strict=True):
                    own.retain(tokens)
            report()
        uses[prompt] -= 1
        return kept[prompt] if uses[prompt] > 0 else kept.pop(prompt)

    for forget, overwrite in prompts.pairs:
        old, new = read(forget), read(overwrite)
        for own, *tokens in zip(sums, old, new, strict=True):
            own.move(*tokens)
    for prompt in held:
        if prompt not in uses:
            read(prompt)
    return sums


def _full(model: DiffusionModel, groups: Sequence[Sequence[str]], maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """The changes of the weights of each group by its map."""
    weights = model.weights()
    tensors: dict[str, Tensor] = {}
    for group, solved in zip(groups, maps, strict=True):
        for name in group:
            weight = weights[name].to(solved.device).float()
            tensors |= full_tensors(name, (weight.flatten(1) @ solved.float()).reshape(weight.shape).cpu())
    return tensors


def _low_rank(model: DiffusionModel, groups: Sequence[Sequence[str]], maps: Sequence[Factors]) -> dict[str, Tensor]:
    """As `_full`, by factors of the maps and as factors of the changes; weights [out, D] may have more dimensions.

    Those of weights of 16 bits and less are in fp16. It moves a change by 0.03 %, less than rounding to such weights.
    """
    weights = model.weights()
    tensors: dict[str, Tensor] = {}
    for group, factors in zip(groups, maps, strict=True):
        for name in group:
            weight = weights[name].to(factors.left.device).float()
            up = (weight.flatten(1) @ factors.left.float()).reshape(len(weight), -1, *[1] * (weight.ndim - 2))
            down = factors.right.float().reshape(-1, *weight.shape[1:])
            if weights[name].element_size() <= 2:
                up, down = balanced(up, down)
            tensors |= low_rank_tensors(name, up.cpu(), down.contiguous().cpu())
    return tensors


def balanced(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The same product of two tensors in fp16, whose largest values are the same, so that neither's are lost."""
    largest = [factor.abs().max().clamp_min(torch.finfo(torch.float32).tiny) for factor in (up, down)]
    scale = (largest[1] / largest[0]).sqrt()
    return (up * scale).half(), (down / scale).half()


def aligned(forget: Tensor, overwrite: Tensor) -> tuple[Tensor, Tensor]:
    """Two prompts' tokens [T, D], position by position; the shorter one repeats its last token."""
    count = max(len(forget), len(overwrite))
    first, second = (torch.cat([tokens, tokens[-1:].expand(count - len(tokens), -1)]) for tokens in (forget, overwrite))
    return first, second
