"""The process that receives: a C-STORE and Verification SCP that loads no network, so that nothing delays
it.

An object is on the disk, flushed and under its own name, before its sender hears of success.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from pydicom.uid import UID as Uid
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from medseg.errors import MedsegError
from medseg.serve.dicom_node import storage
from medseg.serve.dicom_node.commitment import answer_commitment
from medseg.serve.dicom_node.config import NodeConfig, read_config
from medseg.serve.dicom_node.index import Index
from medseg.serve.dicom_node.logs import log, use_json_logs
from medseg.serve.dicom_node.secure import server_context
from medseg.serve.dicom_node.storage import Refused
from medseg.serve.dicom_node.values import ANYONE

STORED_CLASSES = (
    "CTImageStorage",
    "EnhancedCTImageStorage",
    "LegacyConvertedEnhancedCTImageStorage",
    "MRImageStorage",
    "EnhancedMRImageStorage",
    "EnhancedMRColorImageStorage",
    "LegacyConvertedEnhancedMRImageStorage",
    "PositronEmissionTomographyImageStorage",
    "EnhancedPETImageStorage",
    "LegacyConvertedEnhancedPETImageStorage",
    "ComputedRadiographyImageStorage",
    "DigitalXRayImageStorageForPresentation",
    "DigitalXRayImageStorageForProcessing",
    "OphthalmicPhotography8BitImageStorage",
    "OphthalmicPhotography16BitImageStorage",
    "VLPhotographicImageStorage",
    "SpatialRegistrationStorage",
    "RTStructureSetStorage",
    "SegmentationStorage",
)
"""What is taken, by pynetdicom's names: images that bundles contour, and what places or marks them."""

VIDEO = "1.2.840.10008.1.2.4.10"
JPIP = ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95")  # the pixels lie elsewhere
SYNTAXES = [
    *(text for text in ALL_TRANSFER_SYNTAXES if not text.startswith(VIDEO) and text not in JPIP),
    "1.2.840.10008.1.2.5",  # RLE
    *(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)),  # High-Throughput JPEG 2000
]
SYNTAXES = list(dict.fromkeys(SYNTAXES))

SUCCESS = 0x0000


class Receiver:
    """The handlers of one server. Their answers are DICOM statuses."""

    def __init__(self, config: NodeConfig, index: Index) -> None:
        self.config, self.index = config, index
        self.associations: dict[int, tuple[str, Any]] = {}
        self.unclosed: set[str] = set()
        self.server: Any = None

    def name_of(self, event: evt.Event) -> str:
        """What the association of an event is called here."""
        new = f"{os.getpid()}-{id(event.assoc)}-{time.time_ns()}"
        return self.associations.setdefault(id(event.assoc), (new, event.assoc))[0]

    def store(self, event: evt.Event) -> int:
        """Answer a C-STORE request."""
        sender, association = str(event.assoc.requestor.ae_title).strip(), self.name_of(event)
        uid = str(event.request.AffectedSOPInstanceUID)
        facts = {"association": association, "sender": sender}
        if storage.is_uid(uid):
            facts["object"] = uid
        try:
            content = event.request.DataSet.getbuffer()
            new = self._stored(event, content, sender, association)
        except Refused as error:
            self._count(f"refused_{error.status:04X}")
            log("refused", "warning", status=f"0x{error.status:04X}", **facts)
            return error.status
        except (OSError, sqlite3.Error) as error:  # the disk became full since we looked, or is broken
            log("refused", "error", status="0xA700", error=type(error).__name__, **facts)
            return storage.OUT_OF_RESOURCES
        # The connection may have been lost meanwhile: close_ended() must hear of the association once more.
        self.associations.setdefault(id(event.assoc), (association, event.assoc))
        log("stored" if new else "duplicate", **facts)
        return SUCCESS

    def _stored(self, event: evt.Event, content: memoryview, sender: str, association: str) -> bool:
        incoming = self.config.incoming
        free = shutil.disk_usage(incoming).free
        if free < self.config.listen.least_free_gb * 1e9 + 2 * len(content):
            raise Refused(storage.OUT_OF_RESOURCES)
        meta = event.file_meta
        meta.SourceApplicationEntityTitle = sender
        temporary = storage.write_unfinished(meta, content, incoming)
        try:
            received = storage.facts_of(temporary, sender)
            if received.sop_uid != str(event.request.AffectedSOPInstanceUID):
                raise Refused(storage.DOES_NOT_MATCH)
            held = self.index.study_of(received.sop_uid)
            if held not in (None, received.study_uid):
                raise Refused(storage.DUPLICATE)
            new = storage.keep(temporary, storage.path_of(incoming, received), content)
        finally:
            temporary.unlink(missing_ok=True)
        return self.index.add(received, association) and new

    def _count(self, name: str) -> None:
        with suppress(sqlite3.Error):  # a full disk must not keep the answer back
            self.index.count(name)

    def began(self, event: evt.Event) -> None:
        """An association was accepted."""
        sender = str(event.assoc.requestor.ae_title).strip()
        log("association", association=self.name_of(event), sender=sender, state="open")

    def ended(self, event: evt.Event) -> None:
        """An association was released, aborted or lost its connection; said several times, done once."""
        association, _ = self.associations.pop(id(event.assoc), (None, None))
        if association is not None:
            self.unclosed.add(association)
            self.close_ended()
            log("association", association=association, state=event.event.name.removeprefix("EVT_").lower())

    def close_ended(self) -> None:
        """Note which associations have ended; what a full disk does not take is noted the next time, or their
        studies would never be complete."""
        for key, (association, thread) in tuple(self.associations.items()):
            if not thread.is_alive():
                self.unclosed.add(association)
                self.associations.pop(key, None)
        for association in tuple(self.unclosed):
            with suppress(sqlite3.Error):
                self.index.closed(association)
                self.unclosed.discard(association)

    def rejected(self, event: evt.Event) -> None:
        """Somebody who may not send, or one too many at once."""
        self._count("rejected")
        log("association", "warning", state="rejected", sender=str(event.assoc.requestor.ae_title).strip())


