"""REG objects: matrices checked, taken in both directions, and refused by name where they are no answer."""

from __future__ import annotations

import re
import struct
import subprocess

import numpy as np
import pydicom
import pytest

from medseg.dicom import find_series
from medseg.dicom.registration import find_matrix, moved, read_registration
from medseg.errors import InputError
from medseg.phantoms.registration import write_registration
from medseg.phantoms.series import stack_geometry, write_series

CT, MR, OTHER = "1.2.3", "1.2.4", "1.2.5"

QUARTER_TURN = np.array([[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]])
"""A quarter turn about z, then (10, 20, 30) mm: (1, 2, 3) goes to (-2 + 10, 1 + 20, 3 + 30)."""

CORNERS = np.array([[-100.0, -100, -100], [100, 100, 100]])


def written(folder, matrices, registered=CT, name="REG.dcm", **settings):
    return write_registration(folder / name, registered, matrices, **settings)


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_registration(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_point_goes_to_the_registered_frame_by_the_matrix_and_back_by_its_inverse(tmp_path):
    found = read_registration(written(tmp_path, {MR: QUARTER_TURN}))
    assert np.allclose(moved([[1, 2, 3]], found.matrix(MR, CT)), [[8, 21, 33]])
    assert np.allclose(moved([[8, 21, 33]], found.matrix(CT, MR)), [[1, 2, 3]])


def test_two_frames_meet_through_a_third_that_the_object_registers_both_to(tmp_path):
    # C.20.2-3: the inverse of one times the other. x + 5 for the CT, the turn for the MR.
    shift = np.eye(4)
    shift[0, 3] = 5.0
    found = read_registration(written(tmp_path, {CT: shift, MR: QUARTER_TURN}, registered=OTHER))
    assert np.allclose(moved([[1, 2, 3]], found.matrix(MR, CT)), [[3, 21, 33]])


def test_of_several_matrices_the_first_is_applied_first(tmp_path):
    shift = np.eye(4)
    shift[:3, 3] = (1, 0, 0)
    # Shifted to (2, 2, 3), then turned: (-2 + 10, 2 + 20, 33). The other order would give (9, 21, 33).
    found = read_registration(written(tmp_path, {MR: [shift, QUARTER_TURN]}))
    assert np.allclose(moved([[1, 2, 3]], found.matrix(MR, CT)), [[8, 22, 33]])


def test_a_rotation_and_its_inverse_are_those_of_simpleitk(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    transform = sitk.AffineTransform(3)
    transform.Rotate(0, 1, 0.3)
    transform.Rotate(1, 2, -0.7)
    transform.SetTranslation((12.5, -40.0, 7.25))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.reshape(transform.GetMatrix(), (3, 3)), transform.GetTranslation()
    found = read_registration(written(tmp_path, {MR: matrix}))
    point = (31.0, -7.0, 112.0)
    assert np.allclose(moved([point], found.matrix(MR, CT)), [transform.TransformPoint(point)], atol=1e-6)
    inverse = transform.GetInverse()
    assert np.allclose(moved([point], found.matrix(CT, MR)), [inverse.TransformPoint(point)], atol=1e-6)


def test_what_plastimatch_registers_is_read_as_itk_moves_points(program, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    for name, frame, modality in (("fixed", CT, "CT"), ("moving", MR, "MR")):
        geometry = stack_geometry((3, 4, 4), frame_of_reference_uid=frame)
        write_series(np.zeros(geometry.shape), geometry, tmp_path / name, modality=modality)
    transform = sitk.VersorRigid3DTransform()
    transform.SetRotation((0.2, 1, 0.3), 0.4)
    transform.SetTranslation((5, -7, 11))
    sitk.WriteTransform(transform, str(tmp_path / "xf.tfm"))
    folders = [f"--{key}-rcs={tmp_path / key}" for key in ("fixed", "moving")]
    command = [program("plastimatch"), "xf-convert", f"--input={tmp_path / 'xf.tfm'}", *folders]
    subprocess.run(
        [*command, f"--output-dicom={tmp_path / 'out'}", "--filenames-without-uids"],
        check=True,
        capture_output=True,
    )
    found = read_registration(tmp_path / "out" / "sro.dcm")
    point = (40.0, -60.0, 25.0)
    # ITK's transform of a registration takes points of the fixed image to the moving one.
    assert np.allclose(moved([point], found.matrix(CT, MR)), [transform.TransformPoint(point)], atol=1e-3)


def test_scale_and_shear_are_read_where_the_type_allows_them(tmp_path):
    scale, shear = np.diag([1.1, 1.0, 0.9, 1.0]), np.eye(4)
    shear[0, 1] = 0.2
    assert read_registration(written(tmp_path, {MR: scale}, kind="RIGID_SCALE")).matrix(MR, CT)[0, 0] == 1.1
    assert read_registration(written(tmp_path, {MR: shear}, kind="AFFINE")).matrix(MR, CT)[0, 1] == 0.2
    assert "says RIGID, but its axes have lengths 1.1000, 1.0000, 0.9000" in refusal(
        written(tmp_path, {MR: scale})
    )
    assert "lean by up to" in refusal(written(tmp_path, {MR: shear}, kind="RIGID_SCALE"))


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (QUARTER_TURN.T, "last row [10.0, 20.0, 30.0, 1.0]; expected 0, 0, 0, 1 (it looks transposed)"),
        (np.diag([-1.0, 1, 1, 1]), "determinant -1 of its axes without their scale; the matrix mirrors"),
        (np.diag([0.0, 1, 1, 1]), "the matrix flattens the patient"),
        (np.full((4, 4), 1e-30), "last row"),
    ],
)
def test_a_matrix_that_moves_no_patient_is_refused(tmp_path, matrix, words):
    assert words in refusal(written(tmp_path, {MR: matrix}, kind="AFFINE"))


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (1e6, "scales the axes by 1e+06, 1, 1; expected 0.5 to 2, as of one patient in mm"),
        (1e-6, "scales the axes by 1e-06, 1, 1; expected"),
        (10.0, "scales the axes by 10, 1, 1; expected"),
        (2.01, "scales the axes by 2.01, 1, 1; expected"),
        (1e200, "scales the axes by 1e+200, 1, 1; expected"),
        (1e-200, "scales the axes by 1e-200, 1, 1; expected"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_scale_of_no_patient_is_refused_by_what_it_is_and_not_called_flat(scale, said, tmp_path):
    message = refusal(written(tmp_path, {MR: np.diag([scale, 1, 1, 1])}, kind="AFFINE"))
    assert said in message and "other units" in message and "determinant" not in message


def test_scales_of_one_patient_and_units_that_are_changed_and_changed_back_are_read(tmp_path):
    for scale in (0.5, 2.0):
        found = read_registration(written(tmp_path, {MR: np.diag([scale] * 3 + [1])}, kind="RIGID_SCALE"))
        assert np.allclose(moved([[1, 2, 3]], found.matrix(MR, CT)), [[scale, 2 * scale, 3 * scale]])
    to_metres, to_mm, turn = np.diag([1e-3] * 3 + [1.0]), np.diag([1e3] * 3 + [1.0]), QUARTER_TURN.copy()
    turn[:3, 3] /= 1000
    found = read_registration(written(tmp_path, {MR: [to_metres, turn, to_mm]}, kind="AFFINE"))
    assert np.allclose(moved([[1, 2, 3]], found.matrix(MR, CT)), [[8, 21, 33]])


@pytest.mark.filterwarnings("error")
def test_a_product_of_matrices_that_overflows_is_refused(tmp_path):
    huge = np.diag([1e200, 1e200, 1e200, 1])
    assert "scales the axes by inf" in refusal(written(tmp_path, {MR: [huge, huge]}, kind="AFFINE"))


def test_what_an_object_leaves_out_is_named_by_its_keyword(tmp_path):
    path = written(tmp_path, {MR: QUARTER_TURN})
    whole = pydicom.dcmread(path)

    def without(change) -> str:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(tmp_path / "less.dcm")
        return refusal(tmp_path / "less.dcm")

    def only_images(dataset):
        del dataset.RegistrationSequence[1].FrameOfReferenceUID

    def no_matrix(dataset):
        dataset.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence = []

    def short(dataset):
        step = dataset.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
        step.FrameOfReferenceTransformationMatrix = [1.0] * 12

    assert "item 2 of RegistrationSequence has no FrameOfReferenceUID" in without(only_images)
    assert "no MatrixSequence" in without(no_matrix)
    assert "of 12 values; expected 16" in without(short)
    assert "no RegistrationSequence" in without(lambda d: setattr(d, "RegistrationSequence", []))
    assert "no FrameOfReferenceUID" in without(lambda d: delattr(d, "FrameOfReferenceUID"))
    assert len(whole.RegistrationSequence) == 2


def test_text_of_a_damaged_file_stays_on_one_line(tmp_path):
    path = written(tmp_path, {MR: QUARTER_TURN}, SOPClassUID="1.2\n3")
    assert r"SOPClassUID '1.2\n3'; expected a REG object" in refusal(path)
    path = written(tmp_path, {"1.2\n4": QUARTER_TURN})
    assert r"FrameOfReferenceUID '1.2\n4' is no UID" in refusal(path)


def test_a_frame_that_is_moved_against_itself_or_twice_is_refused(tmp_path):
    assert f"frame {CT} is moved against itself" in refusal(written(tmp_path, {CT: QUARTER_TURN}))
    path = written(tmp_path, {MR: QUARTER_TURN, OTHER: np.eye(4)})
    dataset = pydicom.dcmread(path)
    dataset.RegistrationSequence[2].FrameOfReferenceUID = MR
    dataset.save_as(path)
    assert f"frame {MR} is mapped twice, differently" in refusal(path)


@pytest.mark.parametrize("change", [-8, 8, 200])
def test_no_length_of_an_item_loses_a_frame_without_a_word(tmp_path, change):
    path = written(tmp_path, {MR: QUARTER_TURN})
    raw, item = path.read_bytes(), b"\xfe\xff\x00\xe0"
    places = [match.start() + 4 for match in re.finditer(re.escape(item), raw)]
    assert len(places) >= 4, "two items of frames, each with a matrix in two sequences"
    for place in places:
        (length,) = struct.unpack_from("<I", raw, place)
        bad = raw[:place] + struct.pack("<I", max(length + change, 0)) + raw[place + 4 :]
        path.write_bytes(bad)
        assert "damaged DICOM" in refusal(path)


def test_a_deformable_registration_and_an_image_are_refused_by_name(tmp_path):
    path = written(tmp_path, {MR: QUARTER_TURN}, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.3")
    assert "a Deformable Spatial Registration; only matrices" in refusal(path)
    geometry = stack_geometry((2, 3, 3))
    image = write_series(np.zeros(geometry.shape), geometry, tmp_path / "ct")[0]
    assert "CT Image Storage; expected a REG object" in refusal(image)
    (tmp_path / "empty.dcm").touch()
    assert "empty.dcm: no DICOM file, it is empty (0 bytes)" in refusal(tmp_path / "empty.dcm")


def test_a_registration_that_maps_elsewhere_says_where_it_leads(tmp_path):
    elsewhere = read_registration(written(tmp_path, {OTHER: QUARTER_TURN}))
    with pytest.raises(InputError, match=rf"no registration object .* \(REG.dcm maps {OTHER} to {CT}\)"):
        find_matrix([elsewhere], MR, CT, CORNERS)
    with pytest.raises(InputError, match=r"\(there is none\)"):
        find_matrix([], MR, CT, CORNERS)


def test_two_registrations_of_the_same_frames_must_agree(tmp_path):
    one = read_registration(written(tmp_path, {MR: QUARTER_TURN}))
    nearly, other = QUARTER_TURN.copy(), QUARTER_TURN.copy()
    nearly[0, 3] += 0.05
    other[0, 3] += 3.0
    same = read_registration(written(tmp_path, {MR: nearly}, name="same.dcm"))
    opposite = read_registration(written(tmp_path, {CT: np.linalg.inv(QUARTER_TURN)}, MR, "back.dcm"))
    matrix, chosen = find_matrix([one, same, opposite], MR, CT, CORNERS)
    assert np.allclose(matrix, QUARTER_TURN) and chosen is one
    contrary = read_registration(written(tmp_path, {MR: other}, name="other.dcm"))
    with pytest.raises(InputError, match=r"REG.dcm and other.dcm both register .* up to 3.0 mm apart"):
        find_matrix([one, contrary], MR, CT, CORNERS)


def test_a_scan_of_a_folder_lists_registrations_apart(tmp_path):
    path = written(tmp_path, {MR: QUARTER_TURN})
    assert find_series(tmp_path).registrations == [path]
    assert find_series(tmp_path).ignored == []
