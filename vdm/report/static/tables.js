// Tables, which can be sorted by the buttons in their headings.

// A column is { label, isNumber, value(row), cell(row) }: what is sorted by, and what is shown if that is something else.
function table(caption, columns, rows, canSort = false) {
  const body = element("tbody");
  const headings = columns.map(column => element("th", { scope: "col", class: column.isNumber ? "number" : null },
    canSort ? element("button", { type: "button", onclick: () => sortBy(column) }, column.label) : column.label));
  const line = row => element("tr", {}, columns.map((column, place) => element(
    place === 0 ? "th" : "td", { scope: place === 0 ? "row" : null, class: column.isNumber ? "number" : "text" },
    column.cell ? column.cell(row) : written(column.value(row)))));
  const lines = new Map(rows.map(row => [row, line(row)]));
  let sorted = null, direction = 1;
  const sortBy = column => {
    direction = sorted === column ? -direction : 1;
    sorted = column;
    headings.forEach((heading, place) => {
      if (columns[place] === column) heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else heading.removeAttribute("aria-sort");
    });
    body.append(...[...rows].sort((a, b) => direction * compared(column.value(a), column.value(b), direction)).map(row => lines.get(row)));
  };
  body.append(...lines.values());
  return element("div", { class: rows.length > 14 ? "scroll long" : "scroll", tabindex: 0, role: "region", "aria-label": caption },
    element("table", { "aria-label": caption }, element("thead", {}, element("tr", {}, headings)), body));
}

// Numbers by size, also those in texts, and texts by the alphabet; what is missing comes last in either direction.
function compared(a, b, direction) {
  const missing = value => value === null || value === undefined || value === "";
  if (missing(a) || missing(b)) return direction * (Number(missing(a)) - Number(missing(b)));
  const numbers = [Number(a), Number(b)];
  if (numbers.every(Number.isFinite)) return numbers[0] - numbers[1];
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function facts(entries) {
  return element("dl", { class: "facts" }, entries.map(([label, value]) => [element("dt", {}, label), element("dd", {}, value)]));
}

// What is said of one run; of several runs each is folded away under its name.
function ofRun(run, parts) {
  if (content.runs.length === 1) return parts;
  return element("details", { class: "of-run" }, element("summary", {}, run.name), element("div", {}, parts));
}

function measuredSection() {
  const rows = content.runs.flatMap(run => run.measured.map(one => ({ run, ...one })));
  if (rows.length === 0) return section("metrics", "Metrics", note("Nothing was measured yet."));
  const columns = [
    { label: "Metric", value: row => row.name },
    ...(content.runs.length > 1 ? [{ label: "Run", value: row => row.run.name }] : []),
    { label: "Step", isNumber: true, value: row => row.step },
    { label: "Value", isNumber: true, value: row => row.value },
    { label: "95% interval", isNumber: true, value: row => row.interval?.[0], cell: row => row.interval ? row.interval.map(written).join(" \u2013 ") : "" },
    { label: "Videos", isNumber: true, value: row => row.num_videos },
    { label: "Reference", isNumber: true, value: row => row.num_reference },
    { label: "Reliable", value: row => String(row.reliable), cell: row => row.reliable ? "yes" : element("span", { class: "warn" }, "too few clips") },
    { label: "Protocol", value: row => row.file, cell: row => protocol(row) },
  ];
  return section("metrics", "Metrics", measuredCharts(), table("Metrics", columns, rows, true),
    note("Intervals are by the bootstrap over clips; they leave out the bias that a distance has for few clips."));
}

function protocol(row) {
  const entries = Object.entries(row.protocol);
  if (entries.length === 0) return row.file;
  return element("details", {}, element("summary", {}, row.file), facts(entries));
}

// A chart of each metric that was measured at several steps, with intervals.
function measuredCharts() {
  const names = [...new Set(content.runs.flatMap(run => run.measured.map(one => one.name)))];
  const cards = names.map(name => {
    const having = content.runs.filter(run => run.measured.filter(one => one.name === name && one.step !== null).length > 1);
    if (having.length === 0) return null;
    const { card, host } = chartCard(name);
    charts.add(host, () => {
      const traces = having.filter(run => run.isShown).map(run => measuredTrace(run, name));
      return {
        traces, layout: { xaxis: { title: { text: AXIS_TITLES.steps }, tickformat: ",~s" }, hovermode: "x unified" },
        label: `Chart of ${name} over steps. ${having.map(run => {
          const found = run.measured.filter(one => one.name === name && one.step !== null);
          return `${run.name}: from ${written(found[0].value)} to ${written(found.at(-1).value)}`;
        }).join("; ")}`,
      };
    });
    return card;
  });
  return cards.some(card => card !== null) ? element("div", { class: "charts above" }, cards) : null;
}

function measuredTrace(run, name) {
  const found = run.measured.filter(one => one.name === name && one.step !== null);
  const style = lineStyle(run.place);
  return {
    type: "scatter", mode: "lines+markers", name: plain(content.runs.length > 1 ? run.name : name),
    x: found.map(one => one.step), y: found.map(one => one.value), line: { ...style, width: 1.8 },
    error_y: {
      type: "data", symmetric: false, color: style.color, thickness: 1, width: 3,
      array: found.map(one => one.interval ? one.interval[1] - one.value : 0),
      arrayminus: found.map(one => one.interval ? one.value - one.interval[0] : 0),
    },
    hovertemplate: "%{y:.5g}<extra>%{fullData.name}</extra>",
  };
}

function throughputSection() {
  const cards = curveCards("throughput");
  const shares = shareBars(content.runs.filter(run => run.shares.length > 0));
  if (cards.length === 0 && shares === null) return null;
  return section("throughput", "Throughput", shares,
    element("div", { class: "charts" }, cards));
}

function shareBars(runs) {
  if (runs.length === 0) return null;
  const names = [...new Set(runs.flatMap(run => run.shares.map(([name]) => name)))];
  const colour = name => `var(--share-${names.indexOf(name) % 8})`;
  const lines = runs.map(run => {
    const words = run.shares.map(([name, share]) => `${name} ${percent(share)}`).join(", ");
    const bar = element("div", { class: "shares", role: "img", "aria-label": words, title: words }, run.shares.map(([name, share]) => {
      const part = element("span");
      part.style.width = percent(share);
      part.style.background = colour(name);
      return part;
    }));
    return runs.length > 1 ? [element("span", { class: "note" }, run.name), bar] : bar;
  });
  const legend = element("ul", { class: "legend" }, names.map(name => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = colour(name);
    return element("li", {}, swatch, runs.length > 1 ? name : `${name} ${percent(runs[0].shares.find(one => one[0] === name)[1])}`);
  }));
  return [element("h3", { class: "title" }, "Where the time went, from start to end of training"),
    element("div", { class: runs.length > 1 ? "bars" : null }, lines), legend];
}

