// The live page. All data comes from the admin API next door; texts become nodes by textContent alone, because names
// and messages come from manifests and engines.

// Okabe and Ito's colours, told apart by people who do not see all colours; by ordinal, the same everywhere.
const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"];
const STALE_MS = 5000; // the daemon says something every 2 s
const GIVE_UP_MS = 15000; // a connection that is silent for so long is made anew
const RATE_MS = 3000; // requests per second are a mean over so long
const BACKOFF_MS = [250, 5000];
const EVENTS_KEPT = 1000;
const EVENTS_SHOWN = 200;
const THEN_SHOWN = 4;
const BAD = new Set(["NotReady", "CrashLoopBackOff", "Exited", "Paused"]);
const GONE = new Set(["Draining", "Terminating", "Exited"]);
const SKIPPED = {
  notReady: "not ready",
  draining: "draining",
  ejected: "ejected after failures",
  overBound: "over its bound",
  slowStart: "new, and has not taken over this key yet",
};
const LAST_RESORT = ["slowStart", "overBound", "ejected"];

const $ = (id) => document.getElementById(id);
const cards = new Map();
let events = [];
let overview = null;
let offset = 0; // the daemon's clock minus ours
let lastNews = performance.now();
let connected = false;
let token = sessionStorage.getItem("ringmaster-token");

