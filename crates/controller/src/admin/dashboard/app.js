// The live page. All data comes from the admin API next door; texts become nodes by textContent alone, because names
// and messages come from manifests and engines.

import { Card } from "/card.js";
import { api, countEjections, counts, live, make, note, now, set, sleep, span } from "/live.js";

const STALE_MS = 5000; // the daemon says something every 2 s
const GIVE_UP_MS = 15000; // a connection that is silent for so long is made anew
const BACKOFF_MS = [250, 5000];
const EVENTS_KEPT = 1000;
const EVENTS_SHOWN = 200;

const $ = (id) => document.getElementById(id);
const cards = new Map();
let lastNews = performance.now();

// --- the updates

// Server-sent events by fetch: EventSource cannot send a token.
async function follow() {
  let wait = BACKOFF_MS[0];
  for (;;) {
    const abort = new AbortController();
    const begun = performance.now();
    const watchdog = setInterval(() => {
      if (performance.now() - Math.max(begun, lastNews) > GIVE_UP_MS) abort.abort();
    }, 1000);
    let refused = false;
    try {
      const response = await api("/api/v1/watch", { signal: abort.signal });
      await read(response.body.pipeThrough(new TextDecoderStream()).getReader(), () => (wait = BACKOFF_MS[0]));
    } catch (error) {
      refused = error.status === 401;
    }
    clearInterval(watchdog);
    live.connected = false;
    showLink();
    if (refused) {
      await newToken();
      continue;
    }
    await sleep(wait * (0.75 + Math.random() / 2));
    wait = Math.min(2 * wait, BACKOFF_MS[1]);
  }
}

async function read(reader, onUpdate) {
  let text = "";
  let first = true;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    lastNews = performance.now();
    // Only what is new can end a message, but for one line feed at the old end.
    const from = Math.max(0, text.length - 1);
    text += value;
    for (let end = text.indexOf("\n\n", from); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) {
        take(JSON.parse(data.join("\n")), first);
        first = false;
        onUpdate();
      }
    }
    showLink();
  }
}

function take(update, first) {
  live.connected = true;
  live.overview = update.overview;
  live.offset = live.overview.now - performance.now();
  if (first) live.events = [];
  for (const event of update.events) {
    const same = (e) => e.firstAt === event.firstAt && e.object === event.object && e.message === event.message;
    if (event.count > 1) live.events = live.events.filter((e) => !same(e));
    live.events.unshift(event);
  }
  live.events.length = Math.min(live.events.length, EVENTS_KEPT);
  $("token-form").hidden = true;
  note();
  render();
}

// A thousand rows take a while to lay out: they are drawn twice a second, few ones with every update.
let [scheduled, drawn] = [false, 0];
function render() {
  if (scheduled) return;
  scheduled = true;
  const due = drawn + Math.min(500, counts.size);
  const frame = () => {
    scheduled = false;
    drawn = performance.now();
    show();
  };
  setTimeout(() => requestAnimationFrame(frame), due - performance.now());
}

live.render = render;

// --- is it live?

function showLink() {
  const silent = performance.now() - lastNews;
  const stale = silent > STALE_MS;
  // In steps, so that a screen reader is not kept talking.
  const seconds = 5 * Math.floor(silent / 5000);
  let [state, text] = ["connecting", live.overview ? "reconnecting" : "connecting"];
  if (!$("token-form").hidden) [state, text] = ["stale", "a token is needed"];
  else if (stale) [state, text] = ["stale", `stale: no news for ${seconds < 60 ? `${seconds} s` : span(silent)}`];
  else if (live.connected) [state, text] = ["live", "live"];
  $("link").dataset.state = state;
  set($("link"), text);
  document.documentElement.classList.toggle("stale", stale);
  for (const button of document.querySelectorAll(".scale button, .scale input, .yes")) button.disabled = stale || !live.connected;
}

let tokenGiven = null;
function newToken() {
  $("token-form").hidden = false;
  showLink();
  $("token").focus();
  return new Promise((done) => (tokenGiven = done));
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  live.token = $("token").value.trim();
  sessionStorage.setItem("ringmaster-token", live.token);
  $("token").value = "";
  $("token-form").hidden = true;
  lastNews = performance.now();
  tokenGiven?.();
});

