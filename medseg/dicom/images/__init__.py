"""Images in DICOM files: slices found, checked, decoded and put in order; projection radiographs."""
