"""Descriptions of runs in Markdown, as MLflow shows them on a run's page."""

import re
from collections.abc import Mapping

MOST_CLASSES = 20  # that are listed; a description has 8,000 characters at most


def with_section(description: str, heading: str, text: str) -> str:
    """A description with the section under `heading` replaced, or put in front: MLflow shows the first lines alone.

    All else stays as it is: people may have written it.
    """
    sections = [part.strip() for part in re.split(r"^(?=### )", description, flags=re.MULTILINE) if part.strip()]
    headings = [section.partition("\n")[0] for section in sections]
    if f"### {heading}" not in headings:
        sections.insert(0, "")
        headings.insert(0, f"### {heading}")
    sections[headings.index(f"### {heading}")] = f"### {heading}\n\n{text}".strip()
    return "\n\n".join(sections) + "\n"


def data_text(name: str, fingerprint: str, counts: Mapping[str, int]) -> str:
    """One paragraph on a dataset. counts: pictures per class, in label order."""
    listed = [f"{escaped(label)} {count:,}" for label, count in counts.items()]
    left = len(listed) - MOST_CLASSES
    more = [f"and {left} classes more"] if left > 0 else []
    pictures = f"{sum(counts.values()):,} pictures of {len(counts)} classes"
    return f"`{name}`, dataset `{fingerprint}`: {pictures} ({', '.join([*listed[:MOST_CLASSES], *more])})."


def metrics_text(metrics: Mapping[str, float]) -> str:
    """One line: every metric with its value."""
    return ", ".join(f"{escaped(name.replace('_', ' '))} **{_number(value)}**" for name, value in metrics.items())


def picture_text(run_id: str, path: str, whole: str) -> str:
    """A picture that links to another, both artifacts of a run.

    The addresses are relative to MLflow's pages, wherever those are served.
    """
    shown, linked = (f"get-artifact?run_uuid={run_id}&path={artifact}" for artifact in (path, whole))
    return f"[![{whole}]({shown})]({linked})"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4f}"
