// The pages of jobs: larger frames, the player, answers as they are generated, and the selection of rows.
"use strict";
(() => {
  const find = (selector, within = document) => within.querySelector(selector);
  const findAll = (selector) => [...document.querySelectorAll(selector)];

  // -- the player: an instant is played from where it stands

  const play = (seconds) => {
    const video = find("#player video");
    if (!video) return;
    video.currentTime = Number(seconds) + Number(video.dataset.offset);
    video.play().catch(() => {});
    video.scrollIntoView({ block: "nearest" });
  };
  const showNow = (video) => {
    const now = video.currentTime - Number(video.dataset.offset);
    for (const row of findAll(".segments > li")) {
      const start = Number(row.querySelector("[data-at]")?.dataset.at ?? -1);
      const next = row.nextElementSibling?.querySelector("[data-at]");
      const isNow = start >= 0 && now >= start && (!next || now < Number(next.dataset.at));
      row.classList.toggle("is-now", isNow);
    }
  };
  document.addEventListener("timeupdate", (event) => showNow(event.target), true);
  document.addEventListener("error", (event) => {
    const player = event.target.closest?.("#player");
    if (player) find(".player-note", player).hidden = false;
  }, true);

  // -- frames: larger in a dialog, with arrows

  let frameAt = 0;
  const listFrames = () => findAll("main a[data-frame]");
  const showFrame = (index) => {
    const links = listFrames();
    if (!links.length) return;
    frameAt = (index + links.length) % links.length;
    const link = links[frameAt];
    find("#frame-title").textContent = link.dataset.frame;
    find("[data-frame-place]").replaceChildren(link.querySelector("svg").cloneNode(true));
    const button = find("[data-frame-play]");
    button.hidden = !("at" in link.dataset);
    button.dataset.at = link.dataset.at ?? "";
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-frame]");
    const step = event.target.closest("[data-frame-step]");
    const player = event.target.closest("[data-at]");
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (link) {
      event.preventDefault();
      showFrame(listFrames().indexOf(link));
      find("#frame").showModal();
    } else if (step) showFrame(frameAt + Number(step.dataset.frameStep));
    else if (player) {
      player.closest("dialog")?.close();
      play(player.dataset.at);
    }
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && find("#frame[open]")) {
      event.preventDefault();
      showFrame(frameAt + step);
    }
  });

  // -- answers as they are generated: one stream, and none while the tab is hidden or the job has ended

  let source = null;
  const close = () => {
    source?.close();
    source = null;
  };
  const show = (place, event) => {
    const key = `${event.question_id ?? ""} ${event.start ?? ""}`;
    let text = [...place.children].find((each) => each.dataset.part === key);
    find("[data-stream-empty]", place)?.remove();
    if (!text) {
      text = document.createElement("div");
      text.className = "text";
      text.dir = "auto";
      text.dataset.part = key;
      place.append(text);
    }
    text.append(event.text ?? "");
  };
  const follow = () => {
    const region = find("[data-events]");
    const place = find("[data-stream]");
    if (!place) close();
    if (source || document.hidden || !region || !place) return;
    source = new EventSource(region.dataset.events);
    let attempt = 0;
    source.onopen = () => {
      if (!attempt) findAll("[data-stream] [data-part]").forEach((each) => each.remove());
    };
    const take = (message) => {
      const event = JSON.parse(message.data);
      if (event.attempt > attempt) {
        if (attempt) findAll("[data-stream] [data-part]").forEach((each) => each.remove());
        attempt = event.attempt; // a later attempt begins again
      }
      if (event.type === "retry" || event.type === "state") find("[data-progress]").textContent = "";
      if (event.type === "text") show(place, event);
      if (event.type === "progress" || event.type === "stage") {
        const count = event.total ? ` ${event.done} of ${event.total}` : "";
        find("[data-progress]").textContent = event.total ? `${event.stage}${count}` : "";
      }
      if (event.type === "state" || event.type === "retry" || event.type === "stage") window.htmx.trigger(region, "poll");
    };
    for (const kind of ["state", "stage", "progress", "retry", "text"]) source.addEventListener(kind, take);
    source.onerror = () => {
      if (source?.readyState === EventSource.CLOSED) close();
    };
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : follow()));
  document.addEventListener("htmx:afterSwap", () => {
    const region = find("[data-events]");
    if (region && find("[data-final]", region)) {
      close();
      delete region.dataset.live; // it has ended: nothing changes any more by itself
    } else follow();
    showSelection();
  });
  window.addEventListener("pagehide", close);
  if (find("[data-events] [data-final]")) delete find("[data-events]").dataset.live;
  else follow();

  // -- the selection of rows stays while rows are updated

  const selected = new Set();
  const showSelection = () => {
    const bar = find("[data-selection]");
    if (!bar) return;
    for (const box of findAll("input[data-pick]")) box.checked = selected.has(box.value);
    find("[data-selected]", bar).textContent = String(selected.size);
    bar.hidden = selected.size === 0;
    find("[data-selected-ids]", bar).value = [...selected].join(" ");
    const all = find("[data-pick-all]");
    const boxes = findAll("input[data-pick]");
    if (!all) return; // no job matches
    all.checked = boxes.length > 0 && boxes.every((box) => box.checked);
    all.indeterminate = !all.checked && boxes.some((box) => box.checked);
  };
  let lastPicked = null;
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("input[data-pick]")) {
      if (box.checked) selected.add(box.value);
      else selected.delete(box.value);
    } else if (box.matches("[data-pick-all]")) {
      for (const each of findAll("input[data-pick]")) {
        if (box.checked) selected.add(each.value);
        else selected.delete(each.value);
      }
    } else return;
    showSelection();
  });
  document.addEventListener("click", (event) => {
    const box = event.target.closest("input[data-pick]");
    if (box && event.shiftKey && lastPicked) {
      const boxes = findAll("input[data-pick]");
      const [from, to] = [boxes.indexOf(lastPicked), boxes.indexOf(box)].sort((a, b) => a - b);
      for (const each of boxes.slice(Math.max(0, from), to + 1)) {
        if (box.checked) selected.add(each.value);
        else selected.delete(each.value);
      }
      showSelection();
    }
    if (box) lastPicked = box;
    if (event.target.closest("[data-unselect]")) {
      selected.clear();
      showSelection();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "x" || event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]")) return;
    const box = document.activeElement?.closest("[data-row]")?.querySelector("input[data-pick]");
    box?.click();
  });
  for (const box of findAll("input[data-pick]:checked")) selected.add(box.value);
  showSelection();
})();
