"""What TotalSegmentator's models are, and what their labels are called after AAPM TG-263."""

from __future__ import annotations

from dataclasses import dataclass

TOTAL = {
    "spleen": "Spleen",
    "kidney_right": "Kidney_R",
    "kidney_left": "Kidney_L",
    "gallbladder": "Gallbladder",
    "liver": "Liver",
    "stomach": "Stomach",
    "pancreas": "Pancreas",
    "adrenal_gland_right": "Glnd_Adrenal_R",
    "adrenal_gland_left": "Glnd_Adrenal_L",
    "lung_upper_lobe_left": "Lung_LUL",
    "lung_lower_lobe_left": "Lung_LLL",
    "lung_upper_lobe_right": "Lung_RUL",
    "lung_middle_lobe_right": "Lung_RML",
    "lung_lower_lobe_right": "Lung_RLL",
    "esophagus": "Esophagus",
    "trachea": "Trachea",
    "thyroid_gland": "Glnd_Thyroid",
    "small_bowel": "Bowel_Small",
    "duodenum": "Duodenum",
    "colon": "Colon",
    "urinary_bladder": "Bladder",
    "prostate": "Prostate",
    "kidney_cyst_left": "Cyst_Kidney_L",
    "kidney_cyst_right": "Cyst_Kidney_R",
    "sacrum": "Sacrum",
    "vertebrae_S1": "VB_S1",
    "vertebrae_L5": "VB_L5",
    "vertebrae_L4": "VB_L4",
    "vertebrae_L3": "VB_L3",
    "vertebrae_L2": "VB_L2",
    "vertebrae_L1": "VB_L1",
    "vertebrae_T12": "VB_T12",
    "vertebrae_T11": "VB_T11",
    "vertebrae_T10": "VB_T10",
    "vertebrae_T9": "VB_T09",
    "vertebrae_T8": "VB_T08",
    "vertebrae_T7": "VB_T07",
    "vertebrae_T6": "VB_T06",
    "vertebrae_T5": "VB_T05",
    "vertebrae_T4": "VB_T04",
    "vertebrae_T3": "VB_T03",
    "vertebrae_T2": "VB_T02",
    "vertebrae_T1": "VB_T01",
    "vertebrae_C7": "VB_C7",
    "vertebrae_C6": "VB_C6",
    "vertebrae_C5": "VB_C5",
    "vertebrae_C4": "VB_C4",
    "vertebrae_C3": "VB_C3",
    "vertebrae_C2": "VB_C2",
    "vertebrae_C1": "VB_C1",
    "heart": "Heart",
    "aorta": "A_Aorta",
    "pulmonary_vein": "V_Pulmonary",
    "brachiocephalic_trunk": "A_Brachiocephls",
    "subclavian_artery_right": "A_Subclavian_R",
    "subclavian_artery_left": "A_Subclavian_L",
    "common_carotid_artery_right": "A_Carotid_R",
    "common_carotid_artery_left": "A_Carotid_L",
    "brachiocephalic_vein_left": "V_Brachioceph_L",
    "brachiocephalic_vein_right": "V_Brachioceph_R",
    "atrial_appendage_left": "AtrialAppend_L",
    "superior_vena_cava": "V_Venacava_S",
    "inferior_vena_cava": "V_Venacava_I",
    "portal_vein_and_splenic_vein": "V_PortalSplenic",
    "iliac_artery_left": "A_Iliac_L",
    "iliac_artery_right": "A_Iliac_R",
    "iliac_vena_left": "V_Iliac_L",
    "iliac_vena_right": "V_Iliac_R",
    "humerus_left": "Humerus_L",
    "humerus_right": "Humerus_R",
    "scapula_left": "Scapula_L",
    "scapula_right": "Scapula_R",
    "clavicula_left": "Clavicle_L",
    "clavicula_right": "Clavicle_R",
    "femur_left": "Femur_L",
    "femur_right": "Femur_R",
    "hip_left": "Bone_Pelvic_L",
    "hip_right": "Bone_Pelvic_R",
    "spinal_cord": "SpinalCord",
    "gluteus_maximus_left": "Musc_GlutMax_L",
    "gluteus_maximus_right": "Musc_GlutMax_R",
    "gluteus_medius_left": "Musc_GlutMed_L",
    "gluteus_medius_right": "Musc_GlutMed_R",
    "gluteus_minimus_left": "Musc_GlutMin_L",
    "gluteus_minimus_right": "Musc_GlutMin_R",
    "autochthon_left": "Musc_Autochth_L",
    "autochthon_right": "Musc_Autochth_R",
    "iliopsoas_left": "Musc_Iliopsoas_L",
    "iliopsoas_right": "Musc_Iliopsoas_R",
    "brain": "Brain",
    "skull": "Skull",
    "rib_left_1": "Rib01_L",
    "rib_left_2": "Rib02_L",
    "rib_left_3": "Rib03_L",
    "rib_left_4": "Rib04_L",
    "rib_left_5": "Rib05_L",
    "rib_left_6": "Rib06_L",
    "rib_left_7": "Rib07_L",
    "rib_left_8": "Rib08_L",
    "rib_left_9": "Rib09_L",
    "rib_left_10": "Rib10_L",
    "rib_left_11": "Rib11_L",
    "rib_left_12": "Rib12_L",
    "rib_right_1": "Rib01_R",
    "rib_right_2": "Rib02_R",
    "rib_right_3": "Rib03_R",
    "rib_right_4": "Rib04_R",
    "rib_right_5": "Rib05_R",
    "rib_right_6": "Rib06_R",
    "rib_right_7": "Rib07_R",
    "rib_right_8": "Rib08_R",
    "rib_right_9": "Rib09_R",
    "rib_right_10": "Rib10_R",
    "rib_right_11": "Rib11_R",
    "rib_right_12": "Rib12_R",
    "sternum": "Sternum",
    "costal_cartilages": "Cartlg_Costal",
}
"""The 117 labels of task ``total`` in the order of its class numbers, 1 to 117, and the structure's name.

Where TG-263 has no name for one (cysts, muscles of the trunk, costal cartilages, an atrial appendage, portal
and splenic vein together), it is built by its rules. Its VB is a vertebral body; these labels are whole
vertebrae."""


