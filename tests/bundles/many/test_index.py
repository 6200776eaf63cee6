"""The index finds what a scan finds and opens only what is new or changed."""

from __future__ import annotations

import os

import pytest
from chiral_cases import chiral_series
from patient_series import *  # noqa: F403

from medseg.bundles.many.index import Index
from medseg.cases.find import series_sources
from medseg.dicom import find_series
from medseg.dicom.together import ends_lps_mm
