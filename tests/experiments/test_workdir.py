import dataclasses

import numpy as np
import pytest

from experiments.language_model import workdir
from experiments.language_model.config import Config
from jaxlstm.train import distributed

CONFIG = Config(train="text.py", coordinator="here:1234", processes=2, process=1)


def identity(config):
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in workdir.FREE}
    return {**fields, "text": "a1", "learned": ""}


def told(monkeypatch, config, **more):
    """As it is in a process whose process 0 has that config."""
    said = []
    monkeypatch.setattr(distributed, "told", lambda find, kinds: said[-1])
    ours = {k: v for k, v in dataclasses.asdict(config).items() if k not in workdir.OF_ONE}
    said.append(([], {**ours, **identity(config), **more}))


def test_processes_that_train_the_same_agree(tmp_path, monkeypatch):
    told(monkeypatch, dataclasses.replace(CONFIG, process=0, coordinator=":1234", cache="c"))
    workdir.agree(tmp_path / "not here", CONFIG, identity(CONFIG))


def test_a_process_that_trains_something_else_is_told(tmp_path, monkeypatch):
    told(monkeypatch, dataclasses.replace(CONFIG, hidden=8, checkpoint_steps=3), text="b2")
    with pytest.raises(ValueError, match="something else than process 0") as error:
        workdir.agree(tmp_path, CONFIG, identity(CONFIG))
    assert str(error.value).splitlines()[1:] == [
        "  checkpoint_steps: 3 there, 0 here",
        "  hidden: 8 there, 512 here",
        "  text: 'b2' there, 'a1' here",
    ]


def test_only_process_0_looks_at_the_folder(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        workdir.agree(tmp_path, CONFIG, identity(CONFIG))
    told(monkeypatch, CONFIG)
    workdir.agree(tmp_path, CONFIG, identity(CONFIG))


def test_process_0_ends_with_those_that_train_something_else(tmp_path, monkeypatch):
    told(monkeypatch, CONFIG)
    others = np.array([False, False, True])
    monkeypatch.setattr(workdir.multihost_utils, "process_allgather", lambda ours: others)
    with pytest.raises(ValueError, match=r"processes \[2\] are to train something else"):
        workdir.agree(tmp_path, CONFIG, identity(CONFIG))
