"""The model families that come with a workflow, and everything that is written for each of them.

A new family is one entry in FAMILIES; `python scripts/workflows.py` then writes its files and its row in README.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blocks import Block
from downloads import ROOT
from workflow_graph import Graph, Node, Note, Output, Socket, Widget, api_format, ui_format

WORKFLOWS = ROOT / "workflows"
README = ROOT / "README.md"
BLOCK = Block("families", "scripts/workflows.py")
FOLDERS = {  # below ComfyUI's models folder, by the widget that chooses a file there
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "vae_name": "vae",
}


@dataclass(frozen=True)
class Prompts:
    """What the workflow forgets: cats, drawn as dogs. The measured prompts are others than the trained ones."""

    forget: tuple[str, ...] = (
        "a photo of a cat",
        "a cat on a sofa",
        "a kitten in the grass",
        "a close-up portrait of a cat",
    )
    overwrite: tuple[str, ...] = (
        "a photo of a dog",
        "a dog on a sofa",
        "a puppy in the grass",
        "a close-up portrait of a dog",
    )
    retain: tuple[str, ...] = (
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
    )
    measured_retain: tuple[str, ...] = (
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
    )
    measured_forget: tuple[str, ...] = ("a photo of a cat", "a cat sleeping on a chair", "a black cat in a garden")


@dataclass(frozen=True)
class Training:
    """Unlearn Concept's values that differ between families. `size`: width and height in pixels; rank 0: no LoRA."""

    size: int
    learning_rate: float = 1e-4
    rank: int = 16
    batch_size: int = 1
    run_cfg: float = 3


@dataclass(frozen=True)
class Measuring:
    """Retention Metric's values that differ between families. `size`: width and height in pixels."""

    size: int
    cfg: float = 7
    scheduler: str = "normal"
    steps: int = 25
    seeds: int = 1
    forget_seeds: int = 2


@dataclass(frozen=True)
class Loading:
    """The nodes that load a family's files, which of their outputs is what, and where the note comes among them."""

    nodes: tuple[Node, ...]
    model: Output
    clip: Output
    vae: Output
    note_order: int = 0


