"""One file by two spellings is one file: it must not be trained on and validated with."""

import ctypes
import os
import unicodedata

import pytest

from ddcm.errors import UserError
from ddcm.fit.data.manifest import read_manifest
from ddcm.runtime import files

SPELLINGS = {
    "same": "a.wav", "dot": "./a.wav", "up": "sub/../a.wav", "twice": "sub//../a.wav", "link": "link.wav",
    "linked folder": "again/a.wav", "absolute": None,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.wav").write_bytes(b"audio")
    (tmp_path / "b.wav").write_bytes(b"other")
    (tmp_path / "link.wav").symlink_to("a.wav")
    (tmp_path / "again").symlink_to(".")
    return tmp_path


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_file_of_two_spellings_is_refused_with_both_lines(folder, spelling, turned):
    names = ["a.wav", SPELLINGS[spelling] or str(folder / "a.wav")]
    rows = zip(reversed(names) if turned else names, ("train", "val"), strict=True)
    text = "path,split\n" + "".join(f"{name},{split}\n" for name, split in rows) + "b.wav,train\n"
    (folder / "m.csv").write_text(text)
    with pytest.raises(UserError, match=r"m\.csv, line 3: .* is also on line 2"):
        read_manifest(folder / "m.csv")


def test_missing_files_of_two_normal_forms_are_one(tmp_path):
    names = [unicodedata.normalize(form, "café.wav") for form in ("NFC", "NFD")]
    (tmp_path / "m.csv").write_text("path\n" + "\n".join(names) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="is also on line 2"):
        read_manifest(tmp_path / "m.csv")


def test_different_files_stay(folder):
    (folder / "A.wav").write_bytes(b"a file of its own where names have a case")
    (folder / "m.csv").write_text("path\na.wav\nb.wav\n")
    assert [entry.name for entry in read_manifest(folder / "m.csv")] == ["a.wav", "b.wav"]


def test_a_link_in_a_folder_is_no_second_file(folder):
    assert [entry.name for entry in read_manifest(folder)] == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    "handle, waited, error, alive", [(7, 258, 0, True), (7, 0, 0, False), (0, 0, 5, True), (0, 0, 87, False)]
)
def test_on_windows_a_process_is_asked_and_not_ended(monkeypatch, handle, waited, error, alive):
    class Kernel:
        OpenProcess = staticmethod(lambda access, inherit, pid: handle)
        WaitForSingleObject = staticmethod(lambda handle, milliseconds: waited)
        CloseHandle = staticmethod(lambda handle: True)

    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, **_: Kernel, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: error, raising=False)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("os.kill ends a process on Windows"))
    assert files._alive(1234) is alive


def test_a_number_that_is_no_process_is_not_alive():
    assert not files._alive(10**30) and files._alive(os.getpid())
