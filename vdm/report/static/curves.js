// Figures over steps: settings that all curves share, and the charts.
const view = { axis: "steps", smoothing: 0, isLog: false };
const AXES = { steps: "Step", seconds: "Time", positions: "Samples" };
const AXIS_TITLES = { steps: "optimizer step", seconds: "since the first figure", positions: "samples seen" };
const UNITS = [["seconds", 1], ["minutes", 60], ["hours", 3600], ["days", 86400]];

// The unit in which all runs are shown over time, the largest that the longest of them has three of.
function timeUnit() {
  const longest = Math.max(0, ...content.runs.flatMap(run => run.axes.map(axis => axis.seconds.at(-1) ?? 0)));
  return UNITS.filter(([, seconds]) => seconds === 1 || longest >= 3 * seconds).at(-1);
}

function axisTitle() {
  return view.axis === "seconds" ? `${timeUnit()[0]} ${AXIS_TITLES.seconds}` : AXIS_TITLES[view.axis];
}

function xValues(run, curve) {
  const values = run.axes[curve.axis][view.axis];
  if (view.axis !== "seconds") return values;
  const [, unit] = timeUnit();
  return values.map(value => value === null ? null : value / unit);
}

// Exponential moving average, corrected for its beginning; values that are missing are passed over.
function smoothed(values, weight) {
  if (weight === 0) return values;
  let mean = 0, total = 0;
  return values.map(value => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return mean / total;
  });
}

// The traces of one curve: what was logged or its extremes, faintly, and the line.
function curveTraces(run, name, label, style) {
  const curve = run.curves[name];
  if (curve === undefined) return [];
  const x = xValues(run, curve), there = x.map((_, place) => place).filter(place => x[place] !== null);
  if (there.length === 0) return [];
  const points = values => there.map(place => values[place]);
  const isLong = there.length > 30, weight = isLong ? view.smoothing : 0; // few points are shown as they are
  const traces = [], line = { color: style.color, dash: style.dash, width: 1.8 };
  const shared = { type: "scatter", name: plain(label), meta: { run: plain(run.name), figure: plain(name) } };
  if (curve.low !== undefined) {
    const filled = there.filter(place => curve.low[place] !== null);
    const back = [...filled].reverse();
    traces.push({
      ...shared, mode: "lines", line: { width: 0, color: style.color }, fill: "toself", fillcolor: `${style.color}33`,
      x: [...filled, ...back].map(place => x[place]),
      y: [...filled.map(place => curve.high[place]), ...back.map(place => curve.low[place])],
      hoverinfo: "skip", showlegend: false,
    });
  } else if (weight > 0) {
    traces.push({ ...shared, mode: "lines", x: points(x), y: points(curve.mean), line: { ...line, width: 1 }, opacity: 0.3,
      hoverinfo: "skip", showlegend: false });
  }
  const y = smoothed(points(curve.mean), weight);
  traces.push({ ...shared, mode: isLong ? "lines" : "lines+markers", marker: { size: 5, color: style.color }, x: points(x), y, line,
    connectgaps: true, hovertemplate: "%{y:.5g}<extra>%{fullData.name}</extra>" });
  return traces;
}

// Ticks of a logarithmic axis at 1, 2 and 5, or at powers of ten if there are many of these.
function logTicks(values) {
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, 0]);
  const decades = Math.log10(high / low);
  return decades < 0.7 ? {} : { dtick: decades < 2 ? "D2" : 1 };
}

function curveLayout(traces, isLog = view.isLog) {
  const values = traces.flatMap(trace => trace.y).filter(value => value !== null);
  const isConstant = values.length > 0 && values[0] !== 0 && values.every(value => value === values[0]);
  const around = [0.5, 1.5].map(factor => factor * values[0]);
  const isPositive = values.every(value => value > 0);
  return {
    hovermode: traces.length > 24 ? "closest" : "x unified",
    xaxis: { title: { text: axisTitle() }, tickformat: view.axis === "seconds" ? "" : ",~s" },
    yaxis: {
      exponentformat: "e",
      ...(isLog && isPositive ? { type: "log", ...logTicks(values) } : { type: "linear" }),
      // Plotly would show a constant between -1 and 1, where a small one looks like 0.
      ...(isConstant && !isLog ? { range: around[0] < around[1] ? around : around.reverse() } : { autorange: true }),
    },
    uirevision: `${view.axis} ${isLog}`,
  };
}

