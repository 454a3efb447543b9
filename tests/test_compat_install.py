"""The drop-in under the name `asmk`: installed in a process, in those that it starts, and by running a program."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import asmk_engine.compat
from asmk_engine.codebooks.kmeans import is_installed
from asmk_engine.compat import install, uninstall
from asmk_engine.compat.assignment import chosen_assignment
from asmk_engine.compat.index import FaissL2Index, IndexFlatL2
from asmk_engine.compat.installation import ASSIGNMENT_VARIABLE
from asmk_engine.compat.names import MODULES
from asmk_engine.errors import InputError
from samples import ENVIRONMENT, random_codebook

PACKAGE = Path(asmk_engine.compat.__file__).parent


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No `asmk` before a test, and nothing left of it afterwards."""
    assert not [name for name in sys.modules if name.split(".")[0] == "asmk"]
    path = list(sys.path)
    yield
    uninstall()
    for name in [name for name in sys.modules if name.split(".")[0] == "asmk"]:
        del sys.modules[name]
    assert sys.path == path


# --- In this process -------------------------------------------------------------------------------------------------


def test_every_way_of_importing_finds_the_same_modules() -> None:
    assert install() is None
    namespace: dict[str, types.ModuleType] = {}
    exec(
        "from asmk import asmk_method, kernel, io_helpers, ASMKMethod\n"  # HOW, FIRe, MASt3R, MASt3R-SLAM, the demo
        "from asmk.asmk_method import ASMKMethod as method, IvfBuilder\n"
        "from asmk.codebook import Codebook\nfrom asmk.kernel import ASMKKernel\nfrom asmk.inverted_file import IVF\n"
        "from asmk.index import initialize_index, FaissL2Index, FaissGpuL2Index\n"
        "from asmk import hamming, functional\nimport asmk.index\nimport asmk.hamming as h",
        namespace,
    )
    assert namespace["asmk"] is asmk_engine.compat
    assert namespace["method"] is namespace["ASMKMethod"] is asmk_engine.compat.ASMKMethod
    assert namespace["h"] is namespace["hamming"]
    for name in MODULES:
        module = importlib.import_module(f"asmk.{name}")
        assert module is getattr(namespace["asmk"], name) is importlib.import_module(f"asmk_engine.compat.{name}")
        assert importlib.util.find_spec(f"asmk.{name}") is module.__spec__
    assert importlib.reload(sys.modules["asmk.functional"]) is sys.modules["asmk_engine.compat.functional"]
    assert pickle.loads(pickle.dumps(namespace["method"])) is asmk_engine.compat.ASMKMethod
    with pytest.raises(ImportError):
        exec("from asmk import nothing_like_this")


def test_what_a_program_puts_into_a_module_is_what_the_method_uses() -> None:
    """As MASt3R does where faiss has no GPU: its class takes the place of the one for the GPU."""
    install()
    import asmk.index  # type: ignore[import-not-found]

    class CpuIndex(asmk.index.FaissL2Index):  # type: ignore[misc,name-defined]
        def __init__(self, gpu_id: int) -> None:
            super().__init__()

    original = asmk.index.FaissGpuL2Index
    try:
        asmk.index.FaissGpuL2Index = CpuIndex
        assert type(asmk_engine.compat.index.initialize_index(0)) is CpuIndex
    finally:
        asmk.index.FaissGpuL2Index = original


