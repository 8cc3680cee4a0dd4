"""The workflows on the model that ships, which need no download."""

from __future__ import annotations

from dataclasses import dataclass, replace

from layout import arranged, columns, framed, lowered, part, under
from standard_graph import FORGET, MEASURE, MEASURED, SHEET, UNLEARN, Standard, forget_and_measure, note
from tiny_attacks import stays_forgotten
from tiny_parts import (
    CATS,
    DRAWN,
    LABELLED,
    LABELS,
    LOAD,
    OVERWRITE,
    RUN,
    SCALE,
    SHARES,
    SHOWN,
    SOLVE,
    STYLES,
    THINGS,
    a,
    decoded,
    encoded,
    identity,
    in_turn,
    loading,
    note_of,
    sampled,
    shown,
    takes,
)
from workflow_graph import App, Box, Graph, Node, Output, Socket, Widget
from workflow_nodes import (
    Loaded,
    Measuring,
    Prompts,
    Training,
    choice,
    compared,
    drawn,
    forgotten_by,
    judged,
    kept,
    measured,
    node,
    number,
    preview,
    retention,
    several,
    text,
    unlearn,
)

BALANCED = "balanced"  # the preset that a new node begins with


@dataclass(frozen=True)
class Tiny:
    """A workflow: workflows/`title`.json and .jpg, and workflows/api/`name`.json. `told` is README.md's word for it.

    One with a `twin` differs from that workflow in what the front end shows alone, and shares its API file.
    """

    name: str
    title: str
    told: str
    graph: Graph
    twin: str = ""

    @property
    def label(self) -> str:
        """The title without its number and what stands in brackets."""
        return self.title.partition(" ")[2].partition(" (")[0]


def standard(
    name: str, prompts: Prompts, training: Training, measuring: Measuring, told: str, judged: bool = True
) -> Graph:
    """The workflow that forgets and measures. A judge asks for forget prompts that share one of its labels."""
    loader = loading() if judged else replace(loading(), loaded=loading().loaded._replace(judge=None))
    return forget_and_measure(Standard(identity(name), loader, prompts, training, measuring, name, told))


def concept() -> Graph:
    """A cat face becomes a dog face."""
    told = note_of(
        "Forget a concept",
        f"Makes **a small model forget cats**, and measures what that cost. {RUN}",
        f"* **Before, after, difference**: cat faces turn into dog faces, the other pictures stay.\n{SCALE}",
        takes("a minute"),
        "**forget_prompts** alone: write **a pizza**, alone or in several wordings. The lines about pizzas in the "
        "other boxes are left out by themselves. The patch is saved in output/loras; workflow 05 draws with it.",
    )
    other = CATS.overwrite[:1]  # one line for all, so that the forget prompts can be any others
    few = replace(CATS, overwrite=other, retain=in_turn(THINGS, 0), measured_retain=CATS.measured_retain[::2])
    training = replace(OVERWRITE, thoroughness=BALANCED, runs=4, run_steps=5)
    measuring = replace(DRAWN, steps=15, seeds=1, forget_seeds=2)
    return standard("quickstart", few, training, measuring, told)


def as_app() -> Graph:
    """The same as an app: four boxes, a button and the sheet."""
    captions = {
        (UNLEARN, "forget_prompts"): "What to forget",
        (UNLEARN, "overwrite_prompt"): "What to draw instead",
        (MEASURED, "forget_prompts"): "Drawn to see what is gone; empty: what you forget",
        (MEASURED, "retain_prompts"): "Drawn to see what stayed",
    }
    return replace(concept(), identity=identity("app"), app=App(captions, (SHEET,)))


def style() -> Graph:
    """Pictures in twemoji style come out in noto style."""
    taught, unseen, others = THINGS[:16], THINGS[16:], ("noto", "fluent")
    prompts = Prompts(
        forget=tuple(a(thing, "twemoji") for thing in taught),
        overwrite=tuple(a(thing, "noto") for thing in taught),
        retain=tuple(a(thing, style) for thing in taught for style in others),
        measured_retain=tuple(a(thing, style) for thing in unseen for style in others),
    )
    told = note_of(
        "Forget a style",
        f"Makes a small model **forget the style twemoji**: it draws noto instead. {RUN}",
        "* **Before, after, difference**: each thing comes out in noto style.\n"
        f"* **UA**: the share of pictures without the style.\n{SCALE}",
        takes("half a minute"),
        "The style in **forget_prompts**. With your own model write a line each for some things in the style, such as "
        "**a house by X** and **a portrait by X**.",
    )
    return standard("style", prompts, SOLVE, replace(DRAWN, seeds=1, forget_seeds=1), told)


