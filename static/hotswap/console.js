// The dialog of the actions, copying, and the progress of uploads.
"use strict";

// Its styles are in console.css: the policy of content lets none be written into pages.
htmx.config.includeIndicatorStyles = false;

document.addEventListener("DOMContentLoaded", () => {
  const dialog = document.createElement("dialog");
  dialog.id = "hs-dialog";
  document.body.append(dialog);
  dialog.addEventListener("click", (event) => {
    const asksToClose = event.target === dialog || event.target.closest("[data-hs-close]");
    if (asksToClose) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("close", () => dialog.replaceChildren());

  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target === dialog && !dialog.open) {
      dialog.showModal();
      dialog.querySelector("textarea, input:not([type=hidden]), select")?.focus();
    }
    // Spoken only when the sentence has changed, or readers would never stop.
    const summary = event.detail.target.querySelector?.("[data-hs-summary]");
    const spoken = document.getElementById("hs-spoken");
    if (summary && spoken && spoken.textContent !== summary.dataset.hsSummary) {
      spoken.textContent = summary.dataset.hsSummary;
    }
  });

  // What no person has asked for keeps no session alive.
  document.body.addEventListener("htmx:configRequest", (event) => {
    if (!event.detail.triggeringEvent) event.detail.headers["X-HotSwap-Background"] = "1";
  });

  // What is scrolled inside of the part that is replaced stays where it is.
  let scrolled = [];
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const places = event.detail.target.querySelectorAll?.("[id][tabindex]") ?? [];
    scrolled = [...places].map((place) => [place.id, place.scrollTop, place.scrollLeft]);
  });
  document.body.addEventListener("htmx:afterSwap", () => {
    for (const [id, top, left] of scrolled) {
      document.getElementById(id)?.scrollTo({ top, left, behavior: "instant" });
    }
    scrolled = [];
  });

  // A login that has ended answers with the login page: show it as a page.
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.responseURL.includes("/login/")) {
      event.detail.shouldSwap = false;
      window.location.reload();
    }
  });

  // The bell closes when one looks elsewhere.
  const bell = document.getElementById("hs-bell");
  document.addEventListener("click", (event) => {
    if (bell?.open && !bell.contains(event.target)) bell.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && bell?.open) {
      bell.open = false;
      bell.querySelector("summary").focus();
    }
  });

  const failed = (event) => {
    if (event.detail.target === dialog || event.detail.elt.closest("#hs-dialog, [data-hs-upload], .hs-buttons")) {
      const status = event.detail.xhr?.status;
      window.alert(status ? `The server answered ${status}. Reload the page and try again.` : "The server does not answer. Try again.");
    }
  };
  document.body.addEventListener("htmx:responseError", failed);
  document.body.addEventListener("htmx:sendError", failed);

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-hs-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.hsCopy);
    const icon = button.querySelector("span");
    icon.textContent = "check";
    setTimeout(() => { icon.textContent = "content_copy"; }, 1500);
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-hs-print]")) window.print();
  });

  // What looks like a button is pressed by the space bar, too.
  document.addEventListener("keydown", (event) => {
    if (event.key === " " && event.target.matches("a[role=button]")) {
      event.preventDefault();
      event.target.click();
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && !dialog.open && !event.target.closest("input, textarea, select, [contenteditable]")) {
      dialog.replaceChildren(shortcuts());
      dialog.showModal();
    }
  });

  setUpList();

  // Unfold moves the focus into its search after 20 ms, on a busy machine too early: what
  // is not shown yet takes none.
  const command = document.getElementById("search-input-command");
  if (command) {
    let wasShown = false;
    new ResizeObserver(() => {
      const isShown = command.offsetWidth > 0;
      if (isShown && !wasShown) command.focus();
      wasShown = isShown;
    }).observe(command);
  }

  const upload = document.querySelector("[data-hs-upload]");
  if (upload) {
    const file = upload.querySelector("input[type=file]");
    const bar = upload.querySelector("progress");
    file.addEventListener("change", () => {
      const limit = Number(file.dataset.maxBytes);
      const isTooLarge = file.files[0] && file.files[0].size > limit;
      file.setCustomValidity(isTooLarge ? "An image may have 100 MiB at most." : "");
      file.reportValidity();
    });
    upload.addEventListener("htmx:beforeRequest", () => { bar.hidden = false; bar.value = 0; });
    upload.addEventListener("htmx:xhr:progress", (event) => {
      if (event.detail.total) bar.value = (100 * event.detail.loaded) / event.detail.total;
    });
    upload.addEventListener("htmx:afterRequest", () => { bar.hidden = true; });
  }

  const place = document.querySelector("[data-hs-history]");
  if (place) {
    const history = JSON.parse(place.dataset.hsHistory);
    for (const canvas of place.querySelectorAll("[data-hs-measures]")) {
      drawHistory(canvas, history, measuresOf(canvas), canvas.dataset.hsUnit);
    }
    const other = document.querySelector("[data-hs-metric]");
    if (other) {
      const name = other.dataset.hsMetric;
      drawHistory(other, history, [[name, (point) => Object.hasOwn(point.applicationMetrics, name) ? point.applicationMetrics[name] : null, 1, "#8b5cf6", []]], "");
    }
  }
});

