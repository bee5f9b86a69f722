// What is known of the daemon: the API, the newest update, and what follows from several of them.

import { COLOURS } from "/palette.js";

const RATE_MS = 3000; // requests per second are a mean over so long

export const live = {
  overview: null,
  events: [], // newest first
  connected: false,
  offset: 0, // the daemon's clock minus ours
  token: sessionStorage.getItem("ringmaster-token"),
  render() {}, // draws what has changed
};

// --- small things

export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function make(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

export function draw(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const now = () => performance.now() + live.offset;
export const colour = (ordinal) => COLOURS[ordinal % COLOURS.length];
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

export function span(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

// "1m30s" of a manifest, in milliseconds.
export function parseSpan(text) {
  const units = { ms: 1, s: 1000, m: 60000, h: 3600000, d: 86400000 };
  let sum = 0;
  for (const [, count, unit] of String(text ?? "").matchAll(/([\d.]+)(ms|s|m|h|d)/g)) sum += count * units[unit];
  return sum;
}

export function swatch(ordinal) {
  const node = make("span", "swatch");
  node.style.backgroundColor = colour(ordinal);
  return node;
}

// --- the API

export async function api(path, options = {}) {
  const headers = { ...options.headers };
  if (live.token) headers.Authorization = `Bearer ${live.token}`;
  if (options.body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.ok) return response;
  if (response.status === 401) document.getElementById("token-form").hidden = false;
  const body = await response.json().catch(() => ({}));
  const error = new Error(body.error ?? `the daemon answers ${response.status}`);
  error.status = response.status;
  throw error;
}

export const json = async (path, options) => (await api(path, options)).json();
export const of = (service, rest) => `/api/v1/services/${encodeURIComponent(service)}/${rest}`;

// --- requests per second

export const counts = new Map();
export const identity = (replica) => replica.id ?? replica.engineName ?? replica.name;

export function note() {
  const seen = new Set();
  for (const replica of live.overview.services.flatMap((service) => service.status?.members ?? [])) {
    const id = identity(replica);
    seen.add(id);
    let samples = counts.get(id);
    // A daemon that starts again counts from 0.
    if (!samples || samples.at(-1).requests > replica.requests) counts.set(id, (samples = []));
    samples.push({ at: live.overview.now, requests: replica.requests });
    while (samples.length > 2 && samples[1].at < live.overview.now - RATE_MS) samples.shift();
  }
  for (const id of counts.keys()) if (!seen.has(id)) counts.delete(id);
}

// Counters that do not change are not sent again: until the next update they are what they were.
export function rate(replica) {
  const samples = counts.get(identity(replica));
  if (!samples || samples.length < 2) return samples && now() - samples[0].at > 1000 ? 0 : null;
  const start = Math.max(now() - RATE_MS, samples[0].at);
  const base = samples.findLast((sample) => sample.at <= start) ?? samples[0];
  const took = (now() - start) / 1000;
  return took < 0.4 ? null : (samples.at(-1).requests - base.requests) / took;
}

// --- from the events

let ejected = new Map();
export const ejections = (service, name) => ejected.get(`${service} ${name}`) ?? 0;

export function countEjections() {
  ejected = new Map();
  for (const event of live.events.filter((e) => e.reason === "Ejected")) {
    const key = `${event.service} ${event.object}`;
    ejected.set(key, (ejected.get(key) ?? 0) + event.count);
  }
}

// When it got its last new request: the timeline says so.
export function drainingSince(service, replica) {
  const about = (e) => e.reason === "Withdrawn" && e.service === service && e.object === replica.name;
  return live.events.find((e) => about(e) && e.message.startsWith(`${replica.engineName} `))?.at ?? live.events.find(about)?.at ?? null;
}
