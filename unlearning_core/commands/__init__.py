"""One module for each subcommand of `unlearn`."""
