"""The small text-to-image model that ships: its files, its world of prompts and its judge."""

from __future__ import annotations

from pathlib import Path

MODEL = Path(__file__).parent / "model"  # a diffusers folder
