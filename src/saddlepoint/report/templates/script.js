"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const charts = new Map(page.charts.map((chart) => [chart.id, chart]));
  const drawn = new Set();
  const hidden = new Map(); // group → names that are switched off
  let axis = page.axis;

  // Plotly reads tags, entities and line breaks in its texts. Names are text: their brackets become entities, which it shows as brackets.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // Colours are computed by the browser, so that light-dark() gives those of the scheme in use.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const faint = (rgb, alpha) => rgb.replace(/rgba?\(([^)]*)\)/, (_, parts) => `rgba(${parts.split(/[, ]+/).slice(0, 3).join(",")},${alpha})`);

  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "pentagon"];
  const TICK = { gridcolor: "rule", linecolor: "strong-rule", zerolinecolor: "strong-rule" };

  function scale(more) {
    const colours = Object.fromEntries(Object.entries(TICK).map(([key, name]) => [key, colour(name)]));
    return { ...colours, zeroline: false, automargin: true, ticks: "", separatethousands: true, ...more, title: { text: more.title || "", standoff: 8 } };
  }

  function layout(more) {
    const coarse = matchMedia("(pointer: coarse)").matches; // a finger that scrolls the page must not zoom a chart
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      dragmode: coarse ? false : "zoom", margin: { l: 46, r: 10, t: 10, b: 40 },
      hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("strong-rule"), font: { color: colour("ink") }, namelength: -1 },
      ...more,
    };
  }

  function band(points, rgb) {
    const there = points.x.map((_, i) => i).filter((i) => points.low[i] !== null && points.high[i] !== null);
    const back = [...there].reverse();
    return {
      x: [...there, ...back].map((i) => points.x[i]), y: [...there.map((i) => points.high[i]), ...back.map((i) => points.low[i])],
      mode: "lines", fill: "toself", fillcolor: faint(rgb, 0.13), line: { width: 0 }, hoverinfo: "skip",
    };
  }

  function line(series, points, rgb, title) {
    const few = points.x.length <= 24;
    const range = points.low.length ? "<br>seeds from %{customdata[0]:.3~g} to %{customdata[1]:.3~g}" : "";
    return {
      x: points.x, y: points.y, name: plain(series.name), mode: few ? "lines+markers" : "lines",
      line: { color: rgb, width: few ? 2 : 1.4, dash: series.mark > 8 ? "dash" : "solid" },
      marker: { color: rgb, size: 6, symbol: SYMBOLS[series.mark % SYMBOLS.length] },
      customdata: points.low.map((low, i) => [low, points.high[i]]),
      hovertemplate: `%{fullData.name}<br>%{y:.4~g} at %{x:,.4~g} ${title}${range}<extra></extra>`,
    };
  }

  function level(entry) {
    const rgb = colour(`tone-${entry.tone}`);
    const across = { xref: "paper", x0: 0, x1: 1, yref: "y", layer: "below" };
    if (entry.y === null) return { ...across, type: "rect", y0: entry.low, y1: entry.high, fillcolor: faint(rgb, 0.07), line: { width: 0 } };
    return { ...across, type: "line", y0: entry.y, y1: entry.y, line: { color: rgb, width: 1.2, dash: "dot" } };
  }

  // Plotly's own ticks of a logarithmic scale have bare digits between powers of ten.
  function logTicks(values) {
    const sizes = values.filter((value) => value > 0);
    if (!sizes.length) return {};
    const [low, high] = [Math.min(...sizes), Math.max(...sizes)].map(Math.log10);
    const digits = high - low < 1.2 ? [1, 2, 5] : high - low < 2.5 ? [1, 3] : [1];
    const stride = Math.max(1, Math.ceil((high - low) / 6));
    const ticks = [];
    for (let power = Math.floor(low) - 1; power <= high + 1; power += stride) ticks.push(...digits.map((digit) => [digit, power]));
    const label = ([digit, power]) => (power < -3 || power > 4 ? `${digit}e${power}` : (digit * 10 ** power).toFixed(Math.max(0, -power)));
    return { tickvals: ticks.map(([digit, power]) => digit * 10 ** power), ticktext: ticks.map(label) };
  }

  function lines(chart) {
    const off = hidden.get(chart.group) || new Set();
    const has = (name) => chart.series.some((series) => series.points[name]);
    const over = has(axis) ? axis : Object.keys(page.axes).find(has); // the axis title says which it is
    const shown = chart.series.filter((series) => series.points[over] && !off.has(series.name));
    const tones = shown.map((series) => colour(`tone-${series.tone}`));
    const bands = shown.map((series, i) => [series.points[over], tones[i]]).filter(([points]) => points.low.length && points.x.length > 1);
    const marks = chart.levels.filter((entry) => entry.y !== null);
    const values = shown.flatMap((series) => series.points[over].y);
    const start = shown.length ? shown[0].points[over].x[0] : 0;
    const reach = { x: marks.map(() => start), y: marks.map((entry) => entry.y), mode: "markers", marker: { opacity: 0 }, hoverinfo: "skip" };
    return [
      [...bands.map(([points, rgb]) => band(points, rgb)), ...shown.map((series, i) => line(series, series.points[over], tones[i], page.axes[over])), reach],
      layout({
        xaxis: scale({ title: page.axes[over], rangemode: "tozero" }),
        yaxis: scale(chart.log ? { type: "log", ...logTicks(values) } : { nticks: 6, ...reachOf(chart, values) }),
        shapes: (chart.log ? marks : chart.levels).map(level),
        annotations: marks.filter((entry) => entry.name).map((entry) => ({
          text: plain(entry.name), xref: "paper", x: 1, xanchor: "right", yanchor: "bottom", showarrow: false, bgcolor: faint(colour("page"), 0.7),
          y: chart.log ? Math.log10(entry.y) : entry.y,
        })),
      }),
    ];
  }

  // Bands may be far wider than the lines: the scale is that of the lines and levels.
  function reachOf(chart, values) {
    if (!chart.levels.some((entry) => entry.y === null)) return values.some((value) => value < 0) ? {} : { rangemode: "nonnegative" };
    const known = [...values, ...chart.levels.map((entry) => entry.y)].filter((value) => value !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const margin = 0.12 * (high - low) || 1;
    return { range: [low - margin, high + margin] };
  }

  const cut = (name, length) => (name.length > length ? `${name.slice(0, length - 1)}…` : name);

  function map(chart, width) {
    const length = width < 500 ? 14 : 32;
    const at = (names) => ({ tickvals: names.map((_, i) => i), ticktext: names.map((name) => plain(cut(name, length))), showgrid: false });
    const details = chart.details.map((row, i) => row.map((text, j) => `${plain(chart.rows[i])}, ${plain(chart.columns[j])}<br>${plain(text || "not run")}`));
    return [
      [{
        type: "heatmap", z: chart.z, text: chart.text, customdata: details, texttemplate: "%{text}", hovertemplate: "%{customdata}<extra></extra>",
        colorscale: [[0, colour("raised")], [1, colour("accent")]], zmin: 0, zmax: 1, xgap: 3, ygap: 3, showscale: false, hoverongaps: false,
      }],
      layout({ xaxis: scale({ ...at(chart.columns), title: "multiple of the tuned learning rate" }), yaxis: scale({ ...at(chart.rows), autorange: "reversed" }) }),
    ];
  }

  function plane(chart) {
    const bent = { tickvals: chart.ticks.map(([at]) => at), ticktext: chart.ticks.map(([, text]) => text), zeroline: true };
    const rows = { tickvals: chart.rows.map((_, i) => i), ticktext: chart.rows.map(plain), range: [-0.6, chart.rows.length - 0.4], showgrid: false };
    return [
      chart.series.map((series) => ({
        x: series.x, y: series.y, name: plain(series.name), mode: "markers", text: series.labels, cliponaxis: false,
        marker: {
          color: colour(`tone-${series.tone}`), line: { width: 1.5, color: colour(`tone-${series.tone}`) },
          size: chart.rows.length ? 16 : 8, symbol: chart.rows.length ? "line-ns" : series.mark ? "x-thin" : "circle-open",
        },
        hovertemplate: "%{fullData.name}<br>λ = %{text}<extra></extra>",
      })),
      layout({
        xaxis: scale({ ...bent, title: chart.rows.length ? "λ" : "Re λ" }),
        yaxis: scale(chart.rows.length ? rows : { ...bent, title: "Im λ" }),
      }),
    ];
  }

  const KINDS = { lines, map, plane };
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

  function draw(id) {
    const chart = charts.get(id);
    const place = document.getElementById(id);
    const [traces, rest] = KINDS[chart.kind](chart, place.clientWidth);
    drawn.add(id);
    Plotly.react(place, traces, rest, CONFIG);
  }

  const redraw = (group) => [...drawn].filter((id) => !group || charts.get(id).group === group).forEach(draw);

  // A chart is drawn when it comes near, so that long pages open at once.
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !drawn.has(entry.target.id)) draw(entry.target.id);
    }
  }, { rootMargin: "600px" });
  document.querySelectorAll(".plot").forEach((place) => near.observe(place));
  addEventListener("beforeprint", () => [...charts.keys()].forEach(draw));

  document.querySelectorAll("input[name=axis]").forEach((input) => {
    input.addEventListener("change", () => {
      axis = input.value;
      redraw();
    });
  });

  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => redraw());
  document.querySelector(".theme").addEventListener("click", () => {
    const root = document.documentElement;
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    redraw();
  });

  function show(key, shown) {
    const { group, name } = key.dataset;
    if (!hidden.has(group)) hidden.set(group, new Set());
    hidden.get(group)[shown ? "delete" : "add"](name);
    key.setAttribute("aria-pressed", String(shown));
  }
  document.querySelectorAll(".key").forEach((key) => {
    key.addEventListener("click", () => {
      show(key, key.getAttribute("aria-pressed") !== "true");
      redraw(key.dataset.group);
    });
  });
  document.querySelectorAll(".every").forEach((button) => {
    button.addEventListener("click", () => {
      button.parentElement.querySelectorAll(".key").forEach((key) => show(key, button.dataset.shown === "true"));
      redraw(button.dataset.group);
    });
  });

  document.querySelectorAll(".frames").forEach((box) => {
    const frames = [...box.querySelectorAll(".frame")];
    const input = box.querySelector("input");
    const output = box.querySelector("output");
    const play = box.querySelector(".play");
    let timer = 0;
    const go = () => {
      frames.forEach((frame, i) => (frame.hidden = i !== Number(input.value)));
      output.textContent = frames[Number(input.value)].dataset.label;
      input.setAttribute("aria-valuetext", output.textContent);
    };
    const playing = (on) => {
      clearInterval(timer);
      play.setAttribute("aria-pressed", String(on));
      play.textContent = on ? "Pause" : "Play";
      output.setAttribute("aria-live", on ? "off" : "polite"); // screen readers must not read every frame
      if (on) timer = setInterval(() => {
        input.value = (Number(input.value) + 1) % frames.length;
        go();
      }, 700);
    };
    input.addEventListener("input", () => {
      playing(false);
      go();
    });
    play.addEventListener("click", () => playing(play.getAttribute("aria-pressed") !== "true"));
  });

  document.querySelectorAll(".copy").forEach((button) => {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch { // where a page from the disk may not write to the clipboard, the text is selected instead
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
  });
})();