// --- events

const lines = new Map();
function showEvents() {
  const chosen = $("filter").value;
  const fits = (e) => chosen === "*" || (e.service ?? "") === chosen;
  const shown = live.events.filter(fits).slice(0, EVENTS_SHOWN);
  const list = $("events");
  const seen = new Set();
  shown.forEach((event, place) => {
    seen.add(event.sequence);
    let line = lines.get(event.sequence);
    if (!line) lines.set(event.sequence, (line = makeLine(event)));
    if (list.children[place] !== line.node) list.insertBefore(line.node, list.children[place] ?? null);
    const past = now() - event.at;
    set(line.time, past < 1000 ? "now" : `${span(past)} ago`);
  });
  for (const [sequence, line] of lines) {
    if (!seen.has(sequence)) {
      line.node.remove();
      lines.delete(sequence);
    }
  }
  $("no-events").hidden = shown.length > 0;
}

function makeLine(event) {
  const time = make("time");
  time.title = new Date(event.at).toLocaleString();
  const times = event.count > 1 ? ` ×${event.count}` : "";
  const warning = event.severity === "warning";
  const what = make("span", "what", `${warning ? "⚠ " : ""}${event.object} ${event.reason}${times}`);
  const node = make("li", warning ? "warning" : "", time, make("p", "", what, " ", make("span", "dim", event.message)));
  return { node, time };
}

function showFilter() {
  const select = $("filter");
  const names = live.overview.services.map((service) => service.name);
  const wanted = [["*", "everything"], ...names.map((name) => [name, name]), ["", "the daemon"]];
  if (select.dataset.names === names.join()) return;
  const chosen = select.value;
  select.replaceChildren(...wanted.map(([value, text]) => new Option(text, value)));
  select.value = wanted.some(([value]) => value === chosen) ? chosen : "*";
  select.dataset.names = names.join();
}

// --- all of it

function show() {
  if (!live.overview) return;
  const { daemon, services } = live.overview;
  const listens = daemon.listeners.length ? ` · serves on ${daemon.listeners.join(", ")}` : "";
  set($("daemon"), `${daemon.version} · ${daemon.runtime} · instance ${daemon.instance}${listens}`);
  $("problem").hidden = !daemon.engineError;
  set($("problem"), daemon.engineError ? `The engine does not answer: ${daemon.engineError}. Traffic goes on.` : "");
  countEjections();
  const box = $("services");
  for (const [name, card] of cards) {
    if (!services.some((service) => service.name === name)) {
      card.root.remove();
      cards.delete(name);
    }
  }
  for (const service of services) {
    if (!cards.has(service.name)) {
      const card = new Card(service.name);
      cards.set(service.name, card);
      box.append(card.root);
    }
    cards.get(service.name).update(service);
  }
  let empty = box.querySelector(".empty");
  if (services.length === 0 && !empty) box.append(make("p", "card empty dim", "No services yet: ringmaster apply -f manifests/replicas.yaml"));
  else if (services.length > 0) empty?.remove();
  showFilter();
  showEvents();
  showLink();
}

$("filter").addEventListener("change", render);

// A link cannot send a token: the page asks, and shows what comes.
$("metrics").addEventListener("click", async (event) => {
  if (!live.token) return;
  event.preventDefault();
  const response = await api("/metrics").catch(() => null);
  if (response) location.assign(URL.createObjectURL(new Blob([await response.text()], { type: "text/plain" })));
});

$("logo").src = $("icon").href;

const dark = matchMedia("(prefers-color-scheme: dark)");
function showTheme() {
  const chosen = localStorage.getItem("ringmaster-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  $("theme").setAttribute("aria-pressed", String(chosen ? chosen === "dark" : dark.matches));
}
$("theme").addEventListener("click", () => {
  const isDark = $("theme").getAttribute("aria-pressed") === "true";
  localStorage.setItem("ringmaster-theme", isDark ? "light" : "dark");
  showTheme();
});
dark.addEventListener("change", showTheme);
showTheme();

// Ages and rates go on between updates; nothing does while there is no news.
setInterval(() => {
  showLink();
  if (live.connected && performance.now() - lastNews <= STALE_MS) render();
}, 1000);
follow();
