"""How what ships was made; not part of the installed package."""
