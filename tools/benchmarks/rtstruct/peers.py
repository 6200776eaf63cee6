"""Write or read an RTSTRUCT with one named tool, in whichever Python has it; run.py starts this.

    PYTHON tools/benchmarks/rtstruct/peers.py write NAME CT_DIR MASK_DIR OUT_DIR [--repeats 3]
    PYTHON tools/benchmarks/rtstruct/peers.py read  NAME CT_DIR RS.dcm   OUT_DIR [--repeats 3]

`write` takes --holes keyhole, nested or xor as well.

Masks are NAME.npy, bool [slice, row, column], slices ascending along the normal. The last line printed is
JSON: for write {"file", "version", "save_s": convert and save alone or null, "whole_s": with reading masks
and images}, medians of processor seconds; for read {"version", "read_s": from files to masks in memory or
null for a tool that writes files, "files_s": to masks in uncompressed files, "fastest_s": the least of
those}. Importing is not timed. Exit
code 3: the tool is not installed here.
"""

import argparse
import importlib.metadata
import json
import resource
import shutil
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np


def processor_s() -> float:
    """User and system seconds of this process and its finished children; other work on the machine adds
    little."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(seconds.ru_utime + seconds.ru_stime for seconds in used)


def load_masks(mask_dir: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in sorted(mask_dir.glob("*.npy"))}


# ---- writers: (CT_DIR, MASK_DIR, OUT_DIR, holes) -> (file, seconds of convert and save or None) ------------


def write_medseg(ct_dir: Path, mask_dir: Path, out_dir: Path, holes: str):
    from medseg.dicom import read_series, write_rtstruct

    masks, series = load_masks(mask_dir), read_series(ct_dir)
    start = processor_s()
    path = write_rtstruct(masks, series, out_dir / "medseg.dcm", holes=holes, overwrite=True)
    return path, processor_s() - start


def write_rt_utils(ct_dir: Path, mask_dir: Path, out_dir: Path, holes: str):
    from rt_utils import RTStructBuilder

    masks, builder = load_masks(mask_dir), RTStructBuilder.create_new(str(ct_dir))
    start = processor_s()
    for name, mask in masks.items():
        builder.add_roi(mask=np.moveaxis(mask, 0, 2), name=name, use_pin_hole=holes == "keyhole")
    builder.save(str(out_dir / "rt_utils.dcm"))
    return out_dir / "rt_utils.dcm", processor_s() - start


def write_dicomrttool(ct_dir: Path, mask_dir: Path, out_dir: Path, holes: str):
    from DicomRTTool.ReaderWriter import DicomReaderWriter

    masks = load_masks(mask_dir)
    reader = DicomReaderWriter(verbose=False)
    reader.walk_through_folders(str(ct_dir))
    reader.get_images()
    channels = np.stack([np.zeros_like(next(iter(masks.values()))), *masks.values()], axis=-1).astype(
        np.uint8
    )
    start = processor_s()
    reader.prediction_array_to_RT(channels, str(out_dir), list(masks))
    seconds = processor_s() - start
    return next(out_dir.rglob("*.dcm")), seconds


def write_plastimatch(ct_dir: Path, mask_dir: Path, out_dir: Path, holes: str):
    """Whole program from uncompressed NRRD masks, its own input format; making those is not timed (see
    main)."""
    command = ["plastimatch", "convert", "--input-prefix", mask_dir / "nrrd", "--prefix-format", "nrrd"]
    subprocess.run(
        [*command, "--referenced-ct", ct_dir, "--output-dicom", out_dir], check=True, capture_output=True
    )
    return next(out_dir.rglob("*.dcm")), None


def make_nrrd(ct_dir: Path, mask_dir: Path) -> None:
    """The masks as NRRD on the grid that SimpleITK makes of the series: a NRRD can carry no other."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(ct_dir)))
    image = reader.Execute()
    (mask_dir / "nrrd").mkdir(exist_ok=True)
    for name, mask in load_masks(mask_dir).items():
        mask_image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        mask_image.CopyInformation(image)
        SimpleITK.WriteImage(mask_image, str(mask_dir / "nrrd" / f"{name}.nrrd"), False)


# ---- readers: (CT_DIR, RS.dcm, OUT_DIR) -> {ROI name: mask}, or the folder of mask files that the tool wrote


def read_medseg(ct_dir: Path, structures: Path, out_dir: Path):
    from medseg.dicom import read_rtstruct, read_series

    return read_rtstruct(structures, read_series(ct_dir))


def read_rt_utils(ct_dir: Path, structures: Path, out_dir: Path):
    from rt_utils import RTStructBuilder

    builder = RTStructBuilder.create_from(str(ct_dir), str(structures))
    masks = {}
    for name in builder.get_roi_names():
        try:
            masks[name] = np.moveaxis(builder.get_roi_mask_by_name(name), 2, 0)
        except Exception as error:  # whatever it is: one ROI that it cannot read must not hide the others
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    if not masks:
        raise SystemExit("rt-utils could read none of the ROIs")
    return masks


def read_plastimatch(ct_dir: Path, structures: Path, out_dir: Path, options=()):
    command = [
        "plastimatch",
        "convert",
        "--input",
        structures,
        "--referenced-ct",
        ct_dir,
        "--prefix-format",
        "nrrd",
    ]
    subprocess.run([*command, "--output-prefix", out_dir / "nrrd", *options], check=True, capture_output=True)
    return out_dir / "nrrd"


def read_plastimatch_xor(ct_dir: Path, structures: Path, out_dir: Path):
    return read_plastimatch(ct_dir, structures, out_dir, options=["--xor-contours"])


