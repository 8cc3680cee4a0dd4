"""Several processes that `accelerate launch` or torchrun started: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from types import FrameType

import torch
from safetensors.torch import load, save
from torch import Tensor

from .probes import one_line
from .processes import Processes, T, Tensors, flat, sharing

PATIENCE = timedelta(minutes=30)  # that processes wait for each other; a round of `ordered` takes less
LOST = "another process of this run was lost; start the same command again, `unlearn evaluate` with --resume"


class Stopped(Exception):
    """Another process of the run has failed, and says why."""


class ProcessLost(Exception):
    """Another process of the run is gone, or the launcher ends this one because of that."""


class Launched(Processes):
    """The processes of one launcher.

    Before each exchange they tell each other whether one has failed. Then every method raises Stopped in the others;
    it raises ProcessLost when one is gone.
    """

    def __init__(self, cpu: bool) -> None:
        """`cpu`: on CPUs; else each process has a GPU of its own."""
        from accelerate import PartialState

        self._state = PartialState(cpu=cpu, timeout=PATIENCE)
        self.rank: int = self._state.process_index
        self.count: int = self._state.num_processes

    def device(self, name: str) -> str:
        """The device of this process. Raises ValueError for a device's number, which all would share."""
        if ":" in name:
            raise ValueError(f"--device {name}: each process takes a device of its own; write it without its number")
        return str(self._state.device) if name == self._state.device.type else name

    def ordered(self, items: Iterable[T], work: Callable[[T], Tensors]) -> Iterator[Tensors]:
        """As that of one process, in rounds of an item for each process."""
        remaining = iter(items)
        while turn := list(islice(remaining, self.count)):
            own = work(turn[self.rank]) if self.rank < len(turn) else {}
            for owner in range(len(turn)):
                self.wait()
                yield self._sent(own) if owner == self.rank else self._received(owner)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in every process."""
        from accelerate.utils import reduce

        self.wait()
        local = value.to(self._state.device)
        return _exchanged(lambda: reduce(local, "sum")).to(value.device)

    def total_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sums the parameters' gradients over the processes, in one exchange."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        totals = self.total(flat(gradients)).split([gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view_as(gradient))

    def wait(self) -> None:
        """Returns when every process is here."""
        if self._failed(False):
            raise Stopped

    def fails_first(self) -> bool:
        """Tells the others that this process has failed; whether it is the first by rank of those that have."""
        return self._failed(True)[0] == self.rank

    def end(self) -> None:
        """Leaves the group."""
        self._state.destroy_process_group()

    def _failed(self, this_one: bool) -> list[int]:
        """The ranks of the processes that have failed."""
        from accelerate.utils import gather

        own = torch.tensor([this_one], dtype=torch.int32, device=self._state.device)
        return _exchanged(lambda: gather(own)).nonzero().flatten().tolist()

    def _sent(self, tensors: Tensors) -> Tensors:
        content = torch.frombuffer(bytearray(save(_apart(tensors))), dtype=torch.uint8)
        self._broadcast(torch.tensor([len(content)]), self.rank)
        self._broadcast(content, self.rank)
        return tensors

    def _received(self, owner: int) -> Tensors:
        size = self._broadcast(torch.zeros(1, dtype=torch.int64), owner)
        return load(self._broadcast(torch.zeros(int(size), dtype=torch.uint8), owner).numpy().tobytes())

    def _broadcast(self, tensor: Tensor, owner: int) -> Tensor:
        from accelerate.utils import broadcast

        local = tensor.to(self._state.device)
        return _exchanged(lambda: broadcast(local, owner)).cpu()


@contextmanager
def launched(device: str) -> Iterator[None]:
    """Within the context, `processes.current` are those of the launcher, if it started more than one.

    `device`: where they work, such as cpu or cuda. When the context raises in one of them, it raises Stopped in the
    others. When one is gone, it raises ProcessLost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    signal.signal(signal.SIGTERM, _lost)
    processes = Launched(cpu=device == "cpu" or not torch.cuda.is_available())
    try:
        with sharing(processes):
            yield
            processes.wait()
    except Stopped:
        raise
    except ProcessLost as error:
        if processes.rank > 1:  # of the first two, one is left to say it
            raise Stopped from error
        raise
    except KeyboardInterrupt as error:  # which all get
        if processes.is_main:
            raise
        raise Stopped from error
    except Exception as error:
        if processes.fails_first():
            raise
        raise Stopped from error
    processes.end()
    atexit.register(_leave)


def _leave() -> None:
    """Ends the process: threads of gloo may outlive their group, and abort the interpreter's own way out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _lost(signum: int, frame: FrameType | None) -> None:
    raise ProcessLost(LOST)


def _exchanged(exchange: Callable[[], Tensor]) -> Tensor:
    try:
        return exchange()
    except RuntimeError as error:  # which is all that gloo and NCCL raise
        raise ProcessLost(f"{LOST} ({one_line(error)})") from error


def _apart(tensors: Tensors) -> Tensors:
    """Copies that share no memory, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
