"""Fixtures that every test file shares."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and contours, which is not part of the repository; tests that need it skip
    without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDSEG_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(
            "real data not found: set MEDSEG_SHARED_DATA to the folder that holds rt/, odd_dicom/ and "
            "training/"
        )
    return folder


@pytest.fixture(scope="session")
def program():
    """A function that finds an independent command-line program, or skips the test that needs it."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(
                f"the independent program {name} is not installed (Debian: dicom3tools, plastimatch, dcmtk)"
            )
        return path

    return find


@pytest.fixture(scope="module")
def phantom():
    """The chiral phantom on 30 slices of 48 x 56 pixels, whose position and spacings all differ."""
    from medseg.phantoms.chiral import chiral_phantom
    from medseg.phantoms.series import stack_geometry

    geometry = stack_geometry((30, 48, 56), pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(7, -20, 110))
    return chiral_phantom(geometry)


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory) -> Path:
    """The phantom's CT."""
    from medseg.phantoms.series import write_series

    out = tmp_path_factory.mktemp("ct")
    write_series(phantom.volume_hu, phantom.geometry, out)
    return out


@pytest.fixture(scope="module")
def series(folder):
    from medseg.dicom import read_series

    return read_series(folder)


@pytest.fixture(scope="session", autouse=True)
def trust_file(tmp_path_factory) -> Path:
    """The list of trusted bundles of this run of the tests, and of every process that it starts: nobody's own
    list is read or written."""
    path = tmp_path_factory.mktemp("trust") / "trusted_bundles.json"
    os.environ["MEDSEG_TRUST_FILE"] = str(path)
    return path


@pytest.fixture
def every_bundle_trusted(monkeypatch) -> None:
    """For tests that alter copies of bundles and are not about trust."""
    monkeypatch.setattr("medseg.bundles.trust.is_trusted", lambda bundle: True)
    monkeypatch.setattr("medseg.bundles.verify.is_trusted", lambda bundle: True)


@pytest.fixture(scope="session")
def bright_bundle(tmp_path_factory, trust_file) -> Path:
    """A bundle that contours what is brighter than 600 HU: a one-voxel network among the shipped
    steps.

    Its answer can be worked out by hand, so that tests of the way in and out need no trained weights.
    """
    import torch
    from plain_bundle import edit, plain_bundle

    from medseg.bundles.find import find_bundle
    from medseg.bundles.trust import trust
    from medseg.training.checkpoints import save_weights

    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    changes = {"network_def": network, "window_hu": [-1000.0, 1000.0], "spacing_mm": [1.5, 1.5, 1.5]}

    def change(config: dict) -> dict:
        steps = config.get("preprocessing", {}).get("transforms", [])
        # A coarse grid would move the outlines; a gate that knows thighs would refuse phantoms of a few HU.
        left_out = ("Resized", "medseg.transforms.CheckInputd")
        steps[:] = [step for step in steps if step["_target_"] not in left_out]
        return {**config, **changes}

    folder = plain_bundle(tmp_path_factory.mktemp("bundles") / "bright")
    for name in ("inference", "train"):
        edit(folder / "configs" / f"{name}.json", change)
    # 600 HU lies at 0.8 of the window; the steep slope makes the probability cross 0.5 right there.
    weights = {"weight": torch.full((1, 1, 1, 1, 1), 100.0), "bias": torch.tensor([-80.0])}
    save_weights(weights, folder / "models" / "model.pt")
    trust(find_bundle(folder))
    return folder


@pytest.fixture(scope="session")
def several_bundle(tmp_path_factory, bright_bundle) -> Path:
    """``bright_bundle`` for a CT with PET and MR: it contours what has an SUV above 2.5; without a PET, what
    is above 500 on the MR; without both, what is brighter than 600 HU."""
    from medseg.bundles.find import find_bundle
    from medseg.bundles.trust import trust

    folder = tmp_path_factory.mktemp("bundles") / "several"
    shutil.copytree(bright_bundle, folder)
    path = folder / "configs" / "metadata.json"
    taken = {"modalities": {"image": "CT", "pt": "PT", "mr": "MR"}, "optional_modalities": ["pt", "mr"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **taken}))
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    # The network cuts at 0.8; each image is scaled so that its own limit lies there.
    config["preprocessing"]["transforms"] += [
        {"_target_": "medseg.transforms.LoadSeriesd", "keys": ["pt", "mr"]},
        "$lambda d: {**d, 'image': d['image'] * 0 + (d['pt'] * 0.32 if 'pt' in d else d['mr'] * 0.0016)}"
        " if 'pt' in d or 'mr' in d else d",
    ]
    path.write_text(json.dumps(config))
    trust(find_bundle(folder))
    return folder


@pytest.fixture
def room_of_10_kb():
    """The operating system's limit of one file's size stands for a disk that is full."""
    size, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, size[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, size)
    signal.signal(signal.SIGXFSZ, handler)
