"""What a model's files say, kept from becoming code: a bundle's config is run, its texts with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from medseg.errors import BundleError, InputError

CODE = ("$", "@", "%")
"""A text of a config that begins so is an expression, a reference or another file's content to MONAI."""


def require_plain(value: Any, where: str) -> None:
    """InputError for a text that a config would execute or look up, and for a key that begins with "_", which
    names a class, anywhere within ``value``."""
    if isinstance(value, str) and value.lstrip().startswith(CODE):
        raise InputError(
            f"{where}: {value[:60]!r}; a text that begins with {value.lstrip()[0]} would be run by the "
            "bundle's config. Nothing of it was: ask for the file's origin, or give it another name."
        )
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).startswith("_"):
                raise InputError(f"{where}: key {str(key)[:60]!r} would name a class to be called.")
            require_plain(str(key), where)
            require_plain(inner, where)
    elif isinstance(value, list | tuple):
        for inner in value:
            require_plain(inner, where)


@contextmanager
def malformed(where: Any, expected: str) -> Iterator[None]:
    """Within the block, what a file of another shape than expected raises is a BundleError of one line."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BundleError | InputError):
            raise
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise BundleError(f"{where}: {what}; expected {expected}.") from error
