"use strict";
const BUSY_LOOK_MS = 3000;
const IDLE_LOOK_MS = 30000;
const SHOWN_METADATA = 8;
const LONGEST_VALUE = 60; // characters of a metadata value that is shown

const $ = id => document.getElementById(id);
let language = localStorage.getItem("language") || (navigator.language.startsWith("ko") ? "ko" : "en");
let filters = []; // {field, comparison, value}
let answer = null; // of the last search that was answered
let health = null;
let asking = null; // AbortController of the search under way
let looking = 0;

const say = name => WORDS[language][name];

function element(name, {text, className, label, ...properties} = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (label) made.setAttribute("aria-label", label);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

// Language

function speak() {
  document.documentElement.lang = language;
  for (const item of document.querySelectorAll("[data-text]")) item.textContent = say(item.dataset.text);
  for (const item of document.querySelectorAll("[data-label]")) {
    item.setAttribute("aria-label", say(item.dataset.label));
    if ("placeholder" in item) item.placeholder = say(item.dataset.label);
  }
  $("language").textContent = say("other");
  showState();
  showFilters();
  if (answer) show(answer);
}

// Talking to the box

async function call(path, body, signal) {
  const headers = {"content-type": "application/json"};
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  const response = await fetch(path, body ? {method: "POST", headers, body: JSON.stringify(body), signal} : {headers});
  return {status: response.status, retryAfter: response.headers.get("retry-after"), content: await response.json()};
}

async function look() {
  clearTimeout(looking);
  try {
    health = (await call("/health")).content;
  } catch {
    health = null;
  }
  showState();
  const busy = health?.queue && health.queue.queued + health.queue.running > 0;
  if (!document.hidden) looking = setTimeout(look, busy ? BUSY_LOOK_MS : IDLE_LOOK_MS);
}

function showState() {
  const parts = [];
  if (!health) parts.push(say("unreachable"));
  else {
    if (health.status === "unavailable") parts.push(say("unavailable"));
    if (health.status === "degraded") parts.push(say("degraded"));
    if (Number.isInteger(health.documents)) parts.push(say("documents")(health.documents));
    const queue = health.queue;
    if (queue && queue.queued + queue.running) parts.push(say("waiting")(queue.queued + queue.running));
    if (queue && queue.parked) parts.push(say("parked")(queue.parked));
  }
  $("state").textContent = parts.join(" · ");
  $("state").className = health && health.status !== "unavailable" ? "" : "bad";
  $("state").title = health?.degraded?.join("\n") ?? "";
  $("forget").hidden = !sessionStorage.getItem("key");
}

function report(text, bad = false) {
  $("report").textContent = text;
  $("report").className = bad ? "bad" : "";
}

// Searching

function wanted() {
  const body = {query: $("query").value.trim(), top_k: 10, fusion: $("fusion").value};
  // Left out it is the box's own choice.
  if ($("rerank").value !== "auto") body.rerank = $("rerank").value === "off" ? false : $("rerank").value;
  const filter = {};
  for (const {field, comparison, value} of filters) {
    if (comparison === "=") filter[field] = [...(Array.isArray(filter[field]) ? filter[field] : []), value];
    else filter[field] = {...(Array.isArray(filter[field]) ? {} : filter[field]), [comparison]: value};
  }
  if (filters.length) body.filter = filter;
  return body;
}

async function search({remember = true} = {}) {
  const body = wanted();
  if (!body.query) return;
  asking?.abort();
  const mine = asking = new AbortController();
  if (remember) keepAddress();
  report(say("searching"));
  $("results").setAttribute("aria-busy", "true");
  let reply;
  try {
    reply = await call("/search", body, mine.signal);
  } catch {
    if (mine === asking) fail(say("unreachable"));
    return;
  }
  if (mine !== asking) return;
  const {status, content, retryAfter} = reply;
  if (status === 200) {
    answer = content;
    $("key").hidden = true;
    show(answer);
  } else if (status === 401 || status === 403) {
    const key = sessionStorage.getItem("key");
    fail(status === 403 ? say("noScope") : key ? say("wrongKey") : "");
    sessionStorage.removeItem("key");
    showState();
    $("key").hidden = false;
    $("secret").focus();
  } else if (status === 429) fail(say("busy")(retryAfter ?? 1));
  else if (status === 503) fail(say("unavailable"));
  else fail(content.error?.message ?? String(status));
}

function fail(text) {
  $("results").removeAttribute("aria-busy");
  report(text, true);
}

// The address holds the question, so that it can be kept, shared and gone back to.

function keepAddress() {
  const address = new URLSearchParams({q: $("query").value.trim()});
  if (filters.length) address.set("filter", JSON.stringify(filters.map(({field, comparison, value}) => [field, comparison, value])));
  if ($("fusion").value !== "hybrid") address.set("fusion", $("fusion").value);
  if ($("rerank").value !== "auto") address.set("rerank", $("rerank").value);
  if (`?${address}` !== location.search) history.pushState(null, "", `?${address}`);
}

function readAddress() {
  const address = new URLSearchParams(location.search);
  $("query").value = address.get("q") ?? "";
  for (const [id, usual] of [["fusion", "hybrid"], ["rerank", "auto"]]) {
    $(id).value = address.get(id) ?? usual;
    if (!$(id).value) $(id).value = usual;
  }
  try {
    filters = JSON.parse(address.get("filter") ?? "[]").map(([field, comparison, value]) => ({field, comparison, value}));
  } catch {
    filters = [];
  }
  showFilters();
}

// Results

function show({results, timings_ms: timings, rerank}) {
  $("results").removeAttribute("aria-busy");
  $("hint").hidden = results.length > 0;
  const parts = results.length
    ? [say("found")(results.length, Math.round(timings.total)), rerank.ran ? say("reranked")(rerank.candidates) : say("notReranked")]
    : [say(filters.length ? "nothingFiltered" : "nothing")];
  report(parts.join(" · "));
  $("timings").hidden = false;
  $("why").textContent = say("reasons")[rerank.reason] ?? rerank.why;
  $("why").title = rerank.why;
  $("stages").replaceChildren(...Object.entries(timings).flatMap(([stage, ms]) => {
    const bar = element("dd", {className: "bar"});
    bar.style.width = `${(100 * ms) / (timings.total || 1)}%`;
    return [element("dt", {text: say("stages")[stage] ?? stage}), element("dd", {text: `${ms.toFixed(1)} ms`}), bar];
  }));
  $("results").replaceChildren(...results.map(resultItem));
  for (const article of document.querySelectorAll("article")) offerMore(article);
  showFields(results);
}

function resultItem(result, index) {
  const title = element("h2");
  const named = marked(result.title || result.document_id, result.title ? result.title_highlights : []);
  if (/^https?:\/\//.test(result.source ?? "")) {
    title.append(element("a", {href: result.source, target: "_blank", rel: "noopener noreferrer"}, ...named));
  } else title.append(...named);
  const scores = [
    `${say("vector")} ${result.scores.vector.toFixed(3)}`,
    `${say("word")} ${result.scores.words.toFixed(1)}`,
    ...(result.scores.rerank === null ? [] : [`${say("judged")} ${result.scores.rerank.toFixed(3)}`]),
  ];
  const article = element("article", {tabIndex: -1, label: `${index + 1}. ${result.title || result.document_id}`},
    element("header", {}, title, element("span", {className: "score", text: result.score.toFixed(3), title: scores.join(" · ")})),
    element("p", {className: "text cut"}, ...marked(result.text, result.highlights)),
    element("footer", {},
      element("span", {className: "detail", text: [result.document_id, ...scores].join(" · ")}),
      ...metadataChips(result.metadata)),
  );
  return element("li", {}, article);
}

// Highlights are [start, end] in code points; a string counts some characters twice.
function marked(text, highlights) {
  const points = [...text];
  const nodes = [];
  let at = 0;
  for (const [start, end] of highlights ?? []) {
    if (start < at || end <= start) continue;
    nodes.push(points.slice(at, start).join(""), element("mark", {text: points.slice(start, end).join("")}));
    at = end;
  }
  return [...nodes, points.slice(at).join("")];
}

function offerMore(article) {
  const text = article.querySelector(".text");
  if (text.scrollHeight <= text.clientHeight + 1) return;
  const more = element("button", {type: "button", className: "quiet more", text: say("more"), ariaExpanded: "false"});
  more.addEventListener("click", () => {
    const cut = text.classList.toggle("cut");
    more.textContent = say(cut ? "more" : "less");
    more.ariaExpanded = String(!cut);
  });
  text.after(more);
}

// Filters

function metadataChips(metadata) {
  const pairs = Object.entries(metadata ?? {}).flatMap(([field, value]) => (Array.isArray(value) ? value : [value]).map(entry => [field, entry]));
  return pairs
    .filter(([, value]) => value === null || ["number", "boolean"].includes(typeof value) || (typeof value === "string" && value && value.length <= LONGEST_VALUE))
    .slice(0, SHOWN_METADATA)
    .map(([field, value]) => {
      const condition = `${field}: ${value}`;
      const chip = element("button", {type: "button", className: "chip", text: condition, title: say("only")(condition)});
      chip.addEventListener("click", () => addFilter({field, comparison: "=", value}));
      return chip;
    });
}

function addFilter(added) {
  const same = ({field, comparison, value}) => field === added.field && comparison === added.comparison && value === added.value;
  // A field is equal to one of some values or lies between bounds; what was asked last counts.
  const fits = ({field, comparison}) =>
    field !== added.field || (comparison === "=") === (added.comparison === "=") && (comparison === "=" || comparison !== added.comparison);
  if (!filters.some(same)) filters = [...filters.filter(fits), added];
  showFilters();
  search();
}

function showFilters() {
  const signs = {"=": ":", gte: " ≥", lte: " ≤"};
  $("filters").replaceChildren(...filters.map(filter => {
    const condition = `${filter.field}${signs[filter.comparison]} ${filter.value}`;
    const chip = element("button", {type: "button", className: "chip", text: `${condition} ×`, label: say("without")(condition)});
    chip.addEventListener("click", () => {
      filters = filters.filter(other => other !== filter);
      showFilters();
      search();
      $("query").focus();
    });
    return element("li", {}, chip);
  }));
}

function showFields(results) {
  const known = new Set([...$("fields").children].map(option => option.value));
  for (const result of results) {
    for (const field of Object.keys(result.metadata ?? {})) {
      if (!known.has(field)) $("fields").append(element("option", {value: field}));
      known.add(field);
    }
  }
}

// A number, true, false, null or a text in quotes as JSON has them; otherwise the text itself.
function valueOf(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null ? text : value;
  } catch {
    return text;
  }
}

