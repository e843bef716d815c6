// What the pages cannot say in HTML: the chart, stale figures, keys.
"use strict";

const STALE_MS = 30000, WAKE_MS = 5000;
const charts = new WeakMap();
let heardAt = Date.now();

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function clock(seconds) {
  return new Date(seconds * 1000).toTimeString().slice(0, 5);
}

function options(width) {
  const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const line = (name) => ({ stroke: color(name), width: 1.5, points: { show: false } });
  return {
    width, height: 150, cursor: { show: false }, legend: { show: false },
    scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
    axes: [{ ...axis, space: 70, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 48, space: 36 }],
    series: [{}, line("--a"), line("--b"), line("--c")],
  };
}

function draw(anew) {
  for (const box of document.querySelectorAll("[data-chart]")) {
    const data = JSON.parse(box.dataset.chart);
    const known = charts.get(box);
    if (known && !anew) {
      if (known.drawn !== box.dataset.chart) known.plot.setData(data);
    } else {
      if (known) known.plot.destroy();
      charts.set(box, { plot: new uPlot(options(box.clientWidth), data, box) });
    }
    charts.get(box).drawn = box.dataset.chart;
  }
}

// The tab of the overview says how much is wrong, also where another one is looked at.
function tell(isStale) {
  const state = document.querySelector("[data-wrong]");
  if (!state) return;
  const wrong = isStale ? "?" : Number(state.dataset.wrong);
  const icon = document.querySelector("link[rel=icon]"), href = wrong ? icon.dataset.trouble : icon.dataset.fine;
  document.title = `${wrong ? `(${wrong}) ` : ""}Overview · Order Fellow`;
  if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
}

document.addEventListener("DOMContentLoaded", () => { draw(false); tell(false); });
document.addEventListener("htmx:sse:after:message", () => { heardAt = Date.now(); draw(false); tell(false); });
// One that is paused hears as before, and does not show it.
document.addEventListener("htmx:sse:before:message", () => { heardAt = Date.now(); });
// A tab that slept has some seconds to hear again; what it shows is as old as it is.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) heardAt = Math.max(heardAt, Date.now() - STALE_MS + WAKE_MS);
});
window.addEventListener("resize", () => draw(true));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));

setInterval(() => {
  const stale = document.getElementById("stale");
  if (!stale) return;
  stale.hidden = Date.now() - heardAt < STALE_MS;
  tell(!stale.hidden || isPaused());
}, 1000);

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-all]")) return;
  for (const box of event.target.closest("form").querySelectorAll("input[name=id]")) box.checked = event.target.checked;
});

// "/" goes to the search, "g" and a letter to a page, "j" and "k" to the next and the last card.
const PAGES = { o: "/", k: "/kyc", d: "/dead", e: "/emails", a: "/audit" };
let led = false;

function step(by) {
  const cards = [...document.querySelectorAll(".card")];
  const here = cards.findIndex((card) => card.contains(document.activeElement));
  const to = here < 0 ? (by > 0 ? 0 : cards.length - 1) : here + by;
  cards[to]?.querySelector("[data-card]")?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); document.getElementById("find")?.focus(); return; }
  if (led && PAGES[event.key]) location.assign(PAGES[event.key]);
  if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  led = event.key === "g";
});
