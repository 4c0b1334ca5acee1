"""Disks that are full, and disks that fail."""

import ctypes
import os
import runpy
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax

from jaxlstm.train import manifest, restoring
from tests.faults import counting
from tests.faults.harness import (
    LANES,
    SMALL,
    Failure,
    Outcome,
    battery,
    differing,
    ended,
    expect,
    seeds,
    start,
    trace,
)
from tests.faults.kills import STRACE, counted, exactly_once, traced, whole

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000  # of unshare(2)


def full(folder: Path, count: int) -> Outcome:
    """Runs of the language model on disks of their own that fill up; then there is room again."""
    fault = "full disk"
    if not _can_mount(folder):
        return Outcome(fault, 0, 0, "skipped: no right to mount a disk of its own")
    text, expected, _ = whole()
    folder.mkdir(parents=True, exist_ok=True)

    def attempt(rng):
        run, mode = folder / f"run{rng.getrandbits(40)}", rng.choice(["stop", "continue"])
        run.mkdir()
        room = rng.randrange(60, 600)  # KiB; a checkpoint takes about 150
        out = run.with_suffix(".txt")
        verdict = run.with_suffix(".verdict")
        process = start(
            _on_a_small_disk, run, text, room, mode, expected, verdict, rng.uniform(0.5, 2), out=out
        )
        code = ended(process)
        expect(verdict.exists(), "exit code", code, out.read_text()[-1500:])
        word = verdict.read_text()
        expect(not word.startswith("!"), word, out.read_text()[-900:])
        return word if word != "had room" else attempt(rng)

    return battery(fault, seeds("full", count), attempt, LANES)


def _on_a_small_disk(
    run: Path, text: Path, room: int, mode: str, expected, verdict: Path, again_after: float
) -> None:
    """In a process of its own: a run without room, and the same command with room."""
    try:
        _mount(run, "8m")
        filler = run / "filler"
        filler.write_bytes(bytes((8192 - room) * 1024))
        if mode == "continue":  # somebody tidies up meanwhile
            threading.Timer(again_after, filler.unlink).start()
        arguments = [f"--train={text}", f"--workdir={run / 'run'}", *SMALL]
        first = _ends([*arguments, f"--on-save-error={mode}"])
        checkpoints = run / "run" / "checkpoints"
        for step in restoring.steps(checkpoints):
            restoring.restore_part(checkpoints, _params_like(checkpoints, step), step=step)
        said = verdict.with_suffix(".txt").read_text()
        told = "could not be written" in said or "No space left" in said
        expect(first == 0 or told, "no word of it")
        if mode == "stop":
            expect(first == 1 or not told, "exit", first)
            expect("going on without it" not in said, "it went on")
        if first == 0:
            found = trace(run / "run")
            expect(found == expected, differing(expected, found))
        filler.unlink(missing_ok=True)
        second = _ends([*arguments, f"--on-save-error={mode}"])
        expect(second == 0, "the same command with room again: exit", second)
        found = trace(run / "run")
        expect(found == expected, differing(expected, found))
        how = "told and went on" if first == 0 else "told, stopped, the same end with room"
        verdict.write_text(how if told else "had room")
    except Failure as failure:
        verdict.write_text(f"! {failure}")


def _params_like(checkpoints: Path, step: int):
    place = checkpoints / str(step)
    leaves = manifest.leaves(manifest.read(place / "manifest.json"), place)
    tree: dict = {}
    for name, (leaf, _) in leaves.items():
        if name.startswith("params."):
            at = tree
            *path, last = name.split(".")[1:]
            for part in path:
                at = at.setdefault(part, {})
            at[last] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return tree


def _ends(arguments: list[str]) -> int:
    """The exit code that the language model's command would have."""
    sys.argv = ["experiments.language_model", *arguments]
    try:
        runpy.run_module("experiments.language_model", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, flush=True)
            return 1
        return end.code or 0
    return 0


def _mount(place: Path, size: str) -> None:
    """A small file system that only this process sees."""
    flags = NEW_MOUNTS | (NEW_USER if os.geteuid() else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    who = os.getuid(), os.getgid()
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if flags & NEW_USER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {who[0]} 1")
        Path("/proc/self/gid_map").write_text(f"0 {who[1]} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)


def _can_mount(folder: Path) -> bool:
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        return False
    place = folder / "mount"
    place.mkdir(parents=True)
    return ended(start(_mount, place, "16k", out=folder / "mount.txt")) == 0


def failing(folder: Path, count: int) -> Outcome:
    """I/O errors that the system gives at some call of a run; then the same command again."""
    fault = "I/O error at a system call"
    if STRACE is None:
        return Outcome(fault, 0, 0, "skipped: strace is missing")
    folder.mkdir(parents=True)
    expected = counted(folder / "whole")

    def attempt(rng):
        run = folder / f"run{rng.getrandbits(40)}"
        call = rng.choice(["fsync", "rename", "mkdir", "pwrite64", "unlinkat", "writev"])
        error = rng.choice(["EIO", "ENOSPC", "EROFS" if call == "mkdir" else "EIO"])
        code = traced(
            run, f"{call}:error={error}:when={rng.randrange(1, 60)}", 4, rng.random() < 0.5
        )
        out = run.with_suffix(".txt")
        said = out.read_text()
        if said.endswith("done\n"):  # the call never came, or not before the end
            exactly_once(run)
            expect(trace(run) == expected, call, error, differing(expected, trace(run)))
            return attempt(rng)
        expect(code in (0, 1), call, error, "exit code", code, said[-1500:])
        told = "SaveError" in said or "OSError" in said
        expect(told, call, error, "no word of it", said[-1500:])
        code = ended(start(counting.run, str(run), 4, out=out))
        expect(code == 0, call, error, out.read_text()[-1500:])
        exactly_once(run)
        found = trace(run)
        expect(found == expected, call, error, differing(expected, found))
        return f"{call} failed, told, the same end"

    return battery(fault, seeds("failing", count), attempt, LANES)
