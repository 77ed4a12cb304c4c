"""The browser's part of the door, as it is served: `rivulet.js` without comments and spaces, at most 2 kB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 2_048

_TEXT_OR_SPACE: Final = re.compile(r'("[^"]*")|\s*([=(){}\[\],;:?+*|&<>!])\s*')


def stripped(source: str) -> bytes:
    r"""A script without lines of comment and without spaces that mean nothing.

    It is no minifier: the script has no text in other than double quotes, and no regular expression.

    Examples
    --------
    >>> stripped('// why\nconst a = "x, y", b = (c) => {\n  return c;\n};\n')
    b'const a="x, y",b=(c)=>{return c;};\n'
    """
    lines = (line.strip() for line in source.splitlines())
    code = "\n".join(line for line in lines if line and not line.startswith("//"))
    return (_TEXT_OR_SPACE.sub(lambda found: found[1] or found[2], code).strip() + "\n").encode()


SNIPPET: Final = stripped(Path(__file__).with_name("rivulet.js").read_text(encoding="utf-8"))
