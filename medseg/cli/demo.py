"""``medseg demo``: the main job on a CT phantom that it makes itself, so that nobody needs a patient to try
it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medseg.audit.folds import channel_names
from medseg.bundles.cohort import segment
from medseg.bundles.record import case_line, short_path
from medseg.bundles.request import Request
from medseg.bundles.trust import trusted_bundle
from medseg.dicom import read_rtstruct, read_series
from medseg.errors import BundleError, MedsegError
from medseg.files import make_folder
from medseg.metrics import dice, surface_distances, volume_cc
from medseg.phantoms.several import write_patient_phantom
from medseg.phantoms.thigh import write_thigh_phantom

BUNDLE = "mm_gtv"
DEMO_FORMATS = ("rtstruct", "seg", "nifti", "preview")
CTV_MARGIN_MM, PTV_MARGIN_MM = 10.0, 5.0
SURFACE_TOLERANCE_MM = 2.0


def demo(
    out: Path, report: Callable[[str], None], progress: bool = False, name: str | None = None
) -> dict[str, float]:
    """Make a phantom, contour its tumour with the bundle's weights, write RTSTRUCT, SEG, NIfTI and preview,
    compare.

    ``name``: of a bundle that contours a GTV. One that takes several series gets a phantom of CT, PET and MR.
    None: ``BUNDLE`` on a CT alone.
    Returns the GTV's metrics against the phantom's truth, read back from the RTSTRUCT. Raises MedsegError
    when the contouring fails.
    """
    bundle = trusted_bundle(name or BUNDLE)
    if bundle.modalities["image"] != "CT" or "GTV" not in channel_names(bundle):
        raise BundleError(
            f"bundle {bundle.name} contours no GTV on CT, which the demo shows; choose another."
        )
    make_folder(out)  # before half a minute of work
    several = name is not None and len(bundle.modalities) > 1
    what = "CT, PET and MR" if several else "CT"
    report(f"1. A {what} phantom of a thigh with a soft-tissue sarcoma -> {short_path(out / 'phantom')}")
    phantom = (write_patient_phantom if several else write_thigh_phantom)(out / "phantom")
    source = out / "phantom" if several else phantom.ct_dir
    low, high = phantom.box_lps_mm
    within = ",".join(f"{value:.1f}" for pair in zip(low, high, strict=True) for value in pair)
    settings = {"ctv_margin_mm": CTV_MARGIN_MM, "ptv_margin_mm": PTV_MARGIN_MM}
    command = f"medseg segment {short_path(source)} --bundle {name or BUNDLE} --within={within}"
    margins = f"--ctv-mm {CTV_MARGIN_MM:g} --ptv-mm {PTV_MARGIN_MM:g}"
    report(f"2. Contour it:\n   {command} \\")
    report(f"     {margins} --format {','.join(DEMO_FORMATS)} -o {short_path(out / 'contours')}")
    request = Request(
        source, bundle, out / "contours", formats=DEMO_FORMATS, within=within, settings=settings
    )
    cohort = segment(request, report=lambda record: report(f"   {case_line(record)}"), progress=progress)
    case = cohort["cases"][0]
    if case["status"] == "failed":
        raise MedsegError(case["error"])
    folder = Path(case["folder"])
    report("3. Read the RTSTRUCT back and compare its GTV with the phantom's truth:")
    masks = read_rtstruct(folder / "RS.dcm", read_series(phantom.ct_dir))
    metrics = _metrics(phantom.truth["GTV"], masks["GTV"], phantom.geometry)
    report("   " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
    report("4. Where everything is:")
    for path in sorted(folder.iterdir()):
        report(f"   {short_path(path)}")
    report("   Import CT and RS.dcm into a planning system or 3D Slicer, or open preview.png.")
    report("Research use only, not a medical device. The contours are UNAPPROVED.")
    return metrics


def _metrics(truth, result, geometry) -> dict[str, float]:
    distances = surface_distances(truth, result, geometry.spacing_mm)
    return {
        "Dice": dice(truth, result),
        f"surface Dice at {SURFACE_TOLERANCE_MM:g} mm": distances.dice(SURFACE_TOLERANCE_MM),
        "HD95 mm": distances.hausdorff_mm(95.0),
        "true cc": volume_cc(truth, geometry),
        "contoured cc": volume_cc(result, geometry),
    }
