"""Models take half of the memory that there is: the machine's, or a container's where that is less."""

import os
from pathlib import Path

import pytest

from gpt_core import memory
from gpt_core.memory import available_memory, memory_limit

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 GiB, 50 of them free, without control groups yet."""
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * 2**20}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    put(tmp_path / "proc" / "meminfo", f"MemTotal: 1 kB\nMemAvailable:  {50 * 2**20} kB\n")
    return tmp_path


def put(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def put_group(folder: Path, limit: str, *, version: int) -> None:
    """A group that uses 3 GiB, of which it could give one back."""
    names = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    put(folder / names[0], limit + "\n")
    put(folder / names[1], f"{3 * GIB}\n")
    put(folder / "memory.stat", f"anon 5\n{'' if version == 2 else 'total_'}inactive_file {GIB}\n")


def test_a_machine_of_its_own(machine: Path) -> None:
    assert memory_limit() == 32 * GIB
    assert available_memory() == 50 * GIB


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("place", ["/", "/docker/abc"])
def test_a_container_of_four_gib(machine: Path, version: int, place: str) -> None:
    put(machine / "proc" / "self" / "cgroup", f"9:cpu,memory:{place}\n" if version == 1 else f"0::{place}\n")
    root = machine / "groups" / "memory" if version == 1 else machine / "groups"
    put_group(root / place.strip("/"), str(4 * GIB), version=version)
    assert memory_limit() == 2 * GIB
    assert available_memory() == 2 * GIB


def test_a_limit_around_the_own_group_counts_too(machine: Path) -> None:
    put(machine / "proc" / "self" / "cgroup", "0::/outer/inner\n")
    put_group(machine / "groups" / "outer", str(8 * GIB), version=2)
    put_group(machine / "groups" / "outer" / "inner", "max", version=2)
    assert memory_limit() == 4 * GIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_a_group_without_a_limit_takes_nothing_away(machine: Path, limit: str) -> None:
    put(machine / "proc" / "self" / "cgroup", "0::/\n")
    put_group(machine / "groups", limit, version=2)
    assert memory_limit() == 32 * GIB
    assert available_memory() == 50 * GIB


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    assert memory_limit() == 4 * GIB
    assert available_memory() is None


def test_this_machine() -> None:
    assert memory_limit() > 2**28
