"""A durable folder: written files persist, and only regular files are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asmk_engine.errors import DamagedError, StorageError
from asmk_engine.storage import system
from asmk_engine.storage.folder import Folder, WriterLock


def synced_folders(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    synced: list[Path] = []
    monkeypatch.setattr(system, "sync_folder", synced.append)
    return synced


def test_every_folder_that_is_made_is_durable_in_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = synced_folders(monkeypatch)
    Folder(tmp_path / "a" / "b" / "c").make()
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    synced.clear()
    Folder(tmp_path / "a" / "b" / "c").make()  # whoever made it may have been killed before it was durable
    assert synced == [tmp_path / "a" / "b"]


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
def test_only_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "outside").write_bytes(b"secret")
    os.symlink(tmp_path / "outside", tmp_path / "folder" / "link")
    os.mkfifo(tmp_path / "folder" / "pipe")
    (tmp_path / "folder" / "below").mkdir()
    folder = Folder(tmp_path / "folder")
    for name in ("link", "pipe", "below"):
        with pytest.raises(DamagedError, match=f"{name}: not a regular file"):
            folder.map(name)
        assert folder.content(name) is None


def test_a_lock_is_held_once_and_freed(tmp_path: Path) -> None:
    with WriterLock(tmp_path), pytest.raises(StorageError, match="another process is writing"), WriterLock(tmp_path):
        pass
    with WriterLock(tmp_path):
        pass


def test_a_lock_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot lock the folder: No such file"), WriterLock(tmp_path / "nowhere"):
        pass
