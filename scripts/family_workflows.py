"""The model families that come with a workflow, and everything that is written for each of them.

A new family is one entry in FAMILIES; `python scripts/workflows.py` then writes its files and its row in README.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from layout import GAP, under
from standard_graph import Loading
from workflow_graph import Box, Download, Node, Output, Socket, Widget
from workflow_nodes import Loaded, Measuring, Prompts, Training

LOADERS, ALONE, SHIFT = 260, 420, 225  # pixels: widths of loaders, beside what shifts the noise levels or alone

FOLDERS = {  # below ComfyUI's models folder, by the widget that chooses a file there
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "vae_name": "vae",
}


def checkpoint(file: str) -> Loading:
    """One file with network, text encoders and VAE; an address is one from which ComfyUI offers to download it."""
    inputs = (Widget("ckpt_name", "COMBO", _name(file)),)
    outputs = {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"}
    box, downloads = Box(0, 0, LOADERS, 110), _from("ckpt_name", file)
    loader = Node(1, "CheckpointLoaderSimple", "Load Checkpoint", box, inputs, outputs, downloads)
    return Loading((loader,), LOADERS, Loaded(Output(1, 0), Output(1, 1), Output(1, 2)))


def separate_files(network: str, text_encoders: tuple[str, ...], kind: str, vae: str, shift: float = 0) -> Loading:
    """A file each for network and VAE, one or two for the text encoders, whose loader's type is `kind`.

    Files may be addresses, from which ComfyUI offers to download them. With `shift` the noise levels are shifted.
    """
    unet = (Widget("unet_name", "COMBO", _name(network)), Widget("weight_dtype", "COMBO", "default"))
    names = ("clip_name",) if len(text_encoders) == 1 else ("clip_name1", "clip_name2")
    files = tuple(Widget(name, "COMBO", _name(file)) for name, file in zip(names, text_encoders, strict=True))
    clip = (*files, Widget("type", "COMBO", kind), Widget("device", "COMBO", "default"))
    clip_type, title = ("CLIPLoader", "Load CLIP") if len(files) == 1 else ("DualCLIPLoader", "Load CLIP (Dual)")
    model = Box(0, 0, LOADERS if shift else ALONE, 100)
    encoders = under(model, 140)
    networks = _from("unet_name", network)
    nodes = [
        Node(1, "UNETLoader", "Load Diffusion Model", model, unet, {"MODEL": "MODEL"}, networks),
        Node(6, clip_type, title, encoders, clip, {"CLIP": "CLIP"}, _from("clip_name", *text_encoders)),
        Node(
            7,
            "VAELoader",
            "Load VAE",
            under(encoders, 70),
            (Widget("vae_name", "COMBO", _name(vae)),),
            {"VAE": "VAE"},
            _from("vae_name", vae),
        ),
    ]
    if not shift:
        return Loading(tuple(nodes), model.width, Loaded(Output(1, 0), Output(6, 0), Output(7, 0)))
    shifted = (Socket("model", "MODEL", Output(1, 0)), Widget("shift", "FLOAT", shift))
    box = Box(model.right + GAP, 0, SHIFT, 70)
    nodes.append(Node(8, "ModelSamplingAuraFlow", "ModelSamplingAuraFlow", box, shifted, {"MODEL": "MODEL"}))
    return Loading(tuple(nodes), box.right, Loaded(Output(8, 0), Output(6, 0), Output(7, 0)))


def _name(file: str) -> str:
    """Of a file or an address."""
    return file.rpartition("/")[2]


def _from(widget: str, *files: str) -> tuple[Download, ...]:
    """Those of a widget's files that are addresses."""
    return tuple(Download(_name(file), file, FOLDERS[widget]) for file in files if "/" in file)


PHOTOS = Prompts(
    forget=(
        "a photo of a cat",
        "a cat on a sofa",
        "a kitten in the grass",
        "a close-up portrait of a cat",
    ),
    overwrite=(
        "a photo of a dog",
        "a dog on a sofa",
        "a puppy in the grass",
        "a close-up portrait of a dog",
    ),
    retain=(
        "a photo of a horse",
        "a photo of a rabbit",
        "a fox in the snow",
        "a lion resting under a tree",
        "a bird on a branch",
        "a goldfish in a bowl",
        "a portrait of a woman",
        "a man riding a bicycle",
        "a red car on a street",
        "a cabin in the mountains",
        "a bowl of fruit on a table",
        "a sailing boat at sunset",
    ),
    measured_retain=(
        "a photo of a cow",
        "a photo of a bear",
        "a tiger in tall grass",
        "a squirrel eating a nut",
        "an owl at night",
        "a photo of a dog",
        "a portrait of an old man",
        "a child flying a kite",
        "a train at a station",
        "a lighthouse by the sea",
        "a slice of pizza on a plate",
        "a vase of flowers by a window",
    ),
)


