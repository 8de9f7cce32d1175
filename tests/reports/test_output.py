"""Files appear whole or not at all."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from harborctl.errors import ExitCode, HarborctlError, UsageError
from harborctl.reports.formats import Format, format_of
from harborctl.reports.output import file_output


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("older")
    path.chmod(0o640)
    with file_output(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "older"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    with file_output(tmp_path / "out.csv") as stream:
        stream.write(b"x")
    assert (tmp_path / "out.csv").stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "out.csv"
    path.write_text("older")
    with pytest.raises(type(failure)), file_output(path) as stream:
        stream.write(b"new")
        raise failure
    assert path.read_text() == "older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("older")
    link.symlink_to(target)
    with file_output(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with file_output(path) as stream:
        stream.write(b"new")
    reader.join()
    assert read == [b"new"]
    assert path.is_fifo()


@pytest.mark.parametrize("by_link", [False, True])
def test_an_open_file_is_written_and_not_replaced(tmp_path: Path, by_link: bool) -> None:
    """As `-o /dev/stderr` and `-o >(gzip)` have it, whatever they lead to."""
    behind = tmp_path / "behind"
    with behind.open("w+b") as file:
        file.write(b"before\n")
        file.flush()
        path = Path(f"/dev/fd/{file.fileno()}")
        if by_link:
            (tmp_path / "link").symlink_to(path)
            path = tmp_path / "link"
        inode = behind.stat().st_ino
        with file_output(path) as stream:
            stream.write(b"new\n")
        file.write(b"after\n")
    assert behind.read_bytes() == b"before\nnew\nafter\n"
    assert behind.stat().st_ino == inode


def test_an_open_pipe_and_socket() -> None:
    read, write = os.pipe()
    with file_output(Path(f"/proc/self/fd/{write}")) as stream:
        stream.write(b"new")
    os.close(write)
    assert os.read(read, 10) == b"new"
    os.close(read)
    left, right = socket.socketpair()
    with left, right:
        with file_output(Path(f"/dev/fd/{left.fileno()}")) as stream:
            stream.write(b"new")
        assert right.recv(10) == b"new"


def test_an_open_file_that_is_not_there() -> None:
    with pytest.raises(HarborctlError, match=r"^cannot write /dev/fd/999: Bad file descriptor$"):
        with file_output(Path("/dev/fd/999")):
            pass


def test_no_space_left() -> None:
    with pytest.raises(HarborctlError) as caught, file_output(Path("/dev/full")) as stream:
        stream.write(b"x")
        stream.flush()
    assert caught.value.message == "cannot write /dev/full: No space left on device"
    assert caught.value.exit_code is ExitCode.FAILED


def test_a_folder_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder$"), file_output(tmp_path):
        pass
    with (
        pytest.raises(UsageError, match=r"^there is no folder .*/missing$"),
        file_output(tmp_path / "missing" / "a.csv"),
    ):
        pass


def test_formats_by_suffix() -> None:
    assert format_of(Path("a.tar.CSV")) is Format.CSV
    assert {format_of(Path(f"a.{suffix}")) for suffix in ("jsonl", "ndjson")} == {Format.JSONL}
    with pytest.raises(UsageError, match=r"^the suffix of a\.exe names no format$"):
        format_of(Path("a.exe"))
