"""The rules of the code base, checked by reading the sources: imports, modules that stay unloaded, lengths."""

import ast
import graphlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import pytest

import asmk_engine

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FOLDERS = {"asmk_engine": "asmk_engine", "kernels": "asmk_engine.kernels", "codebooks": "asmk_engine.codebooks"}

# Bottom to top. A room imports from itself and from those before it, never from those after it.
ROOMS = [
    *["version", "errors", "threads", "iteration", "escape", "recipes", "kernels"],
    *["storage", "images", "features", "regions", "codebooks", "networks", "extraction", "extractors"],
    *["verification", "indexes", "inverted", "flat", "fused", "diffusion", "evaluation", "sharding", "search"],
    *["reranking", "maintenance"],
    *["training", "pictures", "groups", "interop", "compat", "doctor", "demo"],
    *["tradeoff", "reproduction", "pipeline", "audit", "cluster", "serve", "cli", "__main__"],
]
# Packages of others that only some rooms may import, not even inside a function.
WALLS = {
    "torch": {"networks", "extractors", "flat", "training", "codebooks"},
    "click": {"cli"},
    "numba": {"kernels", "threads"},
    "ray": {"cluster"},
    **{package: {"serve"} for package in ("fastapi", "starlette", "uvicorn", "prometheus_client", "anyio")},
}
KERNEL = "asmk_engine.kernels.kernel"  # what makes a function one of them
KERNELS_MAY_IMPORT = {"numpy", "numba", *sys.stdlib_module_names}
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLE_READER = "asmk_engine.storage.pickles.unpickle"
HEAVY = ["torch", "numba", "h5py", "cv2", "faiss", "matplotlib", "skimage"]

LONGEST_FUNCTION = 70
LONGEST_FILE = 450
# Written apart, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|NotImplemented" r"Error)\b")


@dataclass(frozen=True)
class Source:
    """One Python file: where it lies, the name it is imported by, and its text."""

    path: Path
    module: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def room(self) -> str:
        """`codebooks` for asmk_engine.codebooks.kmeans, the empty string for asmk_engine itself."""
        return room_of(self.module)

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def room_of(module: str) -> str:
    return module.removeprefix("asmk_engine").removeprefix(".").split(".")[0]


def source(module: str, text: str) -> Source:
    """A source that exists only in a test."""
    return Source(ROOT / (module.replace(".", "/") + ".py"), module, text)


def package_sources() -> list[Source]:
    found = []
    for folder, package in PACKAGE_FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            module = ".".join([package, *parts]).removesuffix(".__init__")
            found.append(Source(path, module, path.read_text(encoding="utf-8")))
    return found


def imports(file: Source) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of everything imported anywhere in a file, `import_module("...")` included."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(file, node)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def absolute(file: Source, node: ast.ImportFrom) -> str:
    """The module an `from ... import` takes from, its leading dots resolved."""
    package = file.module.split(".")
    if file.path.name != "__init__.py":
        package = package[:-1]
    above = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def floor_faults(file: Source) -> Iterator[str]:
    """Imports that run upward, and rooms that have no floor."""
    if not file.room:  # the façade names every room, and loads none
        return
    if file.room not in ROOMS:
        yield f"{file.at(1)}: the room `{file.room}` stands on no floor; add it to ROOMS in tests/test_house.py"
        return
    for line, name in imports(file):
        room = room_of(name)
        if name.split(".")[0] != "asmk_engine" or room in (file.room, "__version__"):
            continue
        if room not in ROOMS:
            yield f"{file.at(line)}: imports `{room or name}`, which is no room: name the room where it is defined"
        elif ROOMS.index(room) > ROOMS.index(file.room):
            yield f"{file.at(line)}: `{file.room}` imports `{room}`, which is above it"


def wall_faults(file: Source) -> Iterator[str]:
    """Imports of torch, click or numba in a room that must do without."""
    for line, name in imports(file):
        allowed = WALLS.get(name.split(".")[0])
        if allowed is not None and file.room not in allowed:
            where = ", ".join(sorted(allowed))
            yield f"{file.at(line)}: `{file.room or 'asmk_engine'}` imports {name.split('.')[0]}; only {where} may"


def kernel_faults(file: Source) -> Iterator[str]:
    """Kernels that import anything but numpy, numba and the standard library, a sibling among them."""
    if file.room == "kernels":
        for line, name in imports(file):
            if name != KERNEL and name.split(".")[0] not in KERNELS_MAY_IMPORT:
                yield f"{file.at(line)}: a kernel imports {name}; only numpy and numba may be imported there"


def pickle_faults(file: Source) -> Iterator[str]:
    """Ways to execute what a file says while reading it."""
    if not file.module.startswith(PICKLE_READER.rpartition(".")[0]):  # it reads opcodes and runs none
        yield from (f"{file.at(line)}: imports {name}" for line, name in imports(file) if "pickletools" in name)
    if file.module != PICKLE_READER:
        for line, name in imports(file):
            if name.split(".")[0] in PICKLES:
                yield f"{file.at(line)}: imports {name}; only {PICKLE_READER} may"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call):
            yield from unsafe_load_faults(file, node)


