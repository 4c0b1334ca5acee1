import json
import math
import re

import numpy as np
import pytest

from experiments.benchmarks.sequence import cases, contenders, report
from experiments.benchmarks.sequence.__main__ import main
from experiments.benchmarks.sequence.cases import FORWARD, GRADIENT, Case
from experiments.benchmarks.sequence.compare import check_same, difference
from experiments.benchmarks.sequence.turns import Processes

CASE = Case("lengths", (4, 6, 3, 5), GRADIENT)


def numbers(**changes):
    values = {"ys": np.array([[1.0, -2.0], [0.5, 0.0]]), "d xs": np.array([4.0, 1.0])}
    return values | changes


def test_equal_numbers_pass_and_say_how_far_apart_they_are():
    assert check_same(numbers(), numbers()) == 0
    near = numbers(ys=numbers()["ys"] + 2e-5)
    assert check_same(near, numbers()) == pytest.approx(1e-5)
    zeros = np.zeros(3)
    assert difference(zeros, zeros) == 0
    assert difference(zeros + 1e-9, zeros) == np.inf


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (numbers(ys=numbers()["ys"] * 1.01), "ys: expected the reference's .* difference of 0.01"),
        (numbers(**{"d xs": np.array([4.0, np.nan])}), "d xs: .* difference of inf"),
        (numbers(ys=numbers()["ys"].T[:1]), r"ys: expected shape \(2, 2\), got \(1, 2\)"),
        ({"ys": numbers()["ys"]}, "results: expected .*'d xs', 'ys'.*, got"),
    ],
)
def test_other_numbers_are_an_error(got, said):
    with pytest.raises(ValueError, match=said):
        check_same(got, numbers())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--contenders", "linnen"], "contenders: expected some of jaxlstm, linen, .* got linnen"),
        (["--rows", "lstm", "lsmt"], "rows: expected some of lstm, step, .* got lsmt"),
        (["--shapes", "1,2,3"], "shapes: expected four positive sizes B,T,D,H, got '1,2,3'"),
        (["--shapes", "1,2,0,3"], "shapes: expected four positive sizes B,T,D,H, got '1,2,0,3'"),
        (["--rounds", "0"], "rounds: expected a positive number, got 0"),
    ],
)
def test_wrong_names_are_told(arguments, said, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert re.search(said, capsys.readouterr().err)


def test_operations_are_those_of_the_matrix_products():
    batch, time, features, hidden = shape = (2, 3, 5, 7)
    count = lambda row, what=FORWARD: cases.operations(Case(row, shape, what))
    lstm = 2 * batch * time * 4 * hidden * (features + hidden)
    assert count("lstm") == lstm
    assert count("lstm", GRADIENT) == 3 * lstm
    assert count("gru") == lstm * 3 // 4
    assert count("elman") == lstm // 4
    assert count("convlstm") == lstm * 16**2 * 3**2
    assert count("bidirectional") == 2 * lstm
    assert count("layers") == lstm + 2 * (2 * batch * time * 4 * hidden * 2 * hidden)
    long = Case("lengths", (50, 300, 5, 7), FORWARD)
    full = cases.operations(long._replace(row="lstm"))
    assert cases.operations(long) == pytest.approx(full / 3, rel=0.02)


def test_every_contender_is_known_and_ours_are_those_that_explain_lists():
    chosen = cases.select(None, None)
    names = contenders.select(None, chosen)
    assert set(contenders.PEERS) < set(names)
    here = contenders.ours(Case("lstm", (1, 1024, 64, 128), FORWARD))
    assert {"jaxlstm:blocked", "jaxlstm:reference", "jaxlstm:blocked:vmap"} <= set(here)
    assert here["jaxlstm:blocked:devices"] == "a batch of one"
    assert "jaxlstm:blocked:checkpoint" not in here
    assert "jaxlstm:blocked:checkpoint" in contenders.ours(Case("memory", (2, 9, 3, 4), GRADIENT))
    every = contenders.select(["jaxlstm"], chosen)
    assert every == [name for name in names if name.startswith("jaxlstm")]


def test_a_quick_run_ends_with_a_table_its_json_and_a_plot(tmp_path, capsys):
    where = ["--json", str(tmp_path / "all.json"), "--plot", str(tmp_path / "all.png")]
    small = ["--shapes", "4,10,3,8", "--rounds", "2"]
    main(["--quick", "--contenders", "textbook", "jaxlstm:blocked", *small, *where])
    shown = capsys.readouterr().out
    assert "| jaxlstm:blocked | " in shown
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "all.json").read_text())
    assert {"python", "jax", "jaxlib", "numpy"} <= set(written["versions"])
    assert written["limits"]["gflops"]["jax"] > 0
    assert [case["what"] for case in written["cases"]] == [FORWARD, GRADIENT]
    for case in written["cases"]:
        assert set(case["contenders"]) == {"textbook", "jaxlstm:blocked"}
        for one in case["contenders"].values():
            assert len(one["seconds"]) == 2
            numbers = [*one["seconds"], one["median"], *one["quartiles"], one["compile_seconds"]]
            assert all(math.isfinite(n) and n > 0 for n in numbers)
            assert one["difference"] < 1e-5
        peak = 1e-9 * case["operations"] / case["contenders"]["textbook"]["median"]
        assert peak < written["limits"]["gflops"]["jax"]


def test_who_fails_is_reported_and_the_others_go_on():
    with Processes(["textbook", "jaxlstm:blocked"], timeout=60) as processes:
        blocked = processes["jaxlstm:blocked"]
        processes["textbook"].process.kill()
        measured = processes.measure(["textbook", "jaxlstm:blocked"], CASE, 1)["contenders"]
        assert "its process ended (-9)" in measured["textbook"]["error"]
        assert measured["jaxlstm:blocked"]["median"] > 0
        assert list(processes) == ["jaxlstm:blocked"]
        assert list(processes.failed) == ["textbook"]
        wrong = CASE._replace(row="nothing", shape=(0, 0, 0, 0))
        said = processes.measure(["jaxlstm:blocked"], wrong, 1)["contenders"]
        assert "ValueError" in said["jaxlstm:blocked"]["error"]
    assert not blocked.alive()


def test_ratios_are_to_the_best_peer_of_jax_to_flax_and_to_pytorch():
    said = lambda ms: {
        "median": ms / 1e3, "quartiles": [ms / 1e3] * 2, "difference": 0.0,
        "compile_seconds": None, "peak_mib": None,
    }  # fmt: skip
    result = {
        "row": "lstm", "shape": [1, 2, 3, 4], "what": FORWARD, "operations": 10**6,
        "contenders": {"jaxlstm:blocked": said(2), "linen": said(6), "haiku": said(5),
                       "torch": said(3), "keras": {"error": "ValueError: no"}},
        "left_out": {}, "others_busy": 0.0,
    }  # fmt: skip
    shown = report.case_table(result, peak=1.0)
    first = next(line for line in shown.splitlines() if "jaxlstm:blocked" in line)
    assert first.split(" | ")[3:7] == ["2.50", "3.00", "1.50", "50.0"]
    assert "- Keras: ValueError: no" in shown
    assert "2.50 / 3.00 / 1.50" in report.summary([result])
