"""The workflow on the model that ships that tries to bring back what was forgotten."""

from __future__ import annotations

from layout import arranged, columns, framed, lowered, part, under
from standard_graph import note
from tiny_parts import CATS, LOAD, OVERWRITE, RUN, SOLVE, THINGS, a, identity, loading, note_of
from workflow_graph import Graph, Output, Socket
from workflow_nodes import forgotten_by, judged, kept, node, number, preview, several, text, unlearn, whole

ATTACKS = (
    "plain",
    "wording changes=photo,drawing,bare",
    "img2img strengths=0.5,0.7",
    "embedding starts=1 steps=50",
    "relearning steps=5,20 rates=0.001",
)


def stays_forgotten() -> Graph:
    """Attacks on what UCE and OVW forgot."""
    first, second, third, fourth, fifth = columns(LOAD, 300, 300, 410, 340)
    load = loading()
    inputs = (
        Socket("base_model", "MODEL", load.loaded.model),
        Socket("clip", "CLIP", load.loaded.clip),
        Socket("vae", "VAE", load.loaded.vae),
        judged(load.loaded.judge, optional=False),
        *several(Output(2, 0), Output(3, 0)),
        text("names", "UCE", "OVW"),
        text("attacks", *ATTACKS),
        text("forget_prompts"),
        text("other_prompts", *map(a, THINGS[1:5])),
        whole("seed", 1000),
        whole("seeds", 2),
        whole("examples", 6),
        whole("steps", 15),
        number("cfg", 3),
        whole("width", 128),
        whole("height", 128),
        text("wordings", "a kitten", "a kitty"),
        kept("attacks")[0],
        forgotten_by(2),
    )
    outputs = {"HEAT": "IMAGE", "BACK": "IMAGE", "TABLE": "STRING", "JSON": "STRING"}
    heat = part(fifth, 0, 330)
    nodes = (
        *load.nodes,
        unlearn((2, lowered(second)), load.loaded, CATS, SOLVE, "UCE"),
        unlearn((3, lowered(third)), load.loaded, CATS, OVERWRITE, "OVW"),
        node((4, fourth), ("DoesItStayForgotten", "Does It Stay Forgotten"), inputs, outputs),
        preview((6, heat), Output(4, 0), "How much is back"),
        preview((7, under(heat, 560)), Output(4, 1), "Pictures that came back"),
    )
    told = note_of(
        "Try to bring it back",
        f"Makes a small model **forget cats in two ways**, then attacks both. {RUN}",
        "* **How much is back**: attacks down, models across. The base shows the most that an attack can bring back; "
        "its reversed column what it teaches from nothing. Near that column the concept is gone, near the base's it "
        "was only hidden.\n* **Pictures that came back**: see for yourself.",
        "About two minutes on two CPU cores.",
        "**forget_prompts** in both, and their other names in **wordings**; or **attacks**: one per line, with options "
        "that the node's help lists. More steps are a stronger attack.",
    )
    titles = ("1  Load", "2  Forget, one way", "3  Forget, another way", "4  Attack", "5  Look")
    return arranged(identity("attacks"), nodes, note(load, told), framed(titles, (first, second, third, fourth, fifth)))