def read_dicomrttool(ct_dir: Path, structures: Path, out_dir: Path):
    import pydicom
    from DicomRTTool.ReaderWriter import DicomReaderWriter

    both = out_dir / "both"
    shutil.copytree(ct_dir, both)
    shutil.copy(structures, both / "rs.dcm")
    names = [str(item.ROIName) for item in pydicom.dcmread(structures).StructureSetROISequence]
    masks = {}
    for name in names:  # one at a time, because its label map lets no two structures overlap
        reader = DicomReaderWriter(verbose=False, Contour_Names=[name.lower()], arg_max=False)
        reader.walk_through_folders(str(both))
        try:
            reader.get_images_and_mask()
        except Exception as error:  # as in read_rt_utils
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        masks[name] = reader.mask[..., 1] > 0
    return masks


def read_dcmrtstruct2nii(ct_dir: Path, structures: Path, out_dir: Path):
    from dcmrtstruct2nii import dcmrtstruct2nii

    dcmrtstruct2nii(
        str(structures), str(ct_dir), str(out_dir / "nii"), gzip=False, convert_original_dicom=False
    )
    return out_dir / "nii"


def read_platipy(ct_dir: Path, structures: Path, out_dir: Path):
    import SimpleITK
    from platipy.dicom.io import rtstruct_to_nifti

    image = rtstruct_to_nifti.read_dicom_image(str(ct_dir))
    dataset = rtstruct_to_nifti.read_dicom_struct_file(str(structures))
    masks, names = rtstruct_to_nifti.transform_point_set_from_dicom_struct(image, dataset)
    return {name: SimpleITK.GetArrayFromImage(mask) > 0 for name, mask in zip(names, masks, strict=True)}


def load_files(folder: Path) -> dict[str, np.ndarray]:
    """Masks that a tool wrote as NRRD or NIfTI files, by SimpleITK."""
    import SimpleITK

    files = sorted([*folder.glob("*.nrrd"), *folder.glob("mask_*.nii")])
    return {
        file.stem.removeprefix("mask_"): SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))) > 0
        for file in files
    }


def read_timed(given: argparse.Namespace) -> dict:
    """Read, save the masks as NAME.npy, and tell how long that took; see the head of this file."""
    read_s, files_s = [], []
    for number in range(given.repeats):
        out_dir = given.out_dir / f"run_{number}"
        out_dir.mkdir(parents=True)
        start = processor_s()
        masks = READERS[given.name](given.ct_dir, given.source, out_dir)
        in_memory = isinstance(masks, dict)
        read_s.append(processor_s() - start)
        for name, mask in (
            masks.items() if in_memory else ()
        ):  # each in its own order in memory, so without a copy
            np.save(out_dir / f"{name.replace('/', '_')}.npy", mask.transpose(np.argsort(mask.strides)[::-1]))
        files_s.append(processor_s() - start)
        save_masks(masks if in_memory else load_files(masks), given.out_dir)
        shutil.rmtree(out_dir)
        if sum(files_s) > 20:
            break
    return {
        "read_s": statistics.median(read_s) if in_memory else None,
        "files_s": statistics.median(files_s),
        "fastest_s": min(files_s),
    }


def save_masks(masks: dict[str, np.ndarray], out_dir: Path) -> None:
    for name, mask in masks.items():
        np.save(out_dir / f"{name.replace('/', '_')}.npy", mask.astype(bool))


WRITERS = {
    "medseg": write_medseg,
    "rt-utils": write_rt_utils,
    "DicomRTTool": write_dicomrttool,
    "plastimatch": write_plastimatch,
}
READERS = {
    "medseg": read_medseg,
    "rt-utils": read_rt_utils,
    "DicomRTTool": read_dicomrttool,
    "plastimatch": read_plastimatch,
    "plastimatch --xor-contours": read_plastimatch_xor,
    "dcmrtstruct2nii": read_dcmrtstruct2nii,
    "PlatiPy": read_platipy,
}
IMPORTS = {
    "medseg": "medseg.dicom",
    "rt-utils": "rt_utils",
    "DicomRTTool": "DicomRTTool.ReaderWriter",
    "dcmrtstruct2nii": "dcmrtstruct2nii",
    "PlatiPy": "platipy.dicom.io.rtstruct_to_nifti",
}


def version_of(name: str) -> str:
    """The tool's version; exits with 3 when it is not installed in this Python (or as a program)."""
    if name.startswith("plastimatch"):
        if shutil.which("plastimatch") is None:
            sys.exit(3)
        return subprocess.run(["plastimatch", "--version"], capture_output=True, text=True).stdout.split()[-1]
    try:
        __import__(IMPORTS[name])
        return importlib.metadata.version(name)
    except ModuleNotFoundError:
        sys.exit(3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["write", "read"])
    parser.add_argument("name", choices=sorted({*WRITERS, *READERS}))
    for name in ("ct_dir", "source", "out_dir"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--holes", default="keyhole")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    report = {"version": version_of(given.name)}
    if given.what == "read":
        report |= read_timed(given)
    else:
        if given.name == "plastimatch":
            make_nrrd(given.ct_dir, given.source)
        save_s, whole_s = [], []
        for number in range(given.repeats):
            out_dir = given.out_dir / str(number)
            out_dir.mkdir(parents=True)
            start = processor_s()
            path, seconds = WRITERS[given.name](given.ct_dir, given.source, out_dir, given.holes)
            whole_s.append(processor_s() - start)
            save_s.append(seconds)
            if sum(whole_s) > 20:
                break
        report["file"] = str(path)
        report["whole_s"] = statistics.median(whole_s)
        report["save_s"] = None if None in save_s else statistics.median(save_s)
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    main()
