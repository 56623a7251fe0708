// The dialog of the verbs, copying, and the progress of uploads.
"use strict";

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
});
