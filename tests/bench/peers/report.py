"""Tables, the plot and the page of a comparison, all made of the samples in peers.json and nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import page
from engines import BASE
from figures import Spread, agreeing, floor_ms, ratios

from fleetkit.table import table

PLOT = "beside-other-engines.svg"
SECTION = """
Measured by `make bench-peers` on {machine}, {date}, in {rounds} rounds: {versions}.
Load average before each measurement: {load}; above {cores}, something else ran too.

One random Llama of {parameters:.0f} million parameters in bfloat16 for all (llama.cpp's file is made of the same
numbers), {threads} threads each, token ids in and out, greedy. A round starts each engine alone, measures it and stops
it; ratios are taken within a round. Berth is asked over HTTP, through its worker or through a gateway with Redis, and
makes text of its ids. The others are libraries in a process that is told ids through a pipe, and make none.

A session is a streaming session in Berth, a sequence of the KV cache in llama.cpp, the whole history in each request
and a prefix cache in vLLM and in transformers' continuous batching (`transformers-batching`), and in `transformers` the
cache that `generate` left: there, sessions that speak at once share one, so they must be equally long. KV pools hold
{kv_tokens} tokens; the cache of `transformers` grows as it must. Berth runs with `--attention native`.
"""
Sample = dict[str, Any]
"""What one engine was measured at in one round, as compare.measure() has it."""


def over_rounds(results: dict[str, Any], name: str, value: Callable[[Sample], float]) -> list[float]:
    """Return one value a round."""
    return [value(each[name]) for each in results["rounds"]]


def alone(part: str, length: str) -> Callable[[Sample], float]:
    """The median of a round's measured turns at one length of history."""
    return lambda sample: statistics.median(sample["alone"][length][part])


def speed(sample: Sample) -> float:
    """Output tokens a second of the crowd."""
    return sample["crowd"]["tokens"] / sample["crowd"]["seconds"]


def cpu_s_per_1000(sample: Sample) -> float:
    return 1000 * sample["crowd"]["cpu_s"] / sample["crowd"]["tokens"]


def show(results: dict[str, Any]) -> str:
    """Return all tables, and who was left out and why."""
    parts = [_first(results), _later(results), _crowd(results), _costs(results), _agreement(results)]
    parts += [f"\nLeft out: {name}: {why.splitlines()[0]}." for name, why in results["left_out"].items()]
    return "\n".join(parts)


def _names(results: dict[str, Any]) -> list[str]:
    return list(results["rounds"][0])


def _lengths(results: dict[str, Any]) -> list[str]:
    return [str(length) for length in results["plan"]["lengths"]]


def _by_length(results: dict[str, Any], part: str, what: str) -> str:
    lengths = _lengths(results)
    times, beside = [], []
    for name in sorted(_names(results)):
        mine = {length: over_rounds(results, name, alone(part, length)) for length in lengths}
        base = {length: over_rounds(results, BASE, alone(part, length)) for length in lengths}
        times.append((name, *(str(Spread.of(mine[length])) for length in lengths)))
        beside.append((name, *(str(ratios(mine[length], base[length])) for length in lengths)))
    plan, header = results["plan"], ("engine", *lengths)
    title = (
        f"{what}, ms, by tokens of history in the session: median of the rounds (least … most); one session, "
        f"{plan['input']} ids in and {plan['output']} out"
    )
    ratio = table(f"The same over {BASE}'s: above 1, Berth is faster", header, beside)
    return table(title, header, times) + "\n" + ratio


def _first(results: dict[str, Any]) -> str:
    return _by_length(results, "first_ms", "First token")


def _later(results: dict[str, Any]) -> str:
    weights, length = results["weights"], _lengths(results)[0]
    rows = []
    for name in sorted(_names(results)):
        took = over_rounds(results, name, alone("later_ms", length))
        speeds = over_rounds(results, name, lambda sample: sample["ceiling"])
        floors = [floor_ms(weights["read_bytes"], int(length) * weights["kv_bytes"], speed) for speed in speeds]
        values = (Spread.of(took), Spread.of(floors), ratios(took, floors), Spread.of([one / 1e9 for one in speeds]))
        rows.append((name, *map(str, values)))
    title = (
        f"A later token at {length} tokens of history and its floor: {weights['read_bytes'] / 1e6:.0f} MB of weights "
        f"and {int(length) * weights['kv_bytes'] / 1e6:.1f} MB of KV, read at the speed that {results['threads']} "
        "threads reach just before"
    )
    floors = table(title, ("engine", "ms", "floor ms", "over the floor", "ceiling GB/s"), rows)
    return _by_length(results, "later_ms", "A later token") + "\n" + floors