const SHORTCUTS = [["Ctrl K", "Search everything, and what can be done"], ["/", "Search this list"], ["Esc", "Close a dialog"], ["Tab", "Go on to the next field or link"], ["Space, Enter", "Press a button"], ["?", "Show this list"]];

function shortcuts() {
  const body = document.createElement("section");
  const heading = document.createElement("h2");
  heading.textContent = "Keyboard shortcuts";
  const list = document.createElement("dl");
  list.className = "hs-shortcuts";
  for (const [keys, what] of SHORTCUTS) {
    const key = document.createElement("kbd");
    key.textContent = keys;
    const term = document.createElement("dt");
    term.append(key);
    const meaning = document.createElement("dd");
    meaning.textContent = what;
    list.append(term, meaning);
  }
  const close = document.createElement("button");
  close.type = "button";
  close.className = "hs-button";
  close.dataset.hsClose = "";
  close.textContent = "Close";
  const actions = document.createElement("div");
  actions.className = "hs-actions";
  actions.append(close);
  body.append(heading, list, actions);
  return body;
}

// A list: filters that apply when they are chosen, the key of the search, a selection.
function setUpList() {
  const form = document.querySelector("[data-hs-filters]");
  if (form) {
    form.addEventListener("change", (event) => {
      if (event.target.matches("select, input[type=date]")) form.requestSubmit();
    });
    // Fields that say nothing stay out of the address.
    form.addEventListener("submit", () => {
      for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
    });
    window.addEventListener("pageshow", () => {
      for (const field of form.elements) field.disabled = false;
    });
    const fold = form.querySelector("[data-hs-fold]");
    if (fold && window.matchMedia("(max-width: 760px)").matches) fold.open = false;
    const search = form.querySelector("#searchbar");
    document.addEventListener("keydown", (event) => {
      if (search && event.key === "/" && !event.target.closest("input, textarea, select, [contenteditable]")) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    });
  }
  const selection = document.getElementById("hs-selection");
  if (!selection) return;
  const boxes = [...document.querySelectorAll("input[form=hs-selection]")];
  const all = document.querySelector("[data-hs-select-all]");
  const show = () => {
    const number = boxes.filter((box) => box.checked).length;
    selection.hidden = number === 0;
    selection.querySelector("[data-hs-selected]").textContent = `${number} selected`;
    all.checked = number === boxes.length;
    all.indeterminate = number > 0 && number < boxes.length;
  };
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
    show();
  });
  for (const box of boxes) box.addEventListener("change", show);
  // The browser may have kept them from before.
  window.addEventListener("pageshow", show);
}

// Colour and dash of the lines, one after the other.
const LINES = [["#3b82f6", []], ["#22a559", [6, 3]], ["#dc2626", [2, 2]], ["#d97706", [8, 2, 2, 2]], ["#0891b2", [1, 3]]];

// Label, where a point has it, its factor to the unit, colour and dash of each line.
function measuresOf(canvas) {
  return JSON.parse(canvas.dataset.hsMeasures).map(([label, field, scale], number) => [
    label, (point) => point[field], scale, ...LINES[number % LINES.length],
  ]);
}

