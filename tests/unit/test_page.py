"""Panels say what the snapshot says, a page shows so much at a time and leaves nothing behind."""

import socket

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import Range1d
from bokeh.models.annotations import Span
from bokeh.plotting import figure

from ffb.dashboards import app
from ffb.dashboards.layout import Page
from ffb.dashboards.model import OFF, ON, LiveModel, Snapshot
from ffb.dashboards.views.histogram import histogram, reach
from ffb.dashboards.views.image import APART, LATEST, LINEAR, LOG, MEAN, image, levels, pick
from ffb.dashboards.views.line import line, outline
from ffb.dashboards.views.scan import scan
from ffb.dashboards.views.strip import strip
from ffb.dashboards.views.view import FRESH
from ffb.live.model import Live
from ffb.schema import CORE, Column, Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.wire import unpack
from tests.unit.live_rows import PROVENANCE, SCHEMA, rows
from tests.unit.test_live import STATUS


def live_run(run=7, n=200, schema=SCHEMA):
    live = Live()
    live.begin_run(RunInfo("tstx00001", run), schema, PROVENANCE)
    if n:
        live.append(rows(0, n))
    live.commit(Counts(1, n, n))
    return live


@pytest.fixture
def shot():
    return Snapshot(*unpack(live_run().snapshot(STATUS)))


def figures(view):
    return list(view.layout.select({"type": figure}))


def glyphs(fig):
    return [r.data_source.data for r in fig.renderers]


def test_every_feature_has_a_plot_and_the_document_is_sound(shot):
    page = Page(shot)
    document = Document()
    document.add_root(page.layout)
    titles = [t.title for t in page.tabs.tabs]
    assert titles == ["overview", "features (4)", "curves (1)", "images (1)"]
    for tab, views in enumerate((7, 8, 1, 1)):
        page.tabs.active = tab  # makes and fills its panels
        assert len(page.views) == views
        page.refresh(shot)
        for view in page.views:
            assert any("   N " in f.title.text for f in figures(view))
    document.validate()


def test_a_run_without_features_still_has_a_page():
    page = Page(Snapshot(*unpack(Live().snapshot(STATUS))))
    assert "no feature" in page.layout.text


def test_of_hundreds_of_features_only_those_asked_for_are_made():
    scalars = [Column(f"r{i // 10}/f{i}", "<f8", reducer=f"r{i // 10}") for i in range(200)]
    live = Live()
    live.begin_run(RunInfo("tstx00001", 7), Schema((*CORE, *scalars)), Provenance())
    page = Page(Snapshot(*unpack(live.snapshot(STATUS))))
    features = page._contents[1]
    assert features.views == []
    page.tabs.active = 1
    assert len(page.views) == 12
    features.group.value = "r7"
    assert len(page.views) == 12
    features.word.value = "F7"
    features.group.value = "all reducers"
    names = [v.layout.title.text.split("   ")[1] for v in page.views[::2]]  # no data: STALE first
    assert names == ["r0/f7", *(f"r7/f{i}" for i in range(70, 75))]
    assert "showing 6 of 11" in features._said.text  # f7, f70 to f79
    features.word.value = "no such thing"
    assert page.views == []


def test_what_reducers_made_comes_before_what_was_recorded():
    columns = [
        Column("timing/eventcodes", "<u1", (288,), ("bit",)),
        Column("gasdet/sum", "<f8"),
        Column("tof/n", "<i8", reducer="tof"),
        Column("tof/npix", "<i8", (9,), ("bin",), reducer="tof"),
        Column("tof/spectrum", "<f8", (9,), ("bin",), reducer="tof"),
    ]
    live = Live()
    live.begin_run(RunInfo("tstx00001", 7), Schema((*CORE, *columns)), Provenance())
    page = Page(Snapshot(*unpack(live.snapshot(STATUS))))
    _, features, curves = page._contents
    assert [c.name for c in features.columns] == ["tof/n", "gasdet/sum"]
    names = [c.name for c in curves.columns]
    assert names == ["tof/spectrum", "tof/npix", "timing/eventcodes"]
    titles = [f.title.text for view in page.views for f in figures(view)]
    assert any("tof/spectrum" in t for t in titles)
    assert not any("eventcodes" in t for t in titles)