def _crowd(results: dict[str, Any]) -> str:
    plan, rows = results["plan"], []
    for name in sorted(_names(results)):
        mine, base = (over_rounds(results, one, speed) for one in (name, BASE))
        cpu, base_cpu = (over_rounds(results, one, cpu_s_per_1000) for one in (name, BASE))
        rows.append((name, *map(str, (Spread.of(mine), ratios(mine, base), Spread.of(cpu), ratios(cpu, base_cpu)))))
    title = (
        f"{plan['speakers']} sessions at once, {plan['rounds']} turns each "
        f"({plan['crowd_input']} ids in, {plan['crowd_output']} out)"
    )
    header = ("engine", "tokens/s", f"over {BASE}'s", "CPU s per 1,000 tokens", f"over {BASE}'s")
    return table(title, header, rows)


def _costs(results: dict[str, Any]) -> str:
    rows = []
    for name in sorted(_names(results)):
        starts = over_rounds(results, name, lambda sample: sample["first_answer_s"])
        peaks = over_rounds(results, name, lambda sample: sample["peak_bytes"] / 2**20)
        rows.append((name, str(Spread.of(starts)), results["first"][name]["first_answer_s"], str(Spread.of(peaks))))
    title = "What an engine costs before it says anything, and at most"
    header = ("engine", "start to first token s", "the very first start s", "peak resident MiB")
    return table(title, header, rows)


def _agreement(results: dict[str, Any]) -> str:
    first = results["first"]
    names = sorted(_names(results))
    rows = [(name, *(agreeing(first[name]["ids"], first[other]["ids"]) for other in names)) for name in names]
    count = len(first[BASE]["ids"])
    title = (
        f"Output ids that agree before the first that does not, of {count} after a prompt of 64 (bfloat16: engines "
        "round in different places, and of random weights near-ties are many)"
    )
    return table(title, ("engine", *names), rows)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw first and later tokens over the history, with the rounds' least and most, into an SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, sides = plt.subplots(1, 2, figsize=(10, 4))
    lengths = _lengths(results)
    for axes, part, title in zip(sides, ("first_ms", "later_ms"), ("first token", "a later token"), strict=True):
        for name in sorted(_names(results)):
            spreads = [Spread.of(over_rounds(results, name, alone(part, length))) for length in lengths]
            middle = [one.middle for one in spreads]
            reach = [[one.middle - one.least for one in spreads], [one.most - one.middle for one in spreads]]
            axes.errorbar([int(length) for length in lengths], middle, yerr=reach, fmt="o-", capsize=3, label=name)
        axes.set(xlabel="history (tokens)", ylabel="ms", title=title, yscale="log")
        axes.grid(visible=True, which="both", alpha=0.3)
    sides[1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write_docs(results: dict[str, Any], folder: Path) -> None:
    """Write the section of docs/benchmarks.md, and its plot into `folder`."""
    where = results["machine"]
    loads = [sample["load"] for each in results["rounds"] for sample in each.values()]
    peers = [name for name in sorted(_names(results)) if not name.startswith("berth-")]
    told = SECTION.format(
        machine=f"{where['cpu']} ({where['cores']} cores)",
        date=results["date"],
        rounds=len(results["rounds"]),
        versions=", ".join(f"{name} {results['versions'][name]}" for name in peers),
        load=Spread.of(loads),
        cores=where["cores"],
        parameters=results["weights"]["parameters"] / 1e6,
        threads=results["threads"],
        kv_tokens=results["kv_tokens"],
    )
    picture = f"![First and later tokens by history, beside other engines]({PLOT})"
    plot(results, folder / PLOT)
    page.write(peers=f"{told}{show(results)}\n\n{picture}\n")
