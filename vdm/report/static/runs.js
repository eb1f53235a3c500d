// Several runs beside each other: which are shown, their settings against their figures.
function shownRuns() {
  return content.runs.filter(run => run.isShown);
}

function swatch(run) {
  const { color, dash } = lineStyle(run.place);
  const made = element("span", { class: "swatch" });
  made.style.background = dash === "solid" ? color
    : `repeating-linear-gradient(90deg, ${color} 0 ${dash === "dot" ? 3 : 6}px, transparent 0 ${dash === "dot" ? 6 : 9}px)`;
  return made;
}

// The last figure of each metric, and the losses.
function resultsOf(run) {
  const found = Object.assign(Object.create(null), run.latest);
  run.measured.forEach(one => { found[one.name] = one.value; });
  return found;
}

function runsSection() {
  const names = [...new Set(content.runs.flatMap(run => Object.entries(resultsOf(run)).filter(([, value]) => value !== null).map(([name]) => name)))];
  const columns = [
    { label: "Run", value: run => run.name, cell: run => runCell(run) },
    { label: "State", value: run => run.state },
    { label: "Step", isNumber: true, value: run => run.step },
    ...content.differing.map(key => ({ label: key, value: run => run.settings[key] })),
    ...names.map(name => ({ label: name, isNumber: true, value: run => resultsOf(run)[name] })),
  ];
  const made = table("Runs", columns, content.runs, true);
  return section("runs", "Runs", made, parallelCard(names));
}

function runCell(run) {
  const check = element("input", { type: "checkbox", checked: true, "aria-label": `Show ${run.name} in the charts`, onchange: () => {
    run.isShown = check.checked;
    charts.draw(charts.all);
  } });
  const colour = element("span", {}, swatch(run));
  theme.listeners.push(() => colour.replaceChildren(swatch(run)));
  return element("span", {}, check, " ", colour, run.name);
}

// Parallel coordinates: a line for each run through its settings and results, each on a scale of its own.
function parallelCard(names) {
  const scales = [
    ...content.differing.map(key => scaleOf(key, run => run.settings[key])),
    ...names.map(name => scaleOf(name, run => resultsOf(run)[name])),
  ].filter(scale => scale !== null).slice(0, 14);
  if (scales.length < 2) return null;
  const { card, host } = chartCard("Settings and results: a line for each run", [], true);
  charts.add(host, () => ({
    traces: shownRuns().map(run => {
      const there = scales.map((scale, place) => ({ x: place, y: scale.place(run), text: `${scale.name}: ${written(scale.value(run))}` }))
        .filter(point => point.y !== null);
      const style = lineStyle(run.place);
      return {
        type: "scatter", mode: "lines+markers", name: plain(run.name), x: there.map(point => point.x), y: there.map(point => point.y),
        text: there.map(point => plain(point.text)), line: { ...style, width: 2 }, marker: { size: 6, color: style.color },
        hovertemplate: "%{text}<extra>%{fullData.name}</extra>",
      };
    }),
    layout: {
      hovermode: "closest",
      xaxis: { tickvals: scales.map((_, place) => place), ticktext: scales.map(scale => plain(shortened(scale.name))), range: [-0.3, scales.length - 0.7],
        showgrid: true, gridcolor: theme.colour("line"), zeroline: false },
      yaxis: { visible: false, range: [-0.08, 1.12], fixedrange: true },
      annotations: scales.flatMap((scale, place) => scale.marks.map(mark => ({
        x: place, y: mark.y, text: plain(shortened(mark.text)), showarrow: false, xanchor: "left", xshift: 7, yanchor: "middle", bgcolor: theme.colour("card"), opacity: 0.9, borderpad: 1,
        font: { size: 10.5, color: theme.colour("faint") },
      }))),
    },
    label: `Parallel coordinates of ${shownRuns().length} runs: ${scales.map(scale => scale.name).join(", ")}. The table above has the same values.`,
  }));
  return element("div", { class: "charts wide spaced" }, card);
}

function shortened(text) {
  return text.length > 22 ? `\u2026${text.slice(-21)}` : text;
}

// A scale from 0 to 1 for the values of all runs: by size if they are numbers, else by name. Null if all are equal.
function scaleOf(name, value) {
  const values = content.runs.map(value).filter(one => one !== undefined && one !== null && one !== "");
  const distinct = [...new Set(values)];
  if (distinct.length < 2) return null;
  if (distinct.every(one => Number.isFinite(Number(one)))) {
    const numbers = distinct.map(Number), low = Math.min(...numbers), high = Math.max(...numbers);
    const isLog = low > 0 && high / low >= 30;
    const along = number => isLog ? Math.log(number / low) / Math.log(high / low) : (number - low) / (high - low);
    const marks = numbers.length <= 6 ? numbers : [low, high];
    return { name, value, marks: marks.map(number => ({ y: along(number), text: written(number) })),
      place: run => value(run) === undefined || value(run) === null || value(run) === "" ? null : along(Number(value(run))) };
  }
  const ordered = distinct.map(String).sort();
  const along = text => ordered.indexOf(text) / (ordered.length - 1);
  return { name, value, marks: ordered.slice(0, 12).map(text => ({ y: along(text), text })),
    place: run => value(run) === undefined ? null : along(String(value(run))) };
}