def many() -> Graph:
    """Twenty things at once, each with a target of its own."""
    gone, targets = ("cat face", *THINGS[:19]), THINGS[19:]
    aims = [(thing, targets[index % len(targets)]) for index, thing in enumerate(gone)]
    everywhere = ("", *STYLES)
    prompts = Prompts(
        forget=tuple(f"{a(thing, style)} => {a(target, style)}" for thing, target in aims for style in everywhere),
        overwrite=(),
        retain=tuple(map(a, targets)),
        measured_retain=tuple(a(thing, style) for thing in targets for style in STYLES),
    )
    told = note_of(
        "Forget many concepts",
        f"Makes a small model **forget twenty things at once**, in closed form. {RUN}",
        "* **Before, after, difference**: each thing has turned into what stands behind its **=>**.\n"
        f"* **Forget distance** of each prompt, in the table.\n{SCALE}",
        takes("a minute"),
        "**forget_prompts**: a line for each concept, **what goes => what comes instead**. Put what must stay into "
        "**retain_prompts**.",
    )
    return standard("many", prompts, SOLVE, replace(DRAWN, steps=15, seeds=1, forget_seeds=1), told, judged=False)


def pictures() -> Graph:
    """What to forget is shown by pictures, here eight that the model draws itself."""
    first, second, third, fourth, fifth = columns(LOAD, 230, 270, 370, 440)
    load = loading()
    sample = part(lowered(third), lowered(third).top, 280)
    nodes = (
        *load.nodes,
        *encoded(lowered(second), load.loaded.clip, a("cat face")),
        sampled((13, sample), load.loaded.model, 12),
        shown(unlearn((2, lowered(fourth)), load.loaded, SHOWN, OVERWRITE, "Unlearn Concept"), Output(13, 0)),
        retention((3, fifth), load.loaded, 2, SHOWN, replace(DRAWN, forget_seeds=4)),
    )
    told = note_of(
        "Forget with pictures",
        f"Shows a small model **what to forget by pictures**; here it draws them itself. {RUN}",
        f"* **The sheet** in Retention Metric: cat faces turn into dog faces, the other pictures stay.\n{SCALE}",
        takes("a minute"),
        "Put **Load Image** and **VAE Encode** in place of KSampler, with pictures of the model's own size, and let "
        "**forget_prompts** say what they show.",
    )
    titles = ("1  Load", "2  Describe", "3  Pictures of what goes", "4  Forget", "5  Measure")
    places = (first, second, third, fourth, fifth)
    return arranged(identity("pictures"), nodes, note(load, told), framed(titles, places))


def patched() -> Graph:
    """Pictures of the base and of the patched model side by side."""
    first, second, third, fourth, fifth = columns(LOAD, 300, 290, 220, 440)
    load = loading()
    patch = part(lowered(second), lowered(second).top, 140)
    inputs = (
        Socket("model", "MODEL", load.loaded.model),
        choice("patch_file", "quickstart_00001_.safetensors"),
        number("strength", 1),
        Widget("check_base", "BOOLEAN", True),
    )
    loader = node(
        (2, patch),
        ("LoadPatchedModel", "Load Patched Model"),
        inputs,
        {"MODEL": "MODEL", "PATCH": "UNLEARNING_PATCH"},
    )
    rows = [patch.top, patch.top + 430]
    models = (load.loaded.model, Output(2, 0))
    drawing = [
        made
        for index, (model, top, title) in enumerate(zip(models, rows, ("Before", "After"), strict=True))
        for made in (
            sampled((20 + index, part(third, top, 280)), model, 12),
            decoded((30 + index, part(fourth, top, 60)), Output(20 + index, 0), load.loaded.vae),
            preview((40 + index, part(fifth, top, 350)), Output(30 + index, 0), title),
        )
    ]
    refused = part(patch, patch.top, 200)  # with the line under it while there is no file
    describing = encoded(under(refused, 400), load.loaded.clip, a("cat face", "noto"))
    told = note_of(
        "Draw with a patch that forgets",
        "Draws the same seeds **before and after** the patch that workflow 01 saves. Run that one first, press **R**, "
        "choose its file in Load Patched Model, then press **Run**.",
        "* **Before** and **After**: the same seeds, with and without the concept.",
        "Seconds.",
        "**strength**: 0 is the base, 1 is what was trained. ComfyUI's own Load LoRA opens the file too. With your own "
        "model use the checkpoint that the patch was trained on.",
    )
    titles = ("1  Load", "2  Patch and prompts", "3  Draw", "4  Decode", "5  Look")
    nodes = (*load.nodes, loader, *describing, *drawing)
    places = (first, second, third, fourth, fifth)
    return arranged(identity("patch"), nodes, note(load, told), framed(titles, places))


