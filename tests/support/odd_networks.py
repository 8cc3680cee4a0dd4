"""Networks that do what few do: each class one thing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from invented import TEXT, waves
from torch import Tensor, nn

WIDTH = 64
CHANNELS = 4


class Block(nn.Module):
    """Attention of the picture to the text, and two layers."""

    last = "ends"  # the name of what reads attention's result

    def __init__(self, linear: Callable[[int, int], nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.asks, self.holds, self.says = (linear(WIDTH, WIDTH) for _ in range(3))
        self.add_module(self.last, linear(WIDTH, WIDTH))
        self.widen, self.narrow = linear(WIDTH, 2 * WIDTH), linear(2 * WIDTH, WIDTH)

    def keys(self, text: Tensor) -> Tensor:
        """Of the text [B, T, WIDTH]."""
        keys: Tensor = self.holds(text)
        return keys

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Tokens [B, N, WIDTH] that attend to the text [B, T, WIDTH]."""
        from comfy.ldm.modules.attention import optimized_attention

        attended = optimized_attention(self.asks(self.norm(tokens)), self.keys(text), self.says(text), 2)
        tokens = tokens + getattr(self, self.last)(attended)
        return tokens + self.narrow(F.gelu(self.widen(tokens)))


class Plain(nn.Module):
    """What the others are but for one thing: a transformer on 2 x 2 patches of latents [B, 4, H, W]."""

    block: type[Block] = Block

    def __init__(self, network: Any, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.operations, self.where = operations, {"dtype": dtype, "device": device}
        self.dtype = dtype
        self.patches = operations.Conv2d(CHANNELS, WIDTH, 2, stride=2, **self.where)
        self.clock, self.out = self.linear(WIDTH, WIDTH), self.linear(WIDTH, 4 * CHANNELS)
        self.reader = self.linear(TEXT, WIDTH)
        norms = (operations.LayerNorm(WIDTH, **self.where) for _ in range(2))
        self.stack = nn.ModuleList(self.block(self.linear, norm) for norm in norms)
        self.more()

    def more(self) -> None:
        """What else it has."""

    def linear(self, inside: int, outside: int) -> Any:
        """A layer of ComfyUI's."""
        return self.operations.Linear(inside, outside, **self.where)

    def read(self, context: Tensor) -> Tensor:
        """The text [B, T, WIDTH] of tokens [B, T, TEXT]."""
        text: Tensor = self.reader(context)
        return text

    def run(self, tokens: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        """All blocks."""
        for block in self.stack:
            tokens = block(tokens, text)
        return tokens

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        """The prediction, of the shape of x."""
        patches = self.patches(x)
        tokens = patches.flatten(2).transpose(1, 2) + self.clock(waves(timesteps, WIDTH))[:, None]
        drawn = self.out(self.run(tokens, self.read(context), timesteps))
        return F.pixel_shuffle(drawn.transpose(1, 2).unflatten(2, patches.shape[2:]), 2)


class LevelOnBlocks(Plain):
    """Leaves the noise level on its blocks."""

    class block(Block):
        level: Tensor

        def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
            return super().forward(tokens * (1 + self.level), text)

    def run(self, tokens: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        for block in self.stack:
            block.level = timesteps.view(-1, 1, 1) / 1000
        return super().run(tokens, text, timesteps)


class TextOnBlocks(Plain):
    """Leaves the text on its blocks, through which its gradient comes."""

    class block(Block):
        text: Tensor

        def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
            return super().forward(tokens, self.text)

    def run(self, tokens: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        for block in self.stack:
            block.text = text
        return super().run(tokens, text, timesteps)


class LevelOnNetwork(Plain):
    """Leaves the noise level on itself, where its blocks find it."""

    class block(Block):
        whole: list[Any]

        def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
            return super().forward(tokens * (1 + self.whole[0].level), text)

    def more(self) -> None:
        blocks: Any = self.stack
        for block in blocks:
            block.whole = [self]

    def run(self, tokens: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        self.level = timesteps.view(-1, 1, 1) / 1000
        return super().run(tokens, text, timesteps)


class Pointwise(Plain):
    """Reads the text by a convolution of one token."""

    size = 1

    def more(self) -> None:
        self.reader = self.operations.Conv1d(TEXT, WIDTH, self.size, padding=self.size // 2, **self.where)

    def read(self, context: Tensor) -> Tensor:
        return super().read(context.transpose(1, 2)).transpose(1, 2)


class Neighbours(Pointwise):
    """Reads the text by a convolution of three tokens."""

    size = 3


class FirstText(Plain):
    """Reads the first prompt of a batch alone."""

    def read(self, context: Tensor) -> Tensor:
        return super().read(context[:1].expand_as(context))


class MisleadingName(Plain):
    """A layer has the name of other networks' text layers, and reads the picture too."""

    def more(self) -> None:
        self.txt_in = self.linear(WIDTH, WIDTH)

    def run(self, tokens: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        return super().run(tokens, self.txt_in(text + tokens.mean(1, keepdim=True)), timesteps)


class HalfNamed(Plain):
    """Of two layers that read the text, one has the name of other networks' text layers."""

    def more(self) -> None:
        self.txt_in = self.linear(TEXT, WIDTH)

    def read(self, context: Tensor) -> Tensor:
        return super().read(context) + self.txt_in(context.roll(1, 2))


class NamedOutput(Plain):
    """Of the layers of attention the last one alone has the name of other networks'."""

    class block(Block):
        last = "attn_out"


class UntrainedText(Plain):
    """Lets no gradient pass to what reads the text."""

    def read(self, context: Tensor) -> Tensor:
        with torch.no_grad():
            return super().read(context)


class UntrainedBlocks(Plain):
    """Lets no gradient pass to the keys of its attention."""

    class block(Block):
        def keys(self, text: Tensor) -> Tensor:
            return super().keys(text).detach()


class Locked(Plain):
    """Holds what cannot be copied."""

    def more(self) -> None:
        self.lock = threading.Lock()


class Numbered(Plain):
    """Has parameters that are no numbers with a fraction."""

    def more(self) -> None:
        self.order = nn.Parameter(torch.arange(WIDTH), requires_grad=False)
        self.turns = nn.Parameter(torch.ones(WIDTH, dtype=torch.complex64), requires_grad=False)

    def run(self, tokens: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        return super().run(tokens[..., self.order] * self.turns.real, text, timesteps)


class Bound(Plain):
    """Has a method under another name, and a hook that is its own method."""

    def more(self) -> None:
        self.read = self.also_read  # type: ignore[method-assign]
        self.reader.register_forward_pre_hook(self.look)

    def also_read(self, context: Tensor) -> Tensor:
        """As `Plain.read`."""
        return Plain.read(self, context)

    def look(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The inputs."""
        return inputs


class Hooked(Plain):
    """Has a hook that is a function of its own."""

    def more(self) -> None:
        self.reader.register_forward_pre_hook(lambda layer, inputs: None)


class SharedBlock(Plain):
    """Has one block in two places."""

    def more(self) -> None:
        self.stack = nn.ModuleList([self.stack[0]] * 2)


class Overwriting(Plain):
    """Overwrites what backward needs: a tensor, and another through its part."""

    def run(self, tokens: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        first, second = self.stack
        tokens = first(tokens, text)
        waving, rest = torch.sin(tokens), torch.sin(text[:, 1:])
        tokens.mul_(0.5)
        text.mul_(0.5)
        after: Tensor = second(tokens + waving, torch.cat([text, rest], 1))
        return after


class TwoTexts(Plain):
    """Reads two parts of the text by one layer, one after the other."""

    def read(self, context: Tensor) -> Tensor:
        first, second = context[:, ::2], context[:, 1::2]
        return torch.cat([super().read(first), 2 * super().read(second.flip(-1))], dim=1)


class Crowded(Plain):
    """Mixes the rows of a batch of three and more."""

    def run(self, tokens: Tensor, text: Tensor, timesteps: Tensor) -> Tensor:
        after = super().run(tokens, text, timesteps)
        return after + after.mean(0, keepdim=True) if len(after) > 2 else after
