"""Make a text-to-image model forget a concept, and measure what the forgetting cost."""

__version__ = "0.1.0"
