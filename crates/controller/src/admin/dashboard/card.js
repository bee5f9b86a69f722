// One service: its ring, its replicas, a key, and the changes that can be asked for.

import { api, colour, draw, drainingSince, ejections, identity, json, live, make, now, of, parseSpan, percent, rate, set, span, swatch } from "/live.js";
import { DECISIONS, showRollout } from "/rollout.js";

const THEN_SHOWN = 4;
const BAD = new Set(["NotReady", "CrashLoopBackOff", "Exited", "Paused"]);
const GONE = new Set(["Draining", "Terminating", "Exited"]);
const SKIPPED = {
  notReady: "not ready",
  draining: "draining",
  ejected: "ejected",
  overBound: "over its bound",
  slowStart: "new, and has not taken over this key yet",
};
const LAST_RESORT = ["slowStart", "overBound", "ejected"];

export class Card {
  constructor(name) {
    this.name = name;
    this.root = document.getElementById("service").content.firstElementChild.cloneNode(true);
    this.shares = new Map();
    this.rows = new Map();
    this.target = null; // a count that waits for a yes
    this.undo = null; // a revision that does; 0 while it is looked for
    this.decision = null; // about a rollout
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
      if (event.key === "Escape" && !this.find(".confirm").hidden) this.cancel();
    });
    this.find(".yes").addEventListener("click", () => this.change());
    this.find(".back").addEventListener("click", () => this.lookBack());
    for (const button of this.root.querySelectorAll(".rollout button")) {
      button.addEventListener("click", () => (button.value === "undo" ? this.lookBack() : this.decide(button.value)));
    }
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
    const failed = status?.rollout.failed;
    const progress = open
      ? `in progress, ${status.updated} of ${replicas} as desired`
      : failed
        ? `revision ${failed.generation} was rolled back: ${failed.why}`
        : "";
    set(this.find(".why"), degraded ? `${degraded.reason}: ${degraded.message}` : progress);
    this.find(".scale").hidden = view.deleting;
    showRollout(this.find(".rollout"), status, view.deleting);
    if (this.target === this.desired()) this.cancel();
    const input = this.find(".count");
    if (this.target === null && document.activeElement !== input && input.value !== String(replicas)) input.value = replicas;
    this.showRows(members);
    this.showDrains(members);
    this.find("table").hidden = members.length === 0;
    this.find(".nobody").hidden = members.length > 0 || replicas > 0;
    const ring = JSON.stringify([view.generation, status?.replicas, live.connected]);
    if (this.ringOf !== ring) {
      this.ringOf = ring;
      this.fetchShares();
    }
    // Who serves a key depends on who is there.
    const there = members.map((m) => `${m.name} ${m.phase} ${m.ejected} ${m.circuit?.reason}`).join();
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
    live.render();
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
    const { phase, ejected, circuit, latency } = replica;
    row.phase.className = `phase ${ejected || BAD.has(phase) ? "bad" : phase === "Ready" && !circuit ? "good" : ""}`;
    set(row.phase, ejected ? `${phase}, ejected` : circuit ? `${phase}, on probation` : phase);
    set(row.note, circuit ? leftOut(replica) : replica.message);
    set(row.share, share === undefined ? "–" : percent(share));
    set(row.rate, perSecond === null ? "–" : perSecond.toFixed(perSecond < 10 ? 1 : 0));
    set(row.inFlight, String(replica.inFlight));
    set(row.latency, latency ? millis(latency.meanUs) : "–");
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
      set(text, `draining: ${busy(replica)}${time}`);
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
        : draw("path", { d: ringArc(start, start + share, 65, 95), fill: colour(ordinal), class: `arc ${state}` });
      arc.append(draw("title", {}, `${this.name}-${ordinal}: ${percent(share, 2)}${state ? ", gets nothing now" : ""}`));
      parts.push(arc);
      if (share > 0.035) {
        const [x, y] = at(start + share / 2, 80);
        const ink = state ? "" : isDark(colour(ordinal)) ? "pale" : "ink";
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
    live.render();
  }

  explain({ hash, slot, owner, candidates, skipped }, server) {
    const named = (ordinal) => [swatch(ordinal), `${this.name}-${ordinal}`];
    const lines = [];
    if (owner === null) lines.push(["owner", hash === null ? "nobody: this policy does not look at keys" : "nobody"]);
    else lines.push(["owner", named(owner)]);
    const circuit = (ordinal) => this.view.status?.members.find((m) => m.ordinal === ordinal && m.circuit);
    for (const { ordinal, reason } of skipped.slice(0, 10)) {
      const out = reason === "ejected" && circuit(ordinal);
      lines.push(["passed over", [...named(ordinal), `: ${out ? leftOut(out) : SKIPPED[reason] ?? reason}`]]);
    }
    for (const ordinal of candidates.filter((one) => circuit(one)).slice(0, 10)) {
      lines.push(["but", [...named(ordinal), ` is ${leftOut(circuit(ordinal))}`]]);
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
    this.undo = this.decision = null;
    this.target = Math.min(Math.max(count, 0), max);
    const [from, to] = [this.desired(), this.target];
    this.find(".count").value = to;
    if (from === to) return this.cancel();
    const [change, yes] = [this.find(".change"), this.find(".yes")];
    this.find(".confirm").hidden = yes.hidden = false;
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
    const from = this.target === null ? ".back" : ".plus";
    this.target = this.undo = this.decision = null;
    this.find(".confirm").hidden = true;
    this.find(".count").value = this.desired();
    if (focused) this.find(from).focus();
  }

  async change() {
    const [replicas, toRevision, action] = [this.target, this.undo, this.decision];
    const changes = toRevision ? ["rollback", { toRevision }] : ["scale", { replicas }];
    const [verb, body] = action ? ["rollout", { action }] : changes;
    if (replicas === null && !toRevision && !action) return;
    try {
      await api(of(this.name, verb), { method: "POST", body: JSON.stringify(body) });
    } catch (error) {
      set(this.find(".change"), `Not changed: ${error.message}`);
      return;
    }
    this.cancel();
    if (replicas !== null) this.find(".count").value = replicas;
  }

  // --- about a rollout

  decide(action) {
    this.cancel();
    this.decision = action;
    const [yes, sentence] = DECISIONS[action];
    set(this.find(".change"), `${this.name}: ${sentence}`);
    set(this.find(".yes"), yes);
    this.find(".confirm").hidden = this.find(".yes").hidden = false;
    this.find(".yes").focus();
  }

  // --- back to an earlier template

  async lookBack() {
    this.cancel();
    this.undo = 0;
    const [change, yes] = [this.find(".change"), this.find(".yes")];
    this.find(".confirm").hidden = false;
    yes.hidden = true;
    set(change, `${this.name}: looking for what it ran before …`);
    let [found, sentence] = [0, ""];
    try {
      const list = await json(of(this.name, "revisions"));
      const to = list.revisions.find((one) => one.revision === list.previous);
      if (to) [found, sentence] = [to.revision, backTo(to, list.revisions.at(-1), list.now)];
      else sentence = "it has run nothing else that is kept: there is nothing to go back to.";
      if (list.lost.length) sentence += ` Not known is what these held: ${list.lost.join("; ")}.`;
    } catch (error) {
      sentence = `what it ran before is not known: ${error.message}`;
    }
    if (this.undo !== 0) return; // something else was asked for meanwhile
    set(change, `${this.name}: ${sentence}`);
    if (!found) return this.find(".no").focus();
    this.undo = found;
    set(yes, `Go back to revision ${found}`);
    yes.hidden = false;
    yes.focus();
  }
}

