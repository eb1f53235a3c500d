// Loss by noise level: a heat map over steps, and a curve for each level.
const SPLITS = { train: "training", val: "held-out clips" };

function levelsSection() {
  const runs = content.runs.filter(run => Object.keys(run.level_maps).length > 0);
  if (runs.length === 0) return null;
  let run = runs[0], split = firstSplit(run);
  const map = chartCard("Mean loss by noise level t and step, on a logarithmic scale", [], true);
  const lines = chartCard("The same as curves", [], true);
  const drawn = [charts.add(map.host, () => levelMap(run, split)), charts.add(lines.host, () => levelCurves(run, split))];
  const splits = element("span");
  const showSplits = () => splits.replaceChildren(segments("Of", "split",
    Object.fromEntries(Object.keys(run.level_maps).map(name => [name, SPLITS[name] ?? name])), split, name => {
      split = name;
      charts.draw(drawn);
    }));
  showSplits();
  const choose = runs.length > 1 ? selection("Run whose losses by noise level are shown",
    Object.fromEntries(runs.map((one, place) => [place, one.name])), place => {
      run = runs[place];
      if (!(split in run.level_maps)) split = firstSplit(run);
      showSplits();
      charts.draw(drawn);
    }) : null;
  return section("levels", "Loss by noise level", element("div", { class: "controls" }, splits, choose),
    element("div", { class: "charts wide" }, map.card, lines.card));
}

// The split that is shown first: held-out clips, once they were looked at several times.
function firstSplit(run) {
  const names = Object.keys(run.level_maps);
  return names.toReversed().find(name => run.level_maps[name].steps.length > 1) ?? names[0];
}

function levelMap(run, split) {
  const { steps, levels, losses } = run.level_maps[split];
  const logs = losses.map(row => row.map(value => value !== null && value > 0 ? Math.log10(value) : null));
  const all = logs.flat().filter(value => value !== null);
  const [low, high] = all.length > 0 ? [Math.min(...all), Math.max(...all)] : [0, 1];
  const ticks = [0, 0.25, 0.5, 0.75, 1].map(share => low + share * (high - low));
  return {
    traces: [{
      type: "heatmap", x: steps, y: levels, z: logs, customdata: losses, colorscale: "Viridis", hoverongaps: false,
      hovertemplate: "step %{x:,.0f}<br>t = %{y:.2f}<br>loss %{customdata:.4g}<extra></extra>",
      colorbar: { thickness: 10, outlinewidth: 0, tickvals: ticks, ticktext: ticks.map(tick => written(10 ** tick)),
        tickfont: { color: theme.colour("faint"), size: 10.5 } },
    }],
    layout: { xaxis: { title: { text: AXIS_TITLES.steps }, tickformat: ",~s" }, yaxis: { title: { text: "noise level t" } } },
    label: `Heat map of the mean loss of ${SPLITS[split] ?? split} by noise level and optimizer step. `
      + `In the last column: ${levels.map((level, row) => `${written(losses[row].at(-1)) || "unknown"} at t = ${level.toFixed(2)}`).join(", ")}`,
  };
}

// Colours of levels from low noise to high, along the map's own scale.
function levelColour(place, number) {
  const scale = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const along = number > 1 ? place / (number - 1) * 0.92 * (scale.length - 1) : 0;
  const from = scale[Math.floor(along)], to = scale[Math.min(Math.floor(along) + 1, scale.length - 1)];
  const mixed = from.map((value, channel) => Math.round(value + (to[channel] - value) * (along % 1)));
  return `#${mixed.map(value => (theme.isDark ? Math.round(value * 0.75 + 64) : value).toString(16).padStart(2, "0")).join("")}`;
}

function levelCurves(run, split) {
  const { names, levels } = run.level_maps[split];
  const traces = names.flatMap((name, place) =>
    curveTraces(run, name, `t = ${levels[place].toFixed(2)}`, { color: levelColour(place, names.length), dash: "solid" })
      .filter(trace => trace.fill === undefined));
  const layout = curveLayout(traces, true);
  return {
    traces, layout: { ...layout, showlegend: true, legend: { orientation: "v", x: 1.02, y: 1, font: { size: 10.5 } }, hovermode: "closest",
      yaxis: { ...layout.yaxis, title: { text: "loss" } } },
    label: curveLabel("the loss by noise level", [run], names),
  };
}
