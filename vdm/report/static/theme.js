// Light or dark: as the system says, until the button says otherwise. On paper always light.
const theme = {
  system: matchMedia("(prefers-color-scheme: dark)"),
  chosen: null,
  isPrinting: false,
  listeners: [],

  get isDark() {
    return !this.isPrinting && (this.chosen === null ? this.system.matches : this.chosen === "dark");
  },

  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  },

  apply() {
    document.documentElement.dataset.theme = this.isDark ? "dark" : "light";
    document.documentElement.classList.toggle("printing", this.isPrinting);
    const button = document.getElementById("theme");
    button.textContent = this.isDark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${this.isDark ? "light" : "dark"} colours`);
    this.listeners.forEach(listener => listener());
  },

  begin() {
    this.system.addEventListener("change", () => this.apply());
    document.getElementById("theme").addEventListener("click", () => {
      this.chosen = this.isDark ? "light" : "dark";
      this.apply();
    });
    const print = isPrinting => {
      if (this.isPrinting === isPrinting) return;
      this.isPrinting = isPrinting;
      if (isPrinting) document.querySelectorAll("details").forEach(details => { details.open = true; });
      this.apply();
    };
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
    this.apply();
  },
};

// Colours of runs, and of the curves of one run: told apart on white and on dark, also by colour-blind people.
const LIGHT = ["#2f6db3", "#d1700f", "#2e8b57", "#c0392b", "#7a52b3", "#0f8b9d", "#c2478f", "#8c5a3c", "#7d7d00", "#5f6b7a"];
const DARK = ["#7fb0ea", "#f0a35c", "#6cc799", "#ee8277", "#b59aec", "#63c7d6", "#ee8fc4", "#c99b7d", "#c9c95a", "#a6b1c0"];
const DASHES = ["solid", "dash", "dot", "dashdot"];

function lineStyle(place) {
  const colours = theme.isDark ? DARK : LIGHT;
  return { color: colours[place % colours.length], dash: DASHES[Math.floor(place / colours.length) % DASHES.length] };
}
