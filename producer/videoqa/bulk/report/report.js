
// The report's script. Rows: id, in(puts), a(nswers: q(uestion), t(ext), c(onfidence), s(tart), e(nd), cut), t(imes of
// frames), n(umber of frames), w(arnings), p(icture), j(ob), x (code and message of a failure). All texts are written by
// textContent, so none is HTML. 25 rows are in the page at a time: how many there are costs no time.
"use strict";
const PAGE = 25, LONG = 700, MOST_ANSWERS = 20, MOST_CHOICES = 40;
const { rows, output, made } = JSON.parse(document.getElementById("data").textContent);
const byId = name => document.getElementById(name);
const filters = byId("filters"), list = byId("list");
let shown = rows, page = 0;

function make(name, className, text) {
  const found = document.createElement(name);
  if (className) found.className = className;
  if (text !== undefined) found.textContent = text;
  return found;
}
function isolate(text) { return make("bdi", "", text); }
function number(value) { return value.toLocaleString("en"); }
function clock(seconds) {
  const tenths = Math.round(seconds * 10), rest = tenths % 10;
  const whole = (tenths - rest) / 10, hours = Math.floor(whole / 3600);
  const two = value => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  return (hours ? hours + ":" + two(minutes) : minutes) + ":" + two(whole % 60) + (rest ? "." + rest : "");
}

// -- words of a row, for the search; made once, when it is first searched

function wordsOf(row) {
  row.words ??= [row.id, ...(row.in ?? []), ...(row.x ?? []), ...(row.w ?? []),
    ...(row.a ?? []).flatMap(answer => [answer.q, answer.t])].join("\n").toLowerCase();
  return row.words;
}
function confidenceOf(row) {
  row.least ??= Math.min(2, ...(row.a ?? []).map(answer => answer.c ?? 2));
  return row.least;
}

// -- filters

