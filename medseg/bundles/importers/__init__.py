"""Models that people already have, as bundles: nnU-Net folders, TotalSegmentator's weights, MONAI's zoo."""