// The health of a device: one line a measure, broken where it was silent, and an
// upright line where it began to run another version. What is not percent has an axis
// of its own reach; a unit that is not known is empty.
function drawHistory(canvas, history, measures, unit) {
  const isPercent = unit === "%";
  const since = Date.parse(history.from);
  const until = Date.parse(history.to);
  // The middle of a gap lies between the points on its two sides.
  const breaks = history.gaps.map((gap) => (Date.parse(gap.from) + Date.parse(gap.to)) / 2);
  const half = history.bucketSeconds * 500;
  const line = (measure, scale) => {
    const found = [];
    let last = 0;
    for (const point of history.points) {
      const at = Math.min(Date.parse(point.at) + half, until);
      const gap = breaks.find((middle) => middle > last && middle < at);
      if (gap) found.push({ x: gap, y: null });
      const measured = measure(point);
      found.push({ x: at, y: measured && measured.mean * scale, max: measured && measured.max * scale });
      last = at;
    }
    return found;
  };
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const isShort = until - since <= 26 * 3600 * 1000;
  const clock = (value, long) => {
    const text = new Date(value).toISOString();
    return long ? `${text.slice(0, 10)} ${text.slice(11, 19)} UTC` : isShort ? text.slice(11, 16) : text.slice(5, 10);
  };
  const said = (value) => (isPercent ? `${value.toFixed(1)} %` : `${Number(value.toPrecision(6))} ${unit}`.trim());
  const dataset = ([label, measure, scale, shade, dash]) => ({
    label, data: line(measure, scale), borderColor: shade, backgroundColor: shade, borderDash: dash,
    borderWidth: 2, pointRadius: 1, pointHoverRadius: 4, spanGaps: false, tension: 0,
  });
  const updates = {
    id: "hsUpdates",
    afterDatasetsDraw(chart) {
      const { ctx, chartArea, scales } = chart;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = chart.options.color;
      ctx.font = "11px sans-serif";
      ctx.setLineDash([4, 4]);
      // Names that would overprint each other stand below each other.
      const ends = [];
      for (const update of history.updates) {
        const x = scales.x.getPixelForValue(Date.parse(update.at));
        ctx.beginPath();
        ctx.moveTo(x, chartArea.top);
        ctx.lineTo(x, chartArea.bottom);
        ctx.stroke();
        const width = ctx.measureText(update.firmwareVersion).width + 8;
        const isAtTheEnd = x > chartArea.right - width;
        const begin = isAtTheEnd ? x - width : x;
        let row = ends.findIndex((end) => end <= begin);
        if (row < 0) row = ends.length;
        ends[row] = begin + width;
        ctx.textAlign = isAtTheEnd ? "right" : "left";
        ctx.fillText(update.firmwareVersion, x + (isAtTheEnd ? -4 : 4), chartArea.top + 10 + 12 * row);
      }
      ctx.restore();
    },
  };
  const chart = new window.Chart(canvas, {
    type: "line",
    data: {
      datasets: measures.map(dataset),
    },
    options: {
      animation: false, maintainAspectRatio: false, responsive: true, parsing: false, normalized: true,
      interaction: { mode: "nearest", axis: "x", intersect: false },
      scales: {
        x: { type: "linear", min: since, max: until, ticks: { callback: (value) => clock(value), maxRotation: 0, autoSkip: true, maxTicksLimit: 9, display: true }, grid: { display: false }, border: { display: true } },
        y: { display: true, ...(isPercent ? { min: 0, suggestedMax: 10 } : { grace: "5%" }), ticks: { callback: (value) => (isPercent ? `${value} %` : said(value)), display: true }, grid: { display: true } },
      },
      plugins: {
        legend: { display: true, position: "bottom", align: "start", labels: { usePointStyle: true, pointStyle: "line" } },
        tooltip: {
          enabled: true,
          callbacks: {
            title: (items) => (items.length ? clock(items[0].raw.x, true) : ""),
            label: (item) => `${item.dataset.label}: mean ${said(item.raw.y)}, highest ${said(item.raw.max)}`,
          },
        },
      },
    },
    plugins: [updates],
  });
  const paint = () => {
    chart.options.color = colour("--hs-text") || "#888";
    for (const axis of [chart.options.scales.x, chart.options.scales.y]) {
      axis.ticks.color = chart.options.color;
      axis.grid.color = colour("--hs-line");
    }
    chart.options.plugins.legend.labels.color = chart.options.color;
    chart.update("none");
  };
  // The theme may be changed while the page is open.
  new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["class"] });
  paint();
}
