/* The page Ask: frames on each change, uploads, the streamed answer. Without this script the form is sent as it is. */
(() => {
  "use strict";

  const page = document.querySelector("[data-ask]");
  if (!page) return;
  const $ = (selector, within = page) => within.querySelector(selector);
  const $$ = (selector, within = page) => [...within.querySelectorAll(selector)];
  const form = $("#ask-form");
  const links = page.dataset;
  const REASONS = JSON.parse(links.reasons);
  const FINAL = ["succeeded", "failed", "canceled", "expired"];
  const MOST_COUNTED_S = 120;
  const SVG = "http://www.w3.org/2000/svg";

  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const count = (number, words) => `${number.toLocaleString("en")} ${words}${number === 1 ? "" : "s"}`;
  const size = (bytes) => {
    const units = ["B", "kB", "MB", "GB"];
    let n = bytes;
    let unit = 0;
    while (n >= 999.5 && unit < 3) [n, unit] = [n / 1000, unit + 1];
    return `${unit && n < 9.95 ? n.toFixed(1) : Math.round(n).toLocaleString("en")}\u00a0${units[unit]}`;
  };
  const clock = (seconds) => {
    const whole = Math.floor(seconds + 0.005);
    const rest = `${String(whole % 60).padStart(2, "0")}.${String(Math.floor((seconds + 0.005 - whole) * 100)).padStart(2, "0")}`;
    const minutes = Math.floor(whole / 60);
    return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
  };

  // -- what is said of errors

  const trouble = $("#ask-trouble");
  const tell = (words, href, linkWords) => {
    const line = $("p", trouble);
    line.textContent = words;
    if (href) line.append(" ", make("a", { href }, linkWords));
    trouble.hidden = !words;
    if (words) trouble.scrollIntoView({ block: "nearest" });
  };
  const tellLogin = () => {
    const prefix = document.documentElement.dataset.prefix.replace(/\/$/, "");
    tell("Your session has ended; what you typed stays here.", `${prefix}/login?next=/ask`, "Log in in another tab");
    $("a", trouble).target = "_blank";
  };
  const readProblem = async (response) => {
    try {
      const body = await response.json();
      return body.detail || body.message || `The gateway answered ${response.status}.`;
    } catch {
      return `The gateway answered ${response.status}.`;
    }
  };

  const fieldOf = (param) => $(`[data-param="${CSS.escape(param)}"]`) || $(`#${CSS.escape(placeOf(param)?.id.replace(/-mistake$/, "") || "none")}`);
  const placeOf = (param) => {
    for (let name = param; name; name = name.includes(".") ? name.slice(0, name.lastIndexOf(".")) : "") {
      const found = $$("[data-mistake]").find((each) => each.dataset.mistake === name);
      if (found) return found;
    }
    return null;
  };
  let wasSent = false;
  /* Shows mistakes beside their fields; those of fields into which nothing was typed wait until the form was sent. */
  const showMistakes = (mistakes, isSent) => {
    if (isSent) wasSent = mistakes.length > 0;
    const shown = new Set();
    const others = [];
    let first = null;
    for (const place of $$("[data-mistake]")) place.hidden = true;
    for (const field of $$("[aria-invalid]")) field.removeAttribute("aria-invalid");
    for (const { param, message } of mistakes) {
      const place = param && placeOf(param);
      const field = param && fieldOf(param);
      if (!wasSent && !(field && field.value)) continue;
      if (!place) others.push(param ? `${param}: ${message}` : message);
      else if (!shown.has(place)) {
        shown.add(place);
        place.textContent = message;
        place.hidden = false;
        if (field) field.setAttribute("aria-invalid", "true");
        const details = place.closest("details");
        if (details) details.open = true;
        first = first || field || place;
      }
    }
    if (others.length) tell(others.join(" "));
    else if (isSent && mistakes.length) tell(mistakes.length === 1 ? "Not asked yet: see the marked field." : "Not asked yet: see the marked fields.");
    else tell("");
    if (isSent && first && first.focus) first.focus();
  };

  // -- rows of inputs and questions

  const lists = { input: $("[data-inputs]"), question: $("[data-questions]") };
  const NUMBERED = ["id", "for", "aria-describedby", "data-param", "data-mistake"];
  const renumber = (list) => {
    const rows = [...list.children];
    rows.forEach((row, n) => {
      for (const element of $$("*", row)) {
        for (const name of NUMBERED) {
          const value = element.getAttribute(name);
          if (value !== null) element.setAttribute(name, value.replace(/\d+/g, n));
        }
      }
      const label = $("label", row);
      if (list === lists.question) label.textContent = rows.length > 1 ? `Question ${n + 1}` : "Question";
      else label.textContent = rows.length > 1 ? `Address or file id ${n + 1}` : "Address or file id";
      $("[data-remove]", row).hidden = rows.length < 2;
    });
  };
  const addRow = (kind) => {
    const row = $(`#ask-${kind}-row`).content.firstElementChild.cloneNode(true);
    lists[kind].append(row);
    renumber(lists[kind]);
    return row;
  };
  const setInput = (url, name) => {
    const empty = [...lists.input.children].find((row) => !$("[name=url]", row).value);
    const row = empty || addRow("input");
    $("[name=url]", row).value = url;
    $("input[name=name]", row).value = name;
    $("[data-name]", row).textContent = name;
    lookSoon(0);
  };
  page.addEventListener("click", (event) => {
    const adder = event.target.closest("[data-add]");
    const remover = event.target.closest("[data-remove]");
    const sample = event.target.closest("[data-sample]");
    if (adder) $("input, textarea", addRow(adder.dataset.add)).focus();
    else if (remover) {
      const row = remover.closest("li");
      const list = row.parentElement;
      row.remove();
      renumber(list);
      $("input, textarea", list.lastElementChild).focus();
      lookSoon(0);
    } else if (sample) {
      event.preventDefault();
      setInput(sample.dataset.sample, sample.dataset.sampleName);
      const question = $("[name=question]");
      if (!question.value) question.value = sample.dataset.sampleQuestion;
      send.focus();
    }
  });
  for (const button of $$("[data-add], [data-drop-words]")) button.hidden = false;
  for (const button of $$("[data-plain]")) button.hidden = true;
  Object.values(lists).forEach(renumber);

  // -- uploads, one request each

  const drop = $("[data-drop]");
  const most = Number(links.mostBytes);
  const upload = (file) => {
    const bar = make("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
    const words = make("span", {}, file.name);
    const stop = make("button", { type: "button", class: "button" }, "Cancel");
    const line = make("div", { class: "ask-upload" }, words, stop, bar);
    const fail = (message) => {
      bar.remove();
      stop.textContent = "Close";
      line.append(make("p", { class: "mistake", role: "alert" }, message));
    };
    const call = new XMLHttpRequest();
    stop.addEventListener("click", () => {
      call.abort();
      line.remove();
    });
    $("[data-uploads]").append(line);
    if (file.size > most) return fail(`It has ${size(file.size)}, and at most ${size(most)} are taken.`);
    call.upload.addEventListener("progress", (event) => {
      bar.value = event.loaded / Math.max(1, event.total);
      words.textContent = `${file.name}, ${size(event.loaded)} of ${size(event.total)}`;
    });
    call.addEventListener("error", () => fail("The gateway does not answer; try again."));
    call.addEventListener("load", () => {
      let body = {};
      try {
        body = JSON.parse(call.responseText);
      } catch {
        /* no JSON: told below */
      }
      if (call.status === 401) tellLogin();
      if (call.status !== 200) return fail(body.detail || body.error?.message || `The gateway answered ${call.status}.`);
      line.remove();
      setInput(body.id, `${file.name}, ${size(body.bytes)}`);
      return undefined;
    });
    call.open("POST", `${links.files}?purpose=user_data&filename=${encodeURIComponent(file.name)}`);
    call.setRequestHeader("Content-Type", /^(video|image)\//.test(file.type) ? file.type : "application/octet-stream");
    call.send(file);
    return undefined;
  };
  if (drop) {
    const chooser = $("#ask-file");
    chooser.multiple = true;
    chooser.required = false;
    const uploadAll = (files) => [...files].forEach(upload);
    chooser.addEventListener("change", () => {
      uploadAll(chooser.files);
      chooser.value = "";
    });
    const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      drop.dataset.over = "";
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) delete drop.dataset.over;
    });
    document.addEventListener("drop", (event) => {
      delete drop.dataset.over;
      if (!hasFiles(event)) return;
      event.preventDefault();
      uploadAll(event.dataTransfer.files);
    });
  }

  // -- frames

  const frames = $("#ask-frames-body");
  const framesHead = $("#ask-frames-head");
  const framesState = $("#ask-frames-state");
  const cost = $("#ask-cost");
  const hint = frames.firstElementChild.cloneNode(true);
  let picture = null;

  const makeTile = (src, sheet, n, frame) => {
    const width = sheet.tile_width;
    const height = sheet.tile_height;
    const svg = document.createElementNS(SVG, "svg");
    const [left, top] = [(n % sheet.columns) * width, Math.floor(n / sheet.columns) * height];
    svg.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `Frame at ${clock(frame.pts_s)}${frame.exact ? "" : ", not exact"}`);
    const image = document.createElementNS(SVG, "image");
    image.setAttribute("href", src);
    image.setAttribute("width", sheet.columns * width);
    image.setAttribute("height", Math.ceil(sheet.frames.length / sheet.columns) * height);
    svg.append(image);
    const caption = make("figcaption", {}, make("span", {}, clock(frame.pts_s)));
    if (!frame.exact) {
      const mark = make("b", {}, "not exact");
      if (frame.asked_s !== null && frame.asked_s !== undefined) mark.title = `asked for ${clock(frame.asked_s)}`;
      caption.append(mark);
    }
    return make("figure", { class: "ask-tile" }, svg, caption);
  };
  const nameOf = (n) => {
    const row = lists.input.children[n];
    if (!row) return `Input ${n + 1}`;
    const name = $("input[name=name]", row).value;
    return name || $("[name=url]", row).value.split(/[?#]/)[0].split("/").pop() || `Input ${n + 1}`;
  };
  const showFrames = (src, sheet, all, isImage = () => false) => {
    const groups = new Map();
    sheet.frames.forEach((number, n) => {
      const frame = all[number];
      if (!frame) return;
      if (!groups.has(frame.input)) groups.set(frame.input, make("div", { class: "ask-tiles", tabindex: "0", role: "group", "aria-label": `Frames of ${nameOf(frame.input)}` }));
      const tile = makeTile(src, sheet, n, frame);
      if (isImage(frame.input)) $("figcaption", tile).replaceChildren("picture");
      groups.get(frame.input).append(tile);
    });
    const parts = [...groups].map(([input, tiles]) =>
      make("div", { class: "ask-group" }, ...(groups.size > 1 ? [make("h3", {}, nameOf(input))] : []), tiles));
    return parts;
  };
  const keepPicture = (base64) => {
    if (picture) URL.revokeObjectURL(picture);
    const data = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    picture = URL.createObjectURL(new Blob([data], { type: "image/jpeg" }));
    return picture;
  };
  const note = (words, tone) => make("p", { class: tone || "quiet" }, words);
  const showPreview = (found) => {
    const parts = [];
    for (const [n, input] of found.inputs.entries()) {
      if (!input.error) continue;
      const place = placeOf(`inputs.${n}.url`);
      if (place) {
        place.textContent = input.error.message;
        place.hidden = false;
      }
      parts.push(note(`${nameOf(n)}: ${input.error.message}`, "mistake"));
    }
    if (found.jpeg) parts.unshift(...showFrames(keepPicture(found.jpeg), found.sheet, found.shown, (n) => found.inputs[n].kind === "image"));
    else if (!parts.length) parts.push(note(REASONS[found.reason] || "No frame can be shown."));
    if (found.complete === false) parts.push(note("The first segments; the job has more."));
    for (const { message, param } of found.warnings) {
      const [, n] = /^inputs\.(\d+)/.exec(param || "") || [];
      parts.push(note(`${n !== undefined && found.inputs.length > 1 ? nameOf(Number(n)) : "Note"}: ${message}.`));
    }
    framesHead.textContent = "Frames that the model will see";
    frames.replaceChildren(...parts);
    const left = found.shown.length < found.taken ? `${found.shown.length} of ${count(found.taken, "frame")}` : count(found.taken || 0, "frame");
    framesState.textContent = found.jpeg ? left : "";
    showCost(found);
  };
  const showCost = (found) => {
    const parts = [];
    if (found.frames !== null && found.frames !== undefined) parts.push(count(found.frames, "frame"));
    if (found.prompt_tokens) parts.push(count(found.prompt_tokens, "prompt token"));
    if (found.bytes) parts.push(`${size(found.bytes)} to fetch`);
    cost.textContent = parts.join(" · ");
  };

  // -- the form is looked at on each change; a later look ends an earlier one

  let looking = null;
  let lookTimer = 0;
  let seenFrames = "";
  let seenQuestions = "";
  const encode = () => new URLSearchParams([...new FormData(form)].filter(([, value]) => typeof value === "string"));
  const postJson = (href, body, signal) =>
    fetch(href, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

  /* Returns the request of the form, its mistakes and its programs; null if the gateway does not tell. */
  const check = async (signal) => {
    const response = await fetch(links.check, { method: "POST", body: encode(), signal });
    if (response.status === 401) tellLogin();
    return response.ok ? response.json() : null;
  };
  const look = async () => {
    if (looking) looking.abort();
    looking = new AbortController();
    const { signal } = looking;
    try {
      const found = await check(signal);
      if (!found) return; // told when the form is sent
      for (const [name, text] of Object.entries(found.codes)) $(`#code-${name}`).textContent = text;
      showMistakes(found.mistakes, false);
      const { questions, ...rest } = found.preview;
      const key = JSON.stringify(rest);
      const isWrong = found.mistakes.some(({ param }) => /^(inputs|sampling|model)/.test(param));
      if (!rest.inputs.length) clearFrames();
      else if (!isWrong && key !== seenFrames) {
        await preview(found.preview, signal);
        [seenFrames, seenQuestions] = [key, JSON.stringify(questions)];
      } else if (!isWrong && questions && JSON.stringify(questions) !== seenQuestions) {
        const told = await postJson(`${links.jobs}/validate`, found.preview, signal);
        if (told.ok) showCost(await told.json());
        seenQuestions = JSON.stringify(questions);
      }
    } catch (error) {
      if (error.name !== "AbortError") framesState.textContent = "the gateway does not answer";
    }
  };
  const preview = async (body, signal) => {
    frames.setAttribute("aria-busy", "true");
    framesState.textContent = "taking the frames …";
    try {
      for (let tries = 0; ; tries += 1) {
        const response = await postJson(links.preview, body, signal);
        if (!response.ok) {
          frames.replaceChildren(note(await readProblem(response), "mistake"));
          framesState.textContent = "";
          return;
        }
        const found = await response.json();
        // The first preview of a gateway starts the process that takes frames.
        if (["too_busy", "too_slow"].includes(found.reason) && tries < 2) await new Promise((done) => setTimeout(done, 500));
        else {
          showPreview(found);
          return;
        }
        if (signal.aborted) return;
      }
    } finally {
      if (!signal.aborted) frames.setAttribute("aria-busy", "false");
    }
  };
  const clearFrames = () => {
    seenFrames = "";
    frames.replaceChildren(hint.cloneNode(true));
    frames.setAttribute("aria-busy", "false");
    framesHead.textContent = "Frames";
    framesState.textContent = "";
    cost.textContent = "";
  };
  const lookSoon = (waitMs = 350) => {
    clearTimeout(lookTimer);
    lookTimer = setTimeout(look, waitMs);
  };
  form.addEventListener("input", (event) => {
    if (event.target.name === "url") {
      const row = event.target.closest("li");
      $("input[name=name]", row).value = "";
      $("[data-name]", row).textContent = "";
    }
    lookSoon();
  });
  form.addEventListener("change", () => lookSoon(50));

  // -- the answer

  const answerCard = $("#ask-answer");
  const answers = $("#ask-answers");
  const cancel = $("#ask-cancel");
  const send = $("#ask-send");
  const badges = $("#ask-badges").content;
  const run = { id: null, last: "", state: "", reading: null, texts: new Map() };

  const showState = (state) => {
    run.state = state;
    const badge = $(`[data-state="${state}"]`, badges);
    $("#ask-state").replaceChildren(badge ? badge.cloneNode(true) : state);
    cancel.hidden = FINAL.includes(state) || state === "canceling";
    if (FINAL.includes(state)) for (const reply of $$("[data-writing]", answers)) delete reply.dataset.writing;
  };
  const replyTo = (id, question) => {
    let reply = $$("[data-reply]", answers).find((each) => each.dataset.reply === id);
    if (!reply) {
      reply = make("div", { class: "ask-reply", "data-reply": id }, make("h3", {}, question || id), make("div", { class: "text" }));
      answers.append(reply);
    }
    return reply;
  };
  const addText = (event) => {
    const known = run.texts.get(event.question_id);
    const isNew = !known || known.attempt !== event.attempt;
    const text = { attempt: event.attempt, words: isNew ? "" : known.words };
    if (event.start !== undefined && event.start !== null) text.words += `${text.words ? "\n" : ""}${clock(event.start)}  ${event.text.trim()}`;
    else text.words += event.text;
    run.texts.set(event.question_id, text);
    $(".text", replyTo(event.question_id)).textContent = text.words.trimStart();
  };
  const take = (event, type) => {
    if (type === "text") addText(event);
    if (type === "snapshot") run.texts.clear();
    showState(event.state);
    const stage = event.stage && event.state === "running" ? event.stage : "";
    $("#ask-facts").textContent = type === "retry" ? `Attempt ${event.attempt}: ${event.message || "it is tried again"}` : stage && `${stage}${event.total ? `, ${event.done || 0} of ${event.total}` : ""} …`;
    if (event.id && type !== "snapshot") run.last = event.id;
  };

  /* Follows the job's events; ends with the job, while the tab is hidden, or when another question is asked. */
  const follow = async (id) => {
    if (run.reading || run.id !== id || document.hidden || FINAL.includes(run.state)) return;
    const reading = new AbortController();
    run.reading = reading;
    try {
      const headers = run.last ? { "Last-Event-ID": run.last } : {};
      const response = await fetch(`${links.jobs}/${id}/events`, { headers, signal: reading.signal });
      if (response.status === 200) await readEvents(response, id);
      else if (response.status === 204) showState((await (await fetch(`${links.jobs}/${id}`)).json()).state);
      else throw new Error(await readProblem(response));
    } catch (error) {
      if (error.name !== "AbortError") $("#ask-facts").textContent = "The gateway does not answer; the page asks again.";
    } finally {
      if (run.reading === reading) run.reading = null;
    }
    if (run.id !== id) return;
    if (FINAL.includes(run.state)) showResult(id);
    else if (!document.hidden) setTimeout(follow, 1000, id);
  };
  const readEvents = async (response, id) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || run.id !== id) return;
      const blocks = (held + value).split(/\r?\n\r?\n/);
      held = blocks.pop();
      for (const block of blocks) {
        const fields = { event: "message", data: [] };
        for (const line of block.split(/\r?\n/)) {
          const [, name, text] = /^([^:]*): ?(.*)$/.exec(line) || [];
          if (name === "data") fields.data.push(text);
          else if (name === "event") fields.event = text;
        }
        if (!fields.data.length) continue;
        take(JSON.parse(fields.data.join("\n")), fields.event);
      }
    }
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && run.reading) run.reading.abort();
    else if (run.id) follow(run.id);
  });

  const showResult = async (id) => {
    const facts = $("#ask-facts");
    const response = await fetch(`${links.jobs}/${id}/result`);
    if (run.id !== id) return;
    if (!response.ok) {
      facts.textContent = run.state === "succeeded" || run.state === "failed" ? await readProblem(response) : "";
      return;
    }
    const result = await response.json();
    for (const answer of result.answers) $(".text", replyTo(answer.question_id, answer.question)).textContent = answer.text.trim();
    for (const [n, answer] of (result.segments[0]?.answers || []).entries()) {
      const lines = result.segments.map((each) => `${clock(each.start)}  ${each.answers[n].text.trim()}`);
      $(".text", replyTo(answer.question_id, answer.question)).textContent = lines.join("\n");
    }
    const { usage } = result;
    const tokens = `${count(usage.input_tokens, "token")} in, ${usage.output_tokens.toLocaleString("en")} out`;
    const spent = ["queued_s", "fetching_s", "sampling_s", "generating_s", "storing_s"].reduce((sum, name) => sum + usage[name], 0);
    const all = result.segments.length ? result.segments.flatMap((each) => each.frames) : result.frames;
    facts.textContent = `${count(all.length, "frame")}, ${result.cached ? "from the cache" : tokens}, ${spent.toFixed(1)} s, by ${result.model}`;
    if (result.sheet) {
      frames.replaceChildren(...showFrames(`${links.jobs}/${id}/sheet`, result.sheet, all, (n) => result.sources[n]?.kind === "image"));
      framesHead.textContent = "Frames that the model saw";
      framesState.textContent = count(all.length, "frame");
    }
  };

  const begin = (job) => {
    if (run.reading) run.reading.abort();
    Object.assign(run, { id: job.id, last: "", state: "", reading: null, texts: new Map() });
    answers.replaceChildren();
    $$("[name=question]").filter((each) => each.value.trim()).forEach((each, n) => {
      replyTo(`q${n + 1}`, each.value.trim()).dataset.writing = "";
    });
    $("#ask-facts").textContent = "";
    const link = $("#ask-job");
    link.href = `${links.page}/${job.id}`;
    link.hidden = links.mayRead === "no";
    answerCard.hidden = false;
    showState(job.state);
    answerCard.scrollIntoView({ block: "nearest", behavior: "smooth" });
    if (links.mayRead !== "yes") {
      cancel.hidden = true;
      const why = links.mayRead === "no" ? "This key may not read its answer." : "Its text is hidden by VIDEOQA_HIDE_TEXT.";
      $("#ask-facts").textContent = `Submitted as ${job.id}. ${why}`;
    } else if (FINAL.includes(job.state)) showResult(job.id);
    else {
      follow(job.id);
      setTimeout(tellWhy, 2000, job.id);
    }
  };
  /* Says why a job waits, if it has not begun by now. */
  const tellWhy = async (id) => {
    if (run.id !== id || run.state !== "queued" || document.hidden) return;
    const response = await fetch(`${links.jobs}/${id}`);
    const job = response.ok ? await response.json() : {};
    if (run.id === id && run.state === "queued" && job.waiting_for) $("#ask-facts").textContent = `Waits: ${job.waiting_for}`;
  };
  cancel.addEventListener("click", async () => {
    cancel.disabled = true;
    const response = await fetch(`${links.jobs}/${run.id}/cancel`, { method: "POST" });
    if (response.ok) showState((await response.json()).state);
    else tell(await readProblem(response));
    cancel.disabled = false;
  });

  const waitFor = (seconds) => {
    let left = Math.ceil(seconds);
    send.disabled = true;
    const step = () => {
      send.textContent = left > 0 ? `Ask in ${left} s` : "Ask";
      if (left <= 0) send.disabled = false;
      else setTimeout(step, 1000);
      left -= 1;
    };
    step();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    send.disabled = true;
    let waitS = 0;
    try {
      const checked = await check();
      if (checked && checked.mistakes.length) {
        showMistakes(checked.mistakes, true);
        send.disabled = false;
        return;
      }
      const response = await fetch(links.submit, { method: "POST", headers: { Accept: "application/json" }, body: encode() });
      const isJson = (response.headers.get("content-type") || "").startsWith("application/json");
      const body = isJson ? await response.json() : {};
      if (response.status === 202) {
        showMistakes([], true);
        begin(body.job);
      } else if (response.status === 401) tellLogin();
      else {
        showMistakes(body.mistakes || [{ param: "", message: `The gateway answered ${response.status}; open the page again.` }], true);
        waitS = Number(response.headers.get("retry-after")) || 0;
      }
    } catch {
      tell("The gateway does not answer; nothing that you typed is lost. Try again.");
    }
    send.disabled = false;
    if (waitS && waitS <= MOST_COUNTED_S) waitFor(waitS); // longer ones are told in words
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });

  if (window.matchMedia("(max-width: 64rem)").matches) $("#ask-program").open = false;
  if ([...lists.input.children].some((row) => $("[name=url]", row).value)) look();
})();
