// Behaviour of pages and forms that HTML alone does not offer.
"use strict";

// Milliseconds after which a form without an answer may be sent again.
const UNANSWERED = 15_000;

document.addEventListener("submit", (event) => {
  // A required field that is empty is focused; nothing is sent.
  const needed = event.submitter?.dataset.needs && event.target.elements[event.submitter.dataset.needs];
  if (needed && !needed.value.trim()) { event.preventDefault(); needed.focus(); return; }
  // Disable every button of a sent form: a second press must not send it again, and another button would hide whether the
  // first request was carried out. Not where the answer is a download (`data-stays`): then the page stays.
  if (event.target.method !== "post" || "stays" in event.target.dataset) return;
  const buttons = [...event.target.elements].filter((field) => field.type === "submit" && !field.disabled);
  setTimeout(() => { for (const button of buttons) button.disabled = true; }, 0);
  setTimeout(() => { for (const button of buttons) button.disabled = false; }, UNANSWERED);
});

// Keep the input of a sent form that names its page (`back`) in this tab, for the same user, so that it survives an ended
// session and an error page: texts, chosen options and ticks, never a password or a code. It is dropped once it is put back,
// when another page follows, on sign-out and after an hour. The values that the page had shown (`was_...`) are kept with it:
// by these the server detects a change that was made meanwhile.
const KEPT = "typed", HOUR = 3_600_000;
const isShownValue = ({ name }) => ["death", "digest"].includes(name) || name.startsWith("was_");
const isText = (field) => field.id && (field.matches("textarea") || ["text", "email", "number"].includes(field.type)) && field.autocomplete !== "one-time-code";
const isChoice = (field) => field.id && field.matches("select");
document.addEventListener("submit", ({ target: form }) => {
  if (form.getAttribute("action") === "/sign-out") { sessionStorage.removeItem(KEPT); return; }
  if (!form.elements.back) return;
  const fields = [...form.elements], valuesOf = (test) => fields.filter(test).map((field) => [field.id, field.value]);
  const typed = valuesOf(isText), chosen = valuesOf(isChoice);
  const ticked = [...form.querySelectorAll("input[type=checkbox][name]:checked")].map((box) => [box.name, box.value]);
  if (!typed.length && !chosen.length && !ticked.length) return;
  const seen = fields.filter(isShownValue).map(({ name, value }) => [name, value]);
  sessionStorage.setItem(KEPT, JSON.stringify({
    who: document.body.dataset.who, back: form.elements.back.value, action: form.getAttribute("action"), at: Date.now(), typed, chosen, seen, ticked,
  }));
});

const readKept = () => JSON.parse(sessionStorage.getItem(KEPT));

// Put kept input back into its form, or show it once where the page does not have that form or field any longer.
function putBack() {
  const kept = readKept(), { who } = document.body.dataset;
  if (!kept) return;
  if (Date.now() - kept.at > HOUR) { sessionStorage.removeItem(KEPT); return; }
  if (document.querySelector("[data-lost]")) { sessionStorage.setItem(KEPT, JSON.stringify({ ...kept, isLost: true })); return; }
  if (who === undefined || (who === kept.who && !kept.isLost && document.querySelector("input[name=sure]"))) return;
  if (who === kept.who && kept.isLost) {
    const forms = [...document.querySelectorAll("input[name=back]")].filter((field) => field.value === kept.back).map((field) => field.form).filter((form) => form.getAttribute("action") === kept.action);
    const values = [...kept.typed, ...(kept.chosen ?? [])].map(([id, value]) => [document.getElementById(id), value]);
    // All or nothing: a text must not be sent with the list's first option in place of the chosen one.
    if (forms.length && values.every(([field, value]) => field && (!field.matches("select") || [...field.options].some((option) => option.value === value)))) {
      for (const [field, value] of values) field.value = value;
      const isTicked = (box) => (kept.ticked ?? []).some(([name, value]) => box.name === name && box.value === value);
      for (const form of forms) for (const box of form.querySelectorAll("input[type=checkbox][name]")) box.checked = isTicked(box);
      for (const [name, value] of kept.seen) for (const form of forms) if (form.elements[name]) form.elements[name].value = value;
    } else if (new URL(kept.back, location).href !== location.href || (!forms.length && document.querySelector("[hx-trigger*=load]"))) {
      return; // Another page, or the form may still arrive as a piece of this one.
    } else {
      showOnce(kept.typed.map(([, value]) => value).filter((value) => value.trim()));
    }
  }
  sessionStorage.removeItem(KEPT);
}
function showOnce(texts) {
  if (!texts.length) return;
  const note = Object.assign(document.createElement("p"), { className: "note", role: "status", textContent: `This could not be put back into its form. You wrote: ${texts.join(" · ")}` });
  document.querySelector("main").prepend(note);
}
document.addEventListener("DOMContentLoaded", putBack);
// Only input that was lost: other input belongs to a request that this open page still waits for.
document.addEventListener("htmx:after:swap", () => { if (readKept()?.isLost) putBack(); });

