"""The errors a user can meet. Each message says what was seen, what was expected and what to do."""


class MedsegError(Exception):
    """Base of every error that medseg raises on purpose; the command line prints it as one line and exits with 2."""


class InputError(MedsegError):
    """A file, folder or argument is not what it should be (unreadable, empty, of the wrong kind)."""


class GeometryError(MedsegError):
    """Slices, grids or Frames of Reference do not fit together; a contour drawn on them would be misplaced."""


class StructureError(MedsegError):
    """A structure's name, number, type or colour is missing, repeated or not allowed."""


class BundleError(MedsegError):
    """A bundle's files, weights or overrides are incomplete or do not belong together."""


class MedsegWarning(UserWarning):
    """Something a user should know that does not stop the work; ``medseg segment`` collects these in run.json."""


def system_error_line(error: OSError) -> str:
    """What the operating system refused, and for which file: "OUT/CT: Permission denied"."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
