"""Diagnose the installation: what is installed, what works, and what to install for more.

Missing packages are reported; they never make the diagnosis itself fail.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from asmk_engine.threads import available_threads
from asmk_engine.version import __version__

Importer = Callable[[str], ModuleType]
Distributions = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Package:
    """A package this program uses.

    name      name for display
    module    name to import
    install   argument of `pip install` that installs it
    purpose   what it is used for
    required  whether the program fails without it
    """

    name: str
    module: str
    install: str
    purpose: str
    required: bool = True


PARTS = (
    Package("numpy", "numpy", "numpy", "all arithmetic"),
    Package("Numba", "numba", "numba", "the compiled kernels"),
    Package("SciPy", "scipy", "scipy", "linear algebra"),
    Package("torch", "torch", "torch", "clustering without faiss, and networks"),
    Package("OpenCV", "cv2", "opencv-python-headless", "SIFT"),
    Package("Pillow", "PIL", "Pillow", "reading images"),
    Package("h5py", "h5py", "h5py", "feature sets and codebooks"),
    Package("click", "click", "click", "the command line"),
    Package("tqdm", "tqdm", "tqdm", "progress bars"),
    Package("platformdirs", "platformdirs", "platformdirs", "the folder of fetched weights"),
    Package("faiss", "faiss", "'asmk-engine[cpu]'", "training codebooks faster", required=False),
    Package("OpenVINO", "openvino", "'asmk-engine[cpu]'", "running networks on processors faster", required=False),
    Package("matplotlib", "matplotlib", "'asmk-engine[plots]'", "plots", required=False),
    Package("scikit-learn", "sklearn", "'asmk-engine[plots]'", "maps of descriptors", required=False),
    Package("pillow-heif", "pillow_heif", "'asmk-engine[heif]'", "reading HEIC photographs", required=False),
    Package("FastAPI", "fastapi", "'asmk-engine[serve]'", "the search page", required=False),
    Package("uvicorn", "uvicorn", "'asmk-engine[serve]'", "the search page", required=False),
    Package("scikit-image", "skimage", "'asmk-engine[demo]'", "the photographs of `asmk-engine demo`", required=False),
)


@dataclass(frozen=True)
class PackageState:
    """What was found about a package.

    state          `ok`, `missing`, or `broken` if it is installed but fails
    details        facts for display, such as the devices of torch
    warnings       what works badly, each with its cure
    distributions  the pip packages that install this module
    problem        why it is broken, on one line
    """

    name: str
    state: str
    required: bool
    version: str | None = None
    details: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The complete result.

    threads       number of processors this process may use
    kernel_cache  the folder where Numba caches compiled kernels; None if no such folder is writable
    warnings      what works badly, each with its cure
    suggestions   what to install for more features, each with the command
    problems      what keeps the program from working, each with the cure
    """

    version: str
    python: str
    platform: str
    processors: int
    threads: int
    kernel_cache: str | None
    parts: tuple[PackageState, ...]
    warnings: tuple[str, ...]
    suggestions: tuple[str, ...]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values."""
        return asdict(self)


def diagnose(importer: Importer = importlib.import_module, distributions: Distributions | None = None) -> Diagnosis:
    """Examine every package this program uses.

    importer       imports a module by its name
    distributions  module → pip packages that install it; by default those of this environment
    """
    installed = importlib.metadata.packages_distributions() if distributions is None else distributions
    findings = {part: examine(part, importer, installed) for part in PARTS}
    folders = kernel_cache_folders()
    cache = next((folder for folder in folders if is_writable(folder)), None)
    return Diagnosis(
        version=__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()}) in {sys.prefix}",
        platform=f"{platform.system()} {platform.machine()}",
        processors=os.cpu_count() or 1,
        threads=available_threads(),
        kernel_cache=str(cache) if cache else None,
        parts=tuple(findings.values()),
        warnings=tuple(_warnings(findings, folders, cache)),
        suggestions=tuple(_suggestions(findings)),
        problems=tuple(_problems(findings, folders, cache)),
    )


def examine(part: Package, importer: Importer, installed: Distributions) -> PackageState:
    """Import a package and find its version and details; any exception is reported, not raised."""
    owners = tuple(sorted(set(installed.get(part.module, ()))))
    report = functools.partial(PackageState, part.name, required=part.required, distributions=owners)
    version = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importer(part.module)
            version = _version(module, owners)
            details, cautions = _PROBES.get(part.name, _probe_nothing)(module, importer)
    except Exception as error:  # a broken installation may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == part.module:
            return report(state="missing")
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return report(state="broken", version=version, problem=problem)
    return report(state="ok", version=version, details=tuple(details), warnings=tuple(cautions))


def _version(module: ModuleType, owners: Sequence[str]) -> str:
    version = vars(module).get("__version__")
    if version is None and owners:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(owners[0])
    return str(version or "of unknown version")


Probe = tuple[list[str], list[str]]
"""Details and warnings."""


def _probe_nothing(module: Any, importer: Importer) -> Probe:
    return [], []


def _probe_torch(torch: Any, importer: Importer) -> Probe:
    build = torch.version.cuda
    details = [f"built for CUDA {build}" if build else "built without CUDA"]
    if build and torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return details + [f"cuda:{number} {name}" for number, name in enumerate(names)], []
    details.append("runs on the CPU")
    if not shutil.which("nvidia-smi"):
        return details, []
    cure = (
        "update the driver of the GPU" if build else "pip install --force-reinstall torch, as pytorch.org says for CUDA"
    )
    return details, [f"torch cannot use the NVIDIA GPU of this machine: {cure}"]


def _probe_faiss(faiss: Any, importer: Importer) -> Probe:
    if not hasattr(faiss, "StandardGpuResources"):
        return ["built for the CPU"], []
    return [f"built for the GPU, {faiss.get_num_gpus()} found"], []


def _probe_pillow(pillow: Any, importer: Importer) -> Probe:
    features: Any = importer("PIL.features")
    codes = {"JPEG": "jpg", "PNG": "zlib", "WebP": "webp", "TIFF": "libtiff"}
    readable = {name: bool(features.check(code)) for name, code in codes.items()}
    absent = [name for name, there in readable.items() if not there]
    cautions = [f"Pillow cannot read {', '.join(absent)}: pip install --force-reinstall Pillow"] if absent else []
    return [f"reads {', '.join(name for name, there in readable.items() if there) or 'nothing'}"], cautions


def _probe_h5py(h5py: Any, importer: Importer) -> Probe:
    return [f"HDF5 {h5py.version.hdf5_version}"], []


_PROBES: dict[str, Callable[[Any, Importer], Probe]] = {
    "torch": _probe_torch,
    "faiss": _probe_faiss,
    "Pillow": _probe_pillow,
    "h5py": _probe_h5py,
}


def processor_name() -> str:
    """Return the model of the processor if the system names it, else its architecture."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8", errors="replace").splitlines() if known.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def kernel_cache_folders() -> list[Path]:
    """Return the folders Numba tries for its cache: NUMBA_CACHE_DIR, next to the kernels, the user's cache."""
    spec = importlib.util.find_spec("asmk_engine.kernels")
    given = os.environ.get("NUMBA_CACHE_DIR")
    adjacent = [Path(spec.origin).parent / "__pycache__"] if spec and spec.origin else []
    return [*([Path(given)] if given else []), *adjacent, _user_cache() / "numba"]


