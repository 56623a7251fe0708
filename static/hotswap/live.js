// Parts of pages that ask for themselves again: what they know is not sent twice, and
// whoever looks sees when the server has ceased to answer.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  // By the id of a part: the ETag of what it shows, and since when nobody has answered.
  const known = new Map();
  const silentSince = new Map();
  const livePart = (event) => event.detail.elt?.closest?.("[data-hs-live]");
  const isPoll = (event, part) => part && event.detail.elt === part;

  document.body.addEventListener("htmx:configRequest", (event) => {
    const part = livePart(event);
    const etag = part && (known.get(part.id) ?? part.dataset.hsEtag);
    if (isPoll(event, part) && etag) event.detail.headers["If-None-Match"] = etag;
    // A part that asks because another has told it so keeps no login alive.
    if (event.detail.triggeringEvent?.type.startsWith("hs-")) event.detail.headers["X-HotSwap-Background"] = "1";
  });

  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, requestConfig } = event.detail;
    const part = requestConfig?.elt;
    if (!part?.matches?.("[data-hs-live]")) return;
    // htmx would put the empty body of a 304 into the page.
    if (xhr.status === 304) event.detail.shouldSwap = false;
    const etag = xhr.getResponseHeader("ETag");
    if (etag && xhr.status < 400) known.set(part.id, etag);
    if (xhr.status < 400) {
      silentSince.delete(part.id);
      // The part may be replaced: what is said of it is said once that is done.
      requestAnimationFrame(() => say(part.id, xhr.getResponseHeader("HS-Counted-At")));
    }
  });

  const say = (id, countedAt) => {
    const part = document.getElementById(id);
    if (!part) return;
    // Spoken only when the sentence has changed, or readers would never stop.
    const spoken = document.getElementById("hs-spoken");
    const summary = part.dataset.hsSummary;
    if (spoken && summary && spoken.textContent !== summary) spoken.textContent = summary;
    const counted = part.querySelector("[data-hs-counted]");
    if (counted && countedAt) counted.textContent = countedAt;
    const stale = part.querySelector("[data-hs-stale]");
    if (stale) {
      stale.hidden = true;
      stale.textContent = "";
    }
  };

  const fell = (event) => {
    const part = event.detail.requestConfig?.elt ?? event.detail.elt;
    if (!part?.matches?.("[data-hs-live]")) return;
    const since = silentSince.get(part.id) ?? new Date();
    silentSince.set(part.id, since);
    const stale = part.querySelector("[data-hs-stale]");
    if (!stale) return;
    const status = event.detail.xhr?.status;
    const why = status ? `The server answers ${status}` : "The server does not answer";
    stale.hidden = false;
    stale.textContent = `${why} since ${since.toISOString().slice(11, 19)} UTC: these numbers are old. `;
  };
  for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
    document.body.addEventListener(name, fell);
  }

  // "3 s ago" stays true while a page is open. Only the clock of the server and the time
  // that passes count, not the clock of this machine.
  const AGES_SECONDS = 5;
  const shownAt = new WeakMap();
  const inWords = (seconds) => {
    for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
    }
    return `${Math.round(seconds)} s`;
  };
  const keepAges = () => {
    const now = performance.now();
    for (const time of document.querySelectorAll("time[data-hs-age]")) {
      if (!shownAt.has(time)) {
        shownAt.set(time, now);
        continue;
      }
      const seconds = Number(time.dataset.hsAge) + (now - shownAt.get(time)) / 1000;
      const words = seconds < 0 ? `in ${inWords(-seconds)}` : time.dataset.hsPast ?? `${inWords(seconds)} ago`;
      if (time.textContent !== words) time.textContent = words;
    }
  };
  keepAges();
  document.body.addEventListener("htmx:afterSettle", keepAges);
  setInterval(keepAges, AGES_SECONDS * 1000);

  // Whoever comes back to the page sees what is true now, not in fifteen seconds.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    for (const part of document.querySelectorAll("[data-hs-live][hx-get]")) {
      window.htmx.ajax("GET", part.getAttribute("hx-get"), { source: part, target: part, swap: part.getAttribute("hx-swap") });
    }
  });

  // What has the focus keeps it when its part is replaced: htmx sees to those with an id.
  const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";
  let focused = null;
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const { target, shouldSwap } = event.detail;
    const element = document.activeElement;
    focused = null;
    if (!shouldSwap || !target?.id || target.id === "hs-dialog" || element.id) return;
    if (element === target || !target.contains(element)) return;
    const place = [...target.querySelectorAll(FOCUSABLE)].indexOf(element);
    focused = { part: target.id, tag: element.tagName, href: element.getAttribute("href"), place };
  });
  document.body.addEventListener("htmx:afterSwap", () => {
    if (!focused || document.activeElement !== document.body) return;
    const found = [...(document.getElementById(focused.part)?.querySelectorAll(FOCUSABLE) ?? [])];
    const isSame = (each) => each?.tagName === focused.tag && each.getAttribute("href") === focused.href;
    const again = isSame(found[focused.place]) ? found[focused.place] : found.find(isSame);
    again?.focus({ preventScroll: true });
    focused = null;
  });

  // What is confirmed in the preview of a launch stays so while the same is previewed.
  let confirmed = null;
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const place = event.detail.target;
    if (place.id !== "hs-result") return;
    const fields = [...place.querySelectorAll("[name=acknowledge], [name=typed], [name=typedVersion]")];
    confirmed = { fingerprint: place.querySelector("[name=fingerprint]")?.value, fields };
  });
  document.body.addEventListener("htmx:afterSwap", (event) => {
    const place = event.detail.target;
    if (place.id !== "hs-result" || !confirmed) return;
    if (place.querySelector("[name=fingerprint]")?.value === confirmed.fingerprint) {
      for (const old of confirmed.fields) {
        const field = [...place.querySelectorAll(`[name=${old.name}]`)].find((each) => old.type !== "checkbox" || each.value === old.value);
        if (field && old.type === "checkbox") field.checked = old.checked;
        else if (field) field.value = old.value;
      }
    }
    confirmed = null;
  });

  // Times are written in the zone of whoever writes them, and it stands beside them.
  const zone = document.querySelector("[name=scheduledZone]");
  const start = document.querySelector("[name=scheduledAt]");
  if (zone && start) {
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
    if (zone.value === "UTC" && own !== "UTC") {
      zone.value = own;
      if (start.value) {
        const at = new Date(`${start.value}Z`);
        const local = new Date(at.getTime() - at.getTimezoneOffset() * 60000);
        start.value = local.toISOString().slice(0, start.value.length);
        window.htmx.trigger(start.form, "hs-zone");
      }
    }
    const help = start.closest(".hs-field")?.querySelector(".hs-help");
    if (help) help.textContent = `Empty: at once. The time is in ${zone.value}${zone.value === own ? ", as your clock shows it" : ""}`;
  }

  // Times that are counted down in the browser, so that the server need not.
  setInterval(() => {
    for (const place of document.querySelectorAll("[data-hs-until]")) {
      const left = Math.round((Date.parse(place.dataset.hsUntil) - Date.now()) / 1000);
      if (left >= 0 && left < 60) place.textContent = `${left} s`;
    }
  }, 1000);
});
