"""`millrace report`: a page that says what it knows and what it lacks, holds all it needs and trusts nobody's text."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving import report as reports
from serving.cli import app
from serving.report import gather, report_of, run_report
from serving.report_charts import Chart, colours_of, draw
from serving.report_data import Period
from serving.report_page import Report, render
from serving.report_topics import Topic
from streams.errors import PipelineError, UnavailableError
from streams.pipeline import Model, Pipeline
from tests import reporting
from tests.reporting import KINDS, SHOPS, START_US, Made

FILE = """
[pipeline]
name = "shop"
state = "state"
[events]
topic = "events"
id = "id"
key = "key"
fields = { amount = "number", shop = "category", is_new = "number", miles = "number" }
[labels]
topic = "labels"
id = "id"
key = "key"
value = "y"
wait = "3h"
[models.linear]
kind = "linear"
[serve]
champion = "linear"
"""


class Page(HTMLParser):
    """What a browser sees: tags with their attributes, visible text, and the figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.figures: list[dict[str, Any]] = []
        self._inside = ("", {})  # type: tuple[str, dict[str, str | None]]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag, dict(attrs)
        self.tags.append(self._inside)

    def handle_endtag(self, tag: str) -> None:
        self._inside = "", {}

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside
        if tag == "script" and attributes.get("type") == "application/json":
            self.figures.append(json.loads(data))
        elif tag not in ("script", "style"):
            self.words.append(data)


def unreachable(pipeline: Pipeline) -> Topic:
    raise PipelineError(["no broker answers at 127.0.0.1:1"])


def made_report(made: Made, *features: str) -> Report:
    gathered = gather(made.pipeline, Period(), lambda _: made.topics, features)
    return report_of(made.pipeline, gathered, features, START_US)


def charts(report: Report) -> Iterator[Chart]:
    for section in report.sections:
        yield from section.charts


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return reporting.make(tmp_path_factory.mktemp("state"))


@pytest.fixture(name="report", scope="module")
def _report(made: Made) -> Report:
    return made_report(made)


@pytest.fixture(name="page", scope="module")
def _page(report: Report) -> str:
    return render(report)


def test_the_summary_says_what_happened_in_numbers_with_units(made: Made, report: Report) -> None:
    told = " ".join(report.paragraphs)
    seen = made.happened
    label_N = seen.label_N[seen.label_N == seen.label_N]

    assert "The archive has 4,000 events from 14 November 2023 to 17 November 2023 (UTC), 1,440 a day." in told
    assert f"{len(label_N) / 40:.1f} % got their label; for the others none came within 1 min." in told
    assert f"{label_N.mean() * 100:.1f} % of the labels are yes." in told
    assert re.search(r"The champion is linear\. Its log loss was 0\.\d{4} over " + f"{len(label_N):,} events", told)
    assert re.search(
        r"That is [\d.]+ % less than prior, which knows no features \(0\.\d+ against 0\.\d+ on the same", told
    )
    assert "1 of 4 features has changed a lot between the first and the last quarter: miles." in told
    assert [tile.name for tile in report.tiles] == [
        "Events", "With a label", "Labels that are yes", "Champion's log loss", "Against prior", "Time to answer",
    ]  # fmt: skip
    assert report.tiles[-1].value == "3.5 ms"


def test_the_page_loads_nothing_and_has_plotly_once(page: str) -> None:
    found = Page(page)
    links = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href")]

    assert links == ["#models", "#data"]
    policy = next(attributes for tag, attributes in found.tags if "http-equiv" in attributes)
    assert (policy["content"] or "").startswith("default-src 'none'; script-src 'unsafe-inline'")
    assert page.count("plotly.js v") == 1
    assert 4_000_000 < len(page.encode()) < 10_000_000


def test_every_chart_has_a_title_a_reading_aid_and_figures_in_the_page(report: Report, page: str) -> None:
    shown = list(charts(report))

    assert [chart.title for chart in shown] == [
        "Loss over time", "Loss against cost", "ROC", "Precision and recall", "Calibration",
        "Confusion of what was served", "Loss by slice", "Loss by label delay", "Which features matter", "Volume",
        "Labels over time", "How late labels come", "Missing values", "Drift of features",
        "Distributions, then and now", "Largest categories", "Correlations of numbers",
    ]  # fmt: skip
    assert all(len(chart.aid.split()) > 7 and chart.aid.endswith(".") for chart in shown)
    assert len(Page(page).figures) == sum(len(chart.panels) for chart in shown)
    for chart in shown:
        for panel in chart.panels:
            axes = draw(panel).layout
            assert panel.name or axes.xaxis.title.text or axes.yaxis.title.text or panel.traces[0]["type"] == "heatmap"


def test_a_candidate_has_one_colour_everywhere(report: Report) -> None:
    colours = colours_of((name, name) for name in KINDS["binary"])
    found: dict[str, set[str]] = {name: set() for name in colours}
    for chart in charts(report):
        for name, colour in chart.legend:
            found.setdefault(name.split(" (")[0], set()).add(colour)
        for panel in chart.panels:
            for trace in panel.traces:
                if trace.get("name") in colours:
                    form = trace.get("line", {}).get("color") or trace["marker"]["color"]
                    found[trace["name"]].add(form)

    assert {name: {colour} for name, colour in colours.items()} == {name: found[name] for name in colours}
    assert len(set(colours.values())) == len(colours)


