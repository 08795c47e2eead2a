"""What a command line's user can mend."""

from __future__ import annotations


class Mistake(Exception):
    """What a user can mend; printed without a traceback."""
