"""The checkpoints of a run: whole and verified, or not there.

A checkpoint is a folder named by its step: `arrays`, as Orbax writes them, and `manifest.json`. It
is written beside its place as `STEP.writing`, made durable, read back and verified, and renamed: a
folder with a number for its name is a finished one. Older ones are deleted after that, never the
newest that is finite, nor the best. A checkpoint that is damaged is set aside as `STEP.damaged`
and the newest sound one is used.
"""

import atexit
import contextlib
import os
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlstm.train import arrays, distributed, manifest, restoring, tidying
from jaxlstm.train.files import remove, sync
from jaxlstm.train.lock import Lock
from jaxlstm.train.manifest import Leaf, SaveError


class Checkpoints:
    """The checkpoints of one run, which one process at a time writes.

    Args:
      folder: of the checkpoints; made if it is not there.
      identity: what tells this run from another, as JSON: its config, the fingerprint of its data.
        A checkpoint of another identity is refused.
      setting: what else the exact numbers hang on, as JSON: the number of devices. With it, a
        checkpoint of another setting, or made with other versions of Python, JAX, NumPy, Optax,
        Orbax, Flax or jaxlstm, is refused; None to take it, if not bit for bit.
      keep: how many of the newest to keep at least, 1 or more.
      finite: the part of a state that must be finite, of which the newest checkpoint that is so is
        kept; None for the state as a whole.
      asynchronous: whether `save` returns once the state is copied to the host.
      writes: whether this process writes. Of several processes that train together one does; the
        others only restore, which all do together.

    Raises:
      LockedError: if the folder is being written already.
      OSError: if it can't be.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> from jaxlstm.train.checkpoints import Checkpoints
      >>> state = {"params": jnp.arange(3.0)}
      >>> with Checkpoints(tempfile.mkdtemp(), identity={"seed": 0}) as store:
      ...     store.save(10, state, extra={"epoch": 1})
      ...     store.wait()
      ...     step, state, extra, score, warnings = store.restore(state)
      >>> step, extra
      (10, {'epoch': 1})
    """

    _unasked: ClassVar[set["Checkpoints"]] = set()  # whose last save nobody has waited for

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        identity: Mapping[str, Any] | None = None,
        setting: Mapping[str, Any] | None = None,
        keep: int = 2,
        finite: Callable[[Any], Any] | None = None,
        asynchronous: bool = True,
        writes: bool = True,
    ):
        if type(keep) is not int or keep < 1:
            raise ValueError(f"keep: expected a number of checkpoints, 1 or more, got {keep!r}")
        self.folder = Path(folder).absolute()
        self._identity = manifest.as_json(dict(identity or {}), "identity")
        setting_there = manifest.as_json(dict(setting or {}), "setting")
        self._made_with = {**manifest.versions(), **setting_there}
        self._exact = setting is not None
        self._keep, self._finite = keep, finite
        self._asynchronous, self._writes = asynchronous, writes
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._checked = self._closed = False
        self._lock = None
        if writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.folder / "LOCK")
            try:
                tidying.tidy(self.folder)
            except BaseException:
                self._lock.release()
                raise

    def save(self, step: int, state: Any, extra: Any = None, score: float | None = None) -> None:
        """Writes a checkpoint; if asynchronous, in the background. A process's end waits for it.

        Args:
          step: of the run, not below the newest checkpoint there.
          state: a pytree of arrays, typed keys too.
          extra: whatever else belongs to the state, as JSON: the position in the data, say.
          score: of a validation, less being better: the best is kept.

        Raises:
          SaveError: if this save failed, or an asynchronous one before: then this one is made
            nevertheless. The checkpoints before it are still there.
          MismatchError: if there are checkpoints of another identity, which this would take away.
          ValueError: if the state or `extra` can't be stored, there is a newer checkpoint, another
            process is to write, or `close` was called.
        """
        self._join()
        if not self._writes:
            raise ValueError("another process writes these checkpoints")
        self._check_open()
        if type(step) is not int or step < 0:
            raise ValueError(f"step: expected an integer, 0 or more, got {step!r}")
        self._check_room(step)
        leaves = {n: manifest.leaf_of(a, n) for n, a in manifest.named(state).items()}
        extra = manifest.as_json(extra, "extra")
        copy = arrays.on_host(state)
        finite = all(map(_is_finite, jax.tree.leaves(self._finite(copy) if self._finite else copy)))
        score = None if score is None else float(score)
        more = {"extra": extra, "score": score, "finite": finite, "identity": self._identity}
        more["made_with"] = self._made_with
        work = lambda: self._commit(step, leaves, manifest.named(copy), more)
        older, self._failure = self._failure, None

        def in_background():
            try:
                work()
            except BaseException as error:
                self._failure = error

        if self._asynchronous:
            self._unasked.add(self)
            self._thread = threading.Thread(target=in_background, name="checkpoint")
            self._thread.start()
        else:
            work()
        if older is not None:
            raise older

    def poll(self) -> None:
        """Raises what an asynchronous save failed with, if one did; does not wait."""
        if self._thread is None or not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Waits for an asynchronous save, and raises what it failed with."""
        self._join()
        self._unasked.discard(self)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the checkpoints in {self.folder} are closed: make another object")

    def _check_room(self, step: int) -> None:
        """Raises unless it would be the newest checkpoint there, and the others are of this run.

        What is kept and what is deleted goes by the steps alone.
        """
        newest = max(restoring.steps(self.folder), default=step)
        if newest > step:
            raise ValueError(
                f"step: expected {newest} or more, the newest in {self.folder}, got {step}; "
                "restore that one and go on after it, or use another folder"
            )
        if not self._checked:
            restoring.check_identity(self.folder, self._identity)
            self._checked = True

    def restore(self, like: Any) -> restoring.Restored | None:
        """Reads the newest sound checkpoint; damaged ones are set aside, as `STEP.damaged`.

        Waits for an asynchronous save; what that failed with, the next call of another kind raises.

        Args:
          like: a pytree of arrays or `jax.ShapeDtypeStruct`, as the state must be.

        Returns:
          What it holds; None if there has never been a checkpoint.

        Raises:
          MismatchError: if the newest sound one is of another state or identity.
          CheckpointError: if there are checkpoints but none is sound.
          OSError: if one can't be read now, as with too many open files: nothing is set aside.
          ValueError: if one is to be set aside after `close`.
        """
        self._join()
        if jax.process_count() == 1:
            return self._newest(like)
        kinds = [manifest.leaf_of(a) for a in jax.tree.leaves(like)]

        def find():
            found = self._newest(like)
            return found and (jax.tree.leaves(arrays.on_host(found.state)), found[:1] + found[2:])

        if (found := distributed.told(find, kinds)) is None:
            return None
        leaves, (step, *more) = found
        state = restoring.typed(like, kinds, leaves)
        return restoring.Restored(step, state, *more)

    def _newest(self, like: Any) -> restoring.Restored | None:
        return restoring.newest(
            self.folder,
            like,
            identity=self._identity,
            made_with=self._made_with if self._exact else None,
            aside=self._set_aside if self._writes else None,
        )

    def _set_aside(self, place: Path) -> str:
        self._check_open()
        return tidying.set_aside(place)

    def close(self) -> None:
        """Waits for an asynchronous save, and lets another process write, which this can't then."""
        try:
            self.wait()
        finally:
            self._closed = True
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _commit(
        self,
        step: int,
        leaves: Mapping[str, Leaf],
        copies: Mapping[str, np.ndarray],
        more: Mapping[str, Any],
    ) -> None:
        writing, final = self.folder / f"{step}.writing", self.folder / str(step)
        replaced = self.folder / f"{step}.replaced"
        hashed = {n: (leaves[n], sha256) for n, sha256 in arrays.digests(copies).items()}
        try:
            for left in tidying.left(self.folder, "writing"):  # of a save that failed
                remove(left)
            writing.mkdir()
            files = arrays.write(writing / "arrays", copies)
            listed = manifest.make(step, hashed, files, **more)
            manifest.write(writing / "manifest.json", listed)
            sync(writing)
            again = manifest.read(writing / "manifest.json")
            arrays.read(writing / "arrays", manifest.leaves(again, writing), again["files"])
            if final.exists() or final.is_symlink():
                remove(replaced)
                final.rename(replaced)
            writing.rename(final)
            sync(self.folder)
        except Exception as error:  # whatever a storage library says of a full disk
            with contextlib.suppress(OSError):
                if not os.path.lexists(final):
                    replaced.rename(final)
            with contextlib.suppress(OSError):
                remove(writing)  # which gives room again
            raise SaveError(f"checkpoint {final} could not be written: {error}") from error
        try:
            tidying.prune(self.folder, self._keep, step)
        except OSError as error:
            raise SaveError(f"old checkpoints could not be deleted: {error}") from error


def _is_finite(array: np.ndarray) -> bool:
    return not jnp.issubdtype(array.dtype, jnp.inexact) or bool(np.isfinite(array).all())


def _ask() -> None:
    """Waits for the saves that nobody has waited for, and tells what they failed with."""
    for store in list(Checkpoints._unasked):
        try:
            store.wait()
        except BaseException:
            traceback.print_exc()


# As `concurrent.futures` does: when a handler of `atexit` is called, thread pools take no more
# work, without which Orbax can't end a save. There it would only tell.
getattr(threading, "_register_atexit", atexit.register)(_ask)
