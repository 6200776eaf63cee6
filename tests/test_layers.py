"""Imports point downward and in no circle, heavy libraries stay where they belong, code stays readable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "medseg"

LAYERS = (
    {"errors", "geometry", "files", "limits", "processes", "structures"},
    {"shapes", "metrics"},
    {"dicom"},
    {"cases"},
    {"reports", "phantoms"},
    {"transforms", "workbench"},
    {"bundles"},
    {"audit", "commission"},
    {"cli", "serve"},
)
"""Rooms from the bottom to the top. A room may import those of its own layer and of the layers below."""

LEARNING = {"networks", "losses", "inference", "training"}
"""They stand beside dicom and import words and one another; transforms and what is above may import them."""

WITHOUT_TORCH = {
    "errors",
    "geometry",
    "files",
    "processes",
    "structures",
    "shapes",
    "metrics",
    "dicom",
    "cases",
    "reports",
} | {
    "phantoms",
    "workbench",
}
WITHOUT_DICOM = LEARNING | {"transforms"}

MORE_THAN_7_PARAMETERS = {
    "write_rtstruct": "options of one file, all keyword-only with defaults",
    "__init__": "networks take their hyper-parameters by name from a bundle's config",
}
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_A_CLASS, MOST_PARAMETERS = 400, 60, 200, 7
MOST_MODULES_ON_TOP, MOST_ROOMS, MOST_LINES_OF_THE_MEDIAN_FILE = 4, 18, 150


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    """medseg.dicom.rtstruct.read, and medseg.dicom for its __init__."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sources(PACKAGE)}


def imports(tree: ast.AST) -> set[str]:
    """Modules of medseg that a file imports: at the top, inside functions and for type checking alike."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                found.add(whole if whole in MODULES else node.module)
    return {name for name in found if name.split(".")[0] == "medseg" and name != "medseg"}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def rank(room: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


def forbidden(importer: str, imported: str) -> bool:
    """True where ``importer``'s room must not import ``imported``'s."""
    a, b = room_of(importer), room_of(imported)
    if a == b:
        return False
    if a in LEARNING:
        return not (b in LEARNING or b in LAYERS[0])
    if b in LEARNING:
        return rank(a) < rank("transforms")
    return rank(b) > rank(a)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Every way that leads from a name back to it, by depth-first search; [] where there is none."""
    found, state, path = [], {}, []

    def visit(name: str) -> None:
        state[name] = "open"
        path.append(name)
        for other in sorted(graph.get(name, ())):
            if state.get(other) == "open":
                found.append([*path[path.index(other) :], other])
            elif other not in state:
                visit(other)
        path.pop()
        state[name] = "done"

    for name in sorted(graph):
        if name not in state:
            visit(name)
    return found


GRAPH = {name: imports(ast.parse(path.read_text())) - {name} for name, path in MODULES.items()}


def test_every_room_of_the_package_has_a_layer():
    known = set().union(*LAYERS) | LEARNING | {"__main__"}
    assert {room_of(name) for name in MODULES if name != "medseg"} <= known


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("medseg", "medseg.__main__")])
def test_imports_point_downward(module):
    assert [name for name in sorted(GRAPH[module]) if forbidden(module, name)] == []


def test_no_module_imports_itself_by_a_circle():
    # A room's __init__ hands out names of its files, which may use names of the room's other files.
    files = {name: {other for other in GRAPH[name] if other in MODULES} for name in MODULES}
    inits = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert circles({name: others - inits for name, others in files.items() if name not in inits}) == []


def test_no_room_imports_itself_by_a_circle():
    graph: dict[str, set[str]] = {}
    for name, others in GRAPH.items():
        if name != "medseg":
            graph.setdefault(room_of(name), set()).update(
                {room_of(other) for other in others} - {room_of(name)}
            )
    assert circles(graph) == []


