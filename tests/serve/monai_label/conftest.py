"""A running server on phantoms, started once: the real process, with its workers."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from label_server import Server, start_server, stop_server
from plain_bundle import edit

from medseg.cases.nifti import write_volume
from medseg.phantoms.chiral import ChiralPhantom, chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

NAMES = ("Brainstem", "Parotid_R", "Parotid_L")
"""What the test bundle answers with; of the phantom it finds Parotid_R alone."""


@pytest.fixture(scope="session")
def sides_bundle(tmp_path_factory, bright_bundle) -> Path:
    """``bright_bundle`` with three structures, of which only the second, the *right* parotid, is ever there:
    what is brighter than 600 HU."""
    import torch

    from medseg.bundles.find import find_bundle
    from medseg.bundles.trust import trust
    from medseg.training.checkpoints import save_weights

    folder = tmp_path_factory.mktemp("bundles") / "sides"
    shutil.copytree(bright_bundle, folder)
    for name in ("inference", "train"):
        path = folder / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        config["network_def"] = {**config["network_def"], "out_channels": 3}
        if name == "inference":
            steps = config["postprocessing"]["transforms"]
            left_out = ("medseg.transforms.KeepComponentsd", "medseg.transforms.MarginStructuresd")
            steps[:] = [step for step in steps if step["_target_"] not in left_out]
            made = next(step for step in steps if step["_target_"] == "medseg.transforms.ToStructuresd")
            made["structures"] = [{"name": one, "interpreted_type": "ORGAN"} for one in NAMES]
        path.write_text(json.dumps(config))
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["network_data_format"]["outputs"]["pred"] |= {
        "num_channels": 3,
        "channel_def": {str(number): name for number, name in enumerate(NAMES)},
    }
    metadata.pop("weights_sha256", None)
    path.write_text(json.dumps(metadata))
    weights = {"weight": torch.full((3, 1, 1, 1, 1), 100.0), "bias": torch.tensor([-1e4, -80.0, -1e4])}
    save_weights(weights, folder / "models" / "model.pt")
    trust(find_bundle(folder))
    return folder


@pytest.fixture(scope="session")
def pointed_bundle(tmp_path_factory, bright_bundle) -> Path:
    """``bright_bundle``, said to take points."""
    from medseg.bundles.find import find_bundle
    from medseg.bundles.trust import trust

    folder = shutil.copytree(bright_bundle, tmp_path_factory.mktemp("bundles") / "pointed")
    clicks = {"cube_mm": 40.0, "margin_mm": 5.0}
    edit(folder / "configs" / "metadata.json", lambda metadata: {**metadata, "clicks": clicks})
    trust(find_bundle(folder))
    return folder


@dataclass(frozen=True)
class Studies:
    """``folder`` with one DICOM series "CT" and one NIfTI file "second", both of ``phantom``."""

    folder: Path
    phantom: ChiralPhantom


@pytest.fixture(scope="session")
def studies(tmp_path_factory) -> Studies:
    folder = tmp_path_factory.mktemp("studies")
    geometry = stack_geometry(
        (34, 64, 72), gaps_mm=2.5, pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(7, -20, 110)
    )
    phantom = chiral_phantom(geometry)
    write_series(phantom.volume_hu, phantom.geometry, folder / "CT", seed=0)
    write_volume(phantom.volume_hu, phantom.geometry, folder / "second.nii.gz")
    return Studies(folder, phantom)


@pytest.fixture(scope="session")
def server(studies, sides_bundle, pointed_bundle, tmp_path_factory):
    bundles = [sides_bundle, pointed_bundle]
    running = start_server(studies.folder, bundles, tmp_path_factory.mktemp("label"))
    yield running
    stop_server(running)


@pytest.fixture
def start(tmp_path):
    """A function that starts another server; it is stopped when the test ends."""
    running = []

    def begin(*arguments, **options) -> Server:
        running.append(start_server(*arguments, **options))
        return running[-1]

    yield begin
    for one in running:
        stop_server(one)
