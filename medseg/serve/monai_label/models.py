"""The bundles that the server runs: as their operator named them, and as trained copies of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundles.find import Bundle
from medseg.bundles.kinds import case_kind, kind_of
from medseg.bundles.trust import trusted_bundle
from medseg.cases.results import Structures
from medseg.errors import BundleError, InputError
from medseg.files import load_json, make_folder, write_json
from medseg.serve.monai_label.images import FINDERS, is_dicomweb

FIRST = "as delivered"
"""The version that the operator's own bundle is."""


class UnknownModel(InputError):
    """No bundle of this name is served, or it has no such version."""


@dataclass(frozen=True)
class Model:
    """One version of a bundle. ``trained``: the record of its training, {} of the operator's own."""

    name: str
    version: str
    bundle: Bundle
    trained: Mapping[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        """The structures that it answers with, in the order of its channels."""
        return structures_of(self.bundle)

    @property
    def words(self) -> str:
        """Which model it is, for records."""
        return (
            f"{self.name} {self.bundle.version} ({self.version}, weights {self.bundle.weights_sha256[:12]})"
        )

    @property
    def task(self) -> str:
        """How a job names the bundle: by its name where medseg came with it, else by its folder."""
        return self.name if self.version == FIRST and _is_named(self.bundle) else str(self.bundle.folder)


def _is_named(bundle: Bundle) -> bool:
    from medseg.bundles.find import bundle_folders

    return bundle_folders().get(bundle.name) == bundle.folder


def structures_of(bundle: Bundle) -> tuple[str, ...]:
    """The names of the channels that metadata.json gives. BundleError without them."""
    try:
        channels = bundle.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        return tuple(str(channels[key]) for key in sorted(channels, key=int))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"bundle {bundle.name}: metadata.json names no channels of its answer.") from error


class Models:
    """Bundles by name, each in its accepted versions under ``folder``; one version of each is current."""

    def __init__(self, folder: Path, bundles: Sequence[str | Path]):
        make_folder(folder)
        self.folder = folder
        found = [trusted_bundle(bundle) for bundle in bundles]
        self.bundles = {bundle.name: bundle for bundle in found}
        if not found or len(self.bundles) < len(found):
            raise InputError("bundles: expected at least one, and each name once.")
        for bundle in found:
            _check_served(bundle, tuple(FINDERS))

    def names(self) -> list[str]:
        return list(self.bundles)

    def get(self, name: str, version: str | None = None) -> Model:
        """A bundle's current version, or the one asked for. UnknownModel."""
        if name not in self.bundles:
            there = ", ".join(self.bundles)
            raise UnknownModel(f"no model {name[:80]!r}; this server runs {there}.")
        version = self.current(name) if version is None else version
        model = next((one for one in self.versions(name) if one.version == version), None)
        if model is None:
            raise UnknownModel(f"{name} has no version {version[:80]!r}; GET /info/ lists them.")
        return model

    def versions(self, name: str) -> list[Model]:
        """Every accepted version, the operator's own first."""
        own = self.bundles[name]
        found = [Model(name, FIRST, own, {})]
        for record_file in sorted((self.folder / name).glob("[!.]*/record.json")):
            bundle = Bundle(name, record_file.parent / name, derived_from=own)
            found.append(Model(name, record_file.parent.name, bundle, load_json(record_file)))
        return found

    def current(self, name: str) -> str:
        """The version in use: the one chosen last, the operator's own while none was."""
        file = self.folder / name / "current.json"
        return str(load_json(file)["version"]) if file.exists() else FIRST

    def choose(self, name: str, version: str) -> None:
        """Use this version from now on. UnknownModel."""
        self.get(name, version)
        make_folder(self.folder / name)
        write_json({"version": version}, self.folder / name / "current.json")

    @property
    def case_kinds(self) -> frozenset[str]:
        """What kinds of image the bundles take."""
        return frozenset(case_kind(bundle) for bundle in self.bundles.values())

    def trained_here(self) -> list[str]:
        """The bundles that labels can train: those of volumes."""
        return [name for name, bundle in self.bundles.items() if case_kind(bundle) == "volume"]

    def tasks(self) -> list[str]:
        """What a worker has to run: every version of every bundle."""
        return [model.task for name in self.names() for model in self.versions(name)]


def served_of(bundles: Sequence[str], studies: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(those of ``bundles`` that this protocol has a form for, why each of the others has none). ``studies``:
    a folder, or the URL of a DICOMweb server, which offers volumes alone."""
    kinds = ("volume",) if is_dicomweb(studies) else tuple(FINDERS)
    served, reasons = [], []
    for name in bundles:
        try:
            _check_served(trusted_bundle(name), kinds)
            served.append(name)
        except BundleError as error:
            reasons.append(str(error))
    return tuple(served), tuple(reasons)


def _check_served(bundle: Bundle, kinds: Sequence[str]) -> None:
    """BundleError for a bundle whose answers this protocol has no form for, or whose images are none of
    ``kinds``."""
    if kind_of(bundle).result is not Structures or case_kind(bundle) not in kinds:
        raise BundleError(
            f"bundle {bundle.name}: answers with {bundle.result_kind} on a {case_kind(bundle)}; MONAI "
            "Label's clients take structures of CT, MR or PET volumes, and of radiographs in a folder."
        )
    needed = [name for key, name in bundle.modalities.items() if key not in ("image", *bundle.optional)]
    if needed:
        raise BundleError(
            f"bundle {bundle.name}: needs {', '.join(needed)} of the same patient too, and MONAI Label's "
            "clients name one image; use medseg segment or the web application."
        )
    bundle.weights_sha256  # noqa: B018 - BundleError without weights, at the start and not for an annotator
    structures_of(bundle)