def test_installed_again_nothing_changes_and_uninstalled_nothing_is_left() -> None:
    before = dict(sys.modules), list(sys.path)
    install(assignment="graph")
    installed = list(sys.path)
    install()
    assert sys.path == installed and len(set(installed)) == len(set(before[1])) + 1 and installed[0] == before[1][0]
    assert chosen_assignment() == "graph" == os.environ[ASSIGNMENT_VARIABLE]
    install(assignment="exact")
    assert chosen_assignment() == "exact" == os.environ[ASSIGNMENT_VARIABLE]
    uninstall()
    uninstall()
    assert "asmk" not in sys.modules and importlib.util.find_spec("asmk") is None
    assert sys.path == before[1] and chosen_assignment() == "exact" and ASSIGNMENT_VARIABLE not in os.environ


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Another package of that name, imported with one of its modules."""
    folder = tmp_path / "site" / "asmk"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from . import kernel\n")
    (folder / "kernel.py").write_text("binary = 'the original'\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    module = importlib.import_module("asmk")
    monkeypatch.undo()
    return module


def test_an_imported_original_is_refused_or_replaced_and_given_back(original: types.ModuleType) -> None:
    before = dict(sys.modules), list(sys.path)
    with pytest.raises(
        InputError, match=r"site.asmk.__init__\.py: this asmk is imported already.*force=True"
    ) as caught:
        install(assignment="graph")
    assert "\n" not in str(caught.value)
    assert dict(sys.modules) == before[0] and sys.path == before[1] and chosen_assignment() == "exact"
    for _ in range(2):
        install(force=True)
        assert sys.modules["asmk"] is asmk_engine.compat
        assert sys.modules["asmk.kernel"] is asmk_engine.compat.kernel
    install()  # the place is taken already
    uninstall()
    assert sys.modules["asmk"] is original and sys.modules["asmk.kernel"] is original.kernel


def test_a_module_that_was_forbidden_is_no_original(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asmk", None)  # type: ignore[arg-type]
    install()
    assert importlib.import_module("asmk") is asmk_engine.compat


def test_a_wrong_assignment_changes_nothing() -> None:
    with pytest.raises(InputError, match="choose exact or graph"):
        install(assignment="fast")
    assert "asmk" not in sys.modules


def test_an_exact_index_of_faiss_is_replaced_and_a_class_of_ones_own_is_not() -> None:
    faiss = pytest.importorskip("faiss")
    centroids = random_codebook(50, 8).centroids
    queries = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)

    class Derived(faiss.IndexFlatL2):  # type: ignore[misc,name-defined]
        pass

    def factory(kind: type) -> FaissL2Index:
        made = FaissL2Index()
        made._faiss_index_flat = kind  # type: ignore[method-assign]
        return made

    replaced, derived = (factory(kind).create_index(centroids) for kind in (faiss.IndexFlatL2, Derived))
    assert isinstance(replaced, IndexFlatL2) and isinstance(derived, Derived)
    for k in (1, 5):
        (far, found), (expected_far, expected) = replaced.search(queries, k), derived.search(queries, k)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(far, expected_far, rtol=1e-4, atol=1e-4)


# --- Programs --------------------------------------------------------------------------------------------------------


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def run_compat(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run("-m", "asmk_engine.compat", *arguments, cwd=cwd)


TELL = """
import json, sys
main = sys.modules["__main__"]
spec = __spec__ and __spec__.name
print(json.dumps([__name__, __file__, sys.argv, sys.path[0], spec, main.__file__, main.spec is spec]))
"""


def test_a_script_sees_what_python_would_show_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 7\n")
    (tmp_path / "script.py").write_text(f"import beside\nfrom asmk import kernel\n{TELL}")
    (tmp_path / "plain.py").write_text(f"import beside\n{TELL}")
    (tmp_path / "elsewhere").mkdir()
    for cwd, prefix in ((tmp_path, ""), (tmp_path / "elsewhere", "../"), (tmp_path, f"{tmp_path}/")):
        expected = run(f"{prefix}plain.py", "a", "-m", "--assignment", "b c", cwd=cwd)
        found = run_compat(f"{prefix}script.py", "a", "-m", "--assignment", "b c", cwd=cwd)
        assert found.returncode == expected.returncode == 0, found.stderr + expected.stderr
        assert found.stdout == expected.stdout.replace("plain.py", "script.py")
    os.symlink(tmp_path / "script.py", tmp_path / "elsewhere" / "link.py")
    assert run_compat("link.py", cwd=tmp_path / "elsewhere").returncode == 0  # what lies beside the script itself


def test_a_module_and_a_folder_are_run_as_python_runs_them(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(TELL)
    (package / "tool.py").write_text(f"import asmk.hamming\n{TELL}")
    (package / "plain.py").write_text(TELL)
    for plain, name in (("package.plain", "package.tool"), ("package", "package")):
        expected, found = run("-m", plain, "-x", "1", cwd=tmp_path), run_compat("-m", name, "-x", "1", cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert found.stdout == expected.stdout.replace("plain", "tool")
    expected, found = run(package, "1", cwd=tmp_path), run_compat(package, "1", cwd=tmp_path)
    assert found.stdout == expected.stdout and found.returncode == 0, found.stderr


ENDS = [
    "raise SystemExit(3)",
    "import sys; sys.exit('told by the program')",
    "import sys; sys.exit()",
    "def f():\n    return 1 // 0\nf()",
    "try:\n    1 // 0\nexcept ZeroDivisionError as e:\n    raise ValueError('two\\nlines') from e",
    "x = (",
    "import os; os._exit(9)",
    "import sys\nsys.excepthook = lambda kind, error, where: print('mine', kind.__name__, where.tb_lineno)\n1 // 0",
    # A background job of a shell ignores SIGINT.
    "import signal, os; signal.signal(2, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)",
    "import threading, time, sys\n"
    "def later():\n    time.sleep(0.3); import __main__; print(__main__.begun)\n"
    "begun = 5; threading.Thread(target=later).start(); import atexit; atexit.register(lambda: print(begun))",
]


@pytest.mark.parametrize("text", ENDS)
def test_a_script_ends_as_python_lets_it_end(text: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"print('begun')\n{text}\nprint('ended')\n" if text != "x = (" else text)
    expected, found = run("script.py", cwd=tmp_path), run_compat("script.py", cwd=tmp_path)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    if "SIGINT" in text:
        assert found.stderr.splitlines()[-1] == expected.stderr.splitlines()[-1] == "KeyboardInterrupt"
    else:
        assert found.stderr == expected.stderr


REFUSED = [
    (["missing.py"], 2, "missing.py: no such file; expected a Python script"),
    (["-m", "no_such_module"], 1, "'no_such_module': no such module"),
    (["-m", "no_such.module"], 1, "'no_such.module': cannot be found: No module named 'no_such'"),
    (["-m", "email"], 1, "'email': no such module, or a package without __main__"),
    (["-m", ""], 1, "'': no such module"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED)
def test_what_cannot_be_run_is_told_in_one_line(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    found = run_compat(*arguments, cwd=tmp_path)
    assert found.returncode == code and message in found.stderr
    assert found.stderr.startswith("Error: ") and found.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["-m"], ["--assignment", "fast", "x.py"], ["--unknown"]])
def test_a_wrong_call_shows_the_usage(arguments: list[str], tmp_path: Path) -> None:
    found = run_compat(*arguments, cwd=tmp_path)
    assert found.returncode == 2 and found.stderr.startswith("usage: python -m asmk_engine.compat")
    assert run_compat("--help", cwd=tmp_path).returncode == 0


STARTS_OTHERS = """
import multiprocessing, sys

