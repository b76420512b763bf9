// The dashboard's script: theme, times, polling, keys, dialogs. It knows pages by attributes only.
"use strict";
(() => {
  const root = document.documentElement;
  const $ = (selector) => document.querySelector(selector);
  const STALE_MS = 15_000;

  const remember = (name, value) => {
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `${name}=${value}; path=${root.dataset.prefix}; max-age=31536000; samesite=lax${secure}`;
  };

  // -- theme

  const THEMES = { "": "Auto", light: "Light", dark: "Dark" };
  const themeButton = $("#theme");
  const showTheme = () => {
    const words = THEMES[root.dataset.theme || ""];
    themeButton.setAttribute("aria-label", `Theme: ${words}`);
    themeButton.querySelector("[data-theme-words]").textContent = words;
  };
  themeButton.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(root.dataset.theme || "") + 1) % names.length];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    remember("videoqa_theme", next);
    showTheme();
  });
  showTheme();

  // -- times: the server writes UTC; ages are counted on its clock, which is that of Redis

  let offsetMs = Number(root.dataset.now) - Date.now();
  const now = () => Date.now() + offsetMs;
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local";
  const inUtc = () => root.dataset.times === "utc";

  const formatAge = (seconds) => {
    const s = Math.max(0, Math.floor(seconds));
    const join = (a, unit, b, smaller) => `${a}\u00a0${unit}` + (b ? `\u00a0${b}\u00a0${smaller}` : "");
    if (s < 60) return join(s, "s");
    if (s < 3600) return join(Math.floor(s / 60), "min");
    if (s < 86400) return join(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
    return join(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
  };
  const pad = (n) => String(n).padStart(2, "0");
  const formatIn = (at, utc) => {
    const get = (name) => (utc ? at[`getUTC${name}`]() : at[`get${name}`]());
    const day = `${get("FullYear")}-${pad(get("Month") + 1)}-${pad(get("Date"))}`;
    return `${day} ${pad(get("Hours"))}:${pad(get("Minutes"))}:${pad(get("Seconds"))}`;
  };
  const writeTime = (element) => {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) return;
    const set = (words) => {
      if (element.textContent !== words) element.textContent = words;
    };
    const local = `${formatIn(at, false)} ${zone}`;
    const utc = `${formatIn(at, true)} UTC`;
    if ("age" in element.dataset) {
      set(formatAge((now() - at.getTime()) / 1000));
      element.title = inUtc() ? utc : `${local}\n${utc}`;
    } else {
      const words = formatIn(at, inUtc());
      const isToday = words.slice(0, 10) === formatIn(new Date(now()), inUtc()).slice(0, 10);
      set(isToday ? words.slice(11) : words.slice(0, 16));
      element.title = inUtc() ? local : `${local}\n${utc}`;
    }
  };
  const writeTimes = (within) => within.querySelectorAll("time[datetime]").forEach(writeTime);

  const zoneButton = $("#times");
  const showZone = () => {
    const words = inUtc() ? "UTC" : zone;
    zoneButton.setAttribute("aria-label", `Times in ${words}; switch to ${inUtc() ? zone : "UTC"}`);
    zoneButton.title = `Times in ${words}`;
    zoneButton.querySelector("[data-zone-words]").textContent = inUtc() ? "UTC" : zone.split("/").pop().replaceAll("_", " ");
  };
  zoneButton.addEventListener("click", () => {
    root.dataset.times = inUtc() ? "local" : "utc";
    remember("videoqa_times", root.dataset.times);
    showZone();
    writeTimes(document);
  });
  showZone();
  writeTimes(document);

  // -- polling: each region with data-live asks for itself; hidden tabs and paused ones do not

  const sign = $("#sign");
  const trouble = $("#trouble");
  const regions = new Map();
  let isPaused = false;

  const findRegions = () => {
    for (const element of document.querySelectorAll("[data-live]")) {
      if (!regions.has(element)) regions.set(element, { triedMs: Date.now(), rightMs: Date.now(), tag: null, isAsking: false });
    }
    for (const element of regions.keys()) if (!element.isConnected) regions.delete(element);
  };
  const ageMs = () => Math.max(0, ...[...regions.values()].map((each) => Date.now() - each.rightMs));
  const showSign = () => {
    sign.hidden = regions.size === 0;
    const isStale = ageMs() > STALE_MS || !trouble.hidden;
    const state = isPaused ? "paused" : isStale ? "stale" : "live";
    const words = state === "live" ? "live" : `${state} ${formatAge(ageMs() / 1000)}`;
    if (sign.dataset.sign !== state) sign.dataset.sign = state;
    const place = sign.querySelector("[data-sign-words]");
    if (place.textContent !== words) place.textContent = words;
    sign.setAttribute("aria-pressed", String(isPaused));
  };
  const tellTrouble = (words, href) => {
    const text = document.createElement("p");
    text.textContent = words;
    const parts = [text];
    if (href) {
      const link = document.createElement("a");
      link.href = href;
      link.textContent = "Log in again";
      text.append(" ", link);
    }
    if (trouble.textContent !== text.textContent) trouble.replaceChildren(...parts);
    trouble.hidden = false;
  };
  const poll = (isDue) => {
    if (document.hidden || isPaused) return;
    for (const [element, state] of regions) {
      if (!state.isAsking && isDue(element, state)) {
        state.triedMs = Date.now();
        window.htmx.trigger(element, "poll");
      }
    }
  };
  const pollNow = () => poll(() => true);
  const pause = () => {
    isPaused = !isPaused;
    showSign();
    if (!isPaused) pollNow();
  };
  sign.addEventListener("click", pause);
  document.addEventListener("visibilitychange", pollNow);
  setInterval(() => {
    if (document.hidden) return;
    findRegions();
    poll((element, state) => Date.now() - state.triedMs >= Number(element.dataset.live) * 1000);
    document.querySelectorAll("time[data-age]").forEach(writeTime);
    showSign();
  }, 1000);

  document.addEventListener("htmx:configRequest", (event) => {
    const state = regions.get(event.detail.elt);
    if (state && state.tag) event.detail.headers["If-None-Match"] = state.tag;
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    const state = regions.get(event.detail.elt);
    if (state) state.isAsking = true;
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { elt, xhr } = event.detail;
    const state = regions.get(elt);
    const form = elt.closest("form");
    if (form) delete form.dataset.sent;
    if (!state) return;
    state.isAsking = false;
    const serverMs = Number(xhr.getResponseHeader("videoqa-now"));
    if (serverMs) offsetMs = serverMs - Date.now();
    if (xhr.status === 200 || xhr.status === 304) {
      state.rightMs = Date.now();
      if (xhr.status === 200) state.tag = xhr.getResponseHeader("etag");
      trouble.hidden = true;
    } else if (xhr.status === 401) {
      const here = location.pathname + location.search;
      const prefix = root.dataset.prefix.replace(/\/$/, "");
      tellTrouble("Your session has ended.", `${prefix}/login?next=${encodeURIComponent(here.slice(prefix.length))}`);
    } else if (xhr.status === 503) tellTrouble("Redis does not answer: what you see is older, and the page asks again.");
    else if (xhr.status) tellTrouble(`The gateway answered ${xhr.status}: what you see is older, and the page asks again.`);
    else tellTrouble("The gateway does not answer: what you see is older, and the page asks again.");
    showSign();
  });

  // -- swaps leave alone what the reader does

  const isTyped = (node) => node.matches("input, textarea, select, option");
  Object.assign(window.Idiomorph.defaults.callbacks, {
    beforeAttributeUpdated: (name, node) =>
      !((name === "open" && node.matches("dialog, details")) || (isTyped(node) && ["value", "checked", "selected"].includes(name))),
    beforeNodeMorphed: (node, fresh) => {
      if (node.nodeType !== Node.ELEMENT_NODE) return true;
      if (node.matches("[data-keep]") || (node.matches("textarea") && document.activeElement === node)) return false;
      if (fresh.matches && fresh.matches("time[datetime]")) writeTime(fresh);
      return true;
    },
    beforeNodeRemoved: (node) =>
      !(node.nodeType === Node.ELEMENT_NODE && (node.matches("dialog[open]") || node.querySelector("dialog[open]"))),
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    writeTimes(event.detail.target.isConnected ? event.detail.target : document);
    findRegions();
  });
  findRegions();
  showSign();

  // -- forms: sent once, and the page stays where it was

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "1";
    sessionStorage.setItem("scroll", JSON.stringify([location.pathname, scrollY]));
  });
  window.addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));
  const [scrolledPath, scrolledTo] = JSON.parse(sessionStorage.getItem("scroll") || "[]");
  sessionStorage.removeItem("scroll");
  if (scrolledPath === location.pathname) scrollTo(0, scrolledTo);

  // -- dialogs and copying

  const openDialog = (id) => {
    const dialog = document.getElementById(id);
    if (dialog && !dialog.open) dialog.showModal();
  };
  document.addEventListener("click", async (event) => {
    const opener = event.target.closest("[data-dialog]");
    const closer = event.target.closest("[data-close]");
    const copier = event.target.closest("[data-copy]");
    if (opener) {
      event.preventDefault();
      openDialog(opener.dataset.dialog);
    } else if (closer) {
      event.preventDefault();
      closer.closest("dialog").close();
      if (location.hash) history.replaceState(null, "", location.pathname + location.search);
    } else if (event.target.matches("dialog[open]") && event.target === event.target.closest("dialog")) {
      const box = event.target.getBoundingClientRect();
      const isOutside = event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
      if (isOutside && event.detail) event.target.close();
    } else if (copier) {
      const source = copier.dataset.copy.startsWith("#") ? $(copier.dataset.copy).textContent : copier.dataset.copy;
      await writeClipboard(source);
      const words = copier.getAttribute("aria-label");
      copier.setAttribute("aria-label", "Copied");
      copier.dataset.copied = "";
      setTimeout(() => {
        copier.setAttribute("aria-label", words);
        delete copier.dataset.copied;
      }, 1500);
    }
  });
  const writeClipboard = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const field = document.createElement("textarea"); // over plain HTTP there is no other way
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    return undefined;
  };

  // -- pages: on a phone the present one may be out of sight

  const present = $(".side nav [aria-current]");
  const strip = $(".side nav");
  if (present) strip.scrollLeft = present.offsetLeft + present.offsetWidth / 2 - strip.clientWidth / 2;

  // -- keys

  const findRows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);
  const moveRow = (step) => {
    const rows = findRows();
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const next = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step))];
    const target = next.querySelector("a[href]") || next;
    if (target === next && !next.hasAttribute("tabindex")) next.tabIndex = -1;
    target.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };
  const KEYS = {
    j: () => moveRow(1),
    k: () => moveRow(-1),
    p: pause,
    "?": () => openDialog("help"),
    "/": () => {
      const field = $("[data-search]");
      if (field) {
        field.focus();
        field.select();
      }
    },
  };
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable], dialog[open]");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  for (const button of document.querySelectorAll(".tools .tool[hidden]")) button.hidden = false;
})();