def test_forbidden_imports_and_circles_would_be_seen():
    late = "def late():\n    from medseg.cli.main import main\n"
    typed = "if TYPE_CHECKING:\n    from medseg.bundles.find import Bundle\n"
    assert imports(ast.parse(late)) == {"medseg.cli.main"}
    assert imports(ast.parse(typed)) == {"medseg.bundles.find"}
    assert forbidden("medseg.reports.preview", "medseg.bundles.find")
    assert forbidden("medseg.dicom.damage", "medseg.training.checkpoints")
    assert forbidden("medseg.networks.quality", "medseg.shapes.boxes")
    assert not forbidden("medseg.transforms.saving", "medseg.reports.preview")
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []


def loads_without(missing: str, *modules: str) -> subprocess.CompletedProcess:
    """Import modules in a fresh Python in which the comma-separated ``missing`` libraries cannot be
    imported."""
    script = f"import sys\nfor name in {missing.split(',')!r}: sys.modules[name] = None\n"
    script += "".join(f"import {module}\n" for module in modules)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )


def modules_of(rooms: set[str]) -> list[str]:
    return [name for name in MODULES if room_of(name) in rooms]


def test_files_cases_reports_and_the_workbench_load_without_torch_and_monai():
    modules = modules_of(WITHOUT_TORCH)
    assert len(modules) > 30
    result = loads_without("torch,monai", *modules)
    assert result.returncode == 0, result.stderr


def test_what_learns_loads_without_pydicom_and_simpleitk():
    modules = modules_of(WITHOUT_DICOM)
    assert len(modules) > 20
    result = loads_without("pydicom,SimpleITK,highdicom,contourpy,shapely", *modules)
    assert result.returncode == 0, result.stderr


def test_the_check_of_missing_libraries_can_fail():
    assert "pydicom" in loads_without("pydicom", "medseg.dicom").stderr


def test_help_and_the_list_of_bundles_need_no_torch():
    for words in (["--help"], ["bundles"]):
        script = f"import sys; sys.argv = ['medseg', *{words!r}]\n"
        script += "for name in ('torch', 'pydicom', 'monai'): sys.modules[name] = None\n"
        script += "from medseg.cli.main import main; sys.exit(main())"
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert result.returncode == 0 and result.stdout, result.stderr


@pytest.mark.parametrize(
    "path", sources(PACKAGE, ROOT / "tools", ROOT / "tests"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_classes_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES_OF_A_FILE
    if ROOT / "tests" in path.parents:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_CLASS, node.name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            named = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(named) <= MOST_PARAMETERS or node.name in MORE_THAN_7_PARAMETERS, node.name


def test_a_newcomer_finds_few_things_on_top_and_short_files_below():
    modules = [path for path in PACKAGE.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    rooms = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert len(modules) <= MOST_MODULES_ON_TOP and len(rooms) <= MOST_ROOMS
    lengths = sorted(len(path.read_text().splitlines()) for path in sources(PACKAGE))
    assert lengths[len(lengths) // 2] < MOST_LINES_OF_THE_MEDIAN_FILE


def test_no_module_is_called_after_nothing_in_particular():
    vague = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    assert not vague & {path.name for path in sources(PACKAGE)}


def test_messages_of_the_library_name_fields_and_not_options_of_the_command_line():
    doors = ("cli", "serve", "__main__")
    # The first is started with options of its own, the other gives plastimatch its options.
    processes = ("medseg.bundles.worker", "medseg.commission.phantom")
    library = {n: path for n, path in MODULES.items() if room_of(n) not in doors and n not in processes}
    named = {name: options_in_texts(path) for name, path in library.items()}
    assert {name: options for name, options in named.items() if options} == {}


def options_in_texts(path: Path) -> list[str]:
    """Words like --within in the texts of a module, its docstrings left out."""
    tree = ast.parse(path.read_text())
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    docstrings = {id(line.value) for body in bodies for line in body if isinstance(line, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [option for text in texts for option in re.findall(r"--[a-z][\w-]*", str(text.value))]
