"""TLS for associations: certificates on both sides, as the profile of PS3.15 annex B.9 (BCP 195) asks."""

from __future__ import annotations

import ssl

from medseg.errors import InputError
from medseg.serve.dicom_node.config import Tls


def server_context(tls: Tls) -> ssl.SSLContext:
    """For the node as a server: its own certificate, and only those that ``authority`` vouches for may
    connect. InputError for files that cannot be used."""
    if tls.certificate is None:
        raise InputError("TLS for receiving needs `certificate` and `key`.")
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """For the node as a client of a target: the target's certificate must be vouched for; whose name it bears
    is not asked, DICOM peers are known by address."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, tls, checks_name=False)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _context(protocol: int, tls: Tls, checks_name: bool | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if checks_name is not None:
        context.check_hostname = checks_name
    try:
        context.load_verify_locations(tls.authority)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"TLS files {tls.authority}, {tls.certificate}: {error}") from error
    return context
