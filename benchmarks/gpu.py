"""Training on a GPU, on networks of true size with random weights: `python -m benchmarks.gpu [--json FILE]`.

In ComfyUI's own classes, with random numbers in the place of a text encoder, so that nothing is downloaded. ESD trains
the cross-attention of a MODEL through the private copy that the node trains; the reference is the loop that
`benchmarks.esd_reference` describes, through two such copies.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pack_in_process import Pack, import_pack
from benchmarks.processes import ROOT, write_figures
from benchmarks.true_size import SIZES, StandIn, random_model

SIDES = {"SD1.5": 512, "SDXL": 1024}  # pixels, as these models draw
BATCHES = (1, 2, 4, 8, 16)
GRAPHED = (1, 8)  # of these, to see how much of a step is launches
STEPS, WARM = 16, 8  # that are timed, after so many
PASSES = 6  # as Python launches them, and as a graph
RUNS, RUN_STEPS = 4, 4  # of the bank: its pictures do not matter here
ITERATIONS = 200  # of the two whole runs that are set side by side
MATRIX = 8192
REFERENCE_DONE = 25  # steps of the reference's partial denoise, which is the mean of its random numbers
GB = 2**30


def matmul_rate() -> float:
    """Floating-point operations a second of this GPU's bf16 matrix products: the median of 20."""
    one, other = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        one @ other
    seconds = [timed(lambda: one @ other) for _ in range(20)]
    return 2 * MATRIX**3 / statistics.median(seconds)


def timed(work: Callable[[], Any]) -> float:
    """Seconds until the GPU is done with it."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


class Clock:
    """Notes when the training steps end, for `Reporter`."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, progress: Any) -> None:
        """A step more: every STEPS-th waits for the GPU, so that others may queue up as in a real run."""
        if len(self.ends) + 1 in (WARM, WARM + STEPS):
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of a step, after the first ones."""
        return (self.ends[WARM + STEPS - 1] - self.ends[WARM - 1]) / STEPS


class Run:
    """ESD on one network in the pack's host."""

    def __init__(self, pack: Pack, name: str) -> None:
        self.core = {
            part: pack(f"unlearning_core.{part}")
            for part in ("bank", "methods", "progress", "prompts", "settings", "unlearn")
        }
        self.memory = pack("nodes.host.memory")
        self.unlearning = pack("nodes.host.unlearning")
        self.side = SIDES[name]
        self.model, self.clip = random_model(name, "cuda"), StandIn(SIZES[name])
        self.method = self.core["methods"].METHODS["esd"]()
        self.prompts = self.core["prompts"].Prompts(("forget",), ("overwrite",), ("retain",))

    def opened(self) -> Any:
        """A private copy to train."""
        return self.unlearning.opened(self.model, self.clip, self.method)

    def settings(self, batch: int, steps: int) -> Any:
        """Of one training."""
        return self.core["settings"].Settings(
            steps=steps,
            width=self.side,
            height=self.side,
            batch_size=batch,
            runs=RUNS,
            run_steps=RUN_STEPS,
            weights=self.method.weights,
        )

    def trained(self, host: Any, batch: int, bank: Any) -> dict[str, float]:
        """Seconds of a step at this batch size, memory, and the node's estimate of it."""
        torch.cuda.empty_cache()
        settings, clock = self.settings(batch, WARM + STEPS), Clock()
        need = self.memory.make_room(host, self.method, settings, ["forget", "overwrite", "retain", ""])
        self._train(host, self.settings(batch, 1), bank, lambda progress: None)  # kernels keep some memory
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self._train(host, settings, bank, clock)
        return {
            "step ms": 1000 * clock.seconds,
            "network calls a second": 1 / clock.seconds,
            "latents a second": batch / clock.seconds,
            "peak GB above the copy": (torch.cuda.max_memory_allocated() - before) / GB,
            "estimated GB": need.extra / GB,
            "reserved GB": torch.cuda.max_memory_reserved() / GB,
            "checkpointing": float(host.backward.checkpointing),
        }

    def _train(self, host: Any, settings: Any, bank: Any, on_progress: Any) -> None:
        unlearn, report = self.core["unlearn"], self.core["progress"].Reporter(on_progress, 0)
        deltas = unlearn.new_deltas(host, settings)
        unlearn.fit(self.method, unlearn.new_training(host, bank, deltas, settings, None, report))

    def bank(self, host: Any) -> tuple[Any, float]:
        """Latents to train on, and seconds of the base for one latent's two predictions."""
        settings = self.settings(1, 1)
        sources = self.core["bank"].bank_sources(self.method.needs, self.prompts, settings.bank)
        make = self.core["bank"].make_bank
        made = make(host, sources, settings.sampling, lambda: None)
        seconds = timed(lambda: make(host, sources, settings.sampling, lambda: None))
        return made, seconds / (RUNS * RUN_STEPS)

    def asked(self, host: Any, batch: int) -> tuple[Any, Any, Any]:
        """What a call of the network reads: latents, noise levels, conditioning."""
        x, sigma = host.noise(range(batch), self.side, self.side), host.sigmas(2)[:1].repeat(batch)
        return x, sigma, host.encode(["forget"] * batch)

    def flops(self, host: Any) -> tuple[float, float]:
        """Of a forward pass of one latent, and of a training step with it."""
        deltas = self.core["unlearn"].new_deltas(host, self.settings(1, 1))
        x, sigma, conds = self.asked(host, 1)
        with torch.no_grad(), FlopCounterMode(display=False) as forward:
            host.predict_x0(x, sigma, conds)
        with host.attach(deltas), FlopCounterMode(display=False) as step:
            host.predict_x0(x, sigma, conds).sum().backward()
        return float(forward.get_total_flops()), float(step.get_total_flops())

    def passes(self, host: Any, batch: int) -> dict[str, float]:
        """Milliseconds of a forward and a backward pass: as Python launches them, and as one CUDA graph."""
        deltas = self.core["unlearn"].new_deltas(host, self.settings(1, 1))
        parameters = [parameter for delta in deltas.values() for parameter in delta.parameters()]
        x, sigma, conds = self.asked(host, batch)

        def both() -> None:
            host.predict_x0(x, sigma, conds).sum().backward(inputs=parameters)

        with host.attach(deltas):
            launched = [timed(both) for _ in range(PASSES)]
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                both()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                both()
            replayed = [timed(graph.replay) for _ in range(PASSES)]
        return {"launched ms": 1000 * statistics.median(launched), "graph ms": 1000 * statistics.median(replayed)}

    def reference(self, base: Any) -> dict[str, float]:
        """Seconds of one step of the reference loop, with a run of the mean length."""
        from benchmarks.esd_reference import reference_loss

        with self.opened() as trained:
            deltas = self.core["unlearn"].new_deltas(trained, self.settings(1, 1))
            parameters = [parameter for delta in deltas.values() for parameter in delta.parameters()]
            optimizer = torch.optim.Adam(parameters, lr=1e-5)
            generator = torch.Generator().manual_seed(0)

            def step() -> None:
                loss = reference_loss(base, trained, "forget", generator, self.side, REFERENCE_DONE)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

            with trained.attach(deltas):
                timed(step)
                return {"step ms": 1000 * statistics.median(timed(step) for _ in range(3))}