// --- small things

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function make(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function draw(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const now = () => performance.now() + offset;
const colour = (ordinal) => COLOURS[ordinal % COLOURS.length];
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

function span(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

// "1m30s" of a manifest, in milliseconds.
function parseSpan(text) {
  const units = { ms: 1, s: 1000, m: 60000, h: 3600000, d: 86400000 };
  let sum = 0;
  for (const [, count, unit] of String(text ?? "").matchAll(/([\d.]+)(ms|s|m|h|d)/g)) sum += count * units[unit];
  return sum;
}

function swatch(ordinal) {
  const node = make("span", "swatch");
  node.style.backgroundColor = colour(ordinal);
  return node;
}

// --- the API

async function api(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (options.body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.ok) return response;
  if (response.status === 401) $("token-form").hidden = false;
  const body = await response.json().catch(() => ({}));
  const error = new Error(body.error ?? `the daemon answers ${response.status}`);
  error.status = response.status;
  throw error;
}

const json = async (path, options) => (await api(path, options)).json();
const of = (service, rest) => `/api/v1/services/${encodeURIComponent(service)}/${rest}`;

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
    connected = false;
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
  connected = true;
  overview = update.overview;
  offset = overview.now - performance.now();
  if (first) events = [];
  for (const event of update.events) {
    const same = (e) => e.firstAt === event.firstAt && e.object === event.object && e.message === event.message;
    if (event.count > 1) events = events.filter((e) => !same(e));
    events.unshift(event);
  }
  events.length = Math.min(events.length, EVENTS_KEPT);
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

// --- is it live?

function showLink() {
  const silent = performance.now() - lastNews;
  const stale = silent > STALE_MS;
  // In steps, so that a screen reader is not kept talking.
  const seconds = 5 * Math.floor(silent / 5000);
  let [state, text] = ["connecting", overview ? "reconnecting" : "connecting"];
  if (!$("token-form").hidden) [state, text] = ["stale", "a token is needed"];
  else if (stale) [state, text] = ["stale", `stale: no news for ${seconds < 60 ? `${seconds} s` : span(silent)}`];
  else if (connected) [state, text] = ["live", "live"];
  $("link").dataset.state = state;
  set($("link"), text);
  document.documentElement.classList.toggle("stale", stale);
  for (const button of document.querySelectorAll(".scale button, .scale input, .yes")) button.disabled = stale || !connected;
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
  token = $("token").value.trim();
  sessionStorage.setItem("ringmaster-token", token);
  $("token").value = "";
  $("token-form").hidden = true;
  lastNews = performance.now();
  tokenGiven?.();
});

// --- requests per second

const counts = new Map();
const identity = (replica) => replica.id ?? replica.engineName ?? replica.name;

function note() {
  const seen = new Set();
  for (const replica of overview.services.flatMap((service) => service.status?.members ?? [])) {
    const id = identity(replica);
    seen.add(id);
    let samples = counts.get(id);
    // A daemon that starts again counts from 0.
    if (!samples || samples.at(-1).requests > replica.requests) counts.set(id, (samples = []));
    samples.push({ at: overview.now, requests: replica.requests });
    while (samples.length > 2 && samples[1].at < overview.now - RATE_MS) samples.shift();
  }
  for (const id of counts.keys()) if (!seen.has(id)) counts.delete(id);
}

// Counters that do not change are not sent again: until the next update they are what they were.
function rate(replica) {
  const samples = counts.get(identity(replica));
  if (!samples || samples.length < 2) return samples && now() - samples[0].at > 1000 ? 0 : null;
  const start = Math.max(now() - RATE_MS, samples[0].at);
  const base = samples.findLast((sample) => sample.at <= start) ?? samples[0];
  const took = (now() - start) / 1000;
  return took < 0.4 ? null : (samples.at(-1).requests - base.requests) / took;
}

// --- services

class Card {
  constructor(name) {
    this.name = name;
    this.root = $("service").content.firstElementChild.cloneNode(true);
    this.shares = new Map();
    this.rows = new Map();
    this.target = null;
    const title = this.find("h2");
    title.textContent = name;
    title.id = `service-${name}`;
    this.root.setAttribute("aria-labelledby", title.id);
    for (const node of this.root.querySelectorAll(".count, table")) node.setAttribute("aria-label", `Replicas of ${name}`);
    this.find(".minus").addEventListener("click", () => this.aim(this.wanted() - 1));
    this.find(".plus").addEventListener("click", () => this.aim(this.wanted() + 1));
    this.find(".count").addEventListener("change", () => this.aim(this.find(".count").valueAsNumber));
    this.find(".scale").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.find(".confirm").hidden) this.find(".yes").focus();
    });
    this.find(".no").addEventListener("click", () => this.cancel());
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.target !== null) this.cancel();
    });
    this.find(".yes").addEventListener("click", () => this.scale());
    this.find(".key").addEventListener("input", () => this.askSoon(150));
    this.find(".ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.askSoon(0);
    });
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  desired() {
    return this.view.spec.replicas ?? this.view.status?.replicas ?? 0;
  }

  wanted() {
    return this.target ?? this.desired();
  }

  update(view) {
    this.view = view;
    const status = view.status;
    const members = status?.members ?? [];
    const [ready, replicas] = [status?.ready ?? 0, this.desired()];
    const condition = (kind) => status?.conditions.find((c) => c.type === kind && c.status);
    const summary = this.find(".summary");
    summary.dataset.state = view.deleting ? "" : ready === replicas ? "good" : "bad";
    set(summary, view.deleting ? "being deleted" : `${ready} of ${replicas} ready`);
    const [degraded, progressing] = [condition("Degraded"), condition("Progressing")];
    const open = progressing && !view.deleting && status.updated < replicas;
    const progress = open ? `in progress, ${status.updated} of ${replicas} as desired` : "";
    set(this.find(".why"), degraded ? `${degraded.reason}: ${degraded.message}` : progress);
    this.find(".scale").hidden = view.deleting;
    if (this.target === this.desired()) this.cancel();
    const input = this.find(".count");
    if (this.target === null && document.activeElement !== input && input.value !== String(replicas)) input.value = replicas;
    this.showRows(members);
    this.showDrains(members);
    this.find("table").hidden = members.length === 0;
    this.find(".nobody").hidden = members.length > 0 || replicas > 0;
    const ring = JSON.stringify([view.generation, status?.replicas, connected]);
    if (this.ringOf !== ring) {
      this.ringOf = ring;
      this.fetchShares();
    }
    // Who serves a key depends on who is there.
    const there = members.map((m) => `${m.name} ${m.phase} ${m.ejected}`).join();
    if (this.there !== there) {
      this.there = there;
      if (this.find(".key").value) this.askSoon(50);
    }
    this.showRing(members);
  }

  async fetchShares() {
    try {
      const ring = await json(of(this.name, "ring"));
      this.shares = new Map(ring.replicas.map((replica) => [replica.ordinal, replica.share]));
      set(this.find("figcaption"), `${ring.description}; max/mean ${ring.maxOverMean.toFixed(3)}`);
    } catch {
      this.ringOf = null; // asked again with the next update
    }
    render();
  }

  showRows(members) {
    const body = this.find("tbody");
    const seen = new Set();
    members.forEach((replica, place) => {
      const key = `${replica.ordinal} ${identity(replica)}`;
      seen.add(key);
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, (row = makeRow(replica)));
      if (body.children[place] !== row.node) body.insertBefore(row.node, body.children[place] ?? null);
      this.showRow(row, replica);
    });
    for (const [key, row] of this.rows) {
      if (!seen.has(key)) {
        row.node.remove();
        this.rows.delete(key);
      }
    }
  }

  showRow(row, replica) {
    const gone = GONE.has(replica.phase);
    const perSecond = rate(replica);
    const share = gone ? undefined : this.shares.get(replica.ordinal);
    row.node.classList.toggle("gone", gone);
    row.phase.className = `phase ${replica.phase === "Ready" && !replica.ejected ? "good" : BAD.has(replica.phase) || replica.ejected ? "bad" : ""}`;
    set(row.phase, replica.ejected ? `${replica.phase}, ejected` : replica.phase);
    set(row.note, replica.message);
    set(row.share, share === undefined ? "–" : percent(share));
    set(row.rate, perSecond === null ? "–" : perSecond.toFixed(perSecond < 10 ? 1 : 0));
    set(row.inFlight, String(replica.inFlight));
    set(row.restarts, String(replica.restarts));
    set(row.ejections, String(ejections(this.name, replica.name)));
    set(row.age, replica.createdAt === null ? "–" : span(now() - replica.createdAt));
    set(row.address, replica.address ?? "–");
    set(row.revision, replica.revision ? (replica.updated ? replica.revision : `${replica.revision} (old)`) : "–");
  }

  showDrains(members) {
    const box = this.find(".drains");
    const draining = members.filter((m) => m.phase === "Draining");
    box.hidden = draining.length === 0;
    const limit = parseSpan(this.view.spec.strategy?.drain);
    while (box.children.length > draining.length) box.lastChild.remove();
    draining.forEach((replica, place) => {
      let line = box.children[place];
      if (!line) {
        line = make("div", "drain", make("span", "", swatch(0), make("b", "")), make("progress"), make("span", ""));
        box.append(line);
      }
      const [label, bar, text] = line.children;
      label.firstChild.style.backgroundColor = colour(replica.ordinal);
      set(label.lastChild, replica.name);
      const since = drainingSince(this.name, replica);
      const took = since === null ? null : Math.min(now() - since, limit);
      bar.max = limit || 1;
      bar.value = took ?? 0;
      bar.setAttribute("aria-label", `${replica.name} drains`);
      const time = took === null ? "" : `, ${span(took)} of ${span(limit)}`;
      set(text, `draining: ${replica.inFlight} in flight${time}`);
    });
  }

  // --- the ring

  showRing(members) {
    const serves = new Set(members.filter((m) => m.phase === "Ready").map((m) => m.ordinal));
    const ejected = new Set(members.filter((m) => m.ejected).map((m) => m.ordinal));
    const out = (ordinal) => !serves.has(ordinal) || ejected.has(ordinal);
    const { owner = null, server = null } = this.answer ?? {};
    const [ready, replicas] = [this.view.status?.ready ?? 0, this.desired()];
    const picture = JSON.stringify([[...this.shares], [...this.shares.keys()].map(out), owner, server, ready, replicas]);
    if (this.picture === picture) return;
    this.picture = picture;
    const svg = this.find(".ring");
    const parts = [];
    const middles = new Map();
    let start = 0;
    const total = [...this.shares.values()].reduce((sum, share) => sum + share, 0) || 1;
    for (const [ordinal, part] of this.shares) {
      const share = part / total;
      if (share <= 0) continue;
      middles.set(ordinal, start + share / 2);
      const state = out(ordinal) ? "out" : "";
      const arc = share > 0.9999
        ? draw("circle", { r: 80, fill: "none", stroke: colour(ordinal), "stroke-width": 30, class: state })
        : draw("path", { d: ringArc(start, start + share, 65, 95), fill: colour(ordinal), class: state });
      arc.append(draw("title", {}, `${this.name}-${ordinal}: ${percent(share, 2)}${state ? ", gets nothing now" : ""}`));
      parts.push(arc);
      if (share > 0.035) {
        const [x, y] = at(start + share / 2, 80);
        const ink = state ? "" : colour(ordinal) === "#0072B2" ? "pale" : "ink";
        parts.push(draw("text", { x, y, class: ink }, String(ordinal)));
      }
      start += share;
    }
    if (parts.length === 0) parts.push(draw("circle", { r: 80, fill: "none", stroke: "#999", "stroke-opacity": 0.3, "stroke-width": 30 }));
    if (middles.has(owner)) {
      const moved = server !== owner && middles.has(server);
      if (moved) {
        const [[x, y], [u, v]] = [at(middles.get(owner), 65), at(middles.get(server), 62)];
        parts.push(draw("path", { d: `M${x} ${y}Q${(x + u) / 5} ${(y + v) / 5} ${u} ${v}`, class: "way" }));
        parts.push(draw("circle", { cx: u, cy: v, r: 4, class: "mark" }));
      }
      parts.push(pin(middles.get(owner), moved));
    }
    parts.push(draw("text", { y: -5, class: "big" }, `${ready}/${replicas}`), draw("text", { y: 17, class: "small" }, "ready"));
    svg.replaceChildren(...parts);
    const few = [...this.shares].slice(0, 10).map(([ordinal, share]) => `${this.name}-${ordinal} ${percent(share)}`);
    svg.setAttribute("aria-label", `Shares of all keys: ${few.join(", ")}${this.shares.size > 10 ? " and more" : ""}`);
  }

  // --- a key

  askSoon(ms) {
    clearTimeout(this.asking);
    this.asking = setTimeout(() => this.ask(), ms);
  }

  async ask() {
    const key = this.find(".key").value;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    let lines = [];
    let answer = null;
    if (key !== "") {
      try {
        const explanation = await json(of(this.name, `explain?key=${encodeURIComponent(key)}`));
        answer = { owner: explanation.owner, server: serverOf(explanation) };
        lines = this.explain(explanation, answer.server);
      } catch (error) {
        lines = [["", error.message]];
      }
    }
    if (turn !== this.turn) return; // a newer key was typed meanwhile
    this.answer = answer;
    const nodes = lines.flatMap(([label, value, className]) => {
      const definition = make("dd", className ?? "");
      definition.append(...[value].flat());
      return [make("dt", "", label), definition];
    });
    this.find(".explanation").replaceChildren(...nodes);
    render();
  }

  explain({ hash, slot, owner, candidates, skipped }, server) {
    const named = (ordinal) => [swatch(ordinal), `${this.name}-${ordinal}`];
    const lines = [];
    if (owner === null) lines.push(["owner", hash === null ? "nobody: this policy does not look at keys" : "nobody"]);
    else lines.push(["owner", named(owner)]);
    for (const { ordinal, reason } of skipped.slice(0, 10)) {
      lines.push(["passed over", [...named(ordinal), `: ${SKIPPED[reason] ?? reason}`]]);
    }
    lines.push(["goes to", server === null ? "nobody: 503" : named(server), "goes"]);
    const next = candidates.filter((ordinal) => ordinal !== server);
    const more = next.length > THEN_SHOWN ? ` and ${next.length - THEN_SHOWN} more` : "";
    if (next.length) lines.push(["then", next.slice(0, THEN_SHOWN).map((o) => `${this.name}-${o}`).join(", ") + more]);
    if (hash !== null) lines.push(["hash", hash, "mono"]);
    if (slot !== null) lines.push(["slot", String(slot), "mono"]);
    return lines;
  }

  // --- scaling

  async aim(count) {
    const max = Number(this.find(".count").max);
    if (!Number.isInteger(count)) return this.cancel();
    this.target = Math.min(Math.max(count, 0), max);
    const [from, to] = [this.desired(), this.target];
    this.find(".count").value = to;
    if (from === to) return this.cancel();
    const [change, yes] = [this.find(".change"), this.find(".yes")];
    this.find(".confirm").hidden = false;
    set(yes, `Scale to ${to}`);
    const sentence = `${this.name}: ${from} → ${to} replicas.`;
    set(change, `${sentence} Counting the keys that would move …`);
    let effect;
    try {
      const ring = await json(of(this.name, `ring?replicas=${to}`));
      const how = ring.keysMovedExact ? "counted" : "estimated from a sample";
      effect = `${percent(ring.keysMoved)} of all keys would get another owner (${how}).`;
      if (to === 0) effect = "Nobody would answer its requests.";
    } catch (error) {
      effect = `What would move is not known: ${error.message}`;
    }
    if (this.target === to) set(change, `${sentence} ${effect}`);
  }

  cancel() {
    const focused = this.find(".confirm").contains(document.activeElement);
    this.target = null;
    this.find(".confirm").hidden = true;
    this.find(".count").value = this.desired();
    if (focused) this.find(".plus").focus();
  }

  async scale() {
    const replicas = this.target;
    if (replicas === null) return;
    try {
      await api(of(this.name, "scale"), { method: "POST", body: JSON.stringify({ replicas }) });
    } catch (error) {
      set(this.find(".change"), `Not changed: ${error.message}`);
      return;
    }
    this.cancel();
    this.find(".count").value = replicas;
  }
}

