"""The real ``medseg label start`` as a process, and requests to it as its clients make them."""

from __future__ import annotations

import email.parser
import email.policy
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What a server answered, read as far as a client would."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Server:
    """A running ``medseg label start``. ``always``: headers of every request."""

    process: subprocess.Popen
    port: int
    state: Path
    log: Path
    secure: ssl.SSLContext | None = None
    always: dict[str, str] = field(default_factory=dict)

    def ask(self, method, path, body=None, headers=None, timeout=600) -> Answer:
        """One request; a dict as body is sent as JSON."""
        headers = {**self.always, **(headers or {})}
        if isinstance(body, dict):
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        if self.secure is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout, context=self.secure
            )
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def form(self, method, path, fields=None, files=None, headers=None) -> Answer:
        """A request as 3D Slicer's module builds it: {field: text}, {field: (file name, bytes)}."""
        mark = "----------lImIt_of_THE_fIle_eW_$"
        lines = []
        for name, text in (fields or {}).items():
            lines += [f"--{mark}", f'Content-Disposition: form-data; name="{name}"', "", text]
        for name, (file, content) in (files or {}).items():
            head = f'Content-Disposition: form-data; name="{name}"; filename="{file}"'
            lines += [f"--{mark}", head, "Content-Type: application/octet-stream", "", content]
        lines += [f"--{mark}--", ""]
        body = b"".join(line if isinstance(line, bytes) else line.encode() for line in _ended(lines))
        kind = {"content-type": f"multipart/form-data; boundary={mark}", "content-length": str(len(body))}
        return self.ask(method, path, body, {**kind, **(headers or {})})

    def memory_maps(self) -> str:
        """The libraries that the process which answers has loaded."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        workers = (b"medseg.bundles.worker", b"medseg.serve.monai_label.")
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
        answering = [pid for pid, said in commands.items() if not any(one in said for one in workers)]
        return "".join(Path(f"/proc/{pid}/maps").read_text() for pid in answering)


def parts_of(answer):
    """{name: (file name, media type, bytes)} of a multipart answer, read by Python's own parser."""
    assert answer.headers["content-type"].startswith("multipart/form-data; boundary=")
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.body)
    return {
        part.get_param("name", header="content-disposition"): (
            part.get_filename(),
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    }


def _ended(lines):
    for line in lines:
        yield line
        yield b"\r\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(
    studies, bundles, state: Path, *options: str, secure: ssl.SSLContext | None = None
) -> Server:
    """Start the real command and wait until it answers, by https where ``secure`` says whom to believe."""
    port = free_port()
    state.mkdir(parents=True, exist_ok=True)
    log = state / "output.txt"
    # Tied, so that it ends with the tests also where these are killed.
    tied = ["-m", "medseg.serve.tied", str(os.getpid())]
    command = [sys.executable, *tied, "medseg", "label", "start", "--studies", str(studies)]
    command += [
        "--bundles",
        ",".join(map(str, bundles)),
        "--state",
        str(state),
        "--port",
        str(port),
        *options,
    ]
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ)
    server = Server(process, port, state, log, secure)
    for _ in range(600):
        try:
            server.ask("GET", "/auth/")
            return server
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def stop_server(server: Server) -> None:
    server.process.terminate()
    server.process.wait(60)