def unsafe_load_faults(file: Source, call: ast.Call) -> Iterator[str]:
    true = {word.arg for word in call.keywords if isinstance(word.value, ast.Constant) and word.value.value is True}
    if "allow_pickle" in true:
        yield f"{file.at(call.lineno)}: allow_pickle=True reads what can run code"
    if ast.unparse(call.func) == "torch.load" and "weights_only" not in true:
        yield f"{file.at(call.lineno)}: torch.load without weights_only=True reads what can run code"


def error_faults(file: Source) -> Iterator[str]:
    """`assert` vanishes under `python -O`; `except: pass` hides what went wrong."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Assert):
            yield f"{file.at(node.lineno)}: assert in the package; raise one of asmk_engine.errors"
        if isinstance(node, ast.ExceptHandler) and swallows_everything(node):
            yield f"{file.at(node.lineno)}: swallows every error; name the one that is expected"


def swallows_everything(node: ast.ExceptHandler) -> bool:
    caught = ast.unparse(node.type) if node.type else "BaseException"
    return caught in ("Exception", "BaseException") and all(isinstance(step, ast.Pass) for step in node.body)


def docstring_faults(file: Source) -> Iterator[str]:
    """Modules and public classes, functions and methods that say nothing about themselves."""
    if not ast.get_docstring(file.tree):
        yield f"{file.at(1)}: the module has no docstring"
    for node in public_definitions(file.tree):
        if not ast.get_docstring(node):
            yield f"{file.at(node.lineno)}: {node.name} has no docstring"


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_definitions(parent: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for node in parent.body:
        if isinstance(node, Definition) and not node.name.startswith("_") and not declares_only(node):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


def declares_only(node: Definition) -> bool:
    """An overload or a property's setter: its docstring stands at the sibling of the same name."""
    marks = [ast.unparse(mark).split(".")[-1] for mark in node.decorator_list]
    return any(mark in ("overload", "setter", "deleter") for mark in marks)


def length_faults(file: Source) -> Iterator[str]:
    lines = file.text.count("\n")
    if lines > LONGEST_FILE:
        yield f"{file.at(1)}: {lines} lines; is it still one subject? ({LONGEST_FILE} at most)"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{file.at(node.lineno)}: {node.name} has {length} lines ({LONGEST_FUNCTION} at most)"


def unfinished_faults(file: Source) -> Iterator[str]:
    for number, line in enumerate(file.text.splitlines(), start=1):
        if UNFINISHED.search(line):
            yield f"{file.at(number)}: unfinished: {line.strip()}"


RULES = [
    floor_faults,
    wall_faults,
    kernel_faults,
    pickle_faults,
    error_faults,
    docstring_faults,
    length_faults,
    unfinished_faults,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Callable[[Source], Iterator[str]]) -> None:
    faults = dict.fromkeys(fault for file in package_sources() for fault in rule(file))
    assert not faults, "\n" + "\n".join(faults)


def needs(files: list[Source]) -> dict[str, set[str]]:
    """For each module the modules that it imports anywhere, a package being its `__init__`."""
    known = {file.module for file in files}
    needed: dict[str, set[str]] = {}
    for file in files:
        names = (name.split(".") for _, name in imports(file))
        ends = ((parts[:end] for end in range(len(parts), 0, -1)) for parts in names)
        found = (next((module for parts in tried if (module := ".".join(parts)) in known), None) for tried in ends)
        needed[file.module] = {module for module in found if module and module != file.module}
    return needed


