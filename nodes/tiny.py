"""Load Tiny T2I: the model that ships with the pack."""

from __future__ import annotations

from comfy_api.latest import io

from ..unlearning_core.tiny import MODEL
from .host.folders import model_folders
from .host.tiny import load_clip, load_model, load_vae
from .sockets import UnlearningJudge


class LoadTinyT2I(io.ComfyNode):
    """MODEL, CLIP, VAE and JUDGE of the shipped model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadTinyT2I",
            display_name="Load Tiny T2I",
            category="unlearning/loaders",
            description=(
                "Loads the small text-to-image model that ships with this pack: 128 x 128 pictures of 24 things "
                "in three emoji styles, for prompts like 'a frog in noto style'. It needs no download and works "
                "with KSampler, CLIP Text Encode, VAE Decode and the LoRA loaders. "
                "JUDGE names the thing and the style that a picture of this model shows."
            ),
            search_aliases=["tiny model", "small text-to-image model", "emoji model", "load checkpoint", "unlearning"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The denoiser: v-prediction, latents [B, 4, H/8, W/8]."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder: it knows the words it was trained on."),
                io.Vae.Output(display_name="VAE", tooltip="The autoencoder, in TAESD's architecture."),
                UnlearningJudge.Output(display_name="JUDGE", tooltip="Names what a picture of this model shows."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..unlearning_core.tiny.judge import Judge

        judge = Judge.load(folders=model_folders("lpips"))
        return io.NodeOutput(load_model(MODEL), load_clip(MODEL), load_vae(MODEL), judge)