// Keyboard

function moveTo(step) {
  const articles = [...document.querySelectorAll("article")];
  const at = articles.indexOf(document.activeElement?.closest("article"));
  if (at + step < 0) $("query").focus();
  else articles[Math.min(at + step, articles.length - 1)]?.focus();
}

document.addEventListener("keydown", event => {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select, textarea");
  const free = !typing || event.target === $("query");
  if (event.key === "/" && !typing) {
    $("query").focus();
    $("query").select();
  } else if (event.key === "ArrowDown" && free) moveTo(1);
  else if (event.key === "ArrowUp" && free && event.target !== $("query")) moveTo(-1);
  else if (event.key === "Enter" && event.target.matches("article")) {
    (event.target.querySelector(".more") ?? event.target.querySelector("h2 a"))?.click();
  } else if (event.key === "Escape" && event.target !== $("query")) $("query").focus();
  else return;
  event.preventDefault();
});

// What the page does by itself

$("search").addEventListener("submit", event => {
  event.preventDefault();
  // On a phone the keyboard would cover the results.
  if (matchMedia("(pointer: coarse)").matches) $("query").blur();
  search();
});
$("filter").addEventListener("submit", event => {
  event.preventDefault();
  const field = $("field").value.trim();
  const value = $("value").value.trim();
  if (!field || !value) return (field ? $("value") : $("field")).focus();
  $("field").value = $("value").value = "";
  addFilter({field, comparison: $("comparison").value, value: valueOf(value)});
});
for (const id of ["fusion", "rerank"]) $(id).addEventListener("change", () => search());
$("key").addEventListener("submit", event => {
  event.preventDefault();
  const key = $("secret").value.trim();
  if (!key) return;
  sessionStorage.setItem("key", key);
  $("secret").value = "";
  $("key").hidden = true;
  $("query").focus();
  look();
  search();
});
$("forget").addEventListener("click", () => {
  sessionStorage.removeItem("key");
  answer = null;
  $("results").replaceChildren();
  $("timings").hidden = true;
  report("");
  look();
  $("query").focus();
});
$("language").addEventListener("click", () => {
  language = language === "ko" ? "en" : "ko";
  localStorage.setItem("language", language);
  speak();
});
window.addEventListener("popstate", () => {
  readAddress();
  search({remember: false});
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});

readAddress();
speak();
look();
search({remember: false});
