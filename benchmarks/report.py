"""From the figures of `python -m benchmarks` to a paper and a chart."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

TITLES = {
    "convert": "Convert: picture files to records",
    "plan": "Plan: what the driver does alone",
    "audit": "Audit: pairs of the same picture",
    "read": "Read: records to batches",
    "train": "Train",
    "predict": "Predict: PNG files to a submission",
    "orchestrate": "Orchestrate",
    "api": "Answer over HTTP",
    "watch": "Answer a folder",
}
# What each table shows, and how what is in it was measured.
NOTES = {
    ("convert", "many"): "Start of the process to its end, but for the sum of the parts: there every core times the"
    " four parts that nobody can leave out, without start-up, writing or checks. Ours hashes, checks and audits too."
    " The loop and the pool write the same records and check nothing.",
    ("convert", "formats"): "The same pictures in other formats; TIFF is not compressed.",
    ("convert", "few"): "A small set, where start-up counts most.",
    ("convert", "growth"): "`aoi ingest`, as the number of pictures grows.",
    ("plan", "growth"): "Made-up rows, no pixels: digest, equal files, folds, shards, and the plans as workers get"
    " them, from rows in memory to files. Seconds include making the rows up and the start of the process.",
    ("audit", "pairs"): "Perceptual hashes of real pictures, each with up to so many bits flipped by chance: pairs"
    " within 6 bits. One core. Pairs found: a picture counts once for each concern.",
    ("read", "batches"): "Batches of 16 pictures of 224 px, from PNG files of 512 px. First batch: after the import of"
    " the libraries. The shift is 5 % both ways with mirrored borders, each in the reader's own way. Ours reads what"
    " `aoi ingest` made; later epochs of ours and of raw in memory come from memory.",
    ("train", "speed"): "Step by step by turns in one process, the same network, one `model.fit` without"
    " validation; a cell is over the steps.",
    ("train", "recipes"): "`aoi train`; to a bound: its epochs with validation and checkpoints, without start-up,"
    " which `seconds` has. Empty: not reached. Keras' five epochs are extrapolated from measured steps.",
    (
        "predict",
        "whole",
    ): "The stage with all it does, and a loop with one call of `model.predict`. Rates and parts"
    " leave out the libraries' import, `seconds` has it. A call of `model.predict` may wait when its last batch is"
    " done, by chance and for up to half of the call, until a sleeping thread of tf.data's ends. The goals compare the"
    " rates over all rounds together, waiting included, ours at the full number.",
    ("predict", "network"): "Arrays in memory to probabilities, by turns in one process. Waiting: see above.",
    ("predict", "one picture"): "A PNG's bytes to its class.",
    (
        "orchestrate",
        "runs",
    ): "Tiny pictures and a tiny network, so that what surrounds the work shows. `chain_s`: without"
    " the start of the process; `mlflow_s`: the part of it inside what records runs and models.",
    (
        "api",
        "answers",
    ): "A PNG's bytes to its answer, every request another picture; the load is wrk's. p50 and p99: one"
    " client; pictures/s and many: eight at once. Ready: from the start of the process;"
    " in process: to open the network, which gives the same answers then (probabilities, novelty, decision).",
    (
        "watch",
        "folder",
    ): "Pictures/s: of a folder that is full when it starts, without the start; in process: eight threads, files in"
    " memory. p50 and p99: 20 pictures per second are renamed in, each until its row is on the disk and was read.",
    ("orchestrate", "imports"): "Each in a fresh process.",
}
COLUMNS = {
    "seconds": "seconds",
    "pictures": "pictures",
    "pictures_per_s": "pictures/s",
    "memory_mb": "memory, MiB",
    "read_ms": "read, ms",
    "decode_ms": "decode, ms",
    "clahe_ms": "CLAHE, ms",
    "resize_ms": "resize, ms",
    "rows": "rows",
    "shards": "shards",
    "hashes": "hashes",
    "cpu_s": "processor, s",
    "found": "pairs found",
    "first_batch_s": "first batch, s",
    "first_per_s": "first epoch, /s",
    "later_per_s": "later epochs, /s",
    "to_0.9666_s": "to 0.9666, s",
    "to_0.99_s": "to 0.99, s",
    "val_accuracy": "validation accuracy",
    "validated_per_s": "validated, /s",
    "extrapolated_s": "five epochs, s (extrapolated)",
    "convert_s": "convert, s",
    "predict_s": "predict, s",
    "wait_s": "of it waiting, s",
    "without_wait_per_s": "without waiting, /s",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "ready_s": "ready, s",
    "many_p50_ms": "p50 of many, ms",
    "many_p99_ms": "p99 of many, ms",
    "failed": "failed",
    "chain_s": "chain, s",
    "mlflow_s": "MLflow, s",
    "help_s": "help, s",
    "import_s": "import, s",
}
# The figure of each section that the chart draws, and its table.
CHARTS = {
    "convert": ("many", "pictures_per_s"),
    "read": ("batches", "later_per_s"),
    "train": ("speed", "pictures_per_s"),
    "predict": ("whole", "pictures_per_s"),
    "api": ("answers", "pictures_per_s"),
    "watch": ("folder", "pictures_per_s"),
}
WIDE = 50  # a chart of rates further apart than this is logarithmic


def write(result: Mapping[str, Any], out: Path) -> None:
    """Leaves the paper and the chart beside the JSON file `out`, under its name with .md and .png."""
    out.with_suffix(".md").write_text(paper(result, out.stem), encoding="utf-8")
    _draw(result, out.with_suffix(".png"))


def paper(result: Mapping[str, Any], name: str) -> str:
    """The whole paper as Markdown. name: of its files, without suffix."""
    machine = result["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    lines = [
        "# Performance",
        "",
        f"Written by `{result['command']}` in {result['seconds'] / 60:.0f} minutes, {machine['date']}; all figures are"
        f" in `{name}.json`. Contestants take turns, each in a process of its own; a cell is the median over the"
        " rounds, and in brackets the lowest and the highest. Memory is the peak of all processes of a contestant"
        " together, shared pages counted once. Ratios are taken within this one run: other machines have other"
        " seconds.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}.",
        f"Versions: {versions}.",
        "",
        "Pictures are drawn by `aoi sample` (512 px) and repeated under new names where many are wanted. Repeats are"
        " byte-identical: they come from the system's cache when they are read, as a warm set would; they share folds;"
        " and the audit lists each as a duplicate, which real sets spare it.",
        "",
        f"![Pictures per second]({name}.png)",
        "",
        "## Goals",
        "",
        *_table(
            ("section", "goal", "bound", "reached", ""),
            [
                (
                    section,
                    goal["what"],
                    f"{'>=' if goal['more'] else '<='} {goal['bound']:g} {goal['unit']}".rstrip(),
                    f"{_number(goal['value'])} {goal['unit']}".rstrip(),
                    "reached" if goal["reached"] else "**missed**",
                )
                for section, told in result["sections"].items()
                for goal in told["goals"]
            ],
        ),
    ]
    for section, told in result["sections"].items():
        sizes = "; ".join(f"{key}: {_size(value)}" for key, value in told["size"].items() if value not in (None, []))
        lines += ["", f"## {TITLES[section]}", "", f"`python -m benchmarks --only {section}`. Sizes: {sizes}."]
        for table, rows in told["tables"].items():
            lines += ["", NOTES[section, table], "", *_rows(rows)]
    return "\n".join(lines) + "\n"


def _rows(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    seen = {key for row in rows for key in row["median"]}
    columns = [key for key in COLUMNS if key in seen]
    return _table(
        ("", *(COLUMNS[key] for key in columns)),
        [(row["name"], *(_cell(row, key) for key in columns)) for row in rows],
    )


def _cell(row: Mapping[str, Any], key: str) -> str:
    middle, low, high = (row[word].get(key) for word in ("median", "low", "high"))
    if middle is None:
        return ""
    spread = f" ({_number(low)}-{_number(high)})" if low != high else ""
    return _number(middle) + spread


def _number(value: float) -> str:
    """Three digits that count, or all of a larger number's."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _size(value: Any) -> str:
    return " ".join(str(one) for one in value) if isinstance(value, list) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def _draw(result: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = [section for section in CHARTS if section in result["sections"]]
    if not drawn:
        return
    heights = [len(result["sections"][section]["tables"][CHARTS[section][0]]) for section in drawn]
    figure = Figure(figsize=(9, 0.8 * len(drawn) + 0.32 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(drawn), 1, height_ratios=[height + 1 for height in heights], squeeze=False)[:, 0]
    for plot, section in zip(axes, drawn, strict=True):
        table, key = CHARTS[section]
        rows = result["sections"][section]["tables"][table]
        values = [row["median"][key] for row in rows]
        colors = ["#2166ac" if "ours" in row["name"] or "our " in row["name"] else "#bbbbbb" for row in rows]
        spread = [[row["median"][key] - row["low"][key] for row in rows]]
        spread += [[row["high"][key] - row["median"][key] for row in rows]]
        names, most = [row["name"] for row in rows], max(row["high"][key] for row in rows)
        title = f"{TITLES[section]}, pictures/s"
        if most > WIDE * min(values):  # bars would hide all but the longest
            title += " (logarithmic)"
            for name, value, color, *error in zip(names, values, colors, *spread, strict=True):
                plot.errorbar(value, name, xerr=[[one] for one in error], fmt="o", color=color, ecolor="#555555")
                plot.annotate(_number(value), (value + error[1], name), (8, 0), textcoords="offset points", va="center")
            plot.set(xscale="log", xlim=(min(values) / 2, 4 * most))
        else:
            bars = plot.barh(names, values, color=colors, xerr=spread, ecolor="#555555")
            plot.bar_label(bars, [_number(value) for value in values], padding=6)
            plot.set(xlim=(0, 1.2 * most), xticks=[])
        plot.invert_yaxis()
        plot.set_title(title, loc="left", fontsize=10)
        plot.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
