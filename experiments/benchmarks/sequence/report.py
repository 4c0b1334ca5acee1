"""What was measured, as Markdown tables and as a plot."""

from pathlib import Path
from typing import Any

from experiments.benchmarks.sequence.cases import COMPILE, FORWARD, GRADIENT
from experiments.benchmarks.sequence.contenders import OURS, PEERS, is_jax_peer

BUSY = 0.05  # of a core, or of all: more is told
Result = dict[str, Any]  # of a case: row, shape, what, operations, contenders


def medians(result: Result) -> dict[str, float]:
    """Seconds by name, of those that have any, the fastest first."""
    found = {n: c["median"] for n, c in result["contenders"].items() if "median" in c}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def baselines(result: Result) -> dict[str, float]:
    """Seconds of what others are compared with."""
    seconds = medians(result)
    peers = [s for name, s in seconds.items() if is_jax_peer(name)]
    found = {"best JAX peer": min(peers)} if peers else {}
    found |= {PEERS[name].says: seconds[name] for name in ("linen", "torch") if name in seconds}
    return found


def says(name: str) -> str:
    return PEERS[name].says if name in PEERS else name


def cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def table(lines: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{'---|' * len(lines[0])}", *body])


def case_table(result: Result, peak: float | None) -> str:
    """A case: a line for each contender, the fastest first."""
    against, operations = baselines(result), result["operations"]
    peak = peak if operations else None
    head = ["contender", "ms", "quartiles", *(f"× {name}" for name in against)]
    head += ["% of product peak"] if peak else []
    timed = result["what"] != COMPILE
    lines = [[*head, *(["compile s", "peak MiB"] if timed else []), "differs by"]]
    for name, seconds in medians(result).items():
        one = result["contenders"][name]
        low, high = one["quartiles"]
        line = [says(name), f"{1e3 * seconds:.4g}", f"{1e3 * low:.4g} to {1e3 * high:.4g}"]
        line += [f"{base / seconds:.2f}" for base in against.values()]
        line += [f"{100 * operations / seconds / peak / 1e9:.1f}"] if peak else []
        if timed:
            line += [cell(one["compile_seconds"], ".2f"), cell(one["peak_mib"], ".1f")]
        lines.append([*line, f"{one['difference']:.0e}"])
    notes = [f"- {says(n)}: {c['error']}" for n, c in result["contenders"].items() if "error" in c]
    notes += [f"- {says(n)} left out: {reason}" for n, reason in result["left_out"].items()]
    notes += [
        f"- {says(n)} uses {100 * c['idle']:.0f} % of a core while others have their turn"
        for n, c in result["contenders"].items()
        if c.get("idle", 0) > BUSY
    ]
    others = f"{100 * result['others_busy']:.0f} % of the cores"
    busy = f"- other processes used {others}: these times say little"
    notes += [busy] if result["others_busy"] > BUSY else []
    return "\n".join([table(lines), *(["", *notes] if notes else [])])


def summary(results: list[Result]) -> str:
    """Every case in a line: times faster than each baseline, for each of ours."""
    names = [n for r in results for n in r["contenders"] if n.startswith(OURS)]
    names = list(dict.fromkeys(names))
    lines = [["case", "B, T, D, H", "what", "Flax ms", "PyTorch ms", *names]]
    for result in results:
        seconds, against = medians(result), baselines(result)
        theirs = [
            cell(1e3 * seconds[n] if n in seconds else None, ".4g") for n in ("linen", "torch")
        ]
        line = [result["row"], ", ".join(map(str, result["shape"])), result["what"], *theirs]
        for name in names:
            ratios = [f"{base / seconds[name]:.2f}" for base in against.values() if name in seconds]
            line.append(" / ".join(ratios))
        lines.append(line)
    return table(lines)


def limits_text(limits: dict[str, Any]) -> str:
    products = ", ".join(f"{lib} {peak:.0f}" for lib, peak in limits["gflops"].items()) or "none"
    inside, outside = (limits[f"{where}_bytes"] / 2**20 for where in ("cache", "memory"))
    return (
        f"Limits of the machine: float32 products, GFLOP/s: {products}; "
        f"copies, read and written, all cores, GB/s: {limits['cache_gb_per_s']:.0f} "
        f"of {inside:.2g} MiB, {limits['memory_gb_per_s']:.0f} of {outside:.0f} MiB."
    )


def plot(results: list[Result], path: Path) -> None:
    """Times faster than Flax Linen (or the best JAX peer without it), by shape."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    whats = [w for w in (FORWARD, GRADIENT) if any(r["what"] == w for r in results)]
    figure, axes = plt.subplots(
        len(whats), figsize=(11, 4.2 * len(whats)), squeeze=False, layout="constrained"
    )
    everyone = sorted({n for r in results for n in medians(r)}, key=lambda n: (n not in PEERS, n))
    colour = {name: plt.get_cmap("tab20")(n % 20) for n, name in enumerate(everyone)}
    for axis, what in zip(axes[:, 0], whats, strict=True):
        shown = [r for r in results if r["what"] == what and baselines(r)]
        names = [name for name in everyone if any(name in medians(r) for r in shown)]
        base = "Flax Linen" if all("Flax Linen" in baselines(r) for r in shown) else "best JAX peer"
        shown = [r for r in shown if base in baselines(r)]
        for number, name in enumerate(names):
            at = [n for n, r in enumerate(shown) if name in medians(r)]
            ratios = [baselines(shown[n])[base] / medians(shown[n])[name] for n in at]
            mark = "o" if name in PEERS else "s"
            shift = (number - len(names) / 2) * 0.6 / max(len(names), 1)
            look = dict(color=colour[name], mfc="none" if name in PEERS else colour[name])
            axis.plot([n + shift for n in at], ratios, mark, label=says(name), **look)
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_xticks(range(len(shown)), [f"{r['row']}\n{tuple(r['shape'])}" for r in shown])
        axis.tick_params("x", labelsize=7)
        axis.set_ylabel(f"times faster than {base}")
        axis.set_title(what)
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)
    plt.close(figure)
