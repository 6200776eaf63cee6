"""With TLS only those with a certificate of the authority connect; results go to a target with TLS too."""

from __future__ import annotations

import ssl
import subprocess

import pytest
from dicom_peers import association, free_port, node_config, send, small_study
from pynetdicom import AE, AllStoragePresentationContexts, evt

from medseg.errors import InputError
from medseg.serve.dicom_node.config import Target, Tls
from medseg.serve.dicom_node.delivery import NotAccepted
from medseg.serve.dicom_node.delivery import send as deliver
from medseg.serve.dicom_node.index import Index
from medseg.serve.dicom_node.receiver import listen
from medseg.serve.dicom_node.secure import server_context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory, program):
    """{name: (certificate, key)} of two authorities, and of a node and a scanner that the first vouches for
    and a stranger that it does not."""
    openssl, folder = program("openssl"), tmp_path_factory.mktemp("tls")
    made = {}

    def run(*words):
        subprocess.run([openssl, *map(str, words)], check=True, capture_output=True, cwd=folder)

    for name, signer in (
        ("ca", None),
        ("other", None),
        ("node", "ca"),
        ("scanner", "ca"),
        ("stranger", "other"),
    ):
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        new = [
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            key,
            "-subj",
            f"/CN={name}",
        ]
        if signer is None:
            run(*new, "-x509", "-out", certificate, "-days", "2")
        else:
            run(*new, "-out", f"{name}.csr")
            by = ["-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-CAcreateserial"]
            run("x509", "-req", "-in", f"{name}.csr", *by, "-out", certificate, "-days", "2")
        made[name] = (str(certificate), str(key))
    return made


def client(certificates, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificates["ca"][0])
    if name:
        context.load_cert_chain(*certificates[name])
    return (context, None)


def tls_of(certificates, name):
    certificate, key = certificates[name]
    return {"authority": certificates["ca"][0], "certificate": certificate, "key": key}


def test_only_who_the_authority_vouches_for_may_send(certificates, tmp_path):
    config, _ = node_config(tmp_path, listen={"tls": tls_of(certificates, "node")})
    paths = small_study(tmp_path / "ct", seed=1, slices=2)
    receiver = listen(config, Index(config.folder))
    try:
        port = config.listen.port
        assert send(port, paths, tls_args=client(certificates, "scanner")) == [0, 0]
        for name in ("stranger", None):
            with association(port, paths, tls_args=client(certificates, name)) as link:
                assert not link.is_established
        with association(port, paths) as link:  # without TLS
            assert not link.is_established
    finally:
        receiver.server.shutdown()
    assert len(list(config.incoming.rglob("*.dcm"))) == 2


def test_results_go_to_a_store_with_tls_and_to_no_store_that_is_not_vouched_for(certificates, tmp_path):
    paths = small_study(tmp_path / "ct", seed=1, slices=2)
    received = []

    def store(event):
        received.append(event.request.AffectedSOPInstanceUID)
        return 0

    for name, trusted in (("node", True), ("stranger", False)):
        entity, port = AE(ae_title="STORE"), free_port()
        entity.supported_contexts = AllStoragePresentationContexts
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificates[name])
        server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)], ssl_context=context
        )
        target = Target("STORE", port=port, tls=Tls(certificates["ca"][0]))
        try:
            if trusted:
                deliver(paths, target, "MEDSEG")
                assert len(received) == 2
            else:
                with pytest.raises(NotAccepted):
                    deliver(paths, target, "MEDSEG")
                assert len(received) == 2
        finally:
            server.shutdown()


def test_files_that_are_no_certificates_are_refused_by_name(certificates, tmp_path):
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(InputError, match=r"text\.pem"):
        server_context(Tls(str(tmp_path / "text.pem"), *certificates["node"]))
    with pytest.raises(InputError, match="needs `certificate` and `key`"):
        server_context(Tls(certificates["ca"][0]))
