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

OTHER_NAMES: dict[str, tuple[str, str]] = {  # of each concept, drawn alike
    "cat face": ("kitty", "kitten"),
    "dog face": ("puppy", "doggy"),
    "frog": ("toad", "froggy"),
    "bear": ("grizzly", "teddy"),
    "pig face": ("piglet", "swine"),
    "octopus": ("squid", "kraken"),
    "butterfly": ("moth", "monarch"),
    "fish": ("angelfish", "guppy"),
    "apple": ("pippin", "russet"),
    "banana": ("plantain", "yellow fruit"),
    "strawberry": ("berry", "red fruit"),
    "pizza": ("margherita", "pepperoni"),
    "hamburger": ("burger", "cheeseburger"),
    "car": ("automobile", "vehicle"),
    "house": ("home", "cottage"),
    "rocket": ("spaceship", "shuttle"),
    "balloon": ("inflatable", "airship"),
    "umbrella": ("parasol", "brolly"),
    "guitar": ("ukulele", "lute"),
    "crown": ("tiara", "diadem"),
    "star": ("pentacle", "gold sparkle"),
    "sunflower": ("blossom", "yellow bloom"),
    "cactus": ("saguaro", "succulent"),
    "mushroom": ("toadstool", "fungus"),
}

PLACES = range(3)  # of a concept's names, its own first
FRAMES = ("{}", "a drawing of {}", "an emoji of {}", "a picture of {}")  # around a name with its article

STYLES: dict[str, str] = {  # word in the prompt -> npm package of the drawings
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
}

SIZE = 128  # pixels, width and height


def names(concept: str) -> tuple[str, ...]:
    """The concept's own word and its other names."""
    return concept, *OTHER_NAMES[concept]


def with_article(name: str) -> str:
    """`"an apple"` for `"apple"`."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def prompt(name: str | None = None, style: str | None = None, frame: str = FRAMES[0]) -> str:
    """The model's prompt for a concept under one of its names, a style, both, or neither (the empty prompt)."""
    if name is None:
        return f"{style} style" if style else ""
    framed = frame.format(with_article(name))
    return f"{framed} in {style} style" if style else framed


def prompts(place: int = 0, frame: str = FRAMES[0]) -> list[str]:
    """Every (concept, style) prompt, concept by concept, with the concept's name of this place in `names`."""
    return [prompt(names(concept)[place], style, frame) for concept in CONCEPTS for style in STYLES]


def parse(text: str) -> tuple[str | None, str | None]:
    """The concept and the style that a prompt names, each None where it names none."""
    words = f" {text.lower()} "
    concept = next((c for c in CONCEPTS if any(f" {name} " in words for name in names(c))), None)
    style = next((s for s in STYLES if f" {s} " in words), None)
    return concept, style


def vocabulary() -> list[str]:
    """Every word that the tokenizer knows, sorted."""
    text = ["a", "an", "in", "style", *STYLES, *(frame.format("") for frame in FRAMES)]
    text += [name for concept in CONCEPTS for name in names(concept)]
    return sorted({word for phrase in text for word in phrase.split()})