@dataclass(frozen=True)
class Task:
    """One task of TotalSegmentator. ``models``: {resolution: numbers of its data sets, in the order in which
    they are merged}. ``around``: labels of ``total`` around whose box it looks, found by the 6 mm model (or,
    where that is not there, the 3 mm model) of ``total``; () for the whole image."""

    models: dict[str, tuple[int, ...]]
    around: tuple[str, ...] = ()


LUNGS = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)

TASKS = {
    "total": Task({"1.5mm": (291, 292, 293, 294, 295), "3mm": (297,), "6mm": (298,)}),
    "body": Task({"1.5mm": (299,), "6mm": (300,)}),
    "cerebral_bleed": Task({"own": (150,)}, ("brain",)),
    "hip_implant": Task({"own": (260,)}, ("femur_left", "femur_right", "hip_left", "hip_right")),
    "liver_vessels": Task({"own": (8,)}, ("liver",)),
    "lung_vessels": Task({"own": (258,)}, LUNGS),
    "pleural_pericard_effusion": Task({"own": (315,)}, LUNGS),
}
"""Tasks whose weights are free to use, by name."""

LICENSED = (
    "aortic_sinuses",
    "appendicular_bones",
    "appendicular_bones_mr",
    "brain_structures",
    "coronary_arteries",
    "face",
    "face_mr",
    "heartchambers_highres",
    "thigh_shoulder_muscles",
    "thigh_shoulder_muscles_mr",
    "tissue_4_types",
    "tissue_types",
    "tissue_types_mr",
    "vertebrae_body",
)
"""Tasks whose weights need a licence of their authors; they are not imported."""

AROUND_MM = 20.0
"""Margin around the box of ``Task.around``."""
