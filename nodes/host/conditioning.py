"""ComfyUI's conditioning of one prompt for the whole picture and all steps."""

from __future__ import annotations

from typing import Any

from comfy.sd import CLIP

from ...unlearning_core.prompts import quoted

LIMITS = ("area", "mask", "start_percent", "end_percent", "timestep_start", "timestep_end", "strength", "control")


def encode_prompt(clip: CLIP, prompt: str) -> list[Any]:
    """ComfyUI's conditioning for a prompt, as CLIPTextEncode makes it. Raises ValueError for one without tokens."""
    cond = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    if not cond or any(tokens is None for tokens, _ in cond):
        raise ValueError(
            f"clip: it gives no tokens for {quoted(prompt)}; connect the text encoder that belongs to the model"
        )
    return cond


def check_alone(cond: list[Any]) -> None:
    """Raises ValueError for a conditioning that is not one prompt for the whole picture and all steps."""
    [[_, extra], *later] = cond
    if any(entry.get("hooks") for _, entry in cond):
        raise ValueError(
            "clip: it carries hooks, which change with the sampling steps; connect the CLIP from before the node that "
            "adds them"
        )
    limits = [key for key in LIMITS if extra.get(key) is not None]
    if later or limits:
        what = f"a conditioning with {limits[0]}" if limits else f"{len(cond)} conditionings"
        raise ValueError(
            f"clip: it gives {what} for one prompt, and training is on one for the whole picture and all steps; "
            "connect the CLIP as its loader gives it"
        )
