// What pages and forms cannot say in HTML.
"use strict";

// What is missing is pointed at; what cannot be taken back is asked about by a page of its own.
document.addEventListener("submit", (event) => {
  const needed = event.submitter?.dataset.needs && event.target.elements[event.submitter.dataset.needs];
  if (needed && !needed.value.trim()) { event.preventDefault(); needed.focus(); return; }
  // A second press must not send the form again; where a file is answered, the page stays.
  if (event.target.method === "post" && !("stays" in event.target.dataset)) setTimeout(() => event.submitter?.setAttribute("disabled", ""), 0);
});

// A page that comes back from the browser's memory can be used again.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) for (const button of document.querySelectorAll("button[disabled]")) button.disabled = false;
});

// Times are told where the reader is; the title has them in UTC, and so has a page without scripts.
const readersTime = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
function tellTimes() {
  for (const time of document.querySelectorAll("time[data-utc]")) {
    time.textContent = readersTime.format(new Date(time.dateTime));
    time.removeAttribute("data-utc");
  }
}
for (const news of ["DOMContentLoaded", "htmx:after:swap", "htmx:sse:after:message"]) document.addEventListener(news, tellTimes);
