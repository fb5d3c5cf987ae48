// Keeps the pages up to date and puts times into the reader's own zone. The pages work without it.
"use strict";
document.documentElement.classList.add("js");

const live = document.getElementById("live");
const log = document.getElementById("log");

function clocks(root) {
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const local = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    if ("clock" in time.dataset) time.textContent = local;
    time.title = local;
  }
}
clocks(document);

function say(words, lost) {
  if (!live) return;
  live.hidden = false;
  live.textContent = words;
  live.classList.toggle("lost", lost);
}

// The page itself is asked for anew, and what differs is put in its place: there is one way to render it.
let refreshing = false;
let again = false;
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!document.getElementById("tasks") !== !fresh.getElementById("tasks")) { location.reload(); return; }
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other) replace(part, other);
    }
    if (fresh.title) document.title = fresh.title;
    if (fresh.body.dataset.stream !== document.body.dataset.stream) {
      document.body.dataset.stream = fresh.body.dataset.stream;
      listen();
    }
    say("Live", false);
  } catch {
    say("Connection lost, trying again", true);
    setTimeout(refresh, 3000);
  } finally {
    refreshing = false;
    if (again) { again = false; soon(); }
  }
}

function replace(part, other) {
  clocks(other);
  if (part.className === other.className && part.innerHTML === other.innerHTML && part.hidden === other.hidden) return;
  const checked = new Set([...part.querySelectorAll("input:checked")].map((box) => box.id));
  const opened = new Set([...part.querySelectorAll("details[open]")].map((trace) => trace.id));
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.className = other.className;
  part.hidden = other.hidden;
  part.replaceChildren(...other.childNodes);
  for (const id of checked) { const box = document.getElementById(id); if (box) box.checked = true; }
  for (const id of opened) { const trace = document.getElementById(id); if (trace) trace.open = true; }
  if (focused) document.getElementById(focused)?.focus();
}

let timer = 0;
function soon() {
  clearTimeout(timer);
  timer = setTimeout(refresh, 150);
}

let stream = null;
function listen() {
  const href = document.body.dataset.stream;
  stream?.close();
  if (!href) return;
  stream = new EventSource(href);
  stream.onopen = () => say("Live", false);
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) { if (live) live.hidden = true; } else say("Connection lost, trying again", true);
  };
  for (const name of [...(document.body.dataset.events ?? "").split(" "), "changed", "gone"]) {
    stream.addEventListener(name, () => { soon(); if (log && name !== "steps") grow(); });
  }
}
listen();
// Spans such as "3 min ago" grow old although nothing happens.
setInterval(() => { if (!document.hidden && (document.querySelector(".running, .retrying, .task") || stream)) soon(); }, 20000);

const retry = document.body.dataset.retry;
if (retry) {
  const words = document.getElementById("retry");
  if (words) words.textContent = "This page tries again by itself.";
  setInterval(async () => { try { if ((await fetch(retry)).ok) location.reload(); } catch { /* still away */ } }, 3000);
}

// The log: whole, in chunks of which the browser lays out only those that are seen.
const LINES = 400;
const escapes = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;
let lines = [];
let offset = 0;
let growing = false;
let more = false;

function readable(text) {
  return text.replace(escapes, "").replace(/\r\n/g, "\n").replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (char) => "\\x" + char.charCodeAt(0).toString(16).padStart(2, "0"));
}

async function grow() {
  if (growing) { more = true; return; }
  growing = true;
  try {
    let answer = await fetch(`${document.body.dataset.log}?after=${offset}`);
    if (answer.status === 422) { offset = 0; lines = []; answer = await fetch(document.body.dataset.log); }
    if (!answer.ok) return;
    const told = await answer.json();
    const first = offset === 0;
    offset = told.offset;
    if (told.log) add(readable(told.log), first);
  } catch { /* the stream tells again */ } finally {
    growing = false;
    if (more) { more = false; grow(); }
  }
}

function add(text, first) {
  const fresh = text.split("\n");
  const begin = first ? 0 : Math.max(0, lines.length - 1);
  if (!first && lines.length) lines[lines.length - 1] += fresh.shift();
  lines.push(...fresh);
  const find = document.getElementById("find").value;
  if (find || first) show(find); else paint(begin);
  if (document.getElementById("follow").checked) log.scrollTop = log.scrollHeight;
}

function paint(begin) {
  const pre = log.querySelector("pre");
  for (let chunk = Math.floor(begin / LINES); chunk * LINES < lines.length; chunk += 1) {
    let part = pre.children[chunk];
    if (!part) { part = document.createElement("div"); pre.append(part); }
    // What is not full may be short, and is seen first.
    part.className = (chunk + 1) * LINES < lines.length ? "chunk" : "";
    part.textContent = lines.slice(chunk * LINES, (chunk + 1) * LINES).join("\n");
  }
}

function show(find) {
  const pre = log.querySelector("pre");
  const found = document.getElementById("found");
  pre.replaceChildren();
  if (!find) { found.textContent = ""; paint(0); return; }
  const wanted = find.toLowerCase();
  const all = lines;
  lines = all.filter((line) => line.toLowerCase().includes(wanted));
  paint(0);
  found.textContent = `${lines.length.toLocaleString()} line${lines.length === 1 ? "" : "s"} of ${all.length.toLocaleString()}`;
  lines = all;
}

if (log) {
  const follow = document.getElementById("follow");
  follow.closest("label").hidden = false;
  log.scrollTop = log.scrollHeight;
  log.addEventListener("scroll", () => { follow.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 40; }, { passive: true });
  const find = document.getElementById("find");
  let typing = 0;
  find.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => show(find.value), 120); });
  find.form.addEventListener("submit", (event) => { event.preventDefault(); show(find.value); });
  grow();
}
