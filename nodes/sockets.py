"""Socket types of this pack."""

from __future__ import annotations

from comfy_api.latest import io

UnlearningPatch = io.Custom("UNLEARNING_PATCH")
UnlearningJudge = io.Custom("UNLEARNING_JUDGE")