def work(numbers):
    from asmk import kernel
    from asmk.index import FaissL2Index
    import asmk.hamming, numpy
    index = FaissL2Index().create_index(numpy.eye(4, dtype=numpy.float32))
    numbers.put([type(index).__name__, kernel.__name__, asmk.__name__])

if __name__ == "__main__":
    for way in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(way)
        numbers = context.Queue()
        child = context.Process(target=work, args=(numbers,))
        child.start()
        print(way, *numbers.get(timeout=200))
        child.join()
"""


@pytest.mark.parametrize("assignment", ["exact", "graph"])
def test_processes_that_are_started_find_it_too(assignment: str, tmp_path: Path) -> None:
    """As MASt3R-SLAM starts the one that retrieves."""
    (tmp_path / "script.py").write_text(STARTS_OTHERS)
    found = run_compat("--assignment", assignment, "script.py", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    kind = {"exact": "IndexFlatL2", "graph": "GraphIndex"}[assignment]
    lines = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
    assert {rest for _, rest in lines} == {f"{kind} asmk_engine.compat.kernel asmk_engine.compat"}
    assert "spawn" in [way for way, _ in lines]


RETRIEVES = """
import sys
import numpy as np
try:
    import faiss
    faiss.StandardGpuResources()
except AttributeError:
    import asmk.index

    class FaissCpuL2Index(asmk.index.FaissL2Index):
        def __init__(self, gpu_id):
            super().__init__()
            self.gpu_id = gpu_id

        def _faiss_index_flat(self, dim):
            return faiss.IndexFlatL2(dim)

    asmk.index.FaissGpuL2Index = FaissCpuL2Index

