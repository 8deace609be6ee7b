"""The page: every number there, origins unmistakable, nothing foreign, nothing lost."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_builders import (
    default_candidates,
    make_arch,
    make_candidate,
    make_drift,
    make_profile,
    make_report,
    make_round,
)

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.flags import INVALIDATING
from hwnas_sdk.core.types import Measurement
from hwnas_sdk.report import (
    MeasuredModel,
    ReportData,
    render_report,
    write_report,
)

VOID = {"meta", "br", "link", "img", "input", "hr", "path", "circle", "use"}


class Page(HTMLParser):
    """Tags, ids, links and visible text; fails on a tag that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.titles: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            assert not key.startswith("on"), f"script in attribute {key}"
            if key == "id":
                self.ids.append(value or "")
            if key in {"href", "src", "action", "data"}:
                self.links.append(value or "")
            if key == "title":
                self.titles.append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def full() -> ReportData:
    return make_report(
        profile=make_profile(),
        drift=make_drift(),
        artifacts={default_candidates()[0].arch: "ab" * 32},
        notes=("The lid of the box was open.",),
    )


@pytest.fixture(scope="module")
def html(full: ReportData) -> str:
    return render_report(full)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_answer_comes_first(page: Page) -> None:
    text = page.text
    assert "Of 6 networks measured on shelf-pi, 4 are the best trade-offs" in text
    answer = text[: text.index("Predicted front against")]
    for part in ("Fastest", "#1001", "2.20 ms", "Best compromise", "#1002", "3.30 ms"):
        assert part in answer
    for part in ("Most accurate", "#1004", "22.00 ms", "6.25 %", "accuracy 93.75 %"):
        assert part in answer
    assert "predicted by a model trained on CIFAR-10 accuracies" in answer
    assert "1 candidate without a valid measurement" in answer
    assert "1 network that the prediction had put on the front turned out to be beaten" in answer
    assert "The lid of the box was open." in answer


def test_every_number_is_there(page: Page) -> None:
    for c in default_candidates():
        assert f"{c.error_pct:.2f}" in page.text
        assert f"{c.predicted_ms:.2f}" in page.text
        if c.measured_ms is not None:
            assert f"{c.measured_ms:.2f}" in page.text
        assert c.arch in page.text
    for part in ("0.987", "0.912", "9.1 %", "0.8123", "0.7954", "± 0.04", "51.5", "\u22129.1 %"):
        assert part in page.text
    assert "ab" * 32 in page.text


def test_origins_are_labelled(html: str, page: Page) -> None:
    assert "Accuracy here is predicted , not tested." in page.text
    assert html.count('class="origin is-predicted"') >= 5
    assert html.count('class="origin is-measured"') >= 5


def test_another_origin_is_never_called_measured() -> None:
    text = Page(render_report(make_report(measurement_origin="imported"))).text
    assert "imported" in text
    assert "from a table of someone's earlier measurements" in text
    without_styles = re.sub(r"no valid measurement|not measured", "", text)
    assert "Latency ms measured" not in without_styles
    assert "networks measured on" not in without_styles


def test_invalid_measurement_is_shown(html: str, page: Page) -> None:
    assert '<tr id="c1-7" class="invalid">' in html
    assert "contended" in page.text
    assert INVALIDATING["contended"] in page.text
    assert "(makes the measurement invalid)" in page.text


def test_invalid_number_is_struck_through_and_not_used() -> None:
    bad = make_candidate(1001, 5.0, 1.0, measured_ms=0.1234, flags=("sentinel_drift",))
    data = make_report(rounds=(make_round((bad, make_candidate(1002, 9.0, 3.0))),))
    text = render_report(data)
    assert '<span class="unusable">0.12</span>' in text
    assert "One network measured on shelf-pi: 3.30 ± 0.04 ms" in Page(text).text


def test_nothing_foreign(html: str, page: Page) -> None:
    assert "script" not in page.tags
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert all(link.startswith("#") for link in page.links)
    assert re.findall(r"url\((?!#)", html) == []


