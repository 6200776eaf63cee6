"""Rank training labels by suspected error: out-of-fold predictions, a score, the reason in words and
millimetres."""