def listen(config: NodeConfig, index: Index) -> Receiver:
    """Start to listen; returns the receiver, whose ``server`` is to be shut down. OSError when the port is
    taken, InputError for TLS files that cannot be used."""
    settings = config.listen
    config.incoming.mkdir(parents=True, exist_ok=True)
    index.close_all()
    found = storage.take_stock(config.incoming, index)
    receiver = Receiver(config, index)
    entity = AE(ae_title=settings.ae_title)
    entity.maximum_associations = settings.associations
    entity.maximum_pdu_size = 2**17  # fewer, larger pieces than pynetdicom's 16 kB
    if ANYONE not in settings.allowed:
        entity.require_calling_aet = list(settings.allowed)
    entity.require_called_aet = True
    entity.add_supported_context(Verification)
    entity.add_supported_context(StorageCommitmentPushModel)
    for name in STORED_CLASSES:
        entity.add_supported_context(_class(name), SYNTAXES)
    handlers = [
        (evt.EVT_C_STORE, receiver.store),
        (evt.EVT_N_ACTION, answer_commitment, [settings, index]),
        (evt.EVT_ACCEPTED, receiver.began),
        (evt.EVT_REJECTED, receiver.rejected),
        *((event, receiver.ended) for event in (evt.EVT_RELEASED, evt.EVT_ABORTED, evt.EVT_CONN_CLOSE)),
    ]
    context = server_context(settings.tls) if settings.tls else None
    receiver.server = entity.start_server(
        (settings.host, settings.port), block=False, evt_handlers=handlers, ssl_context=context
    )
    log("listening", port=settings.port, images=found)
    return receiver


def _class(name: str) -> Uid:
    import pynetdicom.sop_class

    return getattr(pynetdicom.sop_class, name)


def main(arguments: list[str] | None = None) -> int:
    """``python -m medseg.serve.dicom_node.receiver CONFIG``: receive until SIGTERM, or until the process that
    started this one has gone."""
    use_json_logs()
    (path,) = arguments if arguments is not None else sys.argv[1:]
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    parent = os.getppid()
    try:
        config = read_config(Path(path))
        config.folder.mkdir(parents=True, exist_ok=True)
        receiver = listen(config, Index(config.folder))
    except (MedsegError, OSError) as error:
        log("cannot listen", "error", error=type(error).__name__)
        sys.stderr.write(f"error: {error}\n")
        return 2
    while not stop.wait(0.5) and os.getppid() == parent:
        receiver.close_ended()
    receiver.server.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