def test_the_overview_shows_what_was_asked_for_and_hits_before_one_number_of_each_reducer():
    columns = [
        Column("spot/sum", "<f8", reducer="spot"),
        Column("spot/mean", "<f8", reducer="spot"),
        Column("peaks/n", "<i8", reducer="peaks"),
        Column("peaks/hit", "|b1", reducer="peaks"),
    ]
    good = Column("good", "|b1", reducer="good")
    for extra, expected in (
        ((good,), ["good", "peaks/hit", "spot/sum"]),
        ((), ["peaks/hit", "spot/sum", "peaks/n"]),
    ):
        live = Live()
        live.begin_run(RunInfo("tstx00001", 7), Schema((*CORE, *columns, *extra)), Provenance())
        page = Page(Snapshot(*unpack(live.snapshot(STATUS))))
        page.refresh(page._snapshot)
        small = [f.title.text for view in page.views[1:] for f in figures(view)]
        assert [*dict.fromkeys(t.split("   ")[1] for t in small)] == expected


def test_a_map_over_other_axes_than_pixels_lies_along_them():
    column = Column("cake/intensity", "<f8", (2, 4), ("phi", "q"), "keV", "", "cake")
    phi, q = [-90.0, 90.0], [0.25, 0.75, 1.25, 1.75]

    def drawn(q):
        axes = {"phi": {"values": phi, "unit": "deg"}, "q": {"values": q, "unit": "1/Å"}}
        live = Live()
        live.begin_run(
            RunInfo("tstx00001", 7),
            Schema((*CORE, column)),
            Provenance(reducers={"cake": {"coords": axes}}),
        )
        view = image(column)
        view.refresh(Snapshot(*unpack(live.snapshot(STATUS))))
        (fig,) = figures(view)
        place = glyphs(fig)[0]
        assert not fig.y_range.flipped  # phi grows upwards
        assert [place["y"], place["dh"]] == [[-180.0], [360.0]]
        assert fig.yaxis.axis_label == "phi [deg]"
        return [place["x"], place["dw"], fig.xaxis.axis_label]

    assert drawn(q) == [[0.0], [2.0], "q [1/Å]"]
    assert drawn([0.25, 0.75, 1.25, 9.0]) == [[-0.5], [4.0], "index of q"]


def test_a_page_of_another_run_leaves_nothing_of_the_last_one():
    model, document = LiveModel(), Document()
    session = app.Session(document, model)
    sizes, small = [], Schema((*CORE, *(SCHEMA.by_name[k] for k in ("spot/sum", "spot/area"))))
    for run in range(6):
        model.push(live_run(run, schema=small).snapshot(STATUS))
        session._update()
        session._page.tabs.active = 1
        sizes.append(len(document.models))
    assert f"run {run}" in document.title
    assert len(set(sizes)) == 1, sizes


def test_nothing_is_sent_before_the_browser_has_drawn_what_it_got(monkeypatch):
    model, document = LiveModel(), Document()
    session = app.Session(document, model)
    live, beat = live_run(), session._pace.beat
    title = lambda: figures(session._page.views[0])[0].title.text  # noqa: E731
    model.push(live.snapshot(STATUS))
    session.tick()
    assert (beat.sent, beat.drawn) == (1, 0)
    first = title()
    live.append(rows(200, 50))
    live.commit(Counts(2, 250, 250))
    model.push(live.snapshot(STATUS))
    session.tick()
    assert (beat.sent, title()) == (1, first)
    beat.drawn = 1
    session.tick()
    assert beat.sent == 2
    assert title() != first
    assert np.isnan(model.document.percentiles(50)[0])
    beat.drawn = 2  # newer rows than the page began with are on the screen now
    assert model.document.percentiles(50)[0] != 0
    session.tick()
    assert beat.sent == 2  # nothing new
    model.push(live.snapshot(STATUS))
    session.tick()
    now = session._pace._sent_at
    monkeypatch.setattr("ffb.dashboards.pace.time.monotonic", lambda: now + 11.0)
    session.tick()
    assert beat.sent == 4  # an acknowledgement that never comes does not freeze the page


