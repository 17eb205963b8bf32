"""Writes sweep.html: table, curves and final samples of a sweep in one file, without scripts or a network."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from gormley_vision.config import flatten
from gormley_vision.files import write_atomically
from gormley_vision.sweeps.arms import arms_of, mean_and_deviation, swept_keys
from gormley_vision.sweeps.runs import Row, Sweep

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 420, 240, 56, 24  # of a plot and its margins, in pixels
_MOST_POINTS = 300  # in a curve
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; } p { color: var(--soft); margin-top: .2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.number, th.number { text-align: right; } i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; }
.plots, .samples { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; }
figcaption { font-size: 13px; max-width: 320px; overflow-wrap: anywhere; }
img { width: 320px; image-rendering: pixelated; }
svg text { font-size: 11px; fill: var(--soft); } svg path { fill: none; stroke-width: 1.6; }
svg path:hover { stroke-width: 4; } svg line { stroke: var(--line); }
"""


def write_page(sweep: Sweep, rows: Sequence[Row]) -> None:
    """Write `sweep.html` into the sweep's folder; rows are sorted, best first."""
    colours = {row.name: f"hsl({360 * i / len(rows):.0f} 65% 50%)" for i, row in enumerate(rows)}
    done = sum(row.state == "done" for row in rows)
    order = "highest" if sweep.higher_is_better else "lowest"
    sections = [
        f"<h1>{html.escape(sweep.name)}</h1>",
        f"<p>{done} of {len(rows)} runs done; the {order} {html.escape(sweep.metric)} of the last step first.</p>",
        _leaderboard(sweep.metric, rows, colours),
        _arms(sweep.metric, rows),
        _curves(sweep.metric, rows, colours),
        _samples(rows),
    ]
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(sweep.name)}</title><style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )
    write_atomically(sweep.folder / "sweep.html", document.encode())


def _leaderboard(metric: str, rows: Sequence[Row], colours: Mapping[str, str]) -> str:
    swept = sorted({key for row in rows for key in row.overrides})
    head = _cells("th", ["", *swept, "state", "health"]) + _cells("th", ["step", metric], "number")
    body = ""
    for row in rows:
        settings = [str(row.overrides.get(key, "")) for key in swept]
        figures = [str(row.final["step"]), f"{row.final[metric]:.4f}"] if row.final else ["", ""]
        swatch = f'<td><i style="background:{colours[row.name]}"></i></td>'
        words = [*settings, row.state, row.verdicts]
        body += f"<tr>{swatch}{_cells('td', words)}{_cells('td', figures, 'number')}</tr>"
    return f'<h2>Leaderboard</h2><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _arms(metric: str, rows: Sequence[Row]) -> str:
    """Return means over seeds, if seeds were swept; else ''."""
    done = [row for row in rows if row.final and row.state == "done"]
    configs = [flatten(row.config) for row in done]
    arms = arms_of(configs) if configs else {}
    if len({config["seed"] for config in configs}) < 2:
        return ""
    body = ""
    figures = {name: [done[i].final[metric] for i in members] for name, members in arms.items()}
    for name, values in figures.items():
        mean, deviation = mean_and_deviation(values)
        body += f"<tr>{_cells('td', [name])}"
        body += f"{_cells('td', [f'{mean:.4f}', f'{deviation:.4f}', str(len(values))], 'number')}</tr>"
    head = _cells("th", [", ".join(swept_keys(configs)) or "runs"])
    head += _cells("th", [f"mean {metric}", "standard deviation", "seeds"], "number")
    return f'<h2>Over seeds</h2><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cells(tag: str, texts: Sequence[str], kind: str = "") -> str:
    return "".join(f'<{tag} class="{kind}">{html.escape(text)}</{tag}>' for text in texts)


def _curves(metric: str, rows: Sequence[Row], colours: Mapping[str, str]) -> str:
    names = dict.fromkeys(key for row in rows for line in row.lines for key in line if key not in ("step", "time"))
    plots = [_plot(name, rows, colours) for name in sorted(names, key=lambda name: (name != metric, name))]
    return f'<h2>Curves</h2><div class="plots">{"".join(plots)}</div>'


def _plot(name: str, rows: Sequence[Row], colours: Mapping[str, str]) -> str:
    """Return one figure over steps, with a line for each run."""
    curves = {row.name: [(line["step"], line[name]) for line in row.lines if name in line] for row in rows}
    points = [point for curve in curves.values() for point in curve]
    (x0, x1), (y0, y1) = ((min(side), max(side)) for side in zip(*points, strict=True))

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x0) / (x1 - x0 or 1) * (_WIDTH - _LEFT - 12)
        up = (y - y0) / (y1 - y0 or 1) * (_HEIGHT - _BOTTOM - 12)
        return _LEFT + right, _HEIGHT - _BOTTOM - up

    marks = ""
    for share, side in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        (across, low), (left, up) = place(x, y0), place(x0, y)
        marks += f'<line x1="{left:.1f}" x2="{_WIDTH - 12}" y1="{up:.1f}" y2="{up:.1f}"/>'
        marks += f'<text x="{_LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{y:.4g}</text>'
        marks += f'<text x="{across:.1f}" y="{low + 16:.1f}" text-anchor="{side}">{x:.0f}</text>'
    for run, curve in curves.items():
        thin = curve[:: max(1, len(curve) // _MOST_POINTS)] + curve[-1:]
        line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in thin)
        title = html.escape(f"{run}: {curve[-1][1]:.4g}" if curve else run)
        marks += f'<path d="M{line}" stroke="{colours[run]}"><title>{title}</title></path>' if curve else ""
    caption = f"<figcaption>{html.escape(name)}, over steps</figcaption>"
    return f'<figure>{caption}<svg width="{_WIDTH}" height="{_HEIGHT}">{marks}</svg></figure>'


def _samples(rows: Sequence[Row]) -> str:
    """Return the last sample grid of each run, side by side."""
    figures = ""
    for row in rows:
        grids: list[Any] = sorted((row.folder / "samples").glob("[0-9]*.png"))
        if grids:
            data = base64.b64encode(grids[-1].read_bytes()).decode()
            caption = html.escape(f"{row.name}, step {int(grids[-1].stem)}")
            figures += f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            figures += f"<figcaption>{caption}</figcaption></figure>"
    return f'<h2>Final samples</h2><div class="samples">{figures}</div>' if figures else ""
