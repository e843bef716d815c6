// The parts of the pages that HTML cannot express: the chart, stale figures, keys.
"use strict";

const STALE_MS = 30000, WAKE_MS = 5000;
const charts = new WeakMap();
let receivedAt = Date.now();

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

// The title and icon of the overview's tab show the number of troubles, also while it is in the background.
function showState(isStale) {
  const state = document.querySelector("[data-wrong]");
  if (!state) return;
  const wrong = isStale ? "?" : Number(state.dataset.wrong);
  const icon = document.querySelector("link[rel=icon]"), href = wrong ? icon.dataset.trouble : icon.dataset.fine;
  document.title = `${wrong ? `(${wrong}) ` : ""}Overview · Order Fellow`;
  if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
}

document.addEventListener("DOMContentLoaded", () => { draw(false); showState(false); });
document.addEventListener("htmx:sse:after:message", () => { receivedAt = Date.now(); draw(false); showState(false); });
// A paused page still receives events, and does not show them.
document.addEventListener("htmx:sse:before:message", () => { receivedAt = Date.now(); });
// A tab that was suspended has some seconds to receive an event again, before its figures count as stale.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) receivedAt = Math.max(receivedAt, Date.now() - STALE_MS + WAKE_MS);
});
window.addEventListener("resize", () => draw(true));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));

setInterval(() => {
  const stale = document.getElementById("stale");
  if (!stale) return;
  stale.hidden = Date.now() - receivedAt < STALE_MS;
  showState(!stale.hidden || isPaused());
}, 1000);

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-all]")) return;
  for (const box of event.target.closest("form").querySelectorAll("input[name=id]")) box.checked = event.target.checked;
});

// "/" focuses the search, "g" and a letter opens a page, "j" and "k" focus the next and the previous card.
const PAGES = { o: "/", k: "/kyc", d: "/dead", e: "/emails", a: "/audit" };
// WCAG 2.1.4: a checkbox on the page of sessions turns them off for this browser.
const KEYS = "single-key shortcuts", hasKeys = () => localStorage.getItem(KEYS) !== "off";
let afterG = false;

document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("[data-keys]")) { box.checked = hasKeys(); box.closest("[hidden]")?.removeAttribute("hidden"); }
});
document.addEventListener("change", ({ target }) => {
  if (target.matches("[data-keys]")) localStorage.setItem(KEYS, target.checked ? "on" : "off");
});

function step(by) {
  const cards = [...document.querySelectorAll(".card")];
  const here = cards.findIndex((card) => card.contains(document.activeElement));
  const to = here < 0 ? (by > 0 ? 0 : cards.length - 1) : here + by;
  cards[to]?.querySelector("[data-card]")?.focus();
}

document.addEventListener("keydown", (event) => {
  if (!hasKeys() || event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); document.getElementById("find")?.focus(); return; }
  if (afterG && PAGES[event.key]) location.assign(PAGES[event.key]);
  if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  afterG = event.key === "g";
});