function backTo(to, from, at) {
  const other = (key) => JSON.stringify(to.template[key]) !== JSON.stringify(from.template[key]);
  const changed = Object.keys({ ...from.template, ...to.template }).filter(other);
  const age = to.at === null ? "" : `, ${span(at - to.at)} ago`;
  const what = to.runs === from.runs ? to.runs : `${to.runs} instead of ${from.runs}`;
  return `back to the template of revision ${to.revision}${age}: ${what} (${changed.join(", ")}). Every replica is replaced; the count and balancing stay.`;
}

// What it is busy with: requests end soon, streams when somebody ends them.
function busy({ inFlight, streams }) {
  const s = (count) => (count === 1 ? "" : "s");
  const open = Math.min(streams, inFlight);
  const rest = inFlight - open;
  if (!open) return `${inFlight} in flight`;
  return `${rest ? `${rest} request${s(rest)}, ` : ""}${open} stream${s(open)}`;
}

// Why and since when the data plane leaves it out, or puts it to the proof.
function leftOut({ message, circuit }) {
  const ago = span(now() - circuit.since);
  return circuit.onProbation ? `${message}, ejected ${ago} ago` : `${message}, for ${ago}`;
}

function millis(us) {
  return us < 9950 ? `${(us / 1000).toFixed(1)} ms` : us < 999500 ? `${(us / 1000).toFixed(0)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

// Whether letters on it are white.
function isDark(hex) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue < 100;
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
    latency: cell("Latency", "n"),
    restarts: cell("Restarts", "n"),
    ejections: cell("Ejected", "n"),
    age: cell("Age", "n"),
    address,
    revision,
  };
  cell("Address", "mono wide", make("span", "", address, revision));
  return row;
}
