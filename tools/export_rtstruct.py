"""Write NIfTI masks as one RT Structure Set on the CT series that they were drawn on.

    python tools/export_rtstruct.py CT_DIR Lung_L.nii.gz Heart.nii.gz -o RS.dcm
    python tools/export_rtstruct.py CT_DIR MASK_DIR -o RS.dcm --append-to existing.dcm

Each file becomes one structure, called by its file name. Masks must lie on the voxels of the series: nothing
is resampled. Research use only, not a medical device. Every contour must be reviewed by a qualified person.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np

from medseg.cases.mask_sources import mask_files
from medseg.cases.nifti import read_mask
from medseg.dicom import ALLOWABLE, Series, read_series, write_rtstruct
from medseg.errors import InputError, MedsegError, MedsegWarning
from medseg.shapes.loops import HOLE_MODES


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns 0 when the file was written and 2, with one line on standard error, when it was
    not."""
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", MedsegWarning)
        try:
            series = read_series(options.ct_dir, series_uid=options.series_uid, allow=options.allow)
            masks = {
                name: read_mask(path, series.geometry) for name, path in _mask_files(options.masks).items()
            }
            write_rtstruct(
                masks,
                series,
                options.output,
                holes=options.holes,
                simplify_mm=options.simplify_mm,
                append_to=options.append_to,
                model=tuple(options.model) if options.model else None,
                label=options.label,
                overwrite=options.overwrite,
            )
        except MedsegError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: {options.output}: {error.strerror or error}", file=sys.stderr)
            return 2
    for sentence in (*series.warnings, *(str(warning.message) for warning in said)):
        print(f"warning: {sentence}", file=sys.stderr)
    _report(masks, series, options.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ct_dir", type=Path, metavar="CT_DIR", help="folder with one image series")
    parser.add_argument(
        "masks", type=Path, nargs="+", metavar="MASKS", help="NIfTI files, or folders of them"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RS.dcm")
    parser.add_argument(
        "--append-to", type=Path, metavar="RS.dcm", help="keep the structures of this set and add to them"
    )
    parser.add_argument("--holes", choices=tuple(HOLE_MODES), default="keyhole", help="how holes are stored")
    parser.add_argument(
        "--simplify-mm", type=float, default=0.0, help="thin vertices, moving no outline by more than this"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace RS.dcm if it is there")
    parser.add_argument("--label", default="medseg", help="StructureSetLabel, at most 16 characters")
    parser.add_argument(
        "--model", nargs=2, metavar=("NAME", "VERSION"), help="what drew the masks, recorded in the file"
    )
    parser.add_argument("--series-uid", metavar="UID", help="which series, where the folder holds several")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=tuple(ALLOWABLE),
        help="faults of the series to accept",
    )
    return parser


def _mask_files(paths: list[Path]) -> dict[str, Path]:
    """{structure name: NIfTI file}; InputError for a folder without one and for two files of one name."""
    named: dict[str, Path] = {}
    for path in paths:
        for name, file in mask_files(path).items():
            if name in named:
                raise InputError(f"{named[name]} and {file} would both be called {name!r}; rename one.")
            named[name] = file
    return named


def _report(masks: dict[str, np.ndarray], series: Series, out: Path) -> None:
    print(
        f"{out}: {len(masks)} structures on {series.geometry.shape[0]} slices of "
        f"{series.description or 'the series'}"
    )
    for name, mask in masks.items():
        inside = mask if mask.dtype == bool else mask >= 0.5
        volume_cc = float((inside.sum((1, 2)) * series.geometry.voxel_volumes_cc).sum())
        print(f"  {name:16} {volume_cc:10.2f} cc")


if __name__ == "__main__":
    sys.exit(main())
