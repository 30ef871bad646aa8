"""The tools around training: `ganinv COMMAND`. Each module here with `add_parser` is a command."""
