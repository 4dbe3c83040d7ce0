"""The page of a report: one HTML file with everything in it, which asks no network for anything.

plotly's JavaScript is in it once. The page's own policy forbids it to load or send anything, and all text that users
wrote is escaped. Without JavaScript words and tables can still be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from serving.report_charts import Chart, draw
from serving.report_league import Row
from serving.report_summary import Tile

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=%|(?:d|h|min|s|ms|us|[KMG]iB)\b)")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
STYLE = """
:root { --ink:#1f2933; --faint:#66727f; --line:#e4e8ed; --soft:#f6f8fa; --accent:#3d5a80; }
* { box-sizing:border-box; }
html { scroll-behavior:smooth; -webkit-text-size-adjust:100%; }
body { margin:0; background:#fff; color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
  "Helvetica Neue",Arial,sans-serif; }
main { max-width:1120px; margin:0 auto; padding:40px 28px 64px; }
h1 { font-size:30px; line-height:1.2; margin:0 0 4px; letter-spacing:-.01em; }
h2 { font-size:22px; margin:56px 0 4px; padding-top:20px; border-top:1px solid var(--line); }
h3 { font-size:16px; margin:0 0 2px; }
p { margin:0 0 12px; max-width:76ch; }
.when, .lead, .aid, .note, footer { color:var(--faint); }
.aid, .note { font-size:13.5px; line-height:1.45; margin:0 0 8px; max-width:100ch; }
.note { margin:6px 0 0; }
nav { margin:14px 0 26px; font-size:14px; }
nav a { color:var(--accent); text-decoration:none; margin-right:18px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(158px,1fr)); gap:12px; margin:22px 0 24px; }
.tile { background:var(--soft); border-radius:8px; padding:14px 16px; }
.tile b { display:block; font-size:23px; white-space:nowrap; font-weight:600; line-height:1.25; letter-spacing:-.01em; }
.tile span { display:block; font-size:13px; color:var(--faint); line-height:1.4; }
.out { border-left:3px solid #c9a227; background:#fdfaf0; padding:12px 16px; border-radius:0 8px 8px 0;
  font-size:14.5px; overflow-wrap:anywhere; }
.out ul { margin:4px 0 0; padding-left:20px; }
.charts { display:grid; grid-template-columns:repeat(2,minmax(0,1fr)); gap:40px 36px; margin-top:24px;
  grid-auto-flow:dense; }
