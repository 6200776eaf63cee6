"""Dose-volume histograms: the dose that a structure gets, as planners read it.

Definitions (ICRU report 83): Dx% is the dose that at least x % of the volume gets, VxGy the share of the
volume that gets at least x Gy; Dmean, Dmin and Dmax are of the points that stand for the structure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from medseg.errors import InputError

_NAMES = re.compile(r"(?P<at>Dmean|Dmin|Dmax)|D(?P<dose>\d+(?:\.\d+)?)(?P<of>%|cc)|V(?P<gy>\d+(?:\.\d+)?)Gy")


@dataclass(frozen=True, eq=False)
class DoseVolume:
    """The dose (Gy) of every part of a structure, largest first, and the part's volume (cc): float64 (N,)
    each. Empty for a structure without a voxel."""

    dose_gy: np.ndarray
    volume_cc: np.ndarray

    def get(self, name: str) -> float:
        """The number called "Dmean", "Dmin", "Dmax", "D2%", "D0.1cc" (Gy) or "V20Gy" (% of the volume); nan
        for an empty structure, and for more cc than there are. InputError for another name."""
        found = check_name(name)
        if not self.dose_gy.size:
            return float("nan")
        total_cc = float(self.volume_cc.sum())
        if found["at"]:
            ends = {"Dmin": self.dose_gy[-1], "Dmax": self.dose_gy[0]}
            return float(ends.get(found["at"], self.dose_gy @ self.volume_cc / total_cc))
        if found["gy"]:
            return float(100 * self.volume_cc[self.dose_gy >= float(found["gy"])].sum() / total_cc)
        cc = float(found["dose"]) * (total_cc / 100 if found["of"] == "%" else 1.0)
        return self._dose_of(cc, total_cc)

    def _dose_of(self, cc: float, total_cc: float) -> float:
        """The dose that at least ``cc`` get, between the middles of the parts."""
        if cc > total_cc * (1 + 1e-9):
            return float("nan")
        middles_cc = np.cumsum(self.volume_cc) - self.volume_cc / 2
        return float(np.interp(cc, middles_cc, self.dose_gy))


def unit_of(name: str) -> str:
    """The unit of a number: Gy or %. InputError for what is no name of a dose-volume number."""
    return "%" if check_name(name)["gy"] else "Gy"


def check_name(name: str) -> re.Match:
    """The parts of a name that :meth:`DoseVolume.get` takes. InputError for any other."""
    found = _NAMES.fullmatch(name)
    if found is None:
        raise InputError(f"dose number {name!r}: expected one such as Dmean, Dmax, D2%, D0.1cc or V20Gy.")
    return found


def dose_volume(dose_gy: np.ndarray, volume_cc: np.ndarray | float) -> DoseVolume:
    """From the dose at the points that stand for a structure, and the volume of each: (N,) or one number.
    Points without a dose (nan) lie outside the dose grid and must not be there: InputError."""
    dose = np.asarray(dose_gy, dtype=np.float64).ravel()
    if np.isnan(dose).any():
        share = 100 * np.isnan(dose).mean()
        raise InputError(f"{share:.1f} % of the structure lies outside the dose grid; no number is whole.")
    order = np.argsort(-dose, kind="stable")
    volumes = np.broadcast_to(np.asarray(volume_cc, dtype=np.float64), dose.shape)
    return DoseVolume(dose[order], volumes[order])
