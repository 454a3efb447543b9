"""The arithmetic: functions of arrays, compiled by Numba.

Each file imports numpy and numba only, never another file of this project: Numba's disk cache does not notice a changed
callee in another file. It is also why each can be read alone.
"""

import os
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent


def _choose_cache() -> None:
    """Where neither this folder nor the home can be written, let Numba keep its cache in a private temporary folder.

    Without one, Numba refuses to compile. The folder is new for each process: the cache holds code, so a folder that
    others could have filled beforehand must not be used.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    if "NUMBA_CACHE_DIR" not in os.environ and not any(os.access(folder, os.W_OK) for folder in (_HERE, home)):
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="asmk-engine-numba-")


_choose_cache()