def measure(pack: Pack, name: str, rate: float) -> dict[str, Any]:
    """All figures of one network."""
    run = Run(pack, name)
    with torch.inference_mode(False), torch.enable_grad():
        with run.opened() as host:
            precision = str(host.patcher.model.get_dtype_inference())
            bank, seconds = run.bank(host)
            forward, step = run.flops(host)
            rows = {}
            for batch in BATCHES:
                row = run.trained(host, batch, bank)
                row["share of the matmul rate"] = batch * step / (row["step ms"] / 1000) / rate
                rows[batch] = row
                print(name, batch, {key: round(value, 3) for key, value in row.items()}, flush=True)
        with run.opened() as host:
            reference = run.reference(host)
            passes = {batch: run.passes(host, batch) for batch in GRAPHED}
    defaults = run.core["settings"].Settings()
    ours = defaults.runs * defaults.run_steps * seconds + ITERATIONS * rows[1]["step ms"] / 1000
    return {
        "side": run.side,
        "precision": precision.removeprefix("torch."),
        "forward FLOPs": forward,
        "step FLOPs": step,
        "step in forward passes": step / forward,
        "bank ms a latent": 1000 * seconds,
        "batches": rows,
        "reference": reference,
        "passes": passes,
        "speedup of the whole run": ITERATIONS * reference["step ms"] / 1000 / ours,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Training on a GPU.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--networks", nargs="+", choices=SIDES, default=[*SIDES])
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a GPU that torch.cuda finds.")
    sys.path.insert(0, str(ROOT / "scripts"))
    from comfyui import find_comfyui

    pack = import_pack(find_comfyui(Path(sys.executable)), cpu=False)
    rate = matmul_rate()
    card = torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}: bf16 matrix products at {rate / 1e12:.0f} TFLOP/s", flush=True)
    figures: dict[str, Any] = {"card": card, "torch": torch.__version__, "matmul FLOP/s": rate}
    for name in args.networks:
        figures[name] = measure(pack, name, rate)
        print(name, json.dumps({key: value for key, value in figures[name].items() if key != "batches"}), flush=True)
        write_figures(figures, args.json)


if __name__ == "__main__":
    main()
