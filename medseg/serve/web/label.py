"""MONAI Label's protocol beside the site: what is annotated, and the process that trains.

Loads no table of the site, and nothing of the protocol where it is not asked for; its addresses and accounts
are in :mod:`medseg.serve.web.label_urls`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import InputError
from medseg.serve.processes import Kept, module_command
from medseg.serve.web.site import Site

if TYPE_CHECKING:
    from medseg.serve.monai_label.service import Service

VARIABLE = "MEDSEG_WEB_LABEL"
"""How ``medseg serve`` tells its processes what is annotated."""


@dataclass(frozen=True)
class Annotated:
    """``studies``: a folder or the URL of a DICOMweb server. ``audit``, ``ohif``: folders, "" for none."""

    studies: str
    audit: str = ""
    ohif: str = ""


def prepare(annotated: Annotated | None, site: Site) -> None:
    """Tell the processes. InputError when no bundle of the site can be served, or the studies cannot be
    opened."""
    os.environ.pop(VARIABLE, None)
    if annotated is not None:
        service_of(annotated, site)
        os.environ[VARIABLE] = json.dumps(asdict(annotated))


def left_out(site: Site) -> tuple[str, ...]:
    """Why bundles of the site are not offered to annotators; () for a site without annotators."""
    from medseg.serve.monai_label.models import served_of

    annotated = asked()
    return served_of(site.bundles, annotated.studies)[1] if annotated else ()


def service_of(annotated: Annotated, site: Site) -> Service:
    """The service over what is annotated, with the site's queue."""
    from medseg.serve.monai_label.models import served_of
    from medseg.serve.monai_label.service import Service

    served, left_out = served_of(site.bundles, annotated.studies)
    if not served:
        raise InputError(f"label: no bundle of the site can be served to annotators. {' '.join(left_out)}")
    audit = Path(annotated.audit) if annotated.audit else None
    return Service(annotated.studies, served, _state(site), audit, site.queue_url)


def _state(site: Site) -> Path:
    return site.data_dir / "label"


def asked() -> Annotated | None:
    """What this process was told; None for a site without annotators."""
    said = os.environ.get(VARIABLE)
    return Annotated(**json.loads(said)) if said else None


def helpers(site: Site) -> list[Kept]:
    """The process that trains, and that contours with what was trained."""
    from medseg.serve.monai_label.models import served_of

    annotated = asked()
    if annotated is None:
        return []
    command = [
        "--studies",
        annotated.studies,
        "--bundles",
        ",".join(served_of(site.bundles, annotated.studies)[0]),
    ]
    command += ["--state", str(_state(site)), "--done-elsewhere", ",".join(site.bundles)]
    return [Kept("label", module_command("medseg.serve.monai_label.workers", *command))]
