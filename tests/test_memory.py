"""Free memory is the machine's or the container's, whichever is less, shared by a torchrun's processes."""

from __future__ import annotations

from slicfast.memory import free_host_bytes


def test_the_least_of_machine_and_container_counts(tmp_path, monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    proc = tmp_path / "meminfo"
    proc.write_text("MemTotal: 9000 kB\nMemAvailable:   4000 kB\n")
    assert free_host_bytes(proc, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_host_bytes(proc, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("active_file 7\ninactive_file 1000000\n")
    assert free_host_bytes(proc, tmp_path) == 1_500_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_host_bytes(proc, tmp_path) == 375_000


def test_something_is_free_here():
    assert free_host_bytes() > 1 << 20
