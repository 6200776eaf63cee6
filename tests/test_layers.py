"""Imports point downward, heavy libraries stay where they belong, and files and functions stay readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "medseg"

LAYERS = (
    ("words", {"errors", "geometry", "structures", "tg263", "roi_names", "atomic", "datalist"}),
    ("maths", {"contours", "margins", "metrics", "packed", "scanline"}),
    (
        "files and learning",
        {
            "body",
            "dicom",
            "readers",
            "rtstruct_reader",
            "nifti",
            "masks",
            "phantom",
            "within",
            "networks",
            "losses",
            "noisy",
            "partial",
            "radiographs",
            "regions",
            "sides",
            "training",
            "transforms",
            "inference",
        },
    ),
    ("bundles and reports", {"bundles", "report", "audit", "segment", "compare", "convert", "derive"}),
    ("doors", {"cli", "cli_audit", "cli_structures", "serve", "demo", "__main__"}),
)
"""From the bottom to the top. A module may import its own layer and those below it."""

LEARNING = {
    "body",
    "networks",
    "losses",
    "noisy",
    "partial",
    "regions",
    "sides",
    "training",
    "transforms",
    "inference",
}
"""Parts that must load where only torch and MONAI are installed."""

MORE_THAN_7_PARAMETERS = {
    "write_rtstruct": "options of one file, all keyword-only with defaults",
    "__init__": "networks take their hyper-parameters by name from a bundle's config",
}
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 400, 60, 7


def rank(part: str) -> int:
    return next(number for number, (_, parts) in enumerate(LAYERS) if part in parts)


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imports(tree: ast.AST, *, at_import_time: bool) -> list[str]:
    """Dotted names of what a module imports when it is loaded, or inside its functions; type checking is left
    out."""
    found = []

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import) and inside != at_import_time:
                found.extend(name.name for name in child.names)
            if isinstance(child, ast.ImportFrom) and inside != at_import_time:
                found.extend(f"{child.module}.{name.name}" for name in child.names)
            visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(tree, False)
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def own_parts(names: list[str]) -> list[str]:
    known = set().union(*(parts for _, parts in LAYERS))
    return [
        name.split(".")[1] for name in names if name.startswith("medseg.") and name.split(".")[1] in known
    ]


def test_every_part_of_the_package_has_a_layer():
    known = set().union(*(parts for _, parts in LAYERS)) | {"__init__"}
    assert {part_of(path) for path in sources(PACKAGE)} <= known


@pytest.mark.parametrize("path", sources(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    if part_of(path) == "__init__":
        assert imports(ast.parse(path.read_text()), at_import_time=True) == []
        return
    tree, own = ast.parse(path.read_text()), rank(part_of(path))
    upward = [name for name in own_parts(imports(tree, at_import_time=True)) if rank(name) > own]
    assert upward == [], f"{path.name} is of the layer {LAYERS[own][0]!r}"
    doors = [name for name in own_parts(imports(tree, at_import_time=False)) if rank(name) > max(own, 3)]
    assert doors == [], "not even inside a function may a lower layer use a door"


def test_a_forbidden_import_would_be_seen():
    tree = ast.parse("from medseg.bundles.find import load\ndef late():\n    import medseg.cli.main\n")
    assert own_parts(imports(tree, at_import_time=True)) == ["bundles"]
    assert own_parts(imports(tree, at_import_time=False)) == ["cli"]
    assert rank("bundles") > rank("contours")


def loads_without(missing: str, *modules: str) -> subprocess.CompletedProcess:
    """Import modules in a fresh Python in which the comma-separated ``missing`` libraries cannot be
    imported."""
    script = f"import sys\nfor name in {missing.split(',')!r}: sys.modules[name] = None\n"
    script += "".join(f"import {module}\n" for module in modules)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_dicom_files_and_the_words_and_maths_load_without_torch_and_monai():
    modules = [
        f"medseg.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem in LAYERS[0][1] | LAYERS[1][1]
    ]
    result = loads_without("torch,monai", "medseg.dicom", "medseg.phantoms.thigh", *modules)
    assert result.returncode == 0, result.stderr


def test_learning_parts_load_without_pydicom_and_simpleitk():
    modules = [
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for path in sources(PACKAGE)
        if part_of(path) in LEARNING
    ]
    result = loads_without("pydicom,SimpleITK,highdicom,contourpy,shapely", *modules)
    assert len(modules) > 3
    assert result.returncode == 0, result.stderr


def test_the_check_of_missing_libraries_can_fail():
    assert "pydicom" in loads_without("pydicom", "medseg.dicom").stderr


def test_help_needs_neither_torch_nor_pydicom():
    script = "import sys; sys.argv = ['medseg', '--help']\n"
    script += "for name in ('torch', 'pydicom', 'monai'): sys.modules[name] = None\n"
    script += "from medseg.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0 and "segment" in result.stdout, result.stderr


@pytest.mark.parametrize(
    "path", sources(PACKAGE, ROOT / "tools"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            named = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(named) <= MOST_PARAMETERS or node.name in MORE_THAN_7_PARAMETERS, node.name


def test_no_module_is_called_after_nothing_in_particular():
    assert not {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"} & {
        path.name for path in sources(PACKAGE)
    }
