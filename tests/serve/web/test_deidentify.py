"""DICOM files lose their names, and what is left still fits together."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from ct_files import change

from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.phantoms.series import stack_geometry, write_series

pytest.importorskip("dicomanonymizer", reason="names are removed by dicom-anonymizer: medseg[serve]")
from medseg.serve.web.contents import sorted_in  # noqa: E402

SECRETS = ("DOE", "Jane", "MRN-4711", "St. Elsewhere", "Dr. Who", "19600102", "jane@example.org")


@pytest.fixture
def files(tmp_path):
    """A CT of six slices with a structure set, full of names, also where nobody looks."""
    geometry = stack_geometry((6, 20, 24))
    mask = np.zeros(geometry.shape, bool)
    mask[2:4, 5:9, 6:12] = True
    write_series(np.zeros(geometry.shape, np.float32), geometry, tmp_path / "ct")
    write_rtstruct({"GTV": mask}, read_series(tmp_path / "ct"), tmp_path / "RS.dcm")
    for path in [*(tmp_path / "ct").iterdir(), tmp_path / "RS.dcm"]:
        private = pydicom.dcmread(path)
        private.private_block(0x0011, "VENDOR", create=True).add_new(0x01, "LO", "Jane DOE")
        nested = pydicom.Dataset()
        nested.PersonName, nested.PatientID = "DOE^Jane", "MRN-4711"
        private.OtherPatientIDsSequence = [nested]
        private.preamble = b"DOE^Jane".ljust(128, b"\0")
        private.save_as(path)
        change(
            path,
            PatientName="DOE^Jane",
            PatientID="MRN-4711",
            PatientBirthDate="19600102",
            InstitutionName="St. Elsewhere",
            ReferringPhysicianName="Dr. Who",
            PatientWeight="70",
            StudyDate="20240301",
            SeriesDate="20240303",
            PatientComments="jane@example.org",
            StudyDescription="Jane, thigh",
        )
    return [(path, path.name) for path in [*sorted((tmp_path / "ct").iterdir()), tmp_path / "RS.dcm"]], mask


def test_no_byte_of_a_name_is_left_and_contours_still_lie_on_their_images(files, tmp_path):
    given, mask = files
    contents, refused = sorted_in(given, tmp_path / "out", deidentify=True)
    assert refused == [] and len(contents["series"]) == len(contents["sets"]) == 1
    for path in (tmp_path / "out").rglob("*.dcm"):
        content = path.read_bytes()
        assert [secret for secret in SECRETS if secret.encode() in content] == [], path
        header = pydicom.dcmread(path)
        assert header.PatientIdentityRemoved == "YES" and header.PatientID.startswith("ANON-")
    series = read_series(tmp_path / "out" / contents["series"][0]["path"])
    found = read_rtstruct(tmp_path / "out" / contents["sets"][0]["path"], series)
    assert np.array_equal(found["GTV"], mask)


def test_dates_move_together_and_what_suv_needs_stays(files, tmp_path):
    given, _ = files
    before = read_series([path for path, _ in given[:-1]]).series_instance_uid
    contents, _ = sorted_in(given, tmp_path / "out", deidentify=True)
    header = pydicom.dcmread(next((tmp_path / "out" / contents["series"][0]["path"]).iterdir()))
    days = [
        int(np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}").astype(int))
        for text in (header.StudyDate, header.SeriesDate)
    ]
    assert days[1] - days[0] == 2  # from the 1st to the 3rd of March, as before
    assert header.StudyDate < "20230302"  # a year earlier at least
    assert header.PatientBirthDate == "" and header.PatientWeight == 70
    assert header.LongitudinalTemporalInformationModified == "MODIFIED"
    assert header.SeriesInstanceUID != before


def test_two_patients_stay_two_and_another_upload_gives_other_uids(files, tmp_path):
    given, _ = files
    for path, _ in given[:3]:
        change(path, PatientID="MRN-0815")
    copies = []
    for number, (path, name) in enumerate(given):
        copy = tmp_path / f"copy{number}"
        copy.write_bytes(path.read_bytes())
        copies.append((copy, name))
    found = []
    for number, files_ in enumerate((given, copies)):
        out = tmp_path / f"out{number}"
        sorted_in(files_, out, deidentify=True)
        headers = [pydicom.dcmread(path) for path in sorted(out.rglob("*.dcm"))]
        assert len({header.PatientID for header in headers}) == 2
        found.append({header.SOPInstanceUID for header in headers})
    assert len(found[0]) == 7 and not found[0] & found[1]


def test_a_name_in_the_pixels_is_warned_of(files, tmp_path):
    given, _ = files
    change(given[0][0], BurnedInAnnotation="YES")
    contents, _ = sorted_in(given, tmp_path / "out", deidentify=True)
    assert contents["warnings"] == ["s0001: may show a name in its pixels; look at it"]


def test_what_cannot_be_stripped_is_not_kept(files, tmp_path):
    given, _ = files
    content = given[2][0].read_bytes()
    given[2][0].write_bytes(content[: len(content) // 2])
    contents, refused = sorted_in(given, tmp_path / "out", deidentify=True)
    assert len(refused) == 1 and refused[0]["name"] == given[2][1]
    assert contents["series"][0]["slices"] == 5


@pytest.mark.parametrize(
    ("says", "ticked", "stripped"),
    [("always", False, True), ("never", True, False), ("offered", True, True), ("offered", False, False)],
)
def test_what_the_site_says_goes_before_what_the_user_says(client, study, site_says, says, ticked, stripped):
    site_says(deidentify=says)
    address = study(client, **({"deidentify": "on"} if ticked else {}))
    from medseg.serve.web.models import Study

    assert Study.objects.get(id=address.split("/")[2]).deidentify is stripped