from asmk import asmk_method

params = {"index": {"gpu_id": 0}, "train_codebook": {"codebook": {"size": 50}},
          "build_ivf": {"kernel": {"binary": True}, "ivf": {"use_idf": False},
                        "quantize": {"multiple_assignment": 1}, "aggregate": {}},
          "query_ivf": {"quantize": {"multiple_assignment": 5}, "aggregate": {}, "search": {"topk": None},
                        "similarity": {"similarity_threshold": 0.0, "alpha": 3.0}}}
method = asmk_method.ASMKMethod.initialize_untrained(params).train_codebook(None, cache_path=sys.argv[1])
features = np.load(sys.argv[2])
ids = np.repeat(np.arange(len(features) // 20), 20)
metadata, query_ids, ranks, ranked_scores = method.build_ivf(features, ids).query_ivf(features, ids)
scores = np.empty_like(ranked_scores)
scores[np.arange(ranked_scores.shape[0])[:, None], ranks] = ranked_scores
np.save(sys.argv[3], scores)
print(type(method.codebook.search_index).__module__, faiss.__file__)
"""
HIDES_FAISS = """
import runpy, sys
from importlib.machinery import PathFinder

class Hides:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "faiss":
            found = PathFinder.find_spec(name, [folder for folder in sys.path if "site-packages" not in folder])
            if found is None:
                raise ModuleNotFoundError("No module named 'faiss'")
            return found

sys.meta_path.insert(0, Hides)
import asmk_engine.compat
asmk_engine.compat.install(faiss=sys.argv.pop(1) == "faiss")
from asmk_engine.codebooks.kmeans import choose_backend
print(choose_backend("auto", 10))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_program_as_mast3r_has_it(tmp_path: Path) -> None:
    """With faiss, without it and this package in its place, and without either."""
    pytest.importorskip("faiss")
    centroids = random_codebook(50, 24).centroids
    state = {"type": "Codebook", "params": {"size": 50}, "state": {"centroids": centroids}}
    (tmp_path / "codebook.pkl").write_bytes(pickle.dumps(state))
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(160, 24)).astype(np.float32))
    (tmp_path / "program.py").write_text(RETRIEVES)
    (tmp_path / "hides.py").write_text(HIDES_FAISS)
    files = ["codebook.pkl", "features.npy"]
    found = run_compat("program.py", *files, "one.npy", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("asmk_engine.compat.index") and "site-packages" in found.stdout
    found = run("hides.py", "faiss", "program.py", *files, "two.npy", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    backend, where = found.stdout.splitlines()
    assert backend == "torch" and where.endswith(os.path.join("faiss_only", "faiss.py"))
    scores = np.load(tmp_path / "one.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "two.npy"), scores)
    assert scores.shape == (8, 8) and (scores.argmax(axis=1) == np.arange(8)).all()
    found = run("hides.py", "none", "program.py", *files, "two.npy", cwd=tmp_path)
    assert found.returncode == 1 and "No module named 'faiss'" in found.stderr


def test_a_real_faiss_comes_before_the_stand_in() -> None:
    pytest.importorskip("faiss")
    install(faiss=True)
    assert sys.path[-1].endswith("faiss_only") and is_installed("faiss")
    assert importlib.util.find_spec("faiss").submodule_search_locations  # type: ignore[union-attr]
    uninstall()
    assert not any(folder.endswith("faiss_only") for folder in sys.path)


def test_nothing_heavy_is_imported_with_the_name_alone() -> None:
    code = "import sys, asmk_engine.compat; print([n for n in ('numba', 'torch', 'h5py', 'faiss') if n in sys.modules])"
    assert run("-c", code).stdout.strip() == "[]"
