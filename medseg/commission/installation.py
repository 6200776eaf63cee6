"""Python, packages, processor, GPU, codecs and weights of this installation."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

import numpy as np

from medseg.bundles.find import bundle_folders, find_bundle
from medseg.bundles.weights import read_weights
from medseg.commission.checks import FAIL, PASS, SKIP, TOLD, Check
from medseg.dicom import read_series
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

CODECS = {
    "RLE Lossless": "1.2.840.10008.1.2.5",
    "JPEG-LS Lossless": "1.2.840.10008.1.2.4.80",
    "JPEG 2000 Lossless": "1.2.840.10008.1.2.4.90",
    "JPEG Lossless": "1.2.840.10008.1.2.4.70",
    "Deflated": "1.2.840.10008.1.2.1.99",
}
"""Transfer syntaxes that archives send CT and MR in: pixels must come back as they were."""

ENCODED_BY_GDCM = "1.2.840.10008.1.2.4.70"


def installation_checks(names: tuple[str, ...] = ()) -> list[Check]:
    """Checks that need no phantom. ``names``: bundles whose weights are read; all that came with medseg when
    empty."""
    codecs = [Check("Codecs", name, lambda uid=uid: _comes_back(uid)) for name, uid in CODECS.items()]
    bundles = [
        Check("Weights", name, lambda name=name: _weights(name)) for name in names or sorted(bundle_folders())
    ]
    return [
        Check("Installation", "Python", _python),
        Check("Installation", "Packages", _packages),
        Check("Installation", "Command", _command),
        Check("Hardware", "Processor", _processor),
        Check("Hardware", "GPU", _gpu),
        Check("Hardware", "Memory and disk", _memory_and_disk),
        *codecs,
        *bundles,
    ]


def _python() -> tuple[str, str]:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return (PASS if sys.version_info >= (3, 10) else FAIL), f"{found}; 3.10 or later is needed"


def _packages() -> tuple[str, str]:
    """Every package that medseg asks for is there in a version that it takes."""
    try:
        needed = requires("medseg") or []
    except PackageNotFoundError:
        return SKIP, "medseg runs from its source folder, which says nothing of packages"
    from packaging.requirements import Requirement

    wrong, seen = [], 0
    for line in needed:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        seen += 1
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found}, but {requirement.specifier} is needed")
    return (FAIL, "; ".join(wrong)) if wrong else (PASS, f"{seen} packages in versions that medseg takes")


def _command() -> tuple[str, str]:
    try:
        installed = distribution("medseg").version
    except PackageNotFoundError:
        return SKIP, "medseg runs from its source folder"
    import medseg

    same = installed == medseg.__version__
    return (PASS if same else FAIL), f"medseg {medseg.__version__}, installed as {installed}"


def _processor() -> tuple[str, str]:
    """Figures to compare with those of the day of commissioning."""
    import torch

    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(768, 768)).astype(np.float32)
    began = time.perf_counter()
    for _ in range(4):
        matrix @ matrix
    gflops = 4 * 2 * 768**3 / (time.perf_counter() - began) / 1e9
    image, layer = torch.zeros(1, 8, 48, 48, 48), torch.nn.Conv3d(8, 8, 3, padding=1)
    with torch.inference_mode():
        layer(image)
        began = time.perf_counter()
        layer(image)
    conv_ms = 1000 * (time.perf_counter() - began)
    words = (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; {gflops:.0f} GFLOP/s in a product of "
    )
    return TOLD, words + f"matrices, {conv_ms:.0f} ms for a 3 x 3 x 3 convolution of 8 channels at 48 cubed"


def _gpu() -> tuple[str, str]:
    """The same convolution on GPU and processor, and how long it takes there."""
    import torch

    if not torch.cuda.is_available():
        return SKIP, "torch sees no CUDA GPU; contouring runs on the processor"
    torch.manual_seed(0)
    image, layer = torch.randn(1, 8, 64, 64, 64), torch.nn.Conv3d(8, 8, 3, padding=1)
    with torch.inference_mode():
        expected = layer(image)
        found = layer.to("cuda")(image.to("cuda"))
        torch.cuda.synchronize()
        began = time.perf_counter()
        layer(image.to("cuda"))
        torch.cuda.synchronize()
    milliseconds = 1000 * (time.perf_counter() - began)
    away = float((found.cpu() - expected).abs().max())
    gb = torch.cuda.get_device_properties(0).total_memory / 2**30
    words = (
        f"{torch.cuda.get_device_name(0)}, {gb:.0f} GB, CUDA {torch.version.cuda}; {milliseconds:.1f} ms; "
    )
    return (PASS if away < 0.01 else FAIL), words + f"differs from the processor by {away:.1g} at the most"


def _memory_and_disk() -> tuple[str, str]:
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    memory_gb = pages * os.sysconf("SC_PAGE_SIZE") / 2**30 if pages else float("nan")
    with tempfile.NamedTemporaryFile() as file:
        began = time.perf_counter()
        file.write(os.urandom(2**24))
        file.flush()
        os.fsync(file.fileno())
        rate = 2**4 / (time.perf_counter() - began)
    return TOLD, f"{memory_gb:.0f} GB of memory; {rate:.0f} MB/s written to {tempfile.gettempdir()}"


def _comes_back(uid: str) -> tuple[str, str]:
    """Slices that are compressed are read as they were."""
    phantom = chiral_phantom(stack_geometry((4, 64, 72), pixel_spacing_mm=(1.5, 1.25)))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_series(phantom.volume_hu, phantom.geometry, folder)
        try:
            for path in paths:
                _compress(path, uid)
        except (ImportError, RuntimeError, NotImplementedError, ValueError) as error:
            return SKIP, f"nothing here compresses so ({' '.join(str(error).split())[:100]})"
        same = np.array_equal(read_series(folder).volume(), phantom.volume_hu)
    return (PASS if same else FAIL), "pixels as they were" if same else "pixels differ from those written"


def _compress(path: Path, uid: str) -> None:
    from pydicom import dcmread

    if uid == ENCODED_BY_GDCM:
        _compress_by_gdcm(path)
        return
    dataset = dcmread(path)
    if uid == CODECS["Deflated"]:
        dataset.file_meta.TransferSyntaxUID = uid
    else:
        dataset.compress(uid, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)


def _compress_by_gdcm(path: Path) -> None:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    if not reader.Read():
        raise RuntimeError("gdcm does not read the slice")
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise RuntimeError("gdcm does not compress the slice")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise RuntimeError("gdcm does not write the slice")


def _weights(name: str) -> tuple[str, str]:
    bundle = find_bundle(name)
    if not bundle.has_weights:
        return SKIP, f"{bundle.version}: has to be trained first"
    tensors = read_weights(bundle)
    return PASS, f"{bundle.version}, {len(tensors)} tensors, SHA-256 {bundle.weights_sha256[:16]}…"
