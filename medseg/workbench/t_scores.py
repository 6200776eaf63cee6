"""Labels of bone density: T-scores of a named reference population, and WHO's classes of them."""

from __future__ import annotations

REFERENCES = {
    "nhanes3_femoral_neck": (0.858, 0.120),  # white women of 20 to 29 years, femoral neck, g/cm²
}
"""Mean and standard deviation of BMD in a reference population: T = (BMD - mean) / SD."""

OSTEOPOROSIS_T, NORMAL_T = -2.5, -1.0
"""WHO (Technical Report Series 843, 1994): osteoporosis at T <= -2.5, normal at T >= -1, osteopenia
between."""

ROUNDING = 1e-9
"""(0.558 - 0.858) / 0.12 is -2.5 but for the last bit; a limit counts as met when nothing else is between."""

LABELS = ("osteoporosis", "who", "t_score", "bmd")
"""0 or 1; 0 normal, 1 osteopenia, 2 osteoporosis; or the figure itself."""


def label_of(figure: float, label: str) -> int | float:
    """The label of a T-score (of a BMD for "bmd"), see LABELS."""
    if label in ("t_score", "bmd"):
        return round(float(figure), 6)
    if figure <= OSTEOPOROSIS_T + ROUNDING:
        return 1 if label == "osteoporosis" else 2
    return 0 if label == "osteoporosis" or figure >= NORMAL_T - ROUNDING else 1
