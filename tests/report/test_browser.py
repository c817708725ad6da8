"""Reports in a real browser: they draw, they answer to hand and keyboard, and they ask the network
for nothing."""

import shutil

import pytest

from saddlepoint.report import make_report
from tests.reliability.infection import infect
from tests.report import synthetic

try:
    from playwright.sync_api import sync_playwright
except Exception as error:  # not installed, or not for this system: its import raises many kinds
    MISSING = f"playwright cannot be imported: {error}"
else:
    MISSING = (
        ""
        if shutil.which("chromium")
        else "there is no chromium on the PATH; `apt-get install chromium` brings it"
    )

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
LONG = "a-method-with-a-very-long-name-that-no-column-is-wide-enough-for-" * 2
NASTY = "<b>bold</b><script>alert(1)</script>&amp;%{x}"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A run and a comparison with ordinary names, and both with long and nasty ones."""
    root = tmp_path_factory.mktemp("reports")
    paths = {
        "run": synthetic.run(root / "run"),
        "comparison": synthetic.comparison(root / "comparison"),
        "long-run": synthetic.run(
            root / LONG, problem={"name": LONG, "note": LONG}, rule={"name": LONG}
        ),
        "long-comparison": synthetic.comparison(
            root / "long", problems=(LONG, "b"), methods=("adam", LONG, NASTY)
        ),
    }
    for name in ("run", "comparison"):
        paths[f"infected-{name}"] = getattr(synthetic, name)(root / f"infected-{name}")
        infect(paths[f"infected-{name}"])
    for name, path in paths.items():
        (root / f"{name}.html").write_text(make_report(path))
    return root


@pytest.fixture
def opened(browser, reports):
    """Return what opens a report; at the end nothing may have been asked for and no error said."""
    contexts, complaints = [], []

    def open_report(name, *, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:"))
                else complaints.append(request.url)
            ),
        )
        page.goto((reports / f"{name}.html").as_uri())
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert complaints == []


def drawn(page, chart):
    """Scroll to a chart, wait until it is drawn, and return its div."""
    place = page.locator(f"#{chart}")
    place.scroll_into_view_if_needed()
    page.wait_for_function("id => document.getElementById(id).data", arg=chart)
    return place


def evaluate(page, chart, expression):
    return page.evaluate(
        f"id => {{ const chart = document.getElementById(id); return {expression}; }}", chart
    )


def shown(page, box):
    """Return the label, and the source of the first picture, of the frame that is seen."""
    frames = page.locator(f"#{box} .frame:visible")
    assert frames.count() == 1
    return frames.get_attribute("data-label"), frames.locator("img").first.get_attribute("src")


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_every_chart_draws_without_a_complaint(opened, name):
    page = opened(name)
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    charts = page.evaluate("[...document.querySelectorAll('.plot')].map(place => place.id)")
    assert len(charts) == {"run": 10, "comparison": 14}[name]
    for chart in charts:
        assert drawn(page, chart).locator("svg.main-svg").first.is_visible()
        assert evaluate(page, chart, "chart.clientHeight > 150 && chart.data.length > 0")


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_nothing_that_a_name_says_is_done(opened, name):
    page = opened(f"infected-{name}")
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    charts = page.evaluate("[...document.querySelectorAll('.plot')].map(place => place.id)")
    assert charts
    for chart in charts:
        drawn(page, chart)
    page.mouse.move(640, 450)
    assert "window.ran" in page.inner_text("body")
    assert page.evaluate("window.ran") is None
    assert page.locator("a[href^='javascript']").count() == 0
    assert page.locator("svg a").count() == 0


def test_a_run_s_slider_goes_with_the_keyboard(opened):
    page = opened("run")
    slider = page.get_by_label("Step", exact=True)
    at_the_end, last = shown(page, "samples-over-time")
    assert at_the_end == "step 600, 12\N{NO-BREAK SPACE}s"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    label, picture = shown(page, "samples-over-time")
    assert label == "step 400, 8\N{NO-BREAK SPACE}s"
    assert picture != last
    assert slider.get_attribute("aria-valuetext") == label
    assert page.locator("#samples-over-time output").inner_text() == label
    page.keyboard.press("Home")
    assert shown(page, "samples-over-time")[0].startswith("step 0")


def test_a_comparison_s_slider_moves_all_methods_of_its_problem_alone(opened):
    page = opened("comparison")
    before, other = shown(page, "p1-samples"), shown(page, "p2-samples")
    page.locator("#p1-samples input").fill("1")
    label, picture = shown(page, "p1-samples")
    assert label == "3.75\N{NO-BREAK SPACE}s, 25\N{NO-BREAK SPACE}% of the budget"
    assert picture != before[1]
    assert page.locator("#p1-samples .frame:visible img").count() == 11
    assert shown(page, "p2-samples") == other


def test_play_shows_frame_after_frame_and_stops(opened):
    page = opened("run")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "() => document.querySelector('#samples-over-time output').textContent.startsWith('step 0')"
    )
    assert page.locator("#samples-over-time output").get_attribute("aria-live") == "off"
    page.get_by_role("button", name="Pause").click()
    assert page.locator("#samples-over-time output").get_attribute("aria-live") == "polite"


def test_no_play_where_motion_is_unwanted(opened):
    page = opened("run", reduced_motion="reduce")
    assert not page.locator(".play").is_visible()


def test_a_legend_s_button_takes_its_line_away_and_brings_it_back(opened):
    page = opened("run")
    drawn(page, "losses")
    key = page.get_by_role("group", name="Lines of Losses").get_by_role("button", name="generator")
    names = "chart.data.map(trace => trace.name).filter(Boolean)"
    assert evaluate(page, "losses", names) == ["generator", "discriminator"]
    key.click()
    assert evaluate(page, "losses", names) == ["discriminator"]
    assert key.get_attribute("aria-pressed") == "false"
    key.press("Enter")
    assert evaluate(page, "losses", names) == ["generator", "discriminator"]


def test_a_comparison_s_legend_works_in_all_charts_of_its_problem(opened):
    page = opened("comparison")
    for chart in ("p1-quality", "p1-losses-generator", "p2-quality"):
        drawn(page, chart)
    names = "chart.data.map(trace => trace.name).filter(Boolean)"
    legend = page.get_by_role("group", name="Methods shown in the charts of mixture8 leaky_relu")
    legend.get_by_role("button", name="soap").click()
    assert "soap" not in evaluate(page, "p1-quality", names)
    assert "soap" not in evaluate(page, "p1-losses-generator", names)
    assert "soap" in evaluate(page, "p2-quality", names)
    legend.get_by_role("button", name="none").click()
    assert evaluate(page, "p1-quality", names) == []
    legend.get_by_role("button", name="all").click()
    assert len(evaluate(page, "p1-quality", names)) == 11


def test_the_axis_of_all_charts_is_switched_at_once(opened):
    page = opened("run")
    for chart in ("metric-0", "losses"):
        drawn(page, chart)
        assert evaluate(page, chart, "chart.layout.xaxis.title.text") == "steps"
    page.get_by_role("radio", name="seconds of training").check(force=True)
    for chart, end in (("metric-0", 12.0), ("losses", 12.0)):
        assert evaluate(page, chart, "chart.layout.xaxis.title.text") == "seconds of training"
        assert evaluate(page, chart, "chart.data[0].x.at(-1)") == end
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert evaluate(page, "metric-0", "chart.data[0].x.at(-1)") == 1200
    drawn(page, "gradients")  # one that had not been drawn before
    assert evaluate(page, "gradients", "chart.layout.xaxis.title.text") == "gradient-equivalents"


@pytest.mark.parametrize("name", ["run", "comparison", "long-run", "long-comparison"])
def test_a_phone_need_not_scroll_sideways(opened, name):
    page = opened(name, width=390)
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    for chart in page.evaluate("[...document.querySelectorAll('.plot')].map(place => place.id)"):
        drawn(page, chart)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def test_dark_and_light(opened):
    background, line = "getComputedStyle(document.body).backgroundColor", "chart.data[0].line.color"
    colours = {}
    for scheme in ("light", "dark"):
        page = opened("run", color_scheme=scheme)
        drawn(page, "losses")
        colours[scheme] = (page.evaluate(background), evaluate(page, "losses", line))
    assert colours["light"] == ("rgb(253, 253, 252)", "rgb(31, 95, 168)")
    assert colours["dark"] == ("rgb(20, 22, 26)", "rgb(111, 177, 255)")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert (page.evaluate(background), evaluate(page, "losses", line)) == colours["light"]
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert (page.evaluate(background), evaluate(page, "losses", line)) == colours["dark"]


def test_nasty_names_are_seen_as_they_are(opened):
    page = opened("long-comparison")
    place = drawn(page, "p1-quality")
    assert page.get_by_role("button", name=NASTY).count() == 2  # one in the legend of each problem
    trace = evaluate(
        page, "p1-quality", "chart.data.findIndex(trace => (trace.name || '').includes('bold'))"
    )
    page.evaluate(
        "trace => Plotly.Fx.hover('p1-quality', [{curveNumber: trace, pointNumber: 3}])", trace
    )
    hover = place.locator(".hovertext")
    hover.wait_for()
    assert hover.text_content().startswith(NASTY)
    drawn(page, "p1-robustness").hover()
    page.locator("#p1-robustness .hovertext").wait_for()
    assert page.evaluate("document.querySelectorAll('b, main script').length") == 0


def test_a_command_is_copied_or_selected(opened):
    page = opened("run")
    button = page.get_by_role("button", name="Copy").first
    button.click()
    page.wait_for_function(
        "() => ['Copied', 'Selected'].includes(document.querySelector('.copy').textContent)"
    )


def test_without_scripts_the_tables_are_there(opened):
    page = opened("run", java_script_enabled=False)
    assert page.locator("#samples-over-time .frame:visible").count() == 1
    assert page.get_by_role("region", name="Metrics at the latest evaluation").is_visible()