def test_the_scan_curve_shows_difference_few_shots_and_where_the_motor_is():
    live = live_run(n=204)
    shot = Snapshot(*unpack(live.snapshot(STATUS)))
    view = scan(shot.scalars, ["lxt", "step_value"], "spot/sum", "gas/energy")
    view.refresh(shot)
    _, main, apart, _ = view.layout.children
    _, off, on = (main.renderers[k].data_source.data for k in (0, 2, 4))
    gap = glyphs(apart)[0]
    assert on["x"].tolist() == off["x"].tolist() == gap["x"].tolist() == [-1, -0.5, 0, 0.5, 1]
    np.testing.assert_allclose(gap["y"], on["y"] - off["y"])
    np.testing.assert_allclose(gap["error"], np.hypot(on["error"], off["error"]))
    assert (on["fill"] == FRESH).tolist() == [False] * 4 + [True]
    now = [s for s in main.center if isinstance(s, Span)]
    assert [s.location for s in now] == [1.0]
    _, by, x = view.controls
    assert x.options == ["lxt", "step"]
    by.value, x.value = "gas/energy", "step"
    view.refresh(shot)
    ratio = shot.scan("spot/sum", "gas/energy", "step")[1].ratio()[0][0]
    on = main.renderers[4].data_source.data
    np.testing.assert_array_equal(on["y"], ratio[ON])
    assert main.yaxis.axis_label == "spot/sum ÷ gas/energy [keV / mJ]"
    live.end_run(Counts(2, 204, 204))
    view.refresh(Snapshot(*unpack(live.snapshot(STATUS))))
    assert not now[0].visible


def test_where_the_laser_is_unknown_nothing_is_compared_and_the_axis_keeps_its_name(shot):
    def drawn(shot):
        curve, steps = (
            line(shot.columns["az/intensity"]),
            scan(shot.scalars, ["lxt"], "spot/sum", ""),
        )
        for view in (curve, steps):
            view.refresh(shot)
        main, below = curve.layout.children
        return below.visible, steps.layout.children[2].visible, main.xaxis.axis_label

    assert drawn(shot) == (True, True, "")  # the panel below has it
    live, batch = live_run(n=0), rows(0, 50)
    batch.columns["lightStatus/laser"][:] = -1
    live.append(batch)
    live.commit(Counts(1, 50, 50))
    unknown = Snapshot(*unpack(live.snapshot(STATUS)))
    assert drawn(unknown) == (False, False, "q [1/Å]")


def test_images_have_robust_levels_and_a_difference_is_white_at_zero(shot):
    mean, rows_ = shot.arrays["mean:spot/area"], shot.meta["rows"]["spot/area"]
    apart, n = pick(shot, "spot/area", APART)
    np.testing.assert_array_equal(apart, mean[ON] - mean[OFF])
    assert n == rows_[ON] + rows_[OFF]
    every, n = pick(shot, "spot/area", MEAN)
    weighted = (rows_[ON] * mean[ON] + rows_[OFF] * mean[OFF]) / sum(rows_)
    np.testing.assert_allclose(every, weighted, rtol=1e-4, atol=1e-6)
    assert pick(shot, "spot/area", LATEST)[1] == 1
    low, high = levels(apart, APART, LINEAR)
    assert low == -high
    hot = np.r_[np.linspace(0, 1, 10_000), 1e9, np.nan].astype(np.float32)
    assert levels(hot, MEAN, LINEAR)[1] < 1.01
    assert levels(hot - 0.5, MEAN, LOG)[0] > 0
    assert levels(np.full(4, np.nan), MEAN, LOG) == (0.1, 1.0)
    assert levels(np.zeros(4), MEAN, LINEAR) == (0.0, 1.0)
    view = image(shot.columns["spot/area"])
    view.controls[1].value = LOG
    view.refresh(shot)
    (fig,) = figures(view)
    assert [r.visible for r in fig.renderers] == [False, True]
    assert fig.y_range.flipped  # row 0 at the top


