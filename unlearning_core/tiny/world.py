"""The words that the shipped model knows: its concepts, its styles and its prompts."""

from __future__ import annotations

CONCEPTS: dict[str, str] = {  # word in the prompt -> icon name, the same in all three sets
    "cat face": "cat-face",
    "dog face": "dog-face",
    "frog": "frog",
    "bear": "bear",
    "pig face": "pig-face",
    "octopus": "octopus",
    "butterfly": "butterfly",
    "fish": "tropical-fish",
    "apple": "red-apple",
    "banana": "banana",
    "strawberry": "strawberry",
    "pizza": "pizza",
    "hamburger": "hamburger",
    "car": "automobile",
    "house": "house",
    "rocket": "rocket",
    "balloon": "balloon",
    "umbrella": "umbrella",
    "guitar": "guitar",
    "crown": "crown",
    "star": "star",
    "sunflower": "sunflower",
    "cactus": "cactus",
    "mushroom": "mushroom",
}

STYLES: dict[str, str] = {  # word in the prompt -> npm package of the drawings
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
}

SIZE = 128  # pixels, width and height


def with_article(concept: str) -> str:
    """`"an apple"` for `"apple"`."""
    return f"{'an' if concept[0] in 'aeiou' else 'a'} {concept}"


def prompt(concept: str | None = None, style: str | None = None) -> str:
    """The model's prompt for a concept, a style, both, or neither (the empty prompt)."""
    if concept is None:
        return f"{style} style" if style else ""
    return f"{with_article(concept)} in {style} style" if style else with_article(concept)


def prompts() -> list[str]:
    """Every (concept, style) prompt, concept by concept."""
    return [prompt(concept, style) for concept in CONCEPTS for style in STYLES]


def parse(text: str) -> tuple[str | None, str | None]:
    """The concept and the style that a prompt names, each None where it names none."""
    words = f" {text.lower()} "
    concept = next((c for c in CONCEPTS if f" {c} " in words), None)
    style = next((s for s in STYLES if f" {s} " in words), None)
    return concept, style


def vocabulary() -> list[str]:
    """Every word that the tokenizer knows, sorted."""
    text = ["a", "an", "in", "style", *CONCEPTS, *STYLES]
    return sorted({word for phrase in text for word in phrase.split()})