// Say so beside a polled element whose poll fails, and since when it is not current. `#live` has its own notice (console.js).
// In an element that is loaded once, say so in place of the sentence that it is being fetched; what it shows stays.
const currentAt = new WeakMap();
function showStale(element, isStale) {
  const again = element.matches("[hx-trigger=load]") && element.querySelector("[role=status] a");
  if (again && isStale) {
    again.textContent = "try again";
    again.parentElement.replaceChildren("It cannot be fetched at the moment: ", again, ".");
  }
  if (!element.matches("[hx-trigger*=every]:not([hx-sse\\:connect])")) return;
  const next = element.nextElementSibling, shown = next?.matches("[data-stale]") ? next : null;
  if (!isStale) { shown?.remove(); currentAt.set(element, Date.now()); return; }
  if (shown) return;
  const at = currentAt.get(element) ?? performance.timeOrigin;
  const note = Object.assign(document.createElement("p"), { className: "wrong", role: "status", textContent: `This cannot be updated at the moment. It shows the state of ${readersTime.format(at)}.` });
  note.dataset.stale = "";
  element.after(note);
}
document.addEventListener("htmx:after:request", ({ target, detail }) => {
  const { status } = detail.ctx.response;
  showStale(target, status === 429 || status >= 500);
});
document.addEventListener("htmx:error", ({ target }) => { if (target instanceof Element) showStale(target, true); });

// On a narrow screen the navigation scrolls: centre the current page's link.
document.addEventListener("DOMContentLoaded", () => {
  const here = document.querySelector(".top nav [aria-current]"), row = here?.parentElement;
  if (row) row.scrollLeft = here.offsetLeft - row.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;
});

// A page restored from the back/forward cache still has its buttons disabled.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) for (const button of document.querySelectorAll("button[disabled]")) button.disabled = false;
});

// Pause for content that updates itself (WCAG 2.2.2).
const isPaused = () => document.querySelector("[data-pause][aria-pressed=true]") !== null;
document.addEventListener("DOMContentLoaded", () => { for (const button of document.querySelectorAll("[data-pause]")) button.hidden = false; });
document.addEventListener("click", ({ target }) => { if (target.matches("[data-pause]")) target.setAttribute("aria-pressed", !isPaused()); });
for (const update of ["htmx:before:request", "htmx:sse:before:message"]) document.addEventListener(update, (event) => { if (isPaused()) event.preventDefault(); });

// Show times in the browser's time zone; without scripts, and in the tooltip, they are in UTC.
const readersTime = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
function fillInZone() {
  const { timeZone } = readersTime.resolvedOptions();
  for (const place of document.querySelectorAll("[data-zone]")) if (place.matches("input")) place.value = timeZone; else place.textContent = timeZone;
}
document.addEventListener("DOMContentLoaded", fillInZone);
function localiseTimes() {
  for (const time of document.querySelectorAll("time[data-utc]")) {
    time.textContent = readersTime.format(new Date(time.dateTime));
    time.removeAttribute("data-utc");
  }
}
for (const update of ["DOMContentLoaded", "htmx:after:swap", "htmx:sse:after:message"]) document.addEventListener(update, localiseTimes);
