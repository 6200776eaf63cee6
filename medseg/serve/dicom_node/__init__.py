"""A DICOM node that contours what a scanner sends: receiver, dispatcher and workers, a process each."""
