"""How the node is doing, for Prometheus and for ``medseg node status``."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from medseg.bundles.queue import Queue
from medseg.serve.dicom_node.answers import Answers
from medseg.serve.dicom_node.config import NodeConfig
from medseg.serve.dicom_node.index import Index

NAMES = {
    "received": ("medseg_node_objects_received_total", "counter", "Objects stored"),
    "duplicates": ("medseg_node_objects_duplicate_total", "counter", "Objects sent again"),
    "rejected": ("medseg_node_associations_rejected_total", "counter", "Associations rejected"),
    "open": ("medseg_node_associations_open", "gauge", "Associations that brought something and are open"),
    "oldest_due_s": ("medseg_node_delivery_oldest_seconds", "gauge", "For so long the oldest result is due"),
    "free_bytes": ("medseg_node_disk_free_bytes", "gauge", "Free space where studies are kept"),
}
LABELLED = {
    "refused_": ("medseg_node_objects_refused_total", "counter", "status", "Objects refused"),
    "studies_": ("medseg_node_studies", "gauge", "state", "Studies held"),
    "answers_": ("medseg_node_answers", "gauge", "state", "Jobs made of studies"),
    "deliveries_": ("medseg_node_deliveries", "gauge", "state", "Results for targets"),
    "jobs_": ("medseg_node_queue_jobs", "gauge", "state", "Jobs in the queue, all owners"),
}


def figures_of(config: NodeConfig) -> Callable[[], dict[str, Any]]:
    """A function that reads every figure by its name here, again and again over one connection."""
    index, answers, queue = Index(config.folder), Answers(config.folder), Queue(config.queue_url)

    def read() -> dict[str, Any]:
        jobs = {f"jobs_{state}": count for state, count in queue.counts().items()}
        free = {"free_bytes": shutil.disk_usage(config.folder).free}
        return index.figures() | answers.figures() | jobs | free

    return read


def text(found: dict[str, Any]) -> str:
    """The figures in Prometheus' text format, version 0.0.4."""
    lines = []
    for key, (name, kind, about) in NAMES.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", f"{name} {found[key]}"]
    for start, (name, kind, label, about) in LABELLED.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        rows = {key.removeprefix(start): value for key, value in found.items() if key.startswith(start)}
        lines += [f'{name}{{{label}="{value}"}} {count}' for value, count in sorted(rows.items())]
    return "\n".join(lines) + "\n"


def serve_metrics(config: NodeConfig) -> HTTPServer:
    """Answer ``GET /metrics`` on the loopback, in a thread. OSError when the port is taken."""
    read = figures_of(config)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a client that says nothing must not keep the others waiting

        def do_GET(self) -> None:
            content = text(read()).encode() if self.path == "/metrics" else b""
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *values: Any) -> None:  # not into the node's log
            pass

    server = HTTPServer(("127.0.0.1", int(config.metrics_port or 0)), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def listens(config: NodeConfig) -> bool:
    """True when something answers at the receiver's port."""
    host = "127.0.0.1" if config.listen.host == "0.0.0.0" else config.listen.host
    try:
        socket.create_connection((host, config.listen.port), timeout=2).close()
    except OSError:
        return False
    return True