figure { margin:0; min-width:0; }
figure.wide { grid-column:1/-1; }
.legend { display:flex; flex-wrap:wrap; gap:4px 16px; font-size:13px; margin:0 0 6px; }
.chip { display:inline-block; width:11px; height:11px; border-radius:3px; margin-right:6px; vertical-align:-1px; }
.panels { display:grid; gap:22px 28px; grid-template-columns:minmax(0,1fr); }
.panels.several { grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr)); }
.panel { min-width:0; }
.panel h4 { font-size:13.5px; font-weight:600; margin:0 0 2px; overflow-wrap:anywhere; }
.scroll { overflow-x:auto; margin-top:20px; }
table { border-collapse:collapse; font-size:14px; width:100%; font-variant-numeric:tabular-nums; }
th, td { padding:7px 12px 7px 0; text-align:right; white-space:nowrap; border-bottom:1px solid var(--line); }
th { font-weight:500; color:var(--faint); font-size:12.5px; white-space:normal; vertical-align:bottom; }
th:first-child, td:first-child { text-align:left; }
.badge { font-size:11.5px; color:#fff; background:var(--accent); border-radius:9px; padding:1px 8px; margin-left:8px; }
footer { margin-top:56px; padding-top:16px; border-top:1px solid var(--line); font-size:13.5px; }
@media (max-width:760px) {
  main { padding:24px 16px 48px; } h1 { font-size:25px; } h2 { margin-top:40px; }
  .charts { grid-template-columns:minmax(0,1fr); gap:34px; }
  .tiles { grid-template-columns:repeat(2,minmax(0,1fr)); gap:8px; }
  .tile { padding:11px 12px; } .tile b { font-size:20px; }
}
@media print { nav { display:none; } figure, .tile { break-inside:avoid; } }
"""
SCRIPT = """
for (const held of document.querySelectorAll('script[type="application/json"]')) {
  const figure = JSON.parse(held.textContent);
  Plotly.newPlot(held.previousElementSibling, figure.data, figure.layout, {displayModeBar: false, responsive: true});
}
"""


class League(NamedTuple):
    """The league as a table: its header without the candidate, rows, and each candidate's colour."""

    header: Sequence[str]
    rows: Sequence[Row]
    colours: dict[str, str]


class Section(NamedTuple):
    """A part of the page, under a heading."""

    name: str
    title: str
    lead: str
    charts: Sequence[Chart]
    league: League | None = None


class Report(NamedTuple):
    """All that a page says."""

    title: str
    when: str
    tiles: Sequence[Tile]
    paragraphs: Sequence[str]
    left_out: Sequence[str]
    sections: Sequence[Section]
    footer: Sequence[str]


def render(report: Report) -> str:
    """Lay out a page; about 5 MB, nearly all of it plotly's JavaScript."""
    return "\n".join(_page(report))


def _page(report: Report) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield f"<title>{escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>"
    yield f'<h1>{escape(report.title)}</h1>\n<p class="when">{escape(report.when)}</p>'
    links = "".join(f'<a href="#{one.name}">{escape(one.title)}</a>' for one in report.sections)
    yield f"<nav>{links}</nav>"
    yield from (f"<p>{_text(text)}</p>" for text in report.paragraphs if text)
    yield f'<div class="tiles">{"".join(map(_tile, report.tiles))}</div>'
    if report.left_out:
        items = "".join(f"<li>{escape(text)}</li>" for text in report.left_out)
        yield f'<div class="out">Not on this page:<ul>{items}</ul></div>'
    for section in report.sections:
        yield from _section(section)
    yield f"<footer>{''.join(f'<p>{escape(text)}</p>' for text in report.footer)}</footer>"
    yield "<noscript><p>The charts need JavaScript, which is in this page.</p></noscript>\n</main>"
    yield f"<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>"


def _tile(tile: Tile) -> str:
    name, value, below = map(_text, tile)
    return f'<div class="tile"><span>{name}</span><b>{value}</b><span>{below}</span></div>'


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{section.name}">\n<h2>{escape(section.title)}</h2>\n<p class="lead">{escape(section.lead)}</p>'
    if section.league is not None:
        yield _league(section.league)
    yield '<div class="charts">'
    for chart in section.charts:
        yield from _chart(chart)
    yield "</div>\n</section>"


def _league(league: League) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("candidate", *league.header))
    rows = []
    for row in league.rows:
        badge = '<span class="badge">champion</span>' if row.is_champion else ""
        name = f"{_chip(league.colours[row.candidate])}{escape(row.candidate)}{badge}"
        rows.append("".join(["<tr><td>", name, "</td>", *(f"<td>{escape(cell)}</td>" for cell in row.cells), "</tr>"]))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _chart(chart: Chart) -> Iterator[str]:
    yield f"<figure{' class=wide' if chart.is_wide else ''}>\n<h3>{escape(chart.title)}</h3>"
    yield f'<p class="aid">{_text(chart.aid)}</p>'
    if chart.legend:
        chips = "".join(f"<span>{_chip(colour)}{escape(name)}</span>" for name, colour in chart.legend)
        yield f'<div class="legend">{chips}</div>'
    yield f'<div class="panels{" several" if len(chart.panels) > 1 else ""}">'
    for panel in chart.panels:
        heading = f"<h4>{escape(panel.name)}</h4>" if panel.name else ""
        figure = to_json_plotly(draw(panel))  # in which <, > and / are escaped for a script
        plot = f'<div class="plot" style="height:{panel.height}px"></div>'
        yield f'<div class="panel">{heading}{plot}<script type="application/json">{figure}</script></div>'
    yield "</div>"
    if chart.note:
        yield f'<p class="note">{escape(chart.note)}</p>'
    yield "</figure>"


def _text(text: str) -> str:
    """Escape a text, and keep numbers with their units."""
    return _BEFORE_UNIT.sub("\u00a0", escape(text))


def _chip(colour: str) -> str:
    return f'<span class="chip" style="background:{colour}"></span>'
