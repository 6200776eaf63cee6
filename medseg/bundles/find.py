"""Find a MONAI bundle by its name or folder, and what its files say of it."""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medseg.bundles.importers.channels import series_words
from medseg.errors import BundleError
from medseg.files import load_json

COMMON_CONFIGS = (
    "calibration",
    "thresholds",
    "datalist",
    "evaluate",
    "gate",
    "inference",
    "metadata",
    "multi_gpu_train",
    "thresholds",
    "train",
)
"""Files of configs/ that every bundle may have. Any other .json there is a variant: what it changes of
train.json, inference.json and, under ``_meta_``, metadata.json, for a baseline, another recipe or a
fine-tuning."""

VOLUME_MODALITIES = ("CT", "MR", "PT")
"""Of series that may be the channels of one image."""

RETIRED = {"ct_gtv": "Use mm_gtv: it contours a CT alone in the same boxes, and scored higher in them"}
"""Names that once came with medseg, and what to take instead."""


@dataclass(frozen=True)
class Bundle:
    """A bundle folder that exists. ``derived_from``: the bundle that medseg itself copied it from, which then
    decides whether it may run (:mod:`medseg.bundles.trust`)."""

    name: str
    folder: Path
    derived_from: Bundle | None = None

    @cached_property
    def metadata(self) -> dict:
        """The content of configs/metadata.json. BundleError when it is missing or not JSON."""
        return read_json(self.folder / "configs" / "metadata.json")

    @property
    def version(self) -> str:
        return str(self.metadata.get("version", "unknown"))

    @property
    def weights(self) -> Path:
        return self.folder / "models" / "model.pt"

    @property
    def has_weights(self) -> bool:
        """False of a bundle that has to be trained first."""
        return self.weights.is_file()

    @cached_property
    def weights_sha256(self) -> str:
        """Hex digest of models/model.pt. BundleError when there are no weights."""
        if not self.weights.is_file():
            raise BundleError(
                f"bundle {self.name}: no weights at {self.weights}; train it or restore the file."
            )
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    @property
    def inference_file(self) -> Path:
        """configs/inference.json; inference.yaml, as some bundles of MONAI's zoo have it, where only that is
        there."""
        own = self.folder / "configs" / "inference.json"
        other = own.with_suffix(".yaml")
        return other if other.is_file() and not own.is_file() else own

    @cached_property
    def inference_sha256(self) -> str:
        """Hex digest of the inference config, and gate.json where there is one: a changed step gives other
        contours with the same weights, a changed gate takes other images."""
        gate = self.folder / "configs" / "gate.json"
        try:
            content = self.inference_file.read_bytes()
            return hashlib.sha256(content + (gate.read_bytes() if gate.is_file() else b"")).hexdigest()
        except OSError as error:
            raise BundleError(
                f"bundle {self.name}: {self.inference_file.name} cannot be read ({error})."
            ) from error

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of its variants; see COMMON_CONFIGS."""
        names = sorted(path.stem for path in (self.folder / "configs").glob("*.json"))
        return tuple(name for name in names if name not in COMMON_CONFIGS)

    def require_variant(self, name: str) -> str:
        """The name of a variant as it is. BundleError, with the names there are, for any other."""
        if name in self.variants:
            return name
        near = difflib.get_close_matches(name, self.variants, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        known = ", ".join(self.variants) or "(none)"
        raise BundleError(f"bundle {self.name}: no variant {name!r}; expected one of {known}.{hint}")

    @property
    def inference_only(self) -> bool:
        """True of a bundle that was imported: it has no training of its own, and no gate."""
        return self.metadata.get("inference_only") is True

    @property
    def result_kind(self) -> str:
        """What the bundle answers with, a key of :data:`medseg.bundles.kinds.KINDS`; "structures" unless it
        says."""
        return str(self.metadata.get("result_kind", "structures"))

    def record(self) -> dict[str, str]:
        """Name, version and digests: what decides, of a bundle, what it answers."""
        return {
            "name": self.name,
            "version": self.version,
            "weights_sha256": self.weights_sha256,
            "inference_sha256": self.inference_sha256,
        }

    @property
    def modality(self) -> str | None:
        """The modality of the images that the network takes ("CT"), from metadata.json; None when it does not
        say."""
        try:
            return self.metadata["network_data_format"]["inputs"]["image"].get("modality")
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"bundle {self.name}: metadata.json has no network_data_format/inputs/image."
            ) from error

    @property
    def modalities(self) -> dict[str, str]:
        """{item key: modality} of the images of one case, from metadata.json: "image", which is contoured,
        and the others of a bundle of several series.

        BundleError for what is no such table. Without one, only :attr:`modality` is taken, or, of a bundle of
        MONAI's zoo, a series for every channel that its network takes.
        """
        one = {"image": self.modality or ""}
        table = self.metadata.get("modalities", self._series_of_channels() or one)
        texts = isinstance(table, dict) and all(isinstance(word, str) for word in table.values())
        if not texts or "image" not in table or len(set(table.values())) < len(table):
            raise BundleError(
                f"bundle {self.name}: metadata.json says modalities {table!r}; expected item keys, among "
                'them "image", each with a modality of its own.'
            )
        return table

    def _series_of_channels(self) -> dict[str, str]:
        """{item key: modality} of channels that metadata.json names and inference is fed as one image; {} of
        a bundle that says itself what it loads, and of pictures."""
        image = self.metadata["network_data_format"]["inputs"]["image"]
        channels = image.get("channel_def")
        if self.inference_only or self.modality not in VOLUME_MODALITIES or not isinstance(channels, dict):
            return {}
        if len(channels) < 2:
            return {}
        names = [str(channels[key]) for key in sorted(channels, key=int)]
        return series_words(names, [image["modality"]] * len(names))

    @property
    def optional(self) -> tuple[str, ...]:
        """The keys of ``modalities`` that a case may lack. BundleError for others."""
        keys = self.metadata.get("optional_modalities", [])
        unknown = [key for key in keys if key not in self.modalities or key == "image"]
        if unknown:
            raise BundleError(
                f"bundle {self.name}: metadata.json says optional_modalities {keys!r}; expected some of its "
                'modalities, not "image".'
            )
        return tuple(keys)


def read_json(path: Path) -> dict:
    """The content of one of a bundle's files. BundleError when it is missing, not JSON or no object."""
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not a readable JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: holds {type(content).__name__}; expected an object of settings.")
    return content


