"""Processes that share the machine, for comparisons that take hours on one core."""

from __future__ import annotations

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

WORKERS = 2  # processes of one thread each, on a CPU of two cores


def add_machine(parser: argparse.ArgumentParser) -> None:
    """The arguments of `workers`."""
    parser.add_argument("--device", default="cpu", help="where networks compute, as torch names it; costs are a CPU's")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes, of one thread each")


def workers(args: argparse.Namespace) -> ProcessPoolExecutor:
    """Processes that share the machine."""
    return ProcessPoolExecutor(args.workers, get_context("spawn"), initializer=one_thread)


def start_log() -> None:
    """Progress on stderr, with the time."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def one_thread() -> None:
    """For a process that shares the machine with another."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # else convolutions on a GPU are not fp32's
    start_log()