// A point on a circle; the turn begins at the top and goes clockwise.
function at(turn, radius) {
  const angle = 2 * Math.PI * turn;
  return [(radius * Math.sin(angle)).toFixed(2), (-radius * Math.cos(angle)).toFixed(2)].map(Number);
}

function ringArc(from, to, inner, outer) {
  // A thin gap, but never more than a fifth of the arc.
  const gap = Math.min(0.003, (to - from) / 5) / 2;
  const [a, b, large] = [from + gap, to - gap, to - from > 0.5 ? 1 : 0];
  const [p, q, r, s] = [at(a, outer), at(b, outer), at(b, inner), at(a, inner)];
  return `M${p}A${outer} ${outer} 0 ${large} 1 ${q}L${r}A${inner} ${inner} 0 ${large} 0 ${s}Z`;
}

// A pin from outside onto an arc.
function pin(turn) {
  const [tip, left, right] = [at(turn, 90), at(turn - 0.014, 107), at(turn + 0.014, 107)];
  return draw("path", { d: `M${tip}L${left}L${right}Z`, class: "mark" });
}

// The first candidate, or else the best last resort of those passed over.
function serverOf({ candidates, skipped }) {
  if (candidates.length) return candidates[0];
  for (const reason of LAST_RESORT) {
    const found = skipped.find((one) => one.reason === reason);
    if (found) return found.ordinal;
  }
  return null;
}