function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

function settingsSection() {
  const several = content.runs.length > 1, differing = new Set(content.differing_all);
  const keys = [...new Set(content.runs.flatMap(run => Object.keys(run.settings)))];
  const rows = keys.map(key => ({ key, isMarked: differing.has(key) }));
  const columns = [{ label: "Setting", value: row => row.key, cell: row => element("span", { class: "mono" }, row.key) },
    ...content.runs.map(run => ({ label: several ? run.name : "Value", value: row => run.settings[row.key],
      cell: row => element("span", { class: "mono" }, run.settings[row.key] ?? "\u2013") }))];
  const made = table("Configuration", columns, rows);
  const lines = [...made.querySelectorAll("tbody tr")];
  const filter = element("input", { type: "search", placeholder: "Filter settings", "aria-label": "Filter settings", oninput: () => apply() });
  const only = element("input", { type: "checkbox", checked: several, onchange: () => apply() });
  const apply = () => lines.forEach((line, place) => {
    line.classList.toggle("differs", rows[place].isMarked && !only.checked);
    const isFound = line.textContent.toLowerCase().includes(filter.value.toLowerCase());
    line.hidden = !isFound || (several && only.checked && !rows[place].isMarked);
  });
  apply();
  return section("settings", "Configuration", element("div", { class: "controls" }, filter,
    several ? element("label", {}, only, "Only what differs") : null), made);
}

function faultsSection() {
  const shown = content.runs.map(run => {
    const parts = [];
    if (run.story.length > 0) parts.push(listing("Starts and ends (times in UTC)", run.story, run.story.length));
    if (run.bad_steps.number > 0) parts.push(listing("Bad steps", run.bad_steps.entries, run.bad_steps.number));
    if (run.bad_samples.number > 0) parts.push(listing("Samples that were left out", run.bad_samples.entries, run.bad_samples.number));
    if (run.unreadable.length > 0) parts.push(listing("What could not be read for this page", run.unreadable.map(text => ({ reason: text })), run.unreadable.length));
    return parts.length > 0 ? ofRun(run, parts) : null;
  }).filter(parts => parts !== null);
  return section("faults", "Faults and restarts", shown.length > 0 ? shown : note("No restarts, bad steps or bad samples are recorded."));
}

function listing(title, entries, number) {
  const columns = Object.keys(entries[0]).map(name => ({ label: name, value: entry => entry[name] }));
  const more = number > entries.length ? note(`The last ${entries.length} of ${WHOLE.format(number)}.`) : null;
  return [element("h3", { class: "title" }, title), table(title, columns, entries), more];
}

function environmentSection() {
  const parts = content.runs.map(run => {
    const { facts: found, packages, changes } = run.environment;
    if (found.length === 0 && packages.length === 0) return null;
    const main = packages.filter(([name]) => ["torch", "lightning", "diffusers", "numpy", "av"].includes(name));
    return ofRun(run, [facts([...found, ...main]),
      packages.length > 0 ? element("details", {}, element("summary", {}, `All ${packages.length} packages`), facts(packages)) : null,
      changes.length > 0 ? listing("Changed between starts", changes, changes.length) : null]);
  }).filter(part => part !== null);
  return section("environment", "Environment", parts.length > 0 ? parts : note("Versions were not recorded."));
}

function commandsSection() {
  return section("commands", "Go on", content.runs.map(run => ofRun(run, run.commands.map(({ name, command }) => {
    const text = element("pre", {}, command);
    const copy = element("button", { type: "button", "aria-label": `Copy the command: ${name}`, onclick: async () => {
      getSelection().selectAllChildren(text);
      await navigator.clipboard?.writeText(command).then(() => { copy.textContent = "Copied"; }, () => {});
    } }, "Copy");
    return element("div", { class: "command" }, element("span", {}, name), text, copy);
  }))));
}
