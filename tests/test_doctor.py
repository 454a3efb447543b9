"""The doctor on simulated machines: packages missing, broken or installed twice, with and without a GPU."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import asmk_engine
from asmk_engine import doctor as diagnosis
from asmk_engine.cli import doctor as command
from asmk_engine.doctor import PARTS, Diagnosis, PackageState, diagnose, is_writable, kernel_cache_folders
from asmk_engine.errors import DependencyError

MODULES = {part.module for part in PARTS}


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update({"__version__": "1.2.3", **content})
    return made


def torch(cuda: str | None = None, devices: tuple[str, ...] = ()) -> ModuleType:
    calls = {
        "is_available": lambda: bool(devices),
        "device_count": lambda: len(devices),
        "get_device_name": devices.__getitem__,
    }
    return module("torch", version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(**calls))


def machine(**changes: ModuleType | BaseException) -> Any:
    """An importer for a machine where all is well, but for the modules named."""
    modules: dict[str, ModuleType | BaseException] = {name: module(name) for name in MODULES}
    modules["torch"] = torch()
    modules["h5py"] = module("h5py", version=SimpleNamespace(hdf5_version="1.14"))
    modules["PIL.features"] = module("PIL.features", check=lambda code: True)
    modules |= {name.replace("__", "."): value for name, value in changes.items()}

    def importer(name: str) -> ModuleType:
        found = modules[name]
        if isinstance(found, BaseException):
            raise found
        return found

    return importer


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def finding(found: Diagnosis, name: str) -> PackageState:
    return next(part for part in found.parts if part.name == name)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.shutil, "which", lambda name: None)


def examined(importer: Any, **distributions: list[str]) -> Diagnosis:
    return diagnose(importer, distributions)


def test_a_machine_where_all_is_well() -> None:
    found = examined(machine())
    assert [part.state for part in found.parts] == ["ok"] * len(PARTS)
    assert found.problems == found.suggestions == ()
    assert finding(found, "numpy").version == "1.2.3"
    assert finding(found, "h5py").details == ("HDF5 1.14",)
    assert finding(found, "Pillow").details == ("reads JPEG, PNG, WebP, TIFF",)
    assert finding(found, "torch").details == ("built without CUDA", "runs on the CPU")
    assert finding(found, "faiss").details == ("built for the CPU",)
    assert found.version == asmk_engine.__version__
    assert found.python.startswith(platform.python_version())
    assert 1 <= found.threads <= found.processors


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_missing_package_is_named_with_its_command(part: diagnosis.Package) -> None:
    found = examined(machine(**{part.module: missing(part.module)}))
    assert finding(found, part.name).state == "missing"
    told = found.problems if part.required else found.suggestions
    assert len(found.problems) + len(found.suggestions) == 1
    assert told[0].startswith(part.name) and told[0].endswith(f"pip install {part.install}")


def test_the_commands_of_the_extras() -> None:
    extras = {part.name: part.install for part in PARTS if not part.required}
    assert extras == {
        "faiss": "'asmk-engine[cpu]'",
        "OpenVINO": "'asmk-engine[cpu]'",
        "matplotlib": "'asmk-engine[plots]'",
        "scikit-learn": "'asmk-engine[plots]'",
        "FastAPI": "'asmk-engine[serve]'",
        "uvicorn": "'asmk-engine[serve]'",
        "pillow-heif": "'asmk-engine[heif]'",
        "scikit-image": "'asmk-engine[demo]'",
    }


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libcudart.so.12: cannot open\nshared object file"),
        OSError("WinError 126"),
        missing("typing_extensions"),
        AttributeError("_ARRAY_API not found"),
        SystemError("initialisation failed"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("part", [PARTS[3], PARTS[10]], ids=lambda part: part.name)
def test_a_broken_package_is_reported(part: diagnosis.Package, error: Exception) -> None:
    found = examined(machine(**{part.module: error}), **{part.module: [f"{part.module}-dist"]})
    assert finding(found, part.name).state == "broken"
    told = found.problems if part.required else found.warnings
    cure = f"pip install --force-reinstall {part.module}-dist"
    message = next(text for text in told if text.startswith(f"{part.name} is installed but fails"))
    assert type(error).__name__ in message and message.endswith(cure) and "\n" not in message
    assert (found.problems == ()) == (not part.required)


def test_a_package_that_imports_and_then_fails() -> None:
    broken = torch(cuda="12.6")
    broken.cuda.is_available = lambda: 1 / 0  # type: ignore[attr-defined]
    found = finding(examined(machine(torch=broken)), "torch")
    assert (found.state, found.version) == ("broken", "1.2.3")
    assert found.problem is not None and found.problem.startswith("ZeroDivisionError")


def test_everything_missing_at_once() -> None:
    found = examined(machine(**{name: missing(name) for name in MODULES}))
    assert {part.state for part in found.parts} == {"missing"}
    assert len(found.problems) == sum(part.required for part in PARTS)


def test_two_distributions_of_one_module() -> None:
    found = examined(
        machine(),
        faiss=["faiss-gpu", "faiss-cpu", "faiss-cpu"],
        cv2=["opencv-python", "opencv-python-headless"],
        numpy=["numpy"],
    )
    faiss, opencv = (next(text for text in found.warnings if text.startswith(name)) for name in ("faiss", "OpenCV"))
    assert "faiss-cpu and faiss-gpu, which share one folder" in faiss
    assert faiss.endswith("pip uninstall -y faiss-cpu faiss-gpu && pip install 'asmk-engine[cpu]'")
    assert opencv.endswith(
        "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless"
    )
    assert not any(text.startswith("numpy") for text in found.warnings)
    assert finding(found, "faiss").distributions == ("faiss-cpu", "faiss-gpu")
    assert found.problems == ()


def test_a_gpu_that_torch_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.platform, "system", lambda: "Linux")
    monkeypatch.setattr(diagnosis.platform, "machine", lambda: "x86_64")
    found = examined(machine(torch=torch("12.6", ("H200", "T4")), faiss=missing("faiss")))
    assert finding(found, "torch").details == ("built for CUDA 12.6", "cuda:0 H200", "cuda:1 T4")
    assert found.suggestions[0].endswith("pip install 'asmk-engine[gpu]'")
    monkeypatch.setattr(diagnosis.platform, "system", lambda: "Windows")
    found = examined(machine(torch=torch("12.6", ("H200",)), faiss=missing("faiss")))
    assert found.suggestions[0].endswith("pip install 'asmk-engine[cpu]'")  # there are no wheels for the GPU


@pytest.mark.parametrize(("build", "cure"), [(None, "--force-reinstall torch"), ("12.6", "update the driver")])
def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, build: str | None, cure: str) -> None:
    assert not finding(examined(machine(torch=torch(build))), "torch").warnings
    monkeypatch.setattr(diagnosis.shutil, "which", lambda name: f"/usr/bin/{name}")
    found = examined(machine(torch=torch(build)))
    assert finding(found, "torch").details[-1] == "runs on the CPU"
    assert len(found.warnings) == 1 and cure in found.warnings[0]


def test_faiss_for_the_gpu() -> None:
    faiss = module("faiss", StandardGpuResources=object, get_num_gpus=lambda: 2)
    assert finding(examined(machine(faiss=faiss)), "faiss").details == ("built for the GPU, 2 found",)


def test_decoders_that_pillow_lacks() -> None:
    lacking = module("PIL.features", check=lambda code: code not in ("webp", "libtiff"))
    found = examined(machine(PIL__features=lacking))
    assert finding(found, "Pillow").details == ("reads JPEG, PNG",)
    assert found.warnings[0].startswith("Pillow cannot read WebP, TIFF: pip install")


def test_a_version_that_only_pip_knows() -> None:
    silent = ModuleType("click")
    found = diagnose(machine(click=silent), {"click": ["click"]})
    assert finding(found, "click").version == importlib.metadata.version("click")
    assert finding(diagnose(machine(click=silent), {}), "click").version == "of unknown version"


def test_the_folder_of_compiled_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, user = tmp_path / "file", tmp_path / "user"
    file.write_text("in the way")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen" / "deep"))
    assert kernel_cache_folders()[0] == tmp_path / "chosen" / "deep"
    assert examined(machine()).kernel_cache == str(tmp_path / "chosen" / "deep")
    assert not (tmp_path / "chosen").exists()
    monkeypatch.setattr(diagnosis, "kernel_cache_folders", lambda: [file / "cache", user])
    found = examined(machine())
    assert found.kernel_cache == str(user)
    assert f"{file / 'cache'} is not writable, compiled kernels go to {user}" in found.warnings[0]
    monkeypatch.setattr(diagnosis, "kernel_cache_folders", lambda: [file / "cache"])
    found = examined(machine())
    assert found.kernel_cache is None
    assert "set NUMBA_CACHE_DIR" in found.problems[0]


def test_numba_looks_in_the_folders_we_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    beside, user = kernel_cache_folders()
    kernels = importlib.import_module("asmk_engine.kernels")
    assert kernels.__file__ is not None
    assert beside == Path(kernels.__file__).parent / "__pycache__"
    appdirs = importlib.import_module("numba.misc.appdirs").AppDirs(appname="numba", appauthor=False)
    if sys.platform != "win32":
        assert user == Path(appdirs.user_cache_dir)


def test_what_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert is_writable(tmp_path)
    assert is_writable(tmp_path / "new" / "deep")
    assert not is_writable(tmp_path / "file")
    assert not is_writable(tmp_path / "file" / "below")


# --- The command ------------------------------------------------------------------------------------------------------


def test_this_machine() -> None:
    result = CliRunner().invoke(command.doctor, [])
    assert result.exit_code == 0, result.exception
    rows = {line[:18].strip(): line[19:] for line in result.stdout.splitlines()}
    assert rows["asmk-engine"] == asmk_engine.__version__
    assert rows["numpy"] == importlib.import_module("numpy").__version__
    assert rows["Pillow"].endswith("(reads JPEG, PNG, WebP, TIFF)")


def test_json_on_this_machine() -> None:
    result = CliRunner().invoke(command.doctor, ["--json"])
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert {part["name"] for part in found["parts"]} == {part.name for part in PARTS}
    assert found["problems"] == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_exit_code(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    lacking = examined(machine(faiss=missing("faiss"), matplotlib=OSError("bad file")))
    monkeypatch.setattr(diagnosis, "diagnose", lambda: lacking)
    result = CliRunner().invoke(command.doctor, options)
    assert result.exit_code == 0
    assert "pip install 'asmk-engine[cpu]'" in result.stdout
    monkeypatch.setattr(diagnosis, "diagnose", lambda: examined(machine(torch=missing("torch"), cv2=ImportError("no"))))
    result = CliRunner().invoke(command.doctor, options)
    assert isinstance(result.exception, DependencyError)
    assert str(result.exception).startswith("torch is missing") and "; OpenCV is" in str(result.exception)
    assert "broken" in result.stdout  # the whole report is printed all the same
