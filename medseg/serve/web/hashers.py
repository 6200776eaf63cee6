"""How passwords are stored."""

from __future__ import annotations

import threading

from django.contrib.auth.hashers import Argon2PasswordHasher

AT_ONCE = threading.BoundedSemaphore(2)
"""Of one process: each takes 46 MiB for a moment, and many log-ins at once must not take the memory."""


class Argon2(Argon2PasswordHasher):
    """Argon2id with 46 MiB, two passes and one lane: twice the work of the first setting that OWASP's cheat
    sheet on storing passwords lists (46 MiB, one pass). Django's own setting takes 100 MiB and eight threads
    for each log-in. Stored PBKDF2 hashes are verified, and replaced when their owner logs in."""

    time_cost, memory_cost, parallelism = 2, 46 * 1024, 1

    def encode(self, password: str, salt: str) -> str:
        with AT_ONCE:
            return super().encode(password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        with AT_ONCE:
            return super().verify(password, encoded)
