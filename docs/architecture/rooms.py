"""Draws docs/rooms.png from the imports of the code: python docs/architecture/rooms.py"""

import ast
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "pipeline", "model", "tfrecords")
# Where each package stands: left, bottom, width, height, in a picture 100 wide and 64 high.
PLACES = {"flows": (2, 50, 96, 13), "pipeline": (2, 19, 30, 26), "model": (36, 19, 62, 26), "tfrecords": (2, 2, 96, 12)}
COLORS = {"flows": "#fdf0d5", "pipeline": "#dbe9f6", "model": "#e3f1df", "tfrecords": "#ececec"}
COLUMNS = {"flows": 8, "pipeline": 2, "model": 4, "tfrecords": 8}


def rooms(package: str) -> list[str]:
    """Names of the sub-packages of a package, with a slash behind, and of its modules."""
    folders = [f"{path.parent.name}/" for path in sorted((ROOT / package).glob("*/__init__.py"))]
    return folders + [path.stem for path in sorted((ROOT / package).glob("*.py")) if path.stem != "__init__"]


def arrows() -> set[tuple[str, str]]:
    """(package, package that it imports) of all that the code imports across packages."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    found.add((package, node.module.partition(".")[0]))
    return {(a, b) for a, b in found if a != b and b in PACKAGES}


def draw(path: Path) -> None:
    """Writes the picture: a box per package, in it a box per room, an arrow per direction of import."""
    figure = Figure(figsize=(12, 7.7), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(0, 64))
    axes.axis("off")
    for package, (left, bottom, width, height) in PLACES.items():
        axes.add_patch(_box(left, bottom, width, height, COLORS[package], "#888888"))
        axes.text(left + 1, bottom + height - 1, f"{package}/", va="top", fontsize=13, fontweight="bold")
        inside, columns = rooms(package), COLUMNS[package]
        rows = -(-len(inside) // columns)
        wide, high = (width - 2) / columns, (height - 4.5) / rows
        for place, name in enumerate(inside):
            row, column = divmod(place, columns)
            x, y = left + 1 + column * wide, bottom + height - 3.5 - (row + 1) * high
            axes.add_patch(_box(x + 0.3, y + 0.3, wide - 0.6, high - 0.6, "white", "#bbbbbb"))
            axes.text(
                x + wide / 2,
                y + high / 2,
                name,
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold" if "/" in name else "normal",
            )
    for above, below in sorted(arrows()):
        (left, bottom, width, _), (low_left, low_bottom, low_width, low_height) = PLACES[above], PLACES[below]
        x = max(left, low_left) + min(width, low_width) / 2
        if (above, below) == ("flows", "tfrecords"):
            x = 34  # between pipeline and model
        arrow = FancyArrowPatch(
            (x, bottom), (x, low_bottom + low_height), arrowstyle="-|>", mutation_scale=16, color="#444444"
        )
        axes.add_patch(arrow)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _box(left: float, bottom: float, width: float, height: float, face: str, edge: str) -> FancyBboxPatch:
    return FancyBboxPatch(
        (left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.6", facecolor=face, edgecolor=edge
    )


if __name__ == "__main__":
    draw(ROOT / "docs" / "rooms.png")