function makeRow(replica) {
  const node = make("tr");
  node.setAttribute("role", "row");
  const cell = (label, className, ...children) => {
    const made = make("td", className, ...children);
    made.setAttribute("role", "cell");
    made.dataset.label = label;
    node.append(made);
    return made;
  };
  cell("Replica", "name", swatch(replica.ordinal), replica.name).title = replica.displayName;
  const [phase, text] = [make("span", "phase"), make("span", "note")];
  const [address, revision] = [make("span"), make("span", "note")];
  cell("State", "state", phase, text);
  const row = {
    node,
    phase,
    note: text,
    share: cell("Share", "n"),
    rate: cell("Req/s", "n"),
    inFlight: cell("In flight", "n"),
    restarts: cell("Restarts", "n"),
    ejections: cell("Ejected", "n"),
    age: cell("Age", "n"),
    address,
    revision,
  };
  cell("Address", "mono wide", make("span", "", address, revision));
  return row;
}

// --- events

let ejected = new Map();
const ejections = (service, name) => ejected.get(`${service} ${name}`) ?? 0;

function countEjections() {
  ejected = new Map();
  for (const event of events.filter((e) => e.reason === "Ejected")) {
    const key = `${event.service} ${event.object}`;
    ejected.set(key, (ejected.get(key) ?? 0) + event.count);
  }
}

// When it got its last new request: the timeline says so.
function drainingSince(service, replica) {
  const about = (e) => e.reason === "Withdrawn" && e.service === service && e.object === replica.name;
  return events.find((e) => about(e) && e.message.startsWith(`${replica.engineName} `))?.at ?? events.find(about)?.at ?? null;
}

const lines = new Map();
function showEvents() {
  const chosen = $("filter").value;
  const fits = (e) => chosen === "*" || (e.service ?? "") === chosen;
  const shown = events.filter(fits).slice(0, EVENTS_SHOWN);
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
  const names = overview.services.map((service) => service.name);
  const wanted = [["*", "everything"], ...names.map((name) => [name, name]), ["", "the daemon"]];
  if (select.dataset.names === names.join()) return;
  const chosen = select.value;
  select.replaceChildren(...wanted.map(([value, text]) => new Option(text, value)));
  select.value = wanted.some(([value]) => value === chosen) ? chosen : "*";
  select.dataset.names = names.join();
}

// --- all of it

function show() {
  if (!overview) return;
  const { daemon, services } = overview;
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
  if (connected && performance.now() - lastNews <= STALE_MS) render();
}, 1000);
follow();
