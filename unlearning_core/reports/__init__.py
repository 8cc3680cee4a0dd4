"""How figures are shown and written: tables, sheets, plots, files. Used by nodes, commands and benchmarks alike."""