def test_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_light_and_dark(html: str) -> None:
    assert "prefers-color-scheme: dark" in html
    assert "color-scheme: light dark" in html
    svgs = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    colours = re.findall(r"(?:fill|stroke): ?(#[0-9a-f]{3,6})", svgs)
    assert set(colours) == set(), "a colour that does not follow the scheme"
    used = set(re.findall(r"var\(--([\w-]+)[,)]", html))
    assert used <= set(re.findall(r"--([\w-]+):", html))


def test_both_schemes_define_the_same_colours(html: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)[:2]
    names = [set(re.findall(r"--([\w-]+):", block)) for block in (light, dark)]
    assert names[0] == names[1]


def test_same_data_same_bytes(full: ReportData, html: str) -> None:
    assert render_report(full) == html


HOSTILE = '<script>alert("x")</script>&amp;"\'$x_1$ {{ 7*7 }}'


def test_hostile_strings_stay_text() -> None:
    candidate = make_candidate(1, 9.0, 3.0, arch=HOSTILE, flags=())
    measurement = Measurement(
        arch_id="file:x", artifact_sha256=HOSTILE, device_id="d", settings_id="s",
        origin="measured", latency_ms=1.0,
    )  # fmt: skip
    data = make_report(
        title=HOSTILE, run_id=HOSTILE, command=HOSTILE, sdk_version=HOSTILE, created_at=HOSTILE,
        device={"name": HOSTILE, "soc": HOSTILE, HOSTILE: HOSTILE}, notes=(HOSTILE,),
        environment={HOSTILE: HOSTILE}, provenance={"error_pct": HOSTILE}, drift=make_drift(3),
        rounds=(make_round((candidate,), HOSTILE), make_round(default_candidates(), HOSTILE)),
        profile=make_profile(reference_set=HOSTILE, name=HOSTILE, flags=(HOSTILE,)),
        models=(MeasuredModel(name=HOSTILE, measurement=measurement, blocks_ms=((1.0, 2.0),)),),
    )  # fmt: skip
    text = render_report(data)
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert HOSTILE in page.text
    assert "{{ 7*7 }}" in page.text


def test_no_valid_measurement_at_all() -> None:
    lost = tuple(
        make_candidate(1000 + i, 10.0 - i, 2.0 + i, measured_ms=None, ci95_ms=None,
                       flags=("timeout",), on_measured_front=False)
        for i in range(4)
    )  # fmt: skip
    text = Page(render_report(make_report(rounds=(make_round(lost),)))).text
    assert "No answer yet: none of the 4 candidates has a valid measurement" in text
    assert "nothing to compare" in text
    assert "nothing valid yet" in text


def test_nan_is_no_measurement() -> None:
    data = make_report(
        rounds=(make_round((make_candidate(7, 9.0, 3.0, measured_ms=float("nan")),)),)
    )
    text = Page(render_report(data)).text
    assert "No answer yet" in text
    assert "nan" not in text.lower().replace("finances", "")


def test_one_candidate_without_interval_memory_or_sd() -> None:
    only = make_candidate(
        7, 9.0, 3.0, ci95_ms=None, peak_memory_mib=None, predicted_sd_ms=None, flags=()
    )
    text = Page(render_report(make_report(rounds=(make_round((only,)),)))).text
    assert "One network measured on shelf-pi: 3.30 ms" in text
    assert "CI unknown" in text
    assert "Memory \u2013: not measured" in text
    assert "no power sensor that can be read was found (no_sensor)" in text


def test_energy_is_shown_when_measured() -> None:
    data = make_report(rounds=(make_round((make_candidate(7, 9.0, 3.0, energy_mj=12.345),)),))
    text = Page(render_report(data)).text
    assert "12.35" in text or "12.34" in text
    assert "Energy \u2013" not in text


def test_a_round_without_candidates() -> None:
    text = Page(render_report(make_report(rounds=(make_round(()),)))).text
    assert "This round has no candidate" in text


def test_profile_only() -> None:
    data = make_report(kind="profile", rounds=(), profile=make_profile(), provenance={})
    page = Page(render_report(data))
    assert "2 of 3 reference networks measured on shelf-pi: from 4.12 ms to 12.50 ms" in page.text
    assert "no valid measurement" in page.text
    assert "Candidates" not in page.text
    assert "predicted, not tested" not in page.text


