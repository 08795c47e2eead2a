"""Puts a report's data, code and styles into one HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources

# The order in which the page's scripts run; the last one starts it.
SCRIPTS = (
    "base.js",
    "inflate.js",
    "data.js",
    "model.js",
    "united.js",
    "theme.js",
    "bins.js",
    "table.js",
    "rows.js",
    "treemap.js",
    "tiles.js",
    "about.js",
    "findings.js",
    "charts.js",
    "linear.js",
    "strips.js",
    "heat.js",
    "training.js",
    "roles.js",
    "parameter.js",
    "changes.js",
    "print.js",
    "main.js",
)


def check_installed() -> None:
    """Raises ImportError, saying what to install, where a report cannot be made."""
    missing = []
    for name in ("jinja2", "plotly"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ImportError(
            f"report needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed "
            '(pip install "pyparam[report]")'
        )


# What stands before the data; a title or a style has no such markup.
_DATA = '<script type="text/plain" id="data">'


def page(*, title: str, data: Iterable[str]) -> Iterator[str]:
    """The whole file piece by piece: ``data`` is what ``content.packed`` gave."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("pyparam._view.html", "."), autoescape=True, undefined=StrictUndefined
    )
    scripts = [_plotly(), *map(_script, SCRIPTS)]
    rendered = environment.get_template("report.html.jinja").render(
        title=title,
        # Only these scripts run, whatever else a file may come to hold, and nothing is fetched.
        policy="; ".join(
            [
                "default-src 'none'",
                f"script-src {' '.join(map(_hash, scripts))}",
                "style-src 'unsafe-inline'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
        css=Markup(_read("report.css")),
        scripts=[Markup(script) for script in scripts],
    )
    before, tag, after = rendered.partition(_DATA)
    yield before + tag
    yield from data
    yield after


def _script(name: str) -> str:
    return _safe(_read(f"js/{name}"), name)


@cache
def _plotly() -> str:
    """The library as it comes with the installed Python package."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    return _safe(str(get_plotlyjs()), "plotly.js")


def _safe(script: str, name: str) -> str:
    """A script as it stands between its tags. A line feed is what HTML makes of other ends of lines."""
    script = script.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in script.lower() or "<!--" in script:
        raise RuntimeError(f"internal error, please report: {name} would end its own script element")
    return script


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _read(name: str) -> str:
    return resources.files("pyparam._view.html").joinpath(name).read_text(encoding="utf-8")
