"""Names, types, colours and codes of structures (AAPM TG-263, DICOM PS3.3 C.8.8.8.1)."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest

from medseg.errors import StructureError
from medseg.structures.structure import (
    TARGET_CODES,
    Code,
    Structure,
    check_names_are_unique,
    fixed_colour_rgb,
    name_warnings,
    stored_name,
    structure_from_name,
)
from medseg.structures.tg263 import ORGANS, check_name, interpreted_type, organ_code, suggest


@pytest.mark.parametrize(
    "name",
    [
        "Lung_L",
        "Lungs",
        "Lungs-GTV",
        "SpinalCord",
        "SpinalCord_PRV05",
        "OpticChiasm_PRV3",
        "Lung~_L",
        "Esophagus~^2cm",
        "GTV",
        "GTVp1",
        "CTVn2",
        "CTV_6000",
        "PTV_High",
        "PTV!_5940",
        "PTV_50.4Gy",
        "PTV_7000-05",
        "PTV_Liv_2000x03",
        "z_Ring",
        "zPTV_Opt",
        "_helper",
        "Musc_Constrict_S",
        "External",
        "Body",
        "Thigh_Phantom",
    ],
)
def test_names_in_the_form_of_tg263_have_no_problem(name):
    assert check_name(name).problems == ()
    assert check_name(name).suggestion is None


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Lung L", "Lung_L"),
        ("Lt Lung", "Lung_L"),
        ("LUNG_R", "Lung_R"),
        ("RightParotid", "Parotid_R"),
        ("Femoral Head Lt", "Femur_Head_L"),
        ("Spinal cord", "SpinalCord"),
        ("BRAIN_STEM", "Brainstem"),
        ("Brainstem_PRV5", "Brainstem_PRV05"),
        ("OpticNerve_L PRV", "OpticNrv_PRV_L"),
        ("SubmndSalv_L", "Glnd_Submand_L"),
        ("Chiasm_PRV03", "OpticChiasm_PRV3"),
        ("Thyroid", "Glnd_Thyroid"),
        ("OralCavity-PTV", "Cavity_Oral-PTV"),
        ("BODY", "Body"),
    ],
)
def test_a_spelling_that_is_certain_gets_the_standard_name_as_suggestion(name, suggestion):
    assert check_name(name).suggestion == suggestion
    assert check_name(suggestion).problems == ()


@pytest.mark.parametrize(
    "name",
    [
        "POST AVOID",
        "PTV70+PTV60",
        "PTV56",
        "optBladder",
        "HippocampusAvoid",
        "Brain Tumour",
        "Bladder L",
        "Heart_R",
        "Lung",
        "Hippocampus",
        "ESOPHAGUS_2CM",
        "Density Override",
        "Lung L Lung R",
        "Parotid NOS L",
        "z_Larynx LEV",
    ],
)
def test_a_name_that_is_not_fully_understood_gets_no_suggestion(name):
    assert suggest(name) is None


def test_a_margin_or_part_is_never_suggested_to_be_the_whole_organ():
    organs = set(ORGANS) | {organ.plural for organ in ORGANS.values()}
    for name in ("Brainstem_PRV5", "SpinalCord_PRV5", "SpinalCord~_PRV5", "CHIASM PRV", "Cavity Oral-PTV"):
        assert suggest(name) not in organs


def test_problems_say_what_is_wrong():
    assert "20 characters" in check_name("Submandibular_Gland_").problems[0]
    assert any("space" in problem for problem in check_name("Lung L").problems)
    assert any("side" in problem for problem in check_name("Lung").problems)
    assert any("two digits" in problem for problem in check_name("SpinalCord_PRV5").problems)
    assert any("characters other than" in problem for problem in check_name("1,SUV_primair").problems)
    assert any("target" in problem for problem in check_name("GTV-1").problems)


def test_a_warning_names_the_structure_and_says_that_it_is_written_as_given():
    assert name_warnings(["Lung_L", "GTV"]) == []
    (warning,) = name_warnings(["Lung_L", "Lt Lung"])
    assert "'Lt Lung'" in warning and "Lung_L" in warning and "written as given" in warning


def test_names_with_the_same_fault_share_a_sentence_and_keep_their_suggestions():
    shared, alone = name_warnings(["Lung L", "GTV-1", "Lung R"])
    assert shared.startswith("structure names 'Lung L' (TG-263: Lung_L), 'Lung R' (TG-263: Lung_R): contains")
    assert alone.startswith("structure name 'GTV-1': a target is named")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GTV-1", "GTV"),
        ("gtv", "GTV"),
        ("GTV_Mass_CT", "GTV"),
        ("IGTV", "GTV"),
        ("CTV70", "CTV"),
        ("ITV", "CTV"),
        ("PTV Brain", "PTV"),
        ("PTV56", "PTV"),
        ("BODY", "EXTERNAL"),
        ("External", "EXTERNAL"),
        ("Bolus_05mm", "BOLUS"),
        ("CouchSurface", "SUPPORT"),
        ("z_PTV_All", "CONTROL"),
        ("_ring", "CONTROL"),
        ("Lungs-GTV", "ORGAN"),
        ("Body-PTV", "ORGAN"),
        ("zygoma", "ORGAN"),
        ("Brain", "ORGAN"),
        ("ptvoid", "ORGAN"),
    ],
)
def test_the_type_comes_from_the_name(name, expected):
    assert interpreted_type(name) == expected


def test_a_known_organ_gets_its_snomed_code_and_a_margin_around_it_does_not():
    assert structure_from_name("Lung_L").code == Code("39607008", "SCT", "Lung")
    assert organ_code("Lt Lung") == (("39607008", "Lung"), "L")
    assert organ_code("Lungs") == (("39607008", "Lung"), "")
    for name in ("SpinalCord_PRV05", "Lungs-GTV", "Lung~_L", "z_PTV", "Liver_Met"):
        assert structure_from_name(name).code is None


def test_a_target_gets_the_code_of_its_kind():
    assert structure_from_name("GTV-1").code == Code("228791009", "SCT", "GTV")
    assert structure_from_name("ITV").code == Code("130056", "DCM", "ITV")
    assert structure_from_name("ITV").interpreted_type == "CTV"


def test_codes_agree_with_the_context_groups_of_the_dicom_standard():
    from pydicom.sr._concepts_dict import concepts

    standard = {
        (value, scheme) for scheme in ("SCT", "DCM") for known in concepts[scheme].values() for value in known
    }
    assert {(organ.code[0], "SCT") for organ in ORGANS.values() if organ.code} <= standard
    assert {(code.value, code.scheme) for code in TARGET_CODES.values()} <= standard


def test_colours_are_fixed_and_do_not_change_from_process_to_process():
    here = fixed_colour_rgb("Some_Organ")
    script = "from medseg.structures.structure import fixed_colour_rgb; print(fixed_colour_rgb('SOME_ORGAN'))"
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == str(here)
    assert fixed_colour_rgb("GTV") == (255, 0, 0)
    assert fixed_colour_rgb("Kidney_L") != fixed_colour_rgb("Kidney_R")


@pytest.mark.parametrize("name", ["", " Lung", "Lung ", "a\\b", "x" * 65, "a\nb", "a\x1b[31m", "\udcff"])
def test_a_name_that_dicom_cannot_hold_is_refused(name):
    with pytest.raises(StructureError, match="expected 1-64 characters"):
        Structure(name)
    if name.strip():
        Structure(stored_name(name))


def test_wrong_number_type_and_colour_are_refused():
    with pytest.raises(StructureError, match="positive"):
        Structure("GTV", number=0)
    with pytest.raises(StructureError, match="TUMOUR"):
        Structure("GTV", interpreted_type="TUMOUR")
    with pytest.raises(StructureError, match="0 to 255"):
        Structure("GTV", colour_rgb=(255, 0, 256))


def test_names_that_differ_only_by_case_are_refused():
    check_names_are_unique(["Lung_L", "Lung_R"])
    with pytest.raises(StructureError, match="'Lung_L' and 'LUNG_L'"):
        check_names_are_unique(["Lung_L", "Heart", "LUNG_L"])
    with pytest.raises(StructureError, match="'GTV' and 'GTV'"):
        check_names_are_unique(["GTV", "GTV"])


def test_every_standard_name_of_the_worksheet_passes(shared_data):
    with open(shared_data / "tg263" / "TG263_Nomenclature_Worksheet_20170815.csv", newline="") as file:
        names = [row["TG263-Primary Name"].strip() for row in csv.DictReader(file)]
    refused = {name: check_name(name).problems for name in names if check_name(name).problems}
    assert len(names) > 700
    assert refused == {}


def test_suggestions_for_real_names_are_standard_names_and_keep_margins_and_sides(shared_data):
    with open(shared_data / "tg263" / "TG263_Nomenclature_Worksheet_20170815.csv", newline="") as file:
        standard = {row["TG263-Primary Name"].strip() for row in csv.DictReader(file)}
    with open(shared_data / "tg263" / "real_roi_names_2929.csv", newline="") as file:
        real = [row["In-House Name"] for row in csv.DictReader(file)]
    suggested = {name: check_name(name).suggestion for name in real if check_name(name).suggestion}
    assert len(suggested) > 100
    for name, suggestion in suggested.items():
        assert ("PRV" in name.upper()) == ("PRV" in suggestion)
        assert suggestion.split("-")[0] in standard or "_PRV" in suggestion
