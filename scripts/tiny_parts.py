"""What the workflows on the model that ships are made of: its prompts, loader, sampling, and words for notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layout import part, under
from standard_graph import Loading
from workflow_graph import Box, Node, Output, Socket
from workflow_nodes import Loaded, Measuring, Prompts, Training, choice, node, number, text, whole

THINGS = [
    "dog face",
    "frog",
    "bear",
    "pig face",
    "octopus",
    "butterfly",
    "fish",
    "apple",
    "banana",
    "strawberry",
    "pizza",
    "hamburger",
    "car",
    "house",
    "rocket",
    "balloon",
    "umbrella",
    "guitar",
    "crown",
    "star",
    "sunflower",
    "cactus",
    "mushroom",
]
STYLES = ("noto", "twemoji", "fluent")
LABELS = (f"a {{}}: cat face, {', '.join(THINGS)}", f"{{}} style: {', '.join(STYLES)}")
LOAD = 260  # pixels: the width of the loader's column


def a(thing: str, style: str = "") -> str:
    """The model's prompt for a thing."""
    article = "an" if thing[0] in "aeiou" else "a"
    return f"{article} {thing} in {style} style" if style else f"{article} {thing}"


def in_turn(things: Sequence[str], first: int) -> tuple[str, ...]:
    """A prompt for each thing, in one style after the other."""
    return tuple(a(thing, STYLES[(first + index) % len(STYLES)]) for index, thing in enumerate(things))


def in_all_styles(thing: str) -> tuple[str, ...]:
    """A thing, without a style and in each."""
    return (a(thing), *(a(thing, style) for style in STYLES))


CATS = Prompts(
    forget=in_all_styles("cat face"),
    overwrite=in_all_styles("dog face"),
    retain=(*in_turn(THINGS, 0), *map(a, THINGS)),
    measured_retain=(*in_turn(THINGS, 1), a("dog face", "fluent")),
)
OVERWRITE = Training(128, learning_rate=1e-3, rank=0, batch_size=6, steps=100, options={"help_weight": 10})
SOLVE = replace(OVERWRITE, method="uce", options={"ridge": 0.5, "retain_weight": 1})
DRAWN = Measuring(128, cfg=3, scheduler="simple", seeds=2, forget_seeds=4)
SHOWN = replace(CATS, forget=CATS.forget[:1], overwrite=CATS.overwrite[:1])

RUN = "It needs no download: press **Run**."
SCALE = (
    "* **I**, the integrity loss: 0 is the same picture, lower is better. For comparison, another seed of the same "
    "prompt gives 0.167, another prompt 0.568."
)
SHARES = (
    "* **UA**: the share of forget pictures without a cat. **IRA** and **CRA**: the shares of other pictures that are "
    "still right.\n* What the base gets in brackets: the judge's own mistakes."
)
LABELLED = (
    "For your own model write its labels: one domain per line, a caption with {} in the label's place, a colon, and "
    "the labels."
)


def identity(name: str) -> str:
    """What the front end tells a workflow apart by."""
    return f"comfyui-unlearning/{name}"


def note_of(heading: str, does: str, look: str, time: str, change: str) -> str:
    """A note: what the workflow does, what to look at, how long it takes, what to change first."""
    parts = (f"# {heading}", does, "## Look at", look, "## How long", time, "## Change first", change)
    return "\n\n".join(parts) + "\n"


def takes(time: str) -> str:
    """How long a workflow takes."""
    return f"About {time} on two CPU cores. A second run draws only what is new."


def loading(width: int = LOAD) -> Loading:
    """Load Tiny T2I."""
    outputs = {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE", "JUDGE": "UNLEARNING_JUDGE"}
    loader = node((1, Box(0, 0, width, 130)), ("LoadTinyT2I", "Load Tiny T2I"), (), outputs)
    return Loading((loader,), width, Loaded(*(Output(1, index) for index in range(4))))


def encoded(place: Box, clip: Output, prompt: str, ids: tuple[int, int, int] = (10, 11, 12)) -> tuple[Node, ...]:
    """A prompt, the empty prompt and an empty latent in a column."""
    above = part(place, place.top, 110)
    between = under(above, 110)
    conditioning = {"CONDITIONING": "CONDITIONING"}
    size = (whole("width", 128), whole("height", 128), whole("batch_size", 8))
    names = ("CLIPTextEncode", "CLIP Text Encode (Prompt)")
    return (
        node((ids[0], above), names, (Socket("clip", "CLIP", clip), text("text", prompt)), conditioning),
        node((ids[1], between), names, (Socket("clip", "CLIP", clip), text("text", "")), conditioning),
        node((ids[2], under(between, 120)), ("EmptyLatentImage", "Empty Latent Image"), size, {"LATENT": "LATENT"}),
    )


def sampled(place: tuple[int, Box], model: Output, latent: int) -> Node:
    """KSampler under the prompts of `encoded`."""
    inputs = (
        Socket("model", "MODEL", model),
        Socket("positive", "CONDITIONING", Output(10, 0)),
        Socket("negative", "CONDITIONING", Output(11, 0)),
        Socket("latent_image", "LATENT", Output(latent, 0)),
        whole("seed", 0),
        whole("steps", 25),
        number("cfg", 3),
        choice("sampler_name", "euler"),
        choice("scheduler", "simple"),
        number("denoise", 1),
    )
    return node(place, ("KSampler", "KSampler"), inputs, {"LATENT": "LATENT"})


def decoded(place: tuple[int, Box], samples: Output, vae: Output) -> Node:
    """VAE Decode."""
    inputs = (Socket("samples", "LATENT", samples), Socket("vae", "VAE", vae))
    return node(place, ("VAEDecode", "VAE Decode"), inputs, {"IMAGE": "IMAGE"})


def shown(unlearning: Node, latents: Output) -> Node:
    """Unlearn Concept with pictures of what to forget."""
    sockets = (
        Socket("forget_latents", "LATENT", latents, optional=True),
        Socket("retain_latents", "LATENT", None, optional=True),
    )
    return replace(unlearning, inputs=(*unlearning.inputs, *sockets))
