"""The protocol of MONAI Label, answered by medseg: annotators contour with bundles in 3D Slicer and OHIF."""