function count(values) {
  const found = new Map();
  for (const value of values) found.set(value, (found.get(value) ?? 0) + 1);
  return [...found].sort((a, b) => b[1] - a[1]);
}
function addOption(parent, value, text, of) {
  const option = make("option", "", text.slice(0, 80) + (of === undefined ? "" : " (" + number(of) + ")"));
  option.value = value;
  parent.append(option);
}
function fillOutcomes() {
  const select = byId("outcome");
  const failed = rows.filter(row => row.x), warned = rows.filter(row => row.w);
  addOption(select, "", "All", rows.length);
  addOption(select, "ok", "Answered", rows.length - failed.length);
  if (failed.length) addOption(select, "failed", "Failed", failed.length);
  for (const [code, of] of count(failed.map(row => row.x[0]))) addOption(select, "x" + code, "Failed: " + code, of);
  if (warned.length) addOption(select, "warned", "With warnings", warned.length);
  for (const [code, of] of count(warned.flatMap(row => row.w))) addOption(select, "w" + code, "Warning: " + code, of);
}
function fillAnswers() {
  const select = byId("answer"), byQuestion = new Map();
  for (const row of rows) for (const answer of row.a ?? []) {
    if (!byQuestion.has(answer.q)) byQuestion.set(answer.q, []);
    byQuestion.get(answer.q).push(answer.t.trim());
  }
  addOption(select, "", "Any");
  let isUseful = false, numberOf = 0;
  for (const [question, texts] of byQuestion) {
    const choices = count(texts);
    // Free text has nearly as many answers as videos, and cannot be chosen from.
    if (choices.length > MOST_CHOICES || (texts.length > 3 && choices.length > texts.length / 2)) continue;
    const group = make("optgroup");
    group.label = question.slice(0, 80);
    for (const [text, of] of choices) {
      addOption(group, String(numberOf++), text, of);
      group.lastChild.answer = { q: question, t: text };
    }
    select.append(group);
    isUseful = true;
  }
  select.parentElement.hidden = !isUseful;
}
function accepts() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const outcome = byId("outcome").value, wanted = byId("answer").selectedOptions[0]?.answer;
  const below = byId("confidence").value === "" ? null : Number(byId("confidence").value);
  return row => (outcome === "" || (outcome === "ok" ? !row.x : outcome === "failed" ? row.x : outcome === "warned" ? row.w
      : outcome[0] === "x" ? row.x?.[0] === outcome.slice(1) : row.w?.includes(outcome.slice(1))))
    && (!wanted || row.a?.some(answer => answer.q === wanted.q && answer.t.trim() === wanted.t))
    && (below === null || confidenceOf(row) < below)
    && words.every(word => wordsOf(row).includes(word));
}
function filter() {
  shown = rows.filter(accepts());
  const order = byId("order").value;
  if (order === "name") shown.sort((a, b) => a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
  if (order === "sure") shown.sort((a, b) => confidenceOf(a) - confidenceOf(b));
  show(0);
}

// -- the list

function makeText(answer, className) {
  const text = make("dd", "text" + (className ? " " + className : "")), words = make("bdi", "", answer.t);
  if (answer.s !== undefined) text.append(make("span", "span", clock(answer.s) + " to " + clock(answer.e)));
  text.append(words);
  if (answer.c !== undefined) text.append(" ", make("span", "badge", "confidence " + answer.c.toFixed(2)));
  const isLong = answer.t.length > LONG;
  if (isLong) {
    words.textContent = answer.t.slice(0, LONG) + "… ";
    const more = make("button", "more", "Show all " + number(answer.cut ?? answer.t.length) + " characters");
    more.type = "button";
    more.addEventListener("click", () => {
      words.textContent = answer.t + (answer.cut ? "… results.jsonl has the rest." : "");
      words.tabIndex = -1;
      words.focus();
      more.remove();
    });
    text.append(more);
  }
  return text;
}
function makeAnswers(row) {
  const answers = make("dl", "answers");
  let question = null;
  function add(some) {
    for (const answer of some) {
      if (answer.q !== question) answers.append(make("dt", "", ""));
      if (answer.q !== question) answers.lastChild.append(isolate(answer.q.slice(0, LONG)));
      question = answer.q;
      answers.append(makeText(answer));
    }
  }
  add(row.a.slice(0, MOST_ANSWERS));
  if (row.a.length <= MOST_ANSWERS) return [answers];
  const more = make("button", "more", "Show all " + number(row.a.length) + " answers");
  more.type = "button";
  more.addEventListener("click", () => { add(row.a.slice(MOST_ANSWERS)); more.remove(); list.focus(); });
  return [answers, more];
}
function makePicture(row) {
  const link = make("a", "sheet"), picture = make("img");
  link.href = row.p;
  link.target = "_blank";
  picture.loading = "lazy";
  picture.decoding = "async";
  picture.alt = "Contact sheet of " + row.id.slice(0, 200);
  picture.addEventListener("error", () => link.replaceWith(make("p", "sheet lost quiet", "The picture is not beside this page.")));
  picture.src = row.p;
  link.append(picture);
  return link;
}
function makeVideo(row) {
  const item = make("li", "video card" + (row.p ? "" : " bare")), words = make("div", "words");
  const head = make("div", "head"), title = make("h2");
  title.append(isolate(row.id));
  head.append(title);
  if (row.x) head.append(make("span", "badge bad", row.x[0]));
  for (const code of row.w ?? []) head.append(make("span", "badge warn", code));
  words.append(head);
  if (row.x) words.append(make("p", "failure", row.x[1]));
  if (row.a) words.append(...makeAnswers(row));
  if (row.t) {
    const few = row.t.slice(0, 32).map(clock).join(", ") + (row.n > 32 ? ", …" : "");
    words.append(make("p", "quiet", number(row.n) + (row.n === 1 ? " frame at " : " frames at ") + few));
  }
  if (row.in?.some(url => !url.endsWith("/" + row.id))) {
    const inputs = make("p", "quiet");
    row.in.forEach((url, n) => inputs.append(n ? ", " : "", isolate(url)));
    words.append(inputs);
  }
  if (row.p) item.append(makePicture(row));
  item.append(words);
  return item;
}
function makePages(nav, isAbove) {
  const most = Math.max(1, Math.ceil(shown.length / PAGE));
  nav.hidden = most === 1;
  const go = (words, to) => {
    const button = make("button", "button", words);
    button.type = "button";
    button.disabled = to < 0 || to >= most;
    button.addEventListener("click", () => {
      show(to);
      if (!isAbove) list.focus();
      else nav.querySelectorAll("button")[words === "Next" ? 1 : 0].focus();
    });
    return button;
  };
  nav.replaceChildren(go("Previous", page - 1), make("span", "", "Page " + number(page + 1) + " of " + number(most)), go("Next", page + 1));
}
function show(number_) {
  page = number_;
  const first = page * PAGE, some = shown.slice(first, first + PAGE);
  list.replaceChildren(...some.map(makeVideo));
  byId("empty").hidden = shown.length > 0;
  byId("count").textContent = shown.length === 0 ? "0 of " + number(rows.length) + " videos"
    : number(first + 1) + " to " + number(first + some.length) + " of " + number(shown.length) + " videos"
      + (shown.length < rows.length ? ", of " + number(rows.length) + " in all" : "");
  document.querySelectorAll(".pages").forEach((nav, n) => makePages(nav, n === 0));
}

// -- the page

byId("output").textContent = output;
byId("made").textContent = "· " + made;
fillOutcomes();
fillAnswers();
if (rows.some(row => confidenceOf(row) <= 1)) {
  byId("confidence").parentElement.hidden = false;
  addOption(byId("order"), "sure", "Least sure first");
}
filters.addEventListener("submit", event => event.preventDefault());
filters.addEventListener("input", filter);
filters.addEventListener("reset", () => setTimeout(filter));
addEventListener("keydown", event => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
  event.preventDefault();
  byId("search").focus();
});
filter();
