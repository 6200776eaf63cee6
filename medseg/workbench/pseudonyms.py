"""Ids and dates that a secret key turns into others: the same key gives the same, without it nobody goes
back."""

from __future__ import annotations

import hashlib
import hmac


def hashed(key: bytes, patient: str) -> str:
    """The first 16 hexadecimal digits of HMAC-SHA256 of an id: the same id and key give the same, and without
    the key nobody can try ids out."""
    return hmac.new(key, f"patient {patient}".encode(), hashlib.sha256).hexdigest()[:16]


def day_shift(key: bytes, patient: str) -> int:
    """From -365 to 365 days, never 0."""
    drawn = (
        int.from_bytes(hmac.new(key, f"dates {patient}".encode(), hashlib.sha256).digest()[:8], "big") % 730
    )
    return drawn - 365 if drawn < 365 else drawn - 364