def test_one_far_value_hides_no_other():
    counts = np.zeros(128, np.int64)
    counts[3:9], counts[100] = 400, 1
    assert reach(counts) == (3, 9)
    assert reach(np.zeros(128, np.int64)) == (0, 0)
    counts[:] = 0
    counts[5] = 1
    assert reach(counts) == (5, 6)


def test_a_histogram_on_a_log_axis_starts_below_one(shot):
    view = histogram(shot.scalars["spot/nsat"], log=True)
    view.refresh(shot)
    data = glyphs(view.layout)[0]
    assert min(data[f"top{light}"].min() for light in range(3)) == 0.5
    assert (
        sum(data[f"top{OFF}"][data[f"top{OFF}"] > 0.5]) == shot.histogram("spot/nsat")[1][OFF].sum()
    )


def test_a_gap_in_time_is_a_gap_in_the_strip():
    live = live_run(n=100)
    live.append(rows(1000, 100))
    live.commit(Counts(2, 200, 200))
    view = strip(SCHEMA.by_name["spot/sum"])
    shot = Snapshot(*unpack(live.snapshot(STATUS)))
    view.refresh(shot)
    data = glyphs(view.layout)[0]
    np.testing.assert_allclose(np.diff(data["x"]), 500.0, atol=1e-3)
    seen = np.isfinite(data[f"y{ON}"])
    assert seen.sum() == (shot.trend("spot/sum")[0][ON] > 0).sum() == 4
    first, last = np.flatnonzero(seen)[[0, -1]]
    assert last - first == 21
    assert isinstance(view.layout.x_range, Range1d)
    assert view.layout.x_range.start == data["x"][first]


def test_an_axis_has_the_coordinates_of_its_reducer(shot):
    q, label = shot.axis(shot.columns["az/intensity"])
    assert label == "q [1/Å]"
    np.testing.assert_allclose(q, 0.1 * np.arange(8))
    assert shot.axis(shot.columns["spot/area"], 1)[1] == "column"


# tornado leaves the socket that it could not bind to the collector
@pytest.mark.filterwarnings("ignore:Exception ignored.*:pytest.PytestUnraisableExceptionWarning")
def test_a_page_whose_port_is_taken_says_which_and_what_to_do(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = rf"127\.0\.0\.1:{port}: .*in use.*dashboard\.port"
        with pytest.raises(OSError, match=said):
            app.Dashboard(f"ipc://{tmp_path}/views", port=port)


def test_curves_and_their_difference_have_bands_of_one_standard_error(shot):
    view = line(shot.columns["az/intensity"])
    view.refresh(shot)
    main, below = view.layout.children
    mean, error = shot.mean("az/intensity")
    bands = glyphs(main)[::2]  # a band lies below its curve
    for light in (OFF, ON):
        up, down = bands[light]["y"][:8], bands[light]["y"][8:16][::-1]
        np.testing.assert_allclose((up + down) / 2, mean[light], rtol=1e-6)
        np.testing.assert_allclose((up - down) / 2, error[light], rtol=1e-4)
    assert len(bands[0]["y"]) == 0  # no shot of which the laser is unknown
    band, curve = glyphs(below)
    np.testing.assert_allclose(curve["spread"] ** 2, error[ON] ** 2 + error[OFF] ** 2, rtol=1e-5)
    np.testing.assert_allclose(band["y"][:8], curve["apart"] + curve["spread"], rtol=1e-5)
    assert all("± standard error" in fig.title.text for fig in (main, below))
    del shot.arrays["error:az/intensity"]  # as in a snapshot of before they were kept
    view.refresh(shot)
    assert not any(len(glyphs(fig)[0]["y"]) for fig in (main, below))


def test_a_band_has_a_gap_where_there_is_no_error():
    x, y = np.arange(5.0), np.array([1.0, 2.0, 3.0, np.nan, 5.0], np.float32)
    found = outline(x, y, np.array([0.5, 0.5, np.nan, 0.5, 0.5], np.float32))
    nan = np.nan
    np.testing.assert_array_equal(found["x"], [0, 1, 1, 0, nan, 4, 4, nan])
    np.testing.assert_array_equal(found["y"], [1.5, 2.5, 1.5, 0.5, nan, 5.5, 4.5, nan])