@dataclass(frozen=True)
class Family:
    """A model family: its files are workflows/api/`name`.json, and .json and .jpg in workflows/ under its title.

    `model` is README.md's word for what to load. `memory` follows "Training holds a second copy of the diffusion
    model:" in the note. `identity` is what the front end tells workflows apart by, and must never change.
    """

    name: str
    label: str
    model: str
    loading: Loading
    memory: str
    training: Training
    measuring: Measuring
    prompts: Prompts = PHOTOS
    identity: str = ""
    advice: str = ""  # a paragraph of the note


HUB = "https://huggingface.co"
ENCODERS = f"{HUB}/comfyanonymous/flux_text_encoders/resolve/main"
QWEN = f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files"

DISTILLED = (
    "**Distilled.** This model is sampled in few steps without guidance, for training too: **run_steps** and "
    "**run_cfg** are the sampler's own."
)

TAGS = Prompts(
    forget=("cat, no humans", "cat, sitting, sofa, indoors", "kitten, grass, outdoors", "cat, close-up, portrait"),
    overwrite=("dog, no humans", "dog, sitting, sofa, indoors", "puppy, grass, outdoors", "dog, close-up, portrait"),
    retain=(
        "horse, no humans",
        "rabbit, no humans",
        "fox, snow, outdoors",
        "lion, tree, outdoors",
        "bird, branch",
        "1girl, solo, portrait, smile",
        "1boy, solo, bicycle, outdoors",
        "car, street, no humans",
        "house, mountain, scenery, no humans",
        "fruit, bowl, table, still life",
        "boat, ocean, sunset, scenery",
        "flower, vase, window",
    ),
    measured_retain=(
        "cow, no humans",
        "bear, no humans",
        "tiger, grass, outdoors",
        "squirrel, no humans",
        "owl, night",
        "dog, no humans",
        "1girl, solo, standing, school uniform",
        "1boy, solo, hat, upper body",
        "train, station, scenery",
        "lighthouse, ocean, scenery",
        "pizza, plate, food focus",
        "city, night, skyline, scenery",
    ),
)

