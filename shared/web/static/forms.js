// What pages and forms cannot say in HTML.
"use strict";

// What is missing is pointed at; what cannot be taken back is asked about by a page of its own.
document.addEventListener("submit", (event) => {
  const needed = event.submitter?.dataset.needs && event.target.elements[event.submitter.dataset.needs];
  if (needed && !needed.value.trim()) { event.preventDefault(); needed.focus(); return; }
  // A second press must not send the form again; where a file is answered, the page stays.
  if (event.target.method === "post" && !("stays" in event.target.dataset)) setTimeout(() => event.submitter?.setAttribute("disabled", ""), 0);
});

// What was typed outlives a session that has ended, and an error: in this tab, for the same person, until it is used,
// another page comes, or one signs out. A form that names its page (`back`) is kept, its texts and ticks: no password, no code.
// So is what they were typed over, by which it is told that somebody has changed it meanwhile.
const KEPT = "typed", SEEN = ["death", "digest"];
const isText = (field) => field.id && (field.matches("textarea") || ["text", "email", "number"].includes(field.type)) && field.autocomplete !== "one-time-code";
document.addEventListener("submit", ({ target: form }) => {
  if (form.getAttribute("action") === "/sign-out") { sessionStorage.removeItem(KEPT); return; }
  const texts = form.elements.back ? [...form.elements].filter(isText) : [];
  const ticked = form.elements.back ? [...form.querySelectorAll("input[type=checkbox][name]:checked")].map((box) => [box.name, box.value]) : [];
  if (!texts.length && !ticked.length) return;
  const typed = texts.map((field) => [field.id, field.value]);
  const seen = SEEN.filter((name) => form.elements[name]).map((name) => [name, form.elements[name].value]);
  sessionStorage.setItem(KEPT, JSON.stringify({ who: document.body.dataset.who, back: form.elements.back.value, action: form.getAttribute("action"), typed, seen, ticked }));
});

function putBack() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT)), { who } = document.body.dataset;
  if (!kept) return;
  if (document.querySelector("[data-lost]")) { sessionStorage.setItem(KEPT, JSON.stringify({ ...kept, isLost: true })); return; }
  if (who === undefined || (who === kept.who && !kept.isLost && document.querySelector("input[name=sure]"))) return;
  if (who === kept.who && kept.isLost) {
    const fields = kept.typed.map(([id]) => document.getElementById(id));
    const forms = [...document.querySelectorAll("input[name=back]")].filter((field) => field.value === kept.back).map((field) => field.form).filter((form) => form.getAttribute("action") === kept.action);
    if (!forms.length || fields.includes(null)) return;
    kept.typed.forEach(([, value], place) => { fields[place].value = value; });
    // What is not there any more cannot be ticked.
    const isTicked = (box) => (kept.ticked ?? []).some(([name, value]) => box.name === name && box.value === value);
    for (const form of forms) for (const box of form.querySelectorAll("input[type=checkbox][name]")) box.checked = isTicked(box);
    kept.seen.forEach(([name, value]) => { for (const form of forms) if (form.elements[name]) form.elements[name].value = value; });
  }
  sessionStorage.removeItem(KEPT);
}
document.addEventListener("DOMContentLoaded", putBack);
// The form may come as a piece of the page. What is on its way from a page that is still open is left alone.
document.addEventListener("htmx:after:swap", () => { if (JSON.parse(sessionStorage.getItem(KEPT))?.isLost) putBack(); });

// On a telephone the pages are a row that is longer than the screen: where one is, is to be seen.
document.addEventListener("DOMContentLoaded", () => {
  const here = document.querySelector(".top nav [aria-current]"), row = here?.parentElement;
  if (row) row.scrollLeft = here.offsetLeft - row.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;
});

// A page that comes back from the browser's memory can be used again.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) for (const button of document.querySelectorAll("button[disabled]")) button.disabled = false;
});

// What moves by itself can be paused (WCAG 2.2.2).
const isPaused = () => document.querySelector("[data-pause][aria-pressed=true]") !== null;
document.addEventListener("DOMContentLoaded", () => { for (const button of document.querySelectorAll("[data-pause]")) button.hidden = false; });
document.addEventListener("click", ({ target }) => { if (target.matches("[data-pause]")) target.setAttribute("aria-pressed", !isPaused()); });
for (const coming of ["htmx:before:request", "htmx:sse:before:message"]) document.addEventListener(coming, (event) => { if (isPaused()) event.preventDefault(); });

// Times are told where the reader is; the title has them in UTC, and so has a page without scripts.
const readersTime = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
function tellTimes() {
  for (const time of document.querySelectorAll("time[data-utc]")) {
    time.textContent = readersTime.format(new Date(time.dateTime));
    time.removeAttribute("data-utc");
  }
}
for (const news of ["DOMContentLoaded", "htmx:after:swap", "htmx:sse:after:message"]) document.addEventListener(news, tellTimes);