def checkpoint(file: str) -> Loading:
    """One file with network, text encoders and VAE."""
    inputs = (Widget("ckpt_name", "COMBO", file),)
    outputs = {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"}
    loader = Node(1, "CheckpointLoaderSimple", "Load Checkpoint", (0, 460), (340, 110), inputs, outputs)
    return Loading((loader,), Output(1, 0), Output(1, 1), Output(1, 2), note_order=1)


def separate_files(network: str, text_encoders: tuple[str, str], kind: str, vae: str) -> Loading:
    """A file each for network and VAE, two for the text encoders; `kind` is DualCLIPLoader's type."""
    unet = (Widget("unet_name", "COMBO", network), Widget("weight_dtype", "COMBO", "default"))
    first, second = text_encoders
    clip = (
        Widget("clip_name1", "COMBO", first),
        Widget("clip_name2", "COMBO", second),
        Widget("type", "COMBO", kind),
        Widget("device", "COMBO", "default"),
    )
    nodes = (
        Node(1, "UNETLoader", "Load Diffusion Model", (0, 460), (340, 130), unet, {"MODEL": "MODEL"}),
        Node(6, "DualCLIPLoader", "Load CLIP (Dual)", (0, 640), (340, 130), clip, {"CLIP": "CLIP"}),
        Node(7, "VAELoader", "Load VAE", (0, 830), (340, 130), (Widget("vae_name", "COMBO", vae),), {"VAE": "VAE"}),
    )
    return Loading(nodes, Output(1, 0), Output(6, 0), Output(7, 0))


@dataclass(frozen=True)
class Family:
    """A model family: its files are workflows/`name`.json and .jpg and workflows/api/`name`.json.

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
    prompts: Prompts = Prompts()
    identity: str = ""


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
        loading=checkpoint("sd_xl_base_1.0.safetensors"),
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
            "flux1-dev.safetensors", ("clip_l.safetensors", "t5xxl_fp16.safetensors"), "flux", "ae.safetensors"
        ),
        memory="12 billion weights, 24 GB in bf16. On a 24 GB card set weight_dtype to fp8_e4m3fn, which takes 12 GB; "
        "the node says when that rounds the patch away. It trains at 512 x 512 and a guidance of 3.5.",
        training=Training(512, run_cfg=1.0),
        measuring=Measuring(1024, cfg=1.0, scheduler="simple", steps=20),
    ),
)


def graph(family: Family) -> Graph:
    """The family's workflow: load, unlearn, measure, save."""
    nodes = (*family.loading.nodes, _unlearn(family), _measure(family), _save())
    note = Note(5, (0, 0), (340, 400), _note(family), family.loading.note_order)
    return Graph(family.identity or f"unlearning/{family.name}", nodes, note)


def _unlearn(family: Family) -> Node:
    training, prompts = family.training, family.prompts
    inputs = (
        Socket("model", "MODEL", family.loading.model),
        Socket("clip", "CLIP", family.loading.clip),
        Widget("forget_prompts", "STRING", "\n".join(prompts.forget)),
        Widget("overwrite_prompt", "STRING", "\n".join(prompts.overwrite)),
        Widget("retain_prompts", "STRING", "\n".join(prompts.retain)),
        Widget("method", "COMFY_DYNAMICCOMBO_V3", "ovw"),
        Widget("method.help_weight", "FLOAT", 3),
        Widget("steps", "INT", 200),
        Widget("learning_rate", "FLOAT", training.learning_rate),
        Widget("weights", "COMBO", "method default"),
        Widget("rank", "INT", training.rank),
        Widget("alpha", "FLOAT", 0),
        Widget("seed", "INT", 0),
        Widget("width", "INT", training.size),
        Widget("height", "INT", training.size),
        Widget("batch_size", "INT", training.batch_size),
        Widget("runs", "INT", 16),
        Widget("run_steps", "INT", 20),
        Widget("run_cfg", "FLOAT", training.run_cfg),
    )
    outputs = {"MODEL": "MODEL", "PATCH": "UNLEARNING_PATCH"}
    return Node(2, "UnlearnConcept", "Unlearn Concept", (400, 0), (440, 860), inputs, outputs)


def _measure(family: Family) -> Node:
    measuring, prompts = family.measuring, family.prompts
    inputs = (
        Socket("base_model", "MODEL", family.loading.model),
        Socket("unlearned_model", "MODEL", Output(2, 0)),
        Socket("clip", "CLIP", family.loading.clip),
        Socket("vae", "VAE", family.loading.vae),
        Widget("retain_prompts", "STRING", "\n".join(prompts.measured_retain)),
        Widget("forget_prompts", "STRING", "\n".join(prompts.measured_forget)),
        Widget("seed", "INT", 1000),
        Widget("seeds", "INT", measuring.seeds),
        Widget("forget_seeds", "INT", measuring.forget_seeds),
        Widget("sampler_name", "COMBO", "euler"),
        Widget("scheduler", "COMBO", measuring.scheduler),
        Widget("steps", "INT", measuring.steps),
        Widget("cfg", "FLOAT", measuring.cfg),
        Widget("width", "INT", measuring.size),
        Widget("height", "INT", measuring.size),
        Socket("judge", "UNLEARNING_JUDGE", None, optional=True),
        Socket("patch", "UNLEARNING_PATCH", Output(2, 1), optional=True),
        Widget("backbone", "COMBO", "alex"),
        Widget("filename_prefix", "STRING", "unlearning/retention"),
        Widget("fresh_pictures", "BOOLEAN", False),
    )
    outputs = {
        "INTEGRITY": "FLOAT",
        "FORGET_DISTANCE": "FLOAT",
        "TABLE": "STRING",
        "JSON": "STRING",
        "SHEET": "IMAGE",
        "PATCH": "UNLEARNING_PATCH",
    }
    return Node(3, "RetentionMetric", "Retention Metric", (900, 0), (600, 1500), inputs, outputs)


def _save() -> Node:
    inputs = (Socket("patch", "UNLEARNING_PATCH", Output(3, 5)), Widget("filename_prefix", "STRING", "no-cat"))
    return Node(4, "SaveUnlearningPatch", "Save Unlearning Patch", (1560, 0), (320, 90), inputs, {})


def _note(family: Family) -> str:
    chosen = "checkpoint" if len(model_files(family)) == 1 else "files"
    paragraphs = (
        f"# {family.label}",
        f"Makes **{family.label} forget cats** and measures what that cost. Choose your {chosen} first, then press "
        "Run.",
        "**Look at the sheet** in Retention Metric: cats turn into dogs, the other pictures stay.",
        "**Look at I**, the integrity loss, in the table: 0 is the same picture, lower is better. For comparison, on "
        "the shipped model another seed of the same prompt gives 0.163, another prompt 0.569. The patch is saved in "
        "output/loras.",
        f"**Memory.** Training holds a second copy of the diffusion model: {family.memory} Unlearn Concept measures "
        "what it needs before it starts, saves memory by gradient checkpointing when it must, and stops with a message "
        "when that is not enough.",
    )
    return "\n\n".join(paragraphs) + "\n"


def model_files(family: Family) -> list[str]:
    """The files that the workflow loads, as paths below ComfyUI's models folder."""
    widgets = [widget for node in family.loading.nodes for widget in node.widgets]
    return [f"{FOLDERS[widget.name]}/{widget.value}" for widget in widgets if widget.name in FOLDERS]


def generated_texts(families: Sequence[Family] = FAMILIES) -> dict[Path, str]:
    """Every text file that is written for the families, with its content. README.md keeps what is outside the block.

    Raises ValueError when README.md has no block for them.
    """
    texts = {README: with_families(README.read_text(encoding="utf-8"), families)}
    for family in families:
        workflow = graph(family)
        texts[WORKFLOWS / f"{family.name}.json"] = json.dumps(ui_format(workflow), indent=2) + "\n"
        texts[WORKFLOWS / "api" / f"{family.name}.json"] = json.dumps(api_format(workflow), indent=2) + "\n"
    return texts


def with_families(readme: str, families: Sequence[Family]) -> str:
    """README.md's text with a table of the families between its two comments. Raises ValueError without them."""
    rows = ["| workflow | model | for the API |", "|---|---|---|", *map(_row, families)]
    return BLOCK.fill(readme, rows, README.name)


def _row(family: Family) -> str:
    file = f"{family.name}.json"
    return f"| [{file}](workflows/{file}) | {family.model} | [api/{file}](workflows/api/{file}) |"
