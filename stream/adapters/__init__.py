"""Shapes that shops already send, each mapped to our event; the README's tables say how.

A shape is told by its own fields, never guessed: a value that has none of them is judged as one of our events, and one
that has them but cannot be mapped is refused with the reason. Adapters are pure: bytes (and headers) in, an event out.
"""

from stream.adapters.common import LetterReason, Refused
from stream.adapters.recognition import BEGINNING, UNREADABLE, Shape, adapt, beginnings, cut, guess, recognise

__all__ = [
    "BEGINNING",
    "UNREADABLE",
    "LetterReason",
    "Refused",
    "Shape",
    "adapt",
    "beginnings",
    "cut",
    "guess",
    "recognise",
]
