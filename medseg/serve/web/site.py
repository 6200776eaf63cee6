"""What an operator says of the site: one folder of data, one file ``site.json`` in it, no other place."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medseg.errors import InputError
from medseg.files import load_json

DATA_VARIABLE, BUNDLES_VARIABLE, URL_VARIABLE = "MEDSEG_WEB_DATA", "MEDSEG_WEB_BUNDLES", "MEDSEG_WEB_URL"
"""How ``medseg serve`` tells its processes of the folder, the bundles and the address that it was given."""

DEIDENTIFY = ("offered", "always", "never")


@dataclass(frozen=True)
class Pacs:
    """An archive that studies may be fetched from: ``url`` of its DICOMweb root."""

    name: str
    url: str


@dataclass(frozen=True)
class Target:
    """A node that results may be sent to by C-STORE."""

    name: str
    host: str
    port: int
    ae_title: str
    calling_ae_title: str = "MEDSEG"

    def __post_init__(self):
        words = (self.name, self.host, self.ae_title, self.calling_ae_title)
        if not all(isinstance(word, str) and word for word in words) or max(map(len, words[2:])) > 16:
            raise TypeError("a name, host and AE title of at most 16 characters are texts")
        if type(self.port) is not int or not 1 <= self.port <= 65_535:
            raise TypeError(f"port {self.port!r} is none of 1 to 65535")


@dataclass(frozen=True)
class Site:
    """One installation; every field but the first is a key of ``site.json``.

    ``bundles``: the only ones offered. ``public_url``: as users type it; https makes cookies secure.
    ``queue``: a SQLite file or a postgresql URL, "" for a file in ``data_dir``. ``keep_days``: studies older
    than that are deleted. ``deidentify``: a DICOM upload loses its names when the user says so, always, or
    never. ``max_…``: of one upload; ``max_ratio`` of a zip, unpacked over packed. ``free_bytes``: kept free
    on the disk. ``proxies``: how many reverse proxies stand in front and add to X-Forwarded-For.
    ``ohif_url``: with ``{study}`` where the StudyInstanceUID goes. ``help_url``: the site's own manual.
    ``appointment_url``: where somebody who was screened asks for an appointment. ``database``: a postgresql
    URL for the site's own tables, "" for a SQLite file in ``data_dir``.
    """

    data_dir: Path
    bundles: tuple[str, ...] = ()
    public_url: str = ""
    queue: str = ""
    keep_days: float = 30.0
    deidentify: str = "offered"
    max_files: int = 5000
    max_bytes: int = 4 * 2**30
    max_ratio: float = 200.0
    free_bytes: int = 2 * 2**30
    chunk_bytes: int = 4 * 2**20
    proxies: int = 0
    pacs: tuple[Pacs, ...] = ()
    targets: tuple[Target, ...] = ()
    ohif_url: str = ""
    help_url: str = ""
    appointment_url: str = ""
    database: str = ""

    @property
    def queue_url(self) -> str:
        return self.queue or str(self.data_dir / "queue.sqlite3")

    @property
    def studies_dir(self) -> Path:
        return self.data_dir / "studies"

    @property
    def is_https(self) -> bool:
        return self.public_url.startswith("https://")


def load_site(data_dir: Path, **given: Any) -> Site:
    """``data_dir``/site.json, with what is ``given`` in its place. InputError for an unknown key, a value of
    the wrong kind or an address that is none."""
    path = data_dir / "site.json"
    try:
        said = load_json(path) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error}).") from error
    if not isinstance(said, dict):
        raise InputError(f"{path}: holds {type(said).__name__}; expected an object of settings.")
    known = {field.name: field for field in fields(Site)[1:]}
    for key, value in said.items():
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}; expected some of {', '.join(known)}.")
        _check(path, key, value)
    values = {**said, **{key: value for key, value in given.items() if value}}
    for key, row in (("pacs", Pacs), ("targets", Target)):
        values[key] = tuple(_row(path, key, row, entry) for entry in values.get(key, ()))
    values["bundles"] = tuple(values.get("bundles", ()))
    site = Site(data_dir, **values)
    if site.deidentify not in DEIDENTIFY:
        raise InputError(f"{path}: deidentify {site.deidentify!r}; expected one of {', '.join(DEIDENTIFY)}.")
    return site


MAY_BE_0 = ("free_bytes", "proxies")
"""Numbers of site.json; every other one is above 0."""


def _check(path: Path, key: str, value: Any) -> None:
    default = getattr(Site, key)
    if isinstance(default, tuple):
        fine = isinstance(value, list)
    elif isinstance(default, str):
        fine = isinstance(value, str)
    else:
        fine = isinstance(value, int | float) and not isinstance(value, bool)
        fine = fine and (0 <= value < math.inf if key in MAY_BE_0 else 0 < value < math.inf)
        fine = fine and (isinstance(default, float) or isinstance(value, int))
    if not fine:
        raise InputError(f"{path}: {key} is {value!r}; expected something like {default!r}.")
    if key.endswith("_url") and value and urlsplit(value).scheme not in ("http", "https"):
        raise InputError(
            f"{path}: {key} {value!r}; expected an address that begins with http:// or https://."
        )


def _row(path: Path, key: str, row: type, entry: Any) -> Any:
    try:
        made = row(**entry) if isinstance(entry, Mapping) else None
    except TypeError as error:
        raise InputError(f"{path}: {key}: {error}.") from error
    if made is None or (key == "pacs" and urlsplit(made.url).scheme not in ("http", "https")):
        words = ", ".join(field.name for field in fields(row))
        raise InputError(f"{path}: {key}: {entry!r}; expected objects with {words}.")
    return made


@lru_cache(maxsize=1)
def the_site() -> Site:
    """The site that this process serves, as ``medseg serve`` told it."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise InputError(f"{DATA_VARIABLE} is not set; start the web application with medseg serve.")
    bundles = tuple(name for name in os.environ.get(BUNDLES_VARIABLE, "").split(",") if name)
    return load_site(Path(folder), bundles=bundles, public_url=os.environ.get(URL_VARIABLE, ""))