// What a screen reader says of a chart.
function curveLabel(title, runs, names) {
  const words = [];
  for (const run of runs) {
    for (const name of names) {
      const values = (run.curves[name]?.mean ?? []).filter(value => value !== null);
      if (values.length === 0) continue;
      const whose = runs.length > 1 ? `${run.name}, ${name}` : name;
      words.push(`${whose}: from ${written(values[0])} to ${written(values.at(-1))}, lowest ${written(Math.min(...values))}`);
    }
  }
  return `Chart of ${title} over ${axisTitle()}. ${words.slice(0, 12).join("; ")}`;
}

// One card for each chart of a section. Several runs show one figure at a time, one run shows all that belong together.
function curveCards(sectionName) {
  const several = content.runs.length > 1;
  return content.charts.filter(chart => chart.section === sectionName).map(chart => {
    let names = several ? [chart.names.includes(chart.title) ? chart.title : chart.names[0]] : chart.names;
    const choose = several && chart.names.length > 1
      ? selection(`Figure in the chart ${chart.title}`, Object.fromEntries(chart.names.map(name => [name, name])), name => {
        names = [name];
        charts.draw([drawn]);
      }) : null;
    if (choose !== null) choose.value = names[0];
    const { card, host } = chartCard(chart.title, [choose]);
    const drawn = charts.add(host, () => {
      const runs = shownRuns();
      const traces = runs.flatMap(run => names.flatMap((name, place) =>
        curveTraces(run, name, several ? run.name : name.replace(`${chart.title}/`, ""), lineStyle(several ? run.place : place))));
      const layout = curveLayout(traces);
      return { traces, layout: { ...layout, showlegend: !several && names.length > 1 }, label: curveLabel(chart.title, runs, names) };
    });
    card.dataset.names = chart.names.join(" ").toLowerCase();
    return card;
  });
}

function curveControls(onchange) {
  const output = element("output", { for: "smoothing" }, "0");
  const slider = element("input", { type: "range", id: "smoothing", min: 0, max: 0.99, step: 0.01, value: 0, oninput: () => {
    view.smoothing = Number(slider.value);
    output.textContent = slider.value;
    onchange();
  } });
  const log = element("input", { type: "checkbox", id: "log", onchange: () => {
    view.isLog = log.checked;
    onchange();
  } });
  const axes = segments("Over", "axis", AXES, view.axis, value => {
    view.axis = value;
    onchange();
  });
  return element("div", { class: "controls" }, axes,
    element("label", {}, "Smoothing", slider, output), element("label", {}, log, "Log scale"));
}

function curvesSection() {
  const cards = curveCards("curves");
  if (cards.length === 0 && content.levels.length === 0) {
    return section("curves", "Curves", note("No figures were recorded: there is neither metrics.jsonl nor logs/*/metrics.csv in the run's folder."));
  }
  const grid = element("div", { class: "charts" }, cards);
  const filter = element("input", { type: "search", placeholder: "Filter charts", "aria-label": "Filter charts", oninput: () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    cards.forEach(card => { card.hidden = !words.every(word => card.dataset.names.includes(word)); });
  } });
  const controls = curveControls(() => charts.draw(charts.all));
  controls.append(filter);
  return section("curves", "Curves", controls, grid, note(curvesNote()));
}

function curvesNote() {
  const all = content.runs.flatMap(run => Object.values(run.curves));
  const words = ["Drag in a chart to zoom, double-click to go back."];
  if (all.some(curve => curve.low !== undefined)) {
    const points = Math.max(...all.map(curve => curve.mean.length));
    words.push(`Longer curves are thinned out to ${WHOLE.format(points)} points: lines are means of the values between two points, shaded bands reach from their lowest to their highest.`);
  }
  const lost = all.reduce((sum, curve) => sum + curve.num_not_finite, 0);
  if (lost > 0) words.push(`${WHOLE.format(lost)} values that are not finite are not drawn.`);
  if (content.runs.some(run => run.axes.some(axis => axis.seconds.includes(null)))) words.push("Curves without a recorded time are not drawn over time.");
  return words.join(" ");
}