def bundle_folders() -> dict[str, Path]:
    """{name: folder} of the bundles that come with medseg: installed inside the package, or beside it in a
    checkout."""
    package = Path(__file__).resolve().parents[1]
    found: dict[str, Path] = {}
    for root in (package.parent / "monai_bundles", package / "monai_bundles"):
        for metadata in sorted(root.glob("*/configs/metadata.json")):
            found[metadata.parents[1].name] = metadata.parents[1]
    return found


def find_bundle(name: str | Path | Bundle) -> Bundle:
    """The shipped bundle of that name, or the bundle in that folder.

    A bare name is a shipped bundle and nothing else: a folder of the same name in the current directory, say
    on a shared drive, is never taken for it. A text with a separator in it, as in ``./mm_gtv``, and every
    ``Path`` is a folder. BundleError when there is none, with the names there are; of
    one that was retired, with what to take instead.
    """
    if isinstance(name, Bundle):
        return name
    known = bundle_folders()
    if isinstance(name, str) and name in known:
        return Bundle(name, known[name])
    is_folder = isinstance(name, Path) or any(mark in name for mark in filter(None, (os.sep, os.altsep)))
    folder = Path(name)
    if is_folder and (folder / "configs" / "metadata.json").is_file():
        return Bundle(folder.resolve().name, folder.resolve())
    if is_folder and folder.is_dir():
        raise BundleError(
            f"{folder}: no configs/metadata.json in it, so it is no bundle; expected one that has, or "
            f"one of {', '.join(known) or '(none)'}."
        )
    if name in RETIRED:
        raise BundleError(f"bundle {name}: retired. {RETIRED[name]}.")
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    if not is_folder and (folder / "configs" / "metadata.json").is_file():
        hint = f" For the folder of that name write .{os.sep}{name}."
    raise BundleError(
        f"no bundle {str(name)!r}: expected a bundle folder, with a {os.sep} in it, or one of "
        f"{', '.join(known) or '(none)'}.{hint}"
    )
