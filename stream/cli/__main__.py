"""``python -m stream.cli``: the same as ``rivulet``."""

from stream.cli import main

main()
