// The page itself, from the content that travels in it as JSON.
const content = JSON.parse(document.getElementById("content").textContent);
for (const [place, run] of content.runs.entries()) {
  Object.assign(run, { place, isShown: true });
  // Names come from outside: one such as "constructor" must not be found in runs that have no such entry.
  for (const key of ["curves", "settings", "level_maps"]) run[key] = Object.assign(Object.create(null), run[key]);
}

function tiles(run) {
  return element("dl", { class: "tiles" }, run.tiles.map(([label, value]) =>
    element("div", { class: "tile" }, element("dt", {}, label), element("dd", {}, value))));
}

function opening() {
  const [first] = content.runs, several = content.runs.length > 1;
  return element("section", { "aria-labelledby": "title" },
    element("h1", { id: "title" }, content.title),
    element("p", { class: "note" }, several ? "" : `${first.folder} \u00b7 ${first.state} \u00b7 `, `report of ${content.about.made}, vdm ${content.about.version}`),
    several ? null : tiles(first));
}

document.title = `${content.title} \u00b7 report`;
document.getElementById("brand").textContent = content.title;
theme.begin();
document.getElementById("main").append(...[
  opening(),
  content.runs.length > 1 ? runsSection() : null,
  curvesSection(),
  levelsSection(),
  samplesSection(),
  measuredSection(),
  throughputSection(),
  settingsSection(),
  faultsSection(),
  environmentSection(),
  commandsSection(),
].filter(part => part !== null));
theme.listeners.push(() => charts.draw(charts.all));
charts.draw([]); // says that all is drawn, even if there is nothing to draw