def compare() -> Graph:
    """OVW and ESD side by side."""
    first, second, third, fourth, fifth = columns(LOAD, 300, 300, 410, 340)
    load = loading()
    away = replace(CATS, overwrite=())
    further = replace(OVERWRITE, method="esd", options={"help_weight": 0, "eta": 1})
    inputs = (
        Socket("base_model", "MODEL", load.loaded.model),
        Socket("clip", "CLIP", load.loaded.clip),
        Socket("vae", "VAE", load.loaded.vae),
        *several(Output(2, 0), Output(3, 0)),
        text("names", "OVW", "ESD"),
        *measured(CATS),
        judged(load.loaded.judge),
        text("clip_model", "shipped"),
        Widget("fid", "BOOLEAN", False),
        *drawn(replace(DRAWN, seeds=1, forget_seeds=8)),
        choice("backbone", "alex"),
        *kept("comparison"),
        text("attacks"),
        forgotten_by(2),
    )
    outputs = {"SHEET": "IMAGE", "PLOT": "IMAGE", "TABLE": "STRING", "JSON": "STRING"}
    sheet = part(fifth, 0, 600)
    nodes = (
        *load.nodes,
        unlearn((2, lowered(second)), load.loaded, CATS, OVERWRITE, "OVW"),
        unlearn((3, lowered(third)), load.loaded, away, further, "ESD"),
        node((4, fourth), ("CompareMethods", "Compare Methods"), inputs, outputs),
        preview((6, sheet), Output(4, 0), "Sheet"),
        preview((7, under(sheet, 360)), Output(4, 1), "Plot"),
    )
    told = note_of(
        "Compare ways to forget",
        f"Makes a small model **forget cats in two ways**, OVW and ESD, and puts them side by side. {RUN}",
        "* **Sheet**: each prompt in a row, each model in a column.\n* **Plot**: best at the top left.\n"
        "* The table: **UA** is the share of cats that are gone; **I**, the integrity loss, is what that cost: lower "
        "is better. All figures are in output/unlearning.",
        takes("two minutes"),
        "**forget_prompts** in both, which Compare Methods takes from the first; or **method** in one of them. Up to "
        "100 models fit: connect one more.",
    )
    titles = ("1  Load", "2  Forget, one way", "3  Forget, another way", "4  Compare", "5  Look")
    return arranged(identity("compare"), nodes, note(load, told), framed(titles, (first, second, third, fourth, fifth)))


def forgetting(place: tuple[int, Box], loaded: Loaded, judge: Output) -> Node:
    """Forgetting Metric of what node 2 puts out."""
    inputs = (
        *compared(loaded, Output(2, 0)),
        judged(judge, optional=False),
        *measured(CATS),
        *drawn(replace(DRAWN, seeds=1, forget_seeds=2)),
        *kept("forgetting"),
        forgotten_by(2),
    )
    outputs = {"UA": "FLOAT", "IRA": "FLOAT", "CRA": "FLOAT", "TABLE": "STRING", "JSON": "STRING"}
    return node(place, ("ForgettingMetric", "Forgetting Metric"), inputs, outputs)


def clip_judge() -> Graph:
    """Counting with CLIP."""
    first, second, third = columns(LOAD, FORGET, MEASURE)
    load = loading()
    box = under(load.nodes[0].box, 270)
    judge = node(
        (3, box),
        ("CLIPJudge", "Zero-Shot CLIP Judge"),
        (text("clip_model", "shipped"), text("labels", *LABELS)),
        {"JUDGE": "UNLEARNING_JUDGE"},
    )
    loaders = replace(load, nodes=(*load.nodes, judge))
    nodes = (
        *loaders.nodes,
        unlearn((2, lowered(second)), load.loaded, CATS, OVERWRITE, "Unlearn Concept"),
        forgetting((4, third), load.loaded, Output(3, 0)),
    )
    told = note_of(
        "Forget and ask CLIP",
        f"Makes a small model **forget cats**, and lets CLIP count the cats that are left. {RUN}",
        SHARES,
        takes("a minute"),
        f"{LABELLED} The shipped CLIP model knows emoji only: choose another one.",
    )
    titles = ("1  Load", "2  Forget", "3  Count")
    return arranged(identity("clip_judge"), nodes, note(loaders, told), framed(titles, (first, second, third)))


