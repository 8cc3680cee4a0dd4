"""Make the before/after pictures anew: `python scripts/pictures.py`, or of some workflows, `… quickstart style`.

Each workflow that needs no download trains in a headless ComfyUI, which then draws the same prompts from the same seed
before and after: that is its thumbnail. The quickstart also gives docs/pictures/quickstart.jpg and icon.png. Run it
with the Python of .venv.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from comfyui import Server
from downloads import ROOT
from PIL import Image
from quickstart import in_comfyui
from workflow_files import TINY_WORKFLOWS, Workflow
from workflow_thumbnails import comparison, strip

FOLDER = ROOT / "docs" / "pictures"
TRAINED_BY = {"patch": "quickstart"}  # the workflow whose patch another one loads
SIDE = 128  # pixels of the shipped model's pictures
SAMPLING = {"seed": 1000, "steps": 25, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}

Prompt = dict[str, dict[str, Any]]  # a workflow in API format
Columns = Mapping[str, Sequence[Image.Image]]  # a model's name -> what it draws


class Trained(NamedTuple):
    """A workflow's Unlearn Concept nodes, by their names on the picture, and a prompt to draw for each picture."""

    nodes: Mapping[str, str]
    prompts: Sequence[str]


def prompt_of(workflow: Workflow) -> Prompt:
    """The workflow in API format; of one that loads a patch, the workflow that trains it."""
    name = TRAINED_BY.get(workflow.name)
    file = workflow.api_file.with_stem(name) if name else workflow.api_file
    prompt: Prompt = json.loads(file.read_text(encoding="utf-8"))
    return prompt


def trained(prompt: Prompt, count: int) -> Trained:
    """`count` prompts of what goes, from all over the list, and of what stays as many, or more where those are few."""
    nodes = {name: entry["_meta"]["title"] for name, entry in prompt.items() if entry["class_type"] == "UnlearnConcept"}
    headings = list(nodes.values()) if len(nodes) > 1 else ["after"]
    measuring = next(
        entry["inputs"] for entry in prompt.values() if "seeds" in entry["inputs"] or "forget_seeds" in entry["inputs"]
    )
    training = prompt[next(iter(nodes))]["inputs"]
    gone = [line.split("=>")[0].strip() for line in training["forget_prompts"].splitlines()]
    kept = (measuring.get("retain_prompts") or measuring["other_prompts"]).splitlines()
    middle = len(kept) // 2  # what comes in place of what goes is often first
    some = gone[:: max(len(gone) // count, 1)][:count]
    prompts = [*some, *kept[middle : middle + 2 * count - len(some)]]
    return Trained(dict(zip(headings, nodes, strict=True)), prompts)


def drawing(prompt: Prompt, shown: Trained) -> Prompt:
    """The workflow's training alone, and nodes `model/index` that draw the prompts with each model."""
    first = prompt[next(iter(shown.nodes.values()))]["inputs"]
    models = {"before": first["model"], **{name: [node, 0] for name, node in shown.nodes.items()}}
    kept = {name for node in shown.nodes.values() for name in _ancestors(prompt, node)}
    drawn: Prompt = {name: prompt[name] for name in sorted(kept)}
    drawn["size"] = _node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1)
    drawn["empty"] = _node("CLIPTextEncode", clip=first["clip"], text="")
    for index, text in enumerate(shown.prompts):
        drawn[f"text {index}"] = _node("CLIPTextEncode", clip=first["clip"], text=text)
        for name, model in models.items():
            conditions = {"positive": [f"text {index}", 0], "negative": ["empty", 0], "latent_image": ["size", 0]}
            place = f"{name}/{index}"
            drawn[f"{place} sampled"] = _node("KSampler", model=model, **conditions, **SAMPLING)
            vae = [first["clip"][0], 2]
            drawn[f"{place} decoded"] = _node("VAEDecode", samples=[f"{place} sampled", 0], vae=vae)
            drawn[place] = _node("PreviewImage", images=[f"{place} decoded", 0])
    return drawn


def _ancestors(prompt: Prompt, node: str) -> Iterator[str]:
    """A node, and all that lead into it."""
    yield node
    for value in prompt[node]["inputs"].values():
        if isinstance(value, list):
            yield from _ancestors(prompt, value[0])


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def columns(server: Server, entry: dict[str, Any], shown: Trained) -> Columns:
    """The pictures that a history entry of `drawing` names."""
    return {
        name: [_picture(server, entry["outputs"][f"{name}/{index}"]) for index in range(len(shown.prompts))]
        for name in ("before", *shown.nodes)
    }


def _picture(server: Server, output: dict[str, Any]) -> Image.Image:
    [file] = output["images"]
    return Image.open(io.BytesIO(server.download(file))).convert("RGB")


def draw(server: Server, workflow: Workflow, count: int) -> tuple[Sequence[str], Columns]:
    """The workflow's prompts and pictures: `count` of what goes, and as many of what stays."""
    prompt = prompt_of(workflow)
    shown = trained(prompt, count)
    return shown.prompts, columns(server, server.run(drawing(prompt, shown)), shown)


def write_thumbnail(server: Server, workflow: Workflow) -> None:
    """The workflow's thumbnail: something that goes, and something that stays."""
    _, pictures = draw(server, workflow, 1)
    workflow.thumbnail.write_bytes(comparison(workflow.label, pictures))
    print(workflow.thumbnail.relative_to(ROOT), flush=True)


def write_front_page(server: Server, quickstart: Workflow) -> None:
    """README.md's picture, and an icon that is half before and half after."""
    prompts, pictures = draw(server, quickstart, 3)
    (FOLDER / "quickstart.jpg").write_bytes(strip(prompts, pictures))
    halved(pictures["before"][0], pictures["after"][0]).resize((400, 400)).save(FOLDER / "icon.png")


def halved(left: Image.Image, right: Image.Image) -> Image.Image:
    """The left half of one picture beside the right half of another of the same size."""
    both = left.copy()
    both.paste(right.crop((right.width // 2, 0, right.width, right.height)), (right.width // 2, 0))
    return both


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = {workflow.name: workflow for workflow in TINY_WORKFLOWS}
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without one")
    names = parser.parse_args().names or [*known]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no workflow without download is called {unknown[0]}: choose of {', '.join(known)}")

    def make(server: Server) -> None:
        for name in names:
            write_thumbnail(server, known[name])
        if "quickstart" in names:
            write_front_page(server, known["quickstart"])

    in_comfyui(make)


if __name__ == "__main__":
    main()