FAMILIES = (
    Family(
        name="sd15",
        label="Stable Diffusion 1.5",
        model="a Stable Diffusion 1.5 checkpoint",
        loading=checkpoint("v1-5-pruned-emaonly.safetensors"),
        memory="0.86 billion weights, 1.7 GB in fp16. Less: rank 16, a smaller batch_size, or a smaller width and "
        "height.",
        training=Training(512, learning_rate=5e-5, rank=0, batch_size=2),
        measuring=Measuring(512, seeds=2, forget_seeds=4),
        identity="comfyui-unlearning/sd15",
    ),
    Family(
        name="sd21",
        label="Stable Diffusion 2.1",
        model="a Stable Diffusion 2.1 checkpoint (v-prediction)",
        loading=checkpoint("v2-1_768-ema-pruned.safetensors"),
        memory="0.87 billion weights, 1.7 GB in fp16. Less: rank 16, a smaller batch_size, or a smaller width and "
        "height.",
        training=Training(768, learning_rate=5e-5, rank=0, batch_size=2),
        measuring=Measuring(768, seeds=2, forget_seeds=4),
    ),
    Family(
        name="sdxl",
        label="Stable Diffusion XL",
        model="a Stable Diffusion XL checkpoint",
        loading=checkpoint(f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"),
        memory="2.6 billion weights, 5.1 GB in fp16. The LoRA of rank 16 takes little beside it; full deltas (rank 0) "
        "of cross_attention_kv take 5.5 GB more. Less: a smaller width and height.",
        training=Training(1024),
        measuring=Measuring(1024),
    ),
    Family(
        name="sd3",
        label="Stable Diffusion 3.5 Medium",
        model="a Stable Diffusion 3.5 Medium checkpoint",
        loading=checkpoint("sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"),
        memory="2.5 billion weights, 5 GB in bf16 or fp16. The LoRA of rank 16 takes little beside it. Less: a smaller "
        "width and height.",
        training=Training(1024, run_cfg=4.5),
        measuring=Measuring(1024, cfg=4.5, scheduler="simple"),
    ),
    Family(
        name="flux",
        label="FLUX.1 dev",
        model="FLUX.1 dev: network, text encoders and VAE",
        loading=separate_files(
            "flux1-dev.safetensors",
            (f"{ENCODERS}/clip_l.safetensors", f"{ENCODERS}/t5xxl_fp16.safetensors"),
            "flux",
            "ae.safetensors",
        ),
        memory="12 billion weights, 24 GB in bf16. On a 24 GB card set weight_dtype to fp8_e4m3fn, which takes 12 GB; "
        "the node says when that rounds the patch away. It trains at 512 x 512 and a guidance of 3.5.",
        training=Training(512, run_cfg=1.0),
        measuring=Measuring(1024, cfg=1.0, scheduler="simple", steps=20),
    ),
    Family(
        name="sd35_large",
        label="Stable Diffusion 3.5 Large",
        model="a Stable Diffusion 3.5 Large checkpoint",
        loading=checkpoint(f"{HUB}/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/sd3.5_large_fp8_scaled.safetensors"),
        memory="8 billion weights, 16 GB in bf16. Less: a smaller width and height.",
        training=Training(512, run_cfg=3.5),
        measuring=Measuring(1024, cfg=3.5, scheduler="simple", steps=28),
    ),
    Family(
        name="illustrious",
        label="Illustrious XL",
        model="an Illustrious or NoobAI checkpoint, or another SDXL that is prompted by tags",
        loading=checkpoint("Illustrious-XL-v1.0.safetensors"),
        memory="2.6 billion weights, 5.1 GB in fp16. The LoRA of rank 16 takes little beside it. Less: a smaller width "
        "and height.",
        training=Training(1024, run_cfg=5.5),
        measuring=Measuring(1024, cfg=5.5, steps=28),
        prompts=TAGS,
    ),
    Family(
        name="z_image",
        label="Z-Image Turbo",
        model="Z-Image Turbo: network, text encoder and VAE",
        loading=separate_files(
            f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/diffusion_models/z_image_turbo_bf16.safetensors",
            (f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",),
            "lumina2",
            f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/vae/ae.safetensors",
            shift=3,
        ),
        memory="6 billion weights, 12 GB in bf16. Less: a smaller width and height.",
        training=Training(512, run_cfg=1, run_steps=8, weights="attention"),
        measuring=Measuring(1024, cfg=1, scheduler="simple", steps=8),
        advice=DISTILLED,
    ),
    Family(
        name="qwen_image",
        label="Qwen-Image",
        model="Qwen-Image: network, text encoder and VAE",
        loading=separate_files(
            f"{QWEN}/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
            (f"{QWEN}/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",),
            "qwen_image",
            f"{QWEN}/vae/qwen_image_vae.safetensors",
            shift=3.1,
        ),
        memory="20 billion weights, 20 GB in fp8, 41 GB in bf16. Less: a smaller width and height.",
        training=Training(512, run_cfg=4),
        measuring=Measuring(1328, cfg=4, scheduler="simple", steps=50),
    ),
    Family(
        name="flux2_klein",
        label="FLUX.2 Klein 4B",
        model="FLUX.2 Klein 4B: network, text encoder and VAE",
        loading=separate_files(
            f"{HUB}/Comfy-Org/flux2-klein/resolve/main/split_files/diffusion_models/flux-2-klein-4b.safetensors",
            (f"{HUB}/Comfy-Org/flux2-klein/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",),
            "flux2",
            f"{HUB}/Comfy-Org/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors",
        ),
        memory="4 billion weights, 8 GB in bf16. Less: a smaller width and height.",
        training=Training(512, run_cfg=1, run_steps=4),
        measuring=Measuring(1024, cfg=1, scheduler="simple", steps=4),
        advice=DISTILLED,
    ),
    Family(
        name="chroma",
        label="Chroma1 HD",
        model="Chroma1 HD: network, T5 and VAE",
        loading=separate_files(
            f"{HUB}/Comfy-Org/Chroma1-HD_repackaged/resolve/main/split_files/diffusion_models/"
            "Chroma1-HD-fp8mixed.safetensors",
            (f"{ENCODERS}/t5xxl_fp8_e4m3fn_scaled.safetensors",),
            "chroma",
            f"{HUB}/Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors",
            shift=1,
        ),
        memory="8.9 billion weights, 18 GB in bf16. Less: a smaller width and height.",
        training=Training(512, run_cfg=3),
        measuring=Measuring(1024, cfg=3, scheduler="simple", steps=40),
    ),
)