def own_judge() -> Graph:
    """Counting with the base model itself."""
    first, second, third, fourth = columns(LOAD, 300, FORGET, MEASURE)
    load = loading()
    inputs = (
        Socket("base_model", "MODEL", load.loaded.model),
        Socket("clip", "CLIP", load.loaded.clip),
        Socket("vae", "VAE", load.loaded.vae),
        text("labels", *LABELS),
    )
    judge = node(
        (3, part(lowered(second), lowered(second).top, 330)),
        ("DiffusionClassifierJudge", "Diffusion Classifier Judge"),
        inputs,
        {"JUDGE": "UNLEARNING_JUDGE"},
    )
    nodes = (
        *load.nodes,
        judge,
        unlearn((2, lowered(third)), load.loaded, CATS, OVERWRITE, "Unlearn Concept"),
        forgetting((4, fourth), load.loaded, Output(3, 0)),
    )
    told = note_of(
        "Forget and ask the model",
        f"Makes a small model **forget cats**, and lets the base count what is left: no other weights. {RUN}",
        SHARES,
        takes("two minutes"),
        LABELLED,
    )
    titles = ("1  Load", "2  Judge", "3  Forget", "4  Count")
    places = (first, second, third, fourth)
    return arranged(identity("own_judge"), nodes, note(load, told), framed(titles, places))


def quality() -> Graph:
    """CLIPScore and Fréchet distances."""
    first, second, third = columns(LOAD, FORGET, MEASURE)
    load = loading()
    inputs = (
        *compared(load.loaded, Output(2, 0)),
        *measured(CATS),
        text("clip_model", "shipped"),
        Widget("fid", "BOOLEAN", False),
        *drawn(replace(DRAWN, seeds=1, forget_seeds=2)),
        *kept("quality"),
        forgotten_by(2),
    )
    outputs = {"CLIP_SCORE": "FLOAT", "FRECHET": "FLOAT", "TABLE": "STRING", "JSON": "STRING"}
    nodes = (
        *load.nodes,
        unlearn((2, lowered(second)), load.loaded, CATS, OVERWRITE, "Unlearn Concept"),
        node((3, third), ("CLIPScoreFrechet", "CLIPScore / Fréchet"), inputs, outputs),
    )
    told = note_of(
        "Forget, then CLIPScore and FID",
        f"Makes a small model **forget cats**, and measures what papers print. {RUN}",
        "* **CLIPScore**: how well the pictures fit their prompts, before and after.\n"
        "* **CMMD** and **Fréchet** distances of the two sets of pictures. More pictures make them surer.",
        takes("a minute"),
        "**clip_model**: the shipped one knows emoji only. **fid** needs Inception's weights.",
    )
    titles = ("1  Load", "2  Forget", "3  Measure")
    return arranged(identity("quality"), nodes, note(load, told), framed(titles, (first, second, third)))


TINY = (
    Tiny("quickstart", "01 Forget a concept (start here, no download)", "a concept", concept()),
    Tiny("app", "01 Forget a concept, as an app (no download)", "01 in app mode", as_app(), twin="quickstart"),
    Tiny("style", "02 Forget a style (no download)", "a style", style()),
    Tiny("many", "03 Forget many concepts (no download)", "twenty concepts at once", many()),
    Tiny("pictures", "04 Forget with pictures (no download)", "a concept that pictures show", pictures()),
    Tiny("patch", "05 Use a patch that forgets (no download)", "the patch of 01, with its strength", patched()),
    Tiny("compare", "06 Compare ways to forget (no download)", "OVW and ESD side by side", compare()),
    Tiny("clip_judge", "07 Forget and ask CLIP (no download)", "CLIP as the judge", clip_judge()),
    Tiny("own_judge", "08 Forget and ask the model (no download)", "the base model as the judge", own_judge()),
    Tiny("quality", "09 Forget, then CLIPScore and FID (no download)", "CLIPScore, CMMD, Fréchet", quality()),
    Tiny("attacks", "10 Forget, then try to bring it back (no download)", "attacks on two methods", stays_forgotten()),
)
