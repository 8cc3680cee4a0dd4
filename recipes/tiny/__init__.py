"""How the shipped text-to-image model and its CLIP were trained and judged."""
