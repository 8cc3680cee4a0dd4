"""What ComfyUI sees: thin nodes over `unlearning_core`, and the only room that imports ComfyUI."""

from __future__ import annotations

from importlib import import_module

from comfy_api.latest import ComfyExtension, io

from ..unlearning_core.registry import only_subclass
from .host.folders import add_model_folders

NODES = (  # a module each, in the order of menus and documentation
    "tiny",
    "unlearn",
    "from_recipe",
    "save_patch",
    "load_patched",
    "retention",
    "forgetting",
    "quality",
    "compare",
    "attacks",
    "clip_judge",
    "diffusion_judge",
    "nudenet_judge",
)

add_model_folders()


class UnlearningExtension(ComfyExtension):
    """This pack's nodes, for ComfyUI."""

    async def on_load(self) -> None:
        """Adds the pack's route to the server."""
        from .host.stopping import add_route

        add_route()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes, in the order of NODES."""
        return [only_subclass(import_module(f".{name}", __name__), io.ComfyNode) for name in NODES]
