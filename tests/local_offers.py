"""``rivulet`` whose local pipeline has the offers of a file, as workers have those of their topic.

``python -m tests.local_offers FILE replay ... --local``
"""

from __future__ import annotations

import sys
from functools import partialmethod
from pathlib import Path

from stream.cli import main as rivulet
from stream.cli.offers import read_offers
from stream.local import LocalPipeline


def main() -> None:
    offers = read_offers(Path(sys.argv.pop(1)))
    LocalPipeline.__init__ = partialmethod(LocalPipeline.__init__, offers=offers)  # type: ignore[assignment,method-assign]
    rivulet()


if __name__ == "__main__":
    main()