def circle(needed: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty where there are none."""
    try:
        graphlib.TopologicalSorter(needed).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(needs(package_sources())) == []


def test_a_circle_is_found() -> None:
    texts = {
        "a": "from asmk_engine import b",
        "b": "def f():\n    from asmk_engine.c import g",
        "c": "import asmk_engine.a",
    }
    files = [source(f"asmk_engine.{name}", text) for name, text in texts.items()]
    assert set(circle(needs(files))) == {"asmk_engine.a", "asmk_engine.b", "asmk_engine.c"}
    assert circle(needs(files[:2])) == []


def test_a_class_name_means_one_thing() -> None:
    """But for `compat`, whose names are those of another package."""
    homes: dict[str, list[str]] = {}
    for file in package_sources():
        names = (node.name for node in ast.walk(file.tree) if isinstance(node, ast.ClassDef))
        for name in names if file.room != "compat" else ():
            homes.setdefault(name.lstrip("_"), []).append(file.module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_few_modules_lie_loose() -> None:
    loose = [file.module for file in package_sources() if file.path.parent == ROOT / "asmk_engine"]
    assert len(loose) <= 10, loose


def test_nothing_is_left_unfinished_around_the_package() -> None:
    paths = [path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    files = [Source(path, path.stem, path.read_text(encoding="utf-8")) for path in paths]
    faults = [fault for file in files for fault in unfinished_faults(file)]
    assert not faults, "\n" + "\n".join(faults)


BREAKS = [
    (floor_faults, "asmk_engine.storage.a", "from asmk_engine.inverted import Index", "`storage` imports `inverted`"),
    (floor_faults, "asmk_engine.storage.a", "from asmk_engine import inverted", "`storage` imports `inverted`"),
    (floor_faults, "asmk_engine.storage.a", "import asmk_engine.cli.main", "`storage` imports `cli`"),
    (floor_faults, "asmk_engine.storage.a", "from ..search import Hit", "`storage` imports `search`"),
    (floor_faults, "asmk_engine.extractors.how", "from ..search import Hit", "`extractors` imports `search`"),
    (floor_faults, "asmk_engine.storage.a", "def f():\n    from asmk_engine import search", "storage/a.py:2"),
    (floor_faults, "asmk_engine.storage.a", "import_module('asmk_engine.search')", "`storage` imports `search`"),
    (floor_faults, "asmk_engine.cli.main", "from asmk_engine import Index", "name the room where it is defined"),
    (floor_faults, "asmk_engine.cellar", "import sys", "`cellar` stands on no floor"),
    (wall_faults, "asmk_engine.inverted.index", "def f():\n    import torch.nn", "`inverted` imports torch"),
    (wall_faults, "asmk_engine.search.a", "from numba import njit", "`search` imports numba"),
    (wall_faults, "asmk_engine.pictures.page", "import click", "`pictures` imports click"),
    (kernel_faults, "asmk_engine.kernels.match", "from asmk_engine.kernels.bits import popcount", "a kernel imports"),
    (kernel_faults, "asmk_engine.kernels.match", "from .bits import popcount", "a kernel imports"),
    (kernel_faults, "asmk_engine.kernels.match", "import scipy", "a kernel imports scipy"),
    (pickle_faults, "asmk_engine.storage.a", "from pickle import loads", "imports pickle.loads"),
    (pickle_faults, "asmk_engine.storage.pickles.machine", "import pickle", "imports pickle"),
    (pickle_faults, "asmk_engine.storage.a", "import pickletools", "imports pickletools"),
    (pickle_faults, "asmk_engine.storage.a", "np.load(path, allow_pickle=True)", "allow_pickle"),
    (pickle_faults, "asmk_engine.networks.a", "torch.load(path, weights_only=False)", "weights_only"),
    (error_faults, "asmk_engine.storage.a", "assert x", "assert in the package"),
    (error_faults, "asmk_engine.storage.a", "try:\n    f()\nexcept Exception:\n    pass", "swallows"),
    (docstring_faults, "asmk_engine.storage.a", '"""Doc."""\ndef f(): ...', "f has no docstring"),
    (docstring_faults, "asmk_engine.storage.a", '"""Doc."""\nclass A:\n    """A."""\n    def b(self): ...', "b has no"),
    (length_faults, "asmk_engine.storage.a", "def f():\n" + "    x()\n" * 70, "f has 71 lines"),
    (length_faults, "asmk_engine.storage.a", "x()\n" * 451, "451 lines"),
    (unfinished_faults, "asmk_engine.storage.a", "x()  # TO" + "DO: later", "unfinished"),
]


@pytest.mark.parametrize(("rule", "module", "text", "message"), BREAKS)
def test_a_broken_rule_is_found(rule: Callable[[Source], Iterator[str]], module: str, text: str, message: str) -> None:
    assert message in "\n".join(rule(source(module, text)))


def test_what_the_rules_allow_is_not_reported() -> None:
    text = '"""Doc."""\nimport numpy\nfrom asmk_engine.version import __version__\n'
    text += "from ..storage import folder\nfrom ..errors import AsmkError\n"
    assert [fault for rule in RULES for fault in rule(source("asmk_engine.inverted.index", text))] == []


def loaded_by(code: str, folder: Path) -> set[str]:
    """Which of the heavy packages a fresh interpreter holds after running `code` in an empty folder."""
    report = f"import sys; print('LOADED', *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    paths = [str(Path(asmk_engine.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.strip().splitlines()[-1].removeprefix("LOADED").split())


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("import asmk_engine; dir(asmk_engine)", tmp_path) == set()


def test_the_help_of_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from asmk_engine.cli import main
sys.argv = ["asmk-engine", "--help"]
try:
    main()
except SystemExit as end:
    if end.code:
        raise
"""
    assert loaded_by(code, tmp_path) == set()


def test_a_heavy_import_is_noticed(tmp_path: Path) -> None:
    assert loaded_by("import h5py", tmp_path) == {"h5py"}


def test_every_package_of_the_tree_is_installed() -> None:
    configuration = ConfigParser()
    configuration.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = configuration["options"]["packages"].split()
    in_the_tree = [file.module for file in package_sources() if file.path.name == "__init__.py"]
    assert sorted(listed) == sorted(in_the_tree)


def test_every_module_of_the_tree_is_found_under_its_name() -> None:
    missing = [file.module for file in package_sources() if importlib.util.find_spec(file.module) is None]
    assert missing == []