def test_three_rounds() -> None:
    later = [
        make_round(
            tuple(make_candidate(2000 + 10 * r + i, 8.0 - i - r, 2.0 + 3 * i) for i in range(3)),
            f"Round {r}",
        )
        for r in (2, 3)
    ]
    data = make_report(kind="loop", rounds=(make_round(default_candidates()), *later))
    page = Page(render_report(data))
    for part in ("All rounds together", "Progress over rounds", "Round 1", "Round 2", "Round 3"):
        assert part in page.text
    assert "Of 12 networks measured" in page.text
    assert len(page.ids) == len(set(page.ids))


def _model(**fields: Any) -> MeasuredModel:
    values: dict[str, Any] = {
        "arch_id": "file:abc", "artifact_sha256": "cd" * 32, "device_id": "d", "settings_id": "s",
        "origin": "measured", "latency_ms": 12.31, "latency_p90_ms": 12.9, "ci95_ms": 0.07,
        "n_samples": 420, "flags": ("virtualised",), "energy_reason": "sensor_permission",
    }  # fmt: skip
    drawn = values | fields
    blocks = (
        ()
        if drawn["latency_ms"] is None
        else tuple(tuple(12.0 + 0.1 * b + 0.01 * i for i in range(60)) for b in range(7))
    )
    measurement = Measurement(**drawn)
    return MeasuredModel(name="my_net.onnx", measurement=measurement, blocks_ms=blocks)


def test_own_onnx_file() -> None:
    data = make_report(kind="measure", rounds=(), models=(_model(),), provenance={})
    page = Page(render_report(data))
    assert "my_net.onnx takes 12.31 ± 0.07 ms on shelf-pi (measured)." in page.text
    assert "number of inferences" in page.text
    assert "420" in page.text
    assert any("may not be read by this user" in title for title in page.titles)


def test_own_onnx_files_some_invalid() -> None:
    bad = _model(latency_ms=None, ci95_ms=None, latency_p90_ms=None, flags=("throttled",))
    data = make_report(kind="measure", rounds=(), models=(_model(), bad), provenance={})
    text = render_report(data)
    assert "1 of 2 networks with a valid latency on shelf-pi" in text
    assert '<tr id="m2" class="invalid">' in text
    alone = render_report(make_report(kind="measure", rounds=(), models=(bad,), provenance={}))
    assert "my_net.onnx has no valid measurement on shelf-pi: throttled." in alone


def test_a_sweep_draws_only_the_first_networks() -> None:
    quiet = MeasuredModel(name="n", measurement=_model().measurement)
    data = make_report(kind="measure", rounds=(), models=(quiet,) * 30, provenance={})
    text = Page(render_report(data)).text
    assert "those of 24 more are in the store" in text
    assert "30 of 30 networks with a valid latency" in text


def test_long_device_name_and_empty_run() -> None:
    name = "a-very-long-device-name-" * 12
    data = make_report(device={"name": name}, rounds=(), provenance={}, settings={}, environment={})
    text = Page(render_report(data)).text
    assert name in text
    assert "This run holds no measurement yet." in text


def test_drift_says_its_limit(page: Page) -> None:
    assert "moved by more than 10 %" in page.text
    assert "outside the limit" in page.text


def test_reproduction_section(page: Page) -> None:
    for part in ("hwnas quickstart --seed 7", "q-8f31", "0.1.0", "2026-01-02T03:04:05Z", "seed 7"):
        assert part in page.text
    assert "1500000 (all 2)" in page.text
    assert "governor not readable" in page.text
    assert "ort.version 1.23" in page.text


def test_write_is_atomic(tmp_path: Path, full: ReportData, html: str) -> None:
    path = write_report(full, tmp_path / "sub" / "report.html")
    assert path.read_text(encoding="utf-8") == html
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_write_to_an_impossible_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"):
        write_report(make_report(rounds=()), tmp_path / "file" / "report.html")
    with pytest.raises(DataError):
        write_report(make_report(rounds=()), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_profile_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="as many latencies"):
        make_profile(latency_ms=(1.0,))


def test_unknown_architecture_is_shown_by_its_text() -> None:
    odd = make_candidate(7, 9.0, 3.0, arch="othernet:w1.0-d3")
    text = Page(render_report(make_report(rounds=(make_round((odd,)),)))).text
    assert "othernet:w1.0-d3" in text
    assert make_arch(7) not in text