def _user_cache() -> Path:
    """Return the user's cache folder as Numba finds it; on macOS it ignores XDG_CACHE_HOME, unlike platformdirs."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home())
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def is_writable(folder: Path) -> bool:
    """Return whether files can be created in a folder, or the folder itself if it is missing; nothing is created."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return existing is not None and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _warnings(findings: Mapping[Package, PackageState], folders: Sequence[Path], cache: Path | None) -> Iterator[str]:
    for part, finding in findings.items():
        yield from finding.warnings
        if finding.state == "broken" and not part.required:
            yield _broken(part, finding)
        if len(finding.distributions) > 1:
            names = finding.distributions
            yield (
                f"{part.name} is installed by {' and '.join(names)}, which share one folder and overwrite each other's "
                f"files: pip uninstall -y {' '.join(names)} && pip install {_install(part, findings)}"
            )
    if cache and cache != folders[0]:
        yield f"{folders[0]} is not writable, compiled kernels go to {cache}: choose a folder with NUMBA_CACHE_DIR"


def _suggestions(findings: Mapping[Package, PackageState]) -> Iterator[str]:
    for part, finding in findings.items():
        if finding.state == "missing" and not part.required:
            yield f"{part.name}, for {part.purpose}: pip install {_install(part, findings)}"


def _problems(findings: Mapping[Package, PackageState], folders: Sequence[Path], cache: Path | None) -> Iterator[str]:
    for part, finding in findings.items():
        if part.required and finding.state == "missing":
            yield f"{part.name} is missing, needed for {part.purpose}: pip install {part.install}"
        if part.required and finding.state == "broken":
            yield _broken(part, finding)
    if cache is None:
        tried = ", ".join(map(str, folders))
        yield f"no folder for Numba's compiled kernels is writable ({tried}): set NUMBA_CACHE_DIR to a writable one"


def _broken(part: Package, finding: PackageState) -> str:
    packages = " ".join(finding.distributions) or part.install
    return f"{part.name} is installed but fails ({finding.problem}): pip install --force-reinstall {packages}"


def _install(part: Package, findings: Mapping[Package, PackageState]) -> str:
    """Return the argument of `pip install`: faiss for the GPU if torch sees one and wheels exist, else the default."""
    torch = next(finding for other, finding in findings.items() if other.name == "torch")
    gpu = any(detail.startswith("cuda:") for detail in torch.details)
    wheels = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    return "'asmk-engine[gpu]'" if part.name == "faiss" and gpu and wheels else part.install
