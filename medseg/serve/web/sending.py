"""Results to an archive or planning system, by C-STORE to a node that the operator listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import InputError
from medseg.serve.web.site import Target

TIMEOUT_S = 30.0


def sendable(folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """The DICOM files among a case's results, as its run record lists them: structure set, segmentation,
    report."""
    paths = [folder / row["file"] for row in record.get("outputs", ()) if row["file"].endswith(".dcm")]
    return [path for path in paths if path.is_file()]


def send(files: Sequence[Path], target: Target) -> int:
    """Send files one after the other; returns how many. InputError when the node does not answer, or does
    not accept one of them."""
    import pydicom
    from pynetdicom import AE

    datasets = [pydicom.dcmread(path) for path in files]
    if not datasets:
        raise InputError("there is no DICOM result to send.")
    node = AE(ae_title=target.calling_ae_title)
    node.acse_timeout = node.dimse_timeout = node.network_timeout = node.connection_timeout = TIMEOUT_S
    for dataset in datasets:
        syntax = dataset.file_meta.TransferSyntaxUID
        node.add_requested_context(dataset.SOPClassUID, syntax)
    association = node.associate(target.host, target.port, ae_title=target.ae_title)
    if not association.is_established:
        raise InputError(f"{target.name} does not answer, or refuses us; ask whoever runs it.")
    try:
        for dataset in datasets:
            try:
                status = association.send_c_store(dataset)
            except (ValueError, RuntimeError) as error:
                raise InputError(
                    f"{target.name} does not take {dataset.SOPClassUID.name} ({error})."
                ) from error
            code = getattr(status, "Status", None)
            if code is None or code >> 12 in (0xA, 0xC) or (code != 0 and code >> 12 != 0xB):
                words = "no answer" if code is None else f"status 0x{code:04X}"
                raise InputError(f"{target.name} did not accept {dataset.SOPClassUID.name}: {words}.")
    finally:
        association.release()
    return len(datasets)