def test_text_of_users_is_never_taken_for_html(tmp_path: Path) -> None:
    """In words, tables, legends, axes and hover texts alike."""
    evil = "</script><img src=x onerror=alert(1)>"
    model = Model("linear", "linear", {})
    made = reporting.make(tmp_path, size=600, name=evil, models=(model,))
    made.topics.rows.append({"field.shop": evil})
    gathered = gather(made.pipeline, Period(), lambda _: made.topics)
    gathered.left_out.append(evil)
    events = gathered.archived.events
    for text in SHOPS:
        gathered.names["shop"] = {code: evil if name == text else name for code, name in gathered.names["shop"].items()}
    page = render(report_of(made.pipeline, gathered, (), START_US))
    found = Page(page)

    assert "img" not in {tag for tag, _ in found.tags}
    assert evil in "".join(found.words)
    assert evil not in page
    told = json.dumps(found.figures)
    assert "<img" not in told
    assert "&lt;/script&gt;&lt;img" in told
    assert len(events.id_N) == 600


def test_without_kafka_the_page_says_what_it_lacks_and_why(made: Made) -> None:
    """Figures are then those of the newest versions."""
    gathered = gather(made.pipeline, Period(), unreachable)
    report = report_of(made.pipeline, gathered, (), START_US)

    what = "losses over time and by slice, what was served, names of categories"
    assert report.left_out == [f"{what}: no broker answers at 127.0.0.1:1"]
    assert f"<li>{what}: no broker answers at 127.0.0.1:1</li>" in render(report)
    assert re.search(r"The champion is linear\. Its log loss was 0\.\d{4} since its start\.", report.paragraphs[1])
    titles = [chart.title for chart in charts(report)]
    assert titles[:2] == ["Loss against cost", "Which features matter"]
    assert "Largest categories" in titles


def test_candidates_without_a_version_or_with_a_damaged_one_are_told(tmp_path: Path) -> None:
    made = reporting.make(tmp_path, size=600)
    blob = next((tmp_path / "models" / "linear").glob("*.npz"))
    blob.write_bytes(blob.read_bytes()[:-9] + b"123456789")
    for path in (tmp_path / "models" / "naive_bayes").iterdir():
        path.unlink()
    gathered = gather(made.pipeline, Period(), lambda _: made.topics)

    assert gathered.left_out[0] == "figures of naive_bayes: it has no version yet"
    assert gathered.left_out[1].startswith("which features linear needs: version linear@0.")
    assert "is not the file that was published" in gathered.left_out[1]
    assert {one.name: one.version for one in gathered.candidates}["naive_bayes"] == "none yet"


@pytest.mark.parametrize("kind", ["multiclass", "regression", "anomaly", "clustering"])
def test_every_task_has_its_own_charts(kind: str, tmp_path: Path) -> None:
    report = made_report(reporting.make(tmp_path, kind, size=1_200))
    titles = {chart.title for chart in charts(report)}
    own = {
        "multiclass": {"Confusion of what was served", "Loss by label delay", "Labels over time"},
        "regression": {"Served against label", "Errors", "Errors over time", "Labels over time"},
        "anomaly": {"Scores", "Alerts over time", "Scores over time", "ROC"},
        "clustering": {"Clusters over time", "Distance over time"},
    }

    assert own[kind] <= titles
    assert not (own["clustering"] & titles) or kind == "clustering"
    assert ("How late labels come" in titles) == (kind != "clustering")
    assert len(render(report)) > 4_000_000  # every figure is one that plotly takes


def test_losses_are_parted_by_the_features_that_were_named(made: Made) -> None:
    report = made_report(made, "shop", "is_new")
    chart = next(chart for chart in charts(report) if chart.title == "Loss by slice")

    assert [panel.name for panel in chart.panels] == ["shop", "is_new"]
    with pytest.raises(PipelineError, match="--by shoe: is no feature; allowed: amount, shop, is_new, miles"):
        made_report(made, "shoe")


def test_the_command_writes_the_page_and_says_what_it_lacks(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reports, "KafkaTopics", unreachable)
    run_report(made.pipeline, tmp_path / "page.html", Period(None, START_US + 3_600_000_000), ())
    first, last = capsys.readouterr().out.splitlines()

    assert first.startswith("not in the report: losses over time")
    assert re.fullmatch(rf"{tmp_path}/page\.html: 60 events, 4\.\d MB", last)
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(UnavailableError, match="cannot be written: Is a directory; name another file"):
        run_report(made.pipeline, tmp_path, Period(), ())


def test_without_an_archive_the_command_ends_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(FILE, encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(file), "--out", str(tmp_path / "report.html")])

    assert isinstance(done.exception, UnavailableError)
    assert done.exception.exit_code == 3
    assert "archive has no examples yet" in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "report.html").exists()


def test_a_time_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(FILE, encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(file), "--from", "yesterday"])

    assert "--from yesterday: is no time; allowed: as 2026-01-31" in str(done.exception)


def test_without_what_draws_charts_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = CliRunner().invoke(app, ["report", str(file)])

    assert isinstance(done.exception, UnavailableError)
    assert str(done.exception) == "pandas is not installed: pip install 'millrace[report]'"
