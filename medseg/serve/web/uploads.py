"""An upload grows file by file and piece by piece, and goes on where it stopped. What is too large for the
site, or for its disk, is refused before the first byte."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

from django.core.files.uploadhandler import StopUpload, TemporaryFileUploadHandler

from medseg.errors import InputError
from medseg.files import load_json, write_json
from medseg.serve.web.archives import Budget, RefusedUpload
from medseg.serve.web.models import Study
from medseg.serve.web.site import the_site

NAMES = "names.json"


class WrongPlace(InputError):
    """A piece that does not begin where the file ends; ``size`` is where it ends."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes so far; send the piece that begins there.")
        self.size = size


def budget() -> Budget:
    site = the_site()
    return Budget(site.max_files, site.max_bytes, site.max_ratio)


def require_room(expected_bytes: int) -> None:
    """RefusedUpload when the site takes no upload of this size, or its disk has no room for it: packed,
    unpacked, and what is contoured of it."""
    site = the_site()
    if expected_bytes > site.max_bytes:
        raise RefusedUpload(
            "too large", f"{expected_bytes / 2**30:.1f} GiB; at most {site.max_bytes / 2**30:.1f} are taken."
        )
    free = shutil.disk_usage(site.data_dir).free
    promised = sum(study.declared_bytes for study in Study.objects.filter(ready=False).only("declared_bytes"))
    if free - 2 * (promised + expected_bytes) < site.free_bytes:
        raise RefusedUpload(
            "disk full",
            "the server's disk has no room for it; tell whoever runs this site, or delete studies.",
        )


def begin(study: Study, names: list[str], sizes: list[int]) -> None:
    """Make room for files of these names and sizes. RefusedUpload for too many, for none and for a size that
    is none."""
    site = the_site()
    if not names or len(names) != len(sizes) or any(size < 0 for size in sizes):
        raise RefusedUpload("nothing", "no file was chosen; choose some.")
    if len(names) > site.max_files:
        raise RefusedUpload("too many files", f"more than {site.max_files} files; upload fewer at once.")
    require_room(sum(sizes))
    study.declared_bytes = sum(sizes)
    study.incoming.mkdir(parents=True)
    write_json({"names": [name[:200] for name in names], "sizes": sizes}, study.incoming / NAMES)


def declared(study: Study) -> tuple[list[str], list[int]]:
    """(names, sizes) of the files that an upload consists of."""
    said = load_json(study.incoming / NAMES)
    return said["names"], said["sizes"]


def piece_path(study: Study, number: int) -> Path:
    return study.incoming / f"{number:06d}"


def sizes_so_far(study: Study) -> list[int]:
    """Of each file; an upload that was cut off goes on from there."""
    names, _ = declared(study)
    paths = [piece_path(study, number) for number in range(len(names))]
    return [path.stat().st_size if path.exists() else 0 for path in paths]


def add_piece(study: Study, number: int, offset: int, piece: bytes) -> int:
    """Append a piece that begins at ``offset`` of file ``number``; returns the file's new size. WrongPlace
    when the file does not end there, RefusedUpload for more than was declared."""
    _, sizes = declared(study)
    if not 0 <= number < len(sizes):
        raise RefusedUpload("no such file", f"file {number} of {len(sizes)}.")
    with open(piece_path(study, number), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two windows of one browser may send the same piece
        size = file.seek(0, 2)
        if size != offset:
            raise WrongPlace(size)
        if size + len(piece) > sizes[number]:
            raise RefusedUpload("too large", "more bytes than the file was said to have; upload it again.")
        file.write(piece)
        return size + len(piece)


class CountedUpload(TemporaryFileUploadHandler):
    """Files of a plain form, for browsers without scripts: onto the disk, counted while they stream. The
    first rule that breaks is kept as ``request.upload_refused``, and the rest is not stored.

    Django reads a form before it asks who sent it, so that is asked here.
    """

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        self.budget = budget()
        self._refuse_if(lambda: require_room(content_length))
        if not self.request.user.is_authenticated:
            self.request.upload_refused = RefusedUpload("nobody", "log in first.")

    def new_file(self, *args, **kwargs):
        self._refuse_if(self.budget.add_file)
        if hasattr(self.request, "upload_refused"):
            raise StopUpload(connection_reset=False)
        super().new_file(*args, **kwargs)

    def receive_data_chunk(self, raw_data, start):
        self._refuse_if(lambda: self.budget.add_bytes(len(raw_data)))
        if hasattr(self.request, "upload_refused"):
            raise StopUpload(connection_reset=False)
        return super().receive_data_chunk(raw_data, start)

    def _refuse_if(self, broken) -> None:
        try:
            broken()
        except RefusedUpload as error:
            self.request.upload_refused = error
