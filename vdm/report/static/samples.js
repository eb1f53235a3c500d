// Sampled videos over training: one slider moves all of them through the steps.
const urls = new Map();

// A video's address, from its content in base64; nothing is fetched.
function videoUrl(base64) {
  if (!urls.has(base64)) {
    const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
    urls.set(base64, URL.createObjectURL(new Blob([bytes], { type: "video/mp4" })));
  }
  return urls.get(base64);
}

function samplesSection() {
  const runs = content.runs.filter(run => run.samples.steps.length > 0);
  const leftOut = content.runs.filter(run => run.samples.left_out).map(run =>
    note(content.runs.length > 1 ? `${run.name}: ${run.samples.left_out}` : run.samples.left_out));
  if (runs.length === 0) {
    return section("samples", "Samples over training", leftOut.length > 0 ? leftOut : note("No videos were sampled yet."));
  }
  const steps = [...new Set(runs.flatMap(run => run.samples.steps.map(one => one.step)))].sort((a, b) => a - b);
  const number = Math.max(...runs.map(run => run.samples.prompts.length));
  const cells = [];
  const cards = Array.from({ length: number }, (_, place) => sampleCard(runs, place, cells));
  const grid = element("div", { class: "clips" }, cards);
  const widest = Math.max(...cards.map(card => card.querySelectorAll("video").length));
  grid.style.setProperty("--columns", String(Math.min(8, number === 1 ? 3 * widest : widest))); // one alone may be a grid
  const slider = stepSlider(steps, step => cells.forEach(cell => cell.show(step)));
  const player = playButton(grid);
  slider.append(player);
  return section("samples", "Samples over training", slider, grid, leftOut,
    note("The same prompts and the same noise at each step."));
}

function stepSlider(steps, onchange) {
  const output = element("output", { for: "step" });
  const input = element("input", { type: "range", id: "step", min: 0, max: steps.length - 1, step: 1, value: steps.length - 1,
    "aria-label": "Step of the samples", oninput: () => show() });
  const show = () => {
    const step = steps[Number(input.value)];
    output.textContent = `step ${WHOLE.format(step)}`;
    input.setAttribute("aria-valuetext", output.textContent);
    onchange(step);
  };
  const move = by => {
    input.value = Number(input.value) + by;
    show();
  };
  show();
  return element("div", { class: "stepper" },
    element("button", { type: "button", "aria-label": "Earlier step", onclick: () => move(-1) }, "\u2190"), input,
    element("button", { type: "button", "aria-label": "Later step", onclick: () => move(1) }, "\u2192"), output);
}

function playButton(grid) {
  let isPlaying = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const button = element("button", { type: "button", onclick: () => {
    isPlaying = !isPlaying;
    apply();
  } });
  const apply = () => {
    button.textContent = isPlaying ? "Pause" : "Play";
    grid.querySelectorAll("video").forEach(video => {
      video.autoplay = isPlaying;
      if (isPlaying) video.play().catch(() => {});
      else video.pause();
    });
  };
  apply();
  return button;
}

// One prompt: the held-out clip it was taken from, if there is one, and the video of each run.
function sampleCard(runs, place, cells) {
  const having = runs.filter(run => place < run.samples.prompts.length);
  const words = [...new Set(having.map(run => promptText(run.samples.prompts[place])).filter(text => text !== ""))];
  const reference = having.map(run => run.samples.prompts[place].reference).find(clip => clip);
  const figures = having.map(run => sampleFigure(run, place, words.length > 1, runs.length > 1, cells));
  if (reference) {
    const video = newVideo();
    setVideo(video, reference, `Held-out clip: ${words[0] ?? `number ${place + 1}`}`);
    figures.unshift(element("figure", {}, video, element("figcaption", {}, "held-out clip")));
  }
  const title = words.length === 1 ? words[0] : words.length === 0 && having[0].samples.prompts.length > 1 ? `Video ${place + 1}` : "";
  return element("article", { class: "card clip" }, element("div", { class: "pair" }, figures), title ? element("p", {}, title) : null);
}

function promptText({ caption, label }) {
  return [caption, label].filter(text => text).join(" \u00b7 ");
}

function sampleFigure(run, place, hasOwnWords, isNamed, cells) {
  const video = newVideo(), words = promptText(run.samples.prompts[place]), text = element("figcaption");
  cells.push({
    show(step) {
      const shown = run.samples.steps.filter(one => one.step <= step).at(-1) ?? run.samples.steps[0];
      const data = shown.videos[place];
      video.hidden = !data;
      setVideo(video, data, `${isNamed ? `${run.name}, ` : ""}step ${shown.step}: ${words || `video ${place + 1}`}`);
      text.textContent = [isNamed ? run.name : null, `step ${WHOLE.format(shown.step)}`, hasOwnWords ? words : null]
        .filter(part => part).join(" \u00b7 ");
    },
  });
  return element("figure", {}, video, text);
}

function newVideo() {
  const video = element("video", { loop: true, playsinline: true, preload: "auto" });
  video.muted = true;
  video.addEventListener("loadedmetadata", () => {
    video.classList.toggle("small", video.videoWidth < 160);
    video.style.setProperty("--aspect", `${video.videoWidth} / ${video.videoHeight}`);
  });
  return video;
}

function setVideo(video, base64, label) {
  video.setAttribute("aria-label", label);
  if (!base64) return;
  const url = videoUrl(base64);
  if (video.src === url) return;
  video.src = url;
  if (video.autoplay) video.play().catch(() => {});
}
