// The page: asks the server once a second and draws. No framework, no build; texts are set as texts, never as HTML.

const ROOT = "/" + document.body.dataset.root;
const VIEWS = ["overview", "waits", "calls", "routes", "backends", "statistics"];
const PERIOD_MS = 1000, KEPT = 600;
const CLASSES = [
  ["2xx", "page:calls_2xx", "var(--ok)"], ["3xx", "page:calls_3xx", "var(--c3)"], ["challenged", "page:challenged", "var(--asked)"],
  ["4xx", "page:calls_4xx", "var(--c4)"], ["5xx", "page:calls_5xx", "var(--c5)"], ["6xx", "page:calls_6xx", "var(--c6)"],
];
const state = { view: "overview", paused: false, token: "", known: new Set(), history: [], columns: [], last: {}, chosen: null, turn: 0, events: [] };

// --- small things -----------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes by name, `on...` are listeners, children are texts or elements. */
function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}
function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "paint") element.style.fill = value;
    else if (key === "stroke") element.style.stroke = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return element;
}
const show = (id, ...children) => $(id).replaceChildren(...children);

function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0)} s`;
  const s = Math.round(ms / 1000), [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : `${m} min ${s % 60} s`;
}

/** A table; `numbers` are the columns that stand at the right. Rows are lists of texts or elements. */
function table(id, heads, rows, numbers = [], none = "nothing") {
  const cell = (tag) => (text, at) => make(tag, { class: numbers.includes(at) ? "n" : at === 0 ? null : "long", scope: tag === "th" ? "col" : null }, text);
  const body = rows.length ? rows.map((row) => make("tr", {}, ...row.map(cell("td")))) : [make("tr", {}, make("td", { colspan: heads.length, class: "none" }, none))];
  show(id, make("thead", {}, make("tr", {}, ...heads.map(cell("th")))), make("tbody", {}, ...body));
}

// --- asking -----------------------------------------------------------------------------------------------------

class Refused extends Error {}

/** Runs commands in one request: [[name, params]...]; what each gave, `null` where it failed. */
async function ask(commands) {
  const batch = commands.map(([method, params = []], id) => ({ jsonrpc: "2.0", id, method, params }));
  const headers = { "Content-Type": "application/json" };
  if (state.token) headers["X-Fermata-Token"] = state.token;
  const reply = await fetch(`${ROOT}/api`, { method: "POST", headers, body: JSON.stringify(batch), signal: AbortSignal.timeout(10000) });
  if (reply.status === 401 && !reply.headers.has("WWW-Authenticate")) throw new Refused(await reply.text());
  if (!reply.ok) throw new Error(`${reply.status}: ${await reply.text()}`);
  const answers = await reply.json();
  return answers.map((answer) => ("result" in answer ? answer.result : null));
}

const newest = () => (state.history.length ? state.history[state.history.length - 1] : null);
/** What the view that is open needs besides what every view needs. */
function wanted() {
  const often = state.turn % 5 === 0;
  switch (state.view) {
    case "overview": return [["async_stats"], ["page:threads"], ["page:waits"]];
    case "waits": return [["async_stats"], ["page:waits"]];
    case "calls": return [["page:ladder", state.chosen === null ? [] : [state.chosen]]];
    case "routes": return [["page:waits"], ["page:routes"]];
    case "backends": return often || !state.drawn ? [["page:backends"], ["status_report:status"], ["tcp:list"], ...DESTINATIONS.map(([name, params]) => [name, params])] : [];
    default: return [];
  }
}

async function turn() {
  const view = state.view;
  const more = wanted().filter(([name]) => state.known.has(name));
  const since = newest()?.[0] ?? 0;
  const [statistics, history, ...rest] = await ask([["statistics:get", ["all"]], ["page:history", [since]], ...more]);
  if (view !== state.view) return;
  const answers = Object.fromEntries(more.map(([name], at) => [name, rest[at]]));
  state.statistics = statistics;
  state.columns = history.Columns;
  // A server that was started anew counts from the beginning.
  if (history.Samples.length === 0 && since > 0) {
    const [all] = await ask([["page:history", [0]]]);
    if (all.Samples.length && all.Samples.at(-1)[0] < since) state.history = all.Samples;
  }
  state.history.push(...history.Samples.filter((sample) => sample[0] > (newest()?.[0] ?? 0)));
  state.history.splice(0, state.history.length - KEPT);
  DRAW[view](answers, statistics);
  state.drawn = true;
  state.turn += 1;
}

function say(text, kind = "") {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = kind;
}

async function run() {
  for (;;) {
    const began = performance.now();
    if (!state.paused && !document.hidden) {
      try {
        if (state.known.size === 0) await begin();
        await turn();
        if (!state.paused) say("live");
      } catch (error) {
        if (error instanceof Refused) await login();
        else { say(error.name === "TypeError" ? "no connection" : error.message, "bad"); state.known.clear(); }
      }
    }
    await new Promise((done) => { state.wake = done; setTimeout(done, Math.max(100, PERIOD_MS - (performance.now() - began))); });
  }
}

async function begin() {
  const [names, version, uptime] = await ask([["core:which"], ["core:version"], ["core:uptime"]]);
  state.known = new Set(names);
  $("server").textContent = `${version.Server}, up since ${uptime["Up since"]}`;
}

function login() {
  return new Promise((done) => {
    $("login-state").textContent = state.token ? "This is not the token." : "";
    $("login-form").onsubmit = (event) => {
      event.preventDefault();
      state.token = $("token").value;
      sessionStorage.setItem("fermata-token", state.token);
      $("login").close();
      done();
    };
    $("login").oncancel = (event) => event.preventDefault();
    if (!$("login").open) $("login").showModal();
  });
}

// --- overview ---------------------------------------------------------------------------------------------------

/** Differences of a counter, per second, from sample to sample. */
function rates(name) {
  const at = state.columns.indexOf(name), h = state.history;
  return h.slice(1).map((sample, i) => {
    const seconds = Math.max(0.2, (sample[1] - h[i][1]) / 1000);
    return Math.max(0, sample[at] - h[i][at]) / seconds;
  });
}
const values = (name) => state.history.slice(1).map((sample) => sample[state.columns.indexOf(name)]);

function nice(top) {
  if (top <= 4) return Math.max(1, Math.ceil(top));
  const unit = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 2.5, 5, 10].map((n) => n * unit).find((n) => n >= top);
}

/** Areas on top of one another over the last ten minutes. `series`: [name, values, paint]. */
function areas(id, series, ceiling) {
  const width = Math.max(200, $(id).clientWidth), height = $(id).clientHeight || 140, left = 44, bottom = 18, top = 8;
  const count = Math.max(60, series[0][1].length);
  const sums = series[0][1].map((_, i) => series.reduce((sum, [, list]) => sum + list[i], 0));
  const most = nice(ceiling ?? Math.max(1, ...sums));
  const x = (i) => left + ((i + count - series[0][1].length) / (count - 1)) * (width - left);
  const y = (n) => height - bottom - (Math.min(n, most) / most) * (height - bottom - top);
  const base = sums.map(() => 0), drawn = [];
  for (const [, list, paint] of series) {
    if (!list.some((n) => n > 0)) continue;
    const lower = base.map((n, i) => `${x(i).toFixed(1)},${y(n).toFixed(1)}`).reverse();
    list.forEach((n, i) => { base[i] += n; });
    const upper = base.map((n, i) => `${x(i).toFixed(1)},${y(n).toFixed(1)}`);
    drawn.push(draw("polygon", { points: [...upper, ...lower].join(" "), paint }));
  }
  const ticks = [0, most / 2, most].map((n) => [draw("line", { class: "axis", x1: left, x2: width, y1: y(n), y2: y(n) }),
    draw("text", { x: left - 6, y: y(n) + 4, "text-anchor": "end" }, number.format(Math.round(n * 10) / 10))]).flat();
  const times = [[count - 1, "now"], [0, duration((count - 1) * 1000) + " ago"]].map(([i, text]) => draw("text", { x: i === 0 ? left : width, y: height - 3, "text-anchor": i === 0 ? "start" : "end" }, text));
  const words = `${$(id).previousElementSibling.firstChild.textContent.trim()}: now ${number.format(Math.round((sums.at(-1) ?? 0) * 10) / 10)}, at most ${number.format(Math.round(Math.max(0, ...sums)))}`;
  show(id, draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words }, ...ticks, ...drawn, ...times));
}

/** Bars of a histogram: [[text, count]...]. */
function bars(element, steps, paint = "var(--accent)") {
  const most = Math.max(1, ...steps.map(([, n]) => n));
  element.replaceChildren(...steps.flatMap(([text, n]) => [
    make("span", {}, text),
    make("span", { class: "bar" }, draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      draw("rect", { width: (n / most) * 100, height: 10, rx: 1, paint }))),
    make("span", { class: "n" }, number.format(n)),
  ]));
}

const LIMITS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];
function times(what, statistics) {
  const steps = LIMITS.map((ms) => [`≤ ${duration(ms)}`, statistics[`page:${what}_${ms}ms`] ?? 0]);
  steps.push([`> ${duration(20000)}`, statistics[`page:${what}_longer`] ?? 0]);
  const used = steps.map(([, n]) => n > 0), [from, to] = [used.indexOf(true), used.lastIndexOf(true)];
  const sum = steps.reduce((all, [, n]) => all + n, 0);
  let below = 0;
  const median = steps.find(([, n]) => (below += n) * 2 >= sum)?.[0];
  $(`${what}-sum`).textContent = sum ? `${number.format(sum)} calls, half of them ${median}` : "";
  if (sum) bars($(`histogram-${what}`), steps.slice(from, to + 1));
  else show(`histogram-${what}`, make("p", { class: "none" }, "no calls yet"));
}

function tiles(statistics) {
  const last = (list) => list.at(-1) ?? 0;
  const stat = (name) => statistics[name];
  const rate = (n) => (n >= 10 ? Math.round(n) : Math.round(n * 10) / 10);
  const all = [
    ["calls", "calls a second", rate(last(rates("page:calls")))],
    ["requests", "requests a second", rate(last(rates("core:rcv_requests")))],
    ["waiting", "scripts wait", stat("async:async_in_flight")],
    ["transactions", "transactions", stat("tm:inuse_transactions")],
    ["dialogs", "dialogs", stat("dialog:active_dialogs")],
    ["registered", "registered users", stat("usrloc:registered_users")],
    ["connections", "connections", stat("tcp:tcp_connections")],
    ["load", "% load, last second", stat("load:load")],
    ["total", "calls since the start", stat("page:calls")],
    ["timed-out", "waits without an answer", stat("async:async_timed_out"), true],
    ["failed", "5xx and 6xx to calls", (stat("page:calls_5xx") ?? 0) + (stat("page:calls_6xx") ?? 0), true],
    ["dropped", "messages dropped at full mailboxes", stat("net:mailbox_dropped"), true],
  ].filter(([, , n]) => n !== undefined);
  show("tiles", ...all.map(([id, text, n, alarms]) => make("div", { class: alarms && n > 0 ? "tile alarm" : "tile", "data-tile": id, "data-value": n }, make("b", {}, number.format(n)), make("span", {}, text))));
}

function overview(answers, statistics) {
  tiles(statistics);
  areas("chart-answers", CLASSES.map(([text, name, paint]) => [text, rates(name), paint]));
  show("answers-legend", ...CLASSES.map(([text, name, paint]) => {
    const mark = make("i");
    mark.style.background = paint;
    return make("span", { "data-class": text, "data-value": statistics[name] ?? 0 }, mark, `${text} ${number.format(statistics[name] ?? 0)}`);
  }));
  areas("chart-waiting", [["waiting", values("async:async_in_flight"), "var(--wait)"]]);
  areas("chart-load", [["load", values("load:load"), "var(--accent)"]], 100);
  times("ringing", statistics);
  times("setup", statistics);
  const threads = (answers["page:threads"]?.Threads ?? []).filter((t) => t.Name.startsWith("worker") || t.Busy >= 0.5);
  const list = make("div", { class: "bars" });
  list.replaceChildren(...threads.flatMap((t) => [make("span", {}, t.Name), make("span", { class: "bar" }, draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, draw("rect", { width: 100, height: 10, rx: 1, paint: "var(--line)" }), draw("rect", { width: t.Busy, height: 10, rx: 1, paint: t.Busy > 85 ? "var(--bad)" : "var(--accent)" }))), make("span", { class: "n" }, `${t.Busy.toFixed(0)} %`)]));
  show("threads", list);
  const now = (answers["page:waits"]?.Waits ?? []).filter((w) => w.Waiting > 0).slice(0, 8);
  const box = make("div", { class: "bars" });
  if (now.length) bars(box, now.map((w) => [`${w.Operation} ${shortLine(w.Line)}`, w.Waiting]), "var(--wait)");
  show("waits-now", now.length ? box : make("p", { class: "none" }, "no call waits"));
}

const shortLine = (line) => line.replace(/^.*\//, "");

// --- waits ------------------------------------------------------------------------------------------------------

function waits(answers) {
  const rows = (answers["page:waits"]?.Waits ?? []).map((w) => [
    w.Operation, make("span", { title: w.Line }, w.Line ? shortLine(w.Line) : "beside the script"), number.format(w.Waiting),
    w.Waiting ? duration(w["Oldest ms"]) : "", number.format(w.Ended), w.Ended ? duration(w["Total ms"] / w.Ended) : "", w.Ended ? duration(w["Longest ms"]) : "", duration(w["Total ms"]),
  ]);
  table("table-waits", ["Operation", "Line", "Wait now", "Oldest", "Ended", "On average", "Longest", "In all"], rows, [2, 3, 4, 5, 6, 7], "nothing has waited yet");
  const operations = Object.entries(answers.async_stats?.Operations ?? {});
  show("operations", ...operations.map(([name, o]) => {
    const box = make("div", { class: "bars" });
    bars(box, Object.entries(o["Histogram ms"]).map(([step, n]) => [step.replace("<=", "≤") + " ms", n]), "var(--wait)");
    const failed = ["Failed", "Timed out", "Cancelled", "Queued", "Refused"].filter((key) => o[key] > 0).map((key) => `${key.toLowerCase()} ${number.format(o[key])}`);
    return make("figure", { "data-operation": name, "data-done": o.Done }, make("figcaption", {}, name), make("p", { class: "quiet" }, [`started ${number.format(o.Started)}`, `done ${number.format(o.Done)}`, ...failed].join(", ")), box);
  }));
}

// --- calls ------------------------------------------------------------------------------------------------------

function calls(answers) {
  const ladder = answers["page:ladder"];
  if (!ladder) return;
  const words = ladder.Following ? `Following ${ladder.Text ? `“${ladder.Text}”` : "every call"}: ${ladder.Calls.length} of at most 50 calls are kept.` : "Nothing is followed.";
  $("follow-state").textContent = `${words} Messages and waits are kept only while this view is open. Credentials are not shown.`;
  if (state.chosen === null && ladder.Calls.length) { state.chosen = ladder.Calls[0]["Call-ID"]; state.wake?.(); }
  const focused = document.activeElement?.dataset?.call;
  const pick = (id) => () => { state.chosen = id; state.events = []; $("message").hidden = true; state.wake?.(); };
  const rows = ladder.Calls.map((c) => make("tr", {
    tabindex: 0, role: "option", "aria-selected": c["Call-ID"] === state.chosen, "data-call": c["Call-ID"], onclick: pick(c["Call-ID"]),
    onkeydown: (event) => move(event, pick(c["Call-ID"])),
  }, make("td", {}, new Date(c.Began).toLocaleTimeString()), make("td", { class: "long" }, `${c.From} → ${c.To}`), make("td", {}, c["Last answer"] ?? "…")));
  show("table-calls", make("thead", {}, make("tr", {}, make("th", {}, "Began"), make("th", {}, "From → To"), make("th", {}, "Last answer"))), make("tbody", { role: "listbox" }, ...rows));
  if (focused !== undefined) rows.find((row) => row.dataset.call === focused)?.focus();
  if (ladder.Events) ladderOf(ladder.Events, ladder["Left out"]);
}

/** Up, down and Enter in a list of focusable things. */
function move(event, chosen) {
  const list = [...event.currentTarget.parentNode.querySelectorAll("[tabindex='0']")], at = list.indexOf(event.currentTarget);
  if (event.key === "ArrowDown") list[Math.min(at + 1, list.length - 1)].focus();
  else if (event.key === "ArrowUp") list[Math.max(at - 1, 0)].focus();
  else if (event.key === "Enter" || event.key === " ") chosen();
  else return;
  event.preventDefault();
}

function ladderOf(events, leftOut) {
  const key = JSON.stringify([state.chosen, events.length, events.filter((e) => e.End).length]);
  if (key === $("ladder").dataset.key) return;
  $("ladder").dataset.key = key;
  const peers = [...new Set(events.filter((e) => e.Peer).map((e) => e.Peer))];
  // The one that spoke first stands left of the server, the others right of it.
  const order = peers.length ? [peers[0], "Fermata", ...peers.slice(1)] : ["Fermata"];
  const room = $("ladder").clientWidth - 2, left = 150, row = 34, top = 44;
  const gap = Math.max(170, Math.min(320, (room - left - 190) / Math.max(1, order.length - 1))), width = Math.max(room, left + (order.length - 1) * gap + 150), x = (who) => left + order.indexOf(who) * gap;
  const began = events[0]?.At ?? 0, height = top + row * (events.length + (leftOut ? 1 : 0)) + 14, own = x("Fermata");
  const parts = [draw("defs", {}, draw("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse" }, draw("path", { d: "M0 0L8 4L0 8z", paint: "var(--accent)" })))];
  for (const who of order) {
    parts.push(draw("text", { class: "head", x: x(who), y: 20, "text-anchor": "middle" }, who), draw("line", { class: "axis", x1: x(who), x2: x(who), y1: 28, y2: height - 6 }));
  }
  const span = Math.max(1, ...events.map((e) => e["Took ms"] ?? 0));
  events.forEach((event, i) => {
    const y = top + i * row, when = `+${((event.At - began) / 1000).toFixed(1)} ms`;
    const inside = [draw("rect", { class: "hit", x: 0, y: y - 14, width, height: row, paint: "transparent" }), draw("text", { x: 8, y: y + 4 }, when)];
    let words;
    if (event.Peer) {
      const [from, to] = event.Sent ? [own, x(event.Peer)] : [x(event.Peer), own];
      words = event.First.startsWith("SIP/2.0 ") ? event.First.slice(8) : event.First.replace(/ SIP\/2\.0$/, "");
      const fits = Math.floor((Math.abs(to - from) - 16) / 6.2), text = words.length > fits ? words.slice(0, fits - 1) + "…" : words;
      inside.push(draw("line", { x1: from, y1: y + 6, x2: to, y2: y + 6, stroke: "var(--accent)", "stroke-width": 1.5, "marker-end": "url(#tip)" }), draw("text", { class: "first", x: (from + to) / 2, y: y + 1, "text-anchor": "middle" }, text));
    } else {
      const took = event["Took ms"], end = event.End ?? "still waits";
      words = `${event.Operation} ${took === null ? "" : duration(took) + ", "}${end} ${shortLine(event.Line)}`;
      const size = took === null ? 60 : 6 + (took / span) * 60;
      inside.push(draw("rect", { x: own - 5, y: y - 8, width: 10, height: row - 10, rx: 3, paint: "var(--wait)" }), draw("rect", { x: own + 9, y: y - 4, width: size, height: 8, rx: 2, paint: "var(--wait)", opacity: 0.55 }), draw("text", { class: "first", x: own + 14 + size, y: y + 4 }, words));
    }
    const open = () => {
      const text = event.Text ?? `${event.Operation}\n${event.For}\n${event.Line}\n${event.End ?? "still waits"}${event["Took ms"] === null ? "" : ` after ${event["Took ms"]} ms`}`;
      $("message").textContent = text;
      $("message").hidden = false;
    };
    parts.push(draw("g", { class: "step", tabindex: 0, role: "button", "aria-label": `${when} ${event.Peer ? (event.Sent ? "to " : "from ") + event.Peer + " " : "waits: "}${words}`, onclick: open, onkeydown: (e) => move(e, open) }, ...inside));
  });
  if (leftOut) parts.push(draw("text", { x: 8, y: top + events.length * row + 4 }, `${leftOut} more were not kept`));
  show("ladder", draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "ladder of the call" }, ...parts));
}

// --- routes -----------------------------------------------------------------------------------------------------

/** Time that calls spent at a place: [line of the graph] → sums. */
function heat(list) {
  const at = new Map();
  for (const w of list.filter((w) => w.Line)) {
    const sum = at.get(w.Line) ?? { ended: 0, total: 0, waiting: 0 };
    at.set(w.Line, { ended: sum.ended + w.Ended, total: sum.total + w["Total ms"], waiting: sum.waiting + w.Waiting });
  }
  return at;
}

function routes(answers) {
  const graph = answers["page:routes"], list = answers["page:waits"]?.Waits ?? [];
  if (!graph) return;
  const hot = heat(list), most = Math.max(1, ...[...hot.values()].map((h) => h.total));
  const rows = list.filter((w) => w.Line).sort((a, b) => b["Total ms"] - a["Total ms"]).slice(0, 30).map((w) => [
    shortLine(w.Line), w.Operation, number.format(w.Waiting), number.format(w.Ended), w.Ended ? duration(w["Total ms"] / w.Ended) : "", duration(w["Total ms"]), `${Math.round((w["Total ms"] / Math.max(1, list.reduce((s, x) => s + x["Total ms"], 0))) * 100)} %`]);
  table("table-hot", ["Line", "Operation", "Wait now", "Ended", "On average", "In all", "Share"], rows, [2, 3, 4, 5, 6], "no call has waited yet");
  const key = JSON.stringify([graph, [...hot].map(([line, h]) => [line, h.ended, h.waiting])]);
  if (key === state.graphKey) return;
  state.graphKey = key;
  // Columns by the longest way from a route that something outside starts.
  const nodes = graph.Routes.map((n) => ({ ...n, column: 0 }));
  for (let pass = 0; pass < nodes.length; pass += 1) {
    let moved = false;
    for (const w of graph.Ways) {
      if (w.From !== w.To && nodes[w.To].column <= nodes[w.From].column && nodes[w.From].column < 8 && !leads(graph.Ways, w.To, w.From)) { nodes[w.To].column = nodes[w.From].column + 1; moved = true; }
    }
    if (!moved) break;
  }
  const boxWidth = 250, gapX = 110, gapY = 22, filled = [];
  for (const n of nodes) {
    n.lines = [...new Map(n.Waits.map((w) => [`${w.Function} ${w.Line}`, w])).values()];
    n.height = 26 + n.lines.length * 17 + (n.lines.length ? 6 : 0);
    n.x = 12 + n.column * (boxWidth + gapX);
    n.y = filled[n.column] ?? 12;
    filled[n.column] = n.y + n.height + gapY;
  }
  const width = 24 + (Math.max(0, ...nodes.map((n) => n.column)) + 1) * (boxWidth + gapX) - gapX + 40, height = Math.max(60, ...filled.filter(Boolean));
  const ways = graph.Ways.map((w) => {
    const [a, b] = [nodes[w.From], nodes[w.To]], y1 = a.y + 13, y2 = b.y + 13;
    const forward = b.column > a.column, x1 = a.x + boxWidth, x2 = forward ? b.x : b.x + boxWidth, bend = forward ? (x2 - x1) / 2 : 46;
    const path = forward ? `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` : `M${x1} ${y1 + 4}C${x1 + bend} ${y1} ${x2 + bend} ${y2} ${x2} ${y2 - 4}`;
    return draw("path", { d: path, fill: "none", stroke: "var(--quiet)", "stroke-width": 1.2, "stroke-dasharray": w.How === "calls" ? null : "5 4", "marker-end": "url(#way)" }, draw("title", {}, `${a.Route} ${w.How} ${b.Route}, ${shortLine(w.Line)}`));
  });
  const boxes = nodes.map((n) => {
    const total = n.lines.reduce((s, w) => s + (hot.get(w.Line)?.total ?? 0), 0), waiting = n.lines.reduce((s, w) => s + (hot.get(w.Line)?.waiting ?? 0), 0);
    const lines = n.lines.map((w, i) => {
      const h = hot.get(w.Line), y = n.y + 26 + i * 17, share = h ? h.total / most : 0;
      const text = `:${w.Line.split(":").pop()} ${w.Function}`, end = h ? (h.waiting ? `${number.format(h.waiting)} wait` : `${number.format(h.ended)} × ${duration(h.total / Math.max(1, h.ended))}`) : "";
      return draw("g", {}, draw("rect", { x: n.x + 1, y, width: boxWidth - 2, height: 16, paint: "var(--c5)", opacity: h ? 0.08 + share * 0.42 : 0 }), draw("text", { class: "line", x: n.x + 8, y: y + 12 }, text.length > 22 ? text.slice(0, 21) + "…" : text), draw("text", { class: "line", x: n.x + boxWidth - 6, y: y + 12, "text-anchor": "end" }, end), draw("title", {}, `${w.Function}, ${w.Line}`));
    });
    return draw("g", { tabindex: 0, role: "img", "aria-label": `${n.Route}: ${total ? `calls waited ${duration(total)} in all` : "no waits yet"}${waiting ? `, ${waiting} wait now` : ""}` }, draw("rect", { x: n.x, y: n.y, width: boxWidth, height: n.height, rx: 4, paint: "var(--ground)", stroke: waiting ? "var(--wait)" : "var(--line)", "stroke-width": waiting ? 2.5 : 1.2, "stroke-dasharray": n.Reached ? null : "4 3" }), draw("text", { class: "title", x: n.x + 8, y: n.y + 17 }, n.Route), draw("text", { x: n.x + boxWidth - 6, y: n.y + 17, "text-anchor": "end" }, `:${n.Line.split(":").pop()}`), ...lines);
  });
  show("graph", draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "routes of the script" }, draw("defs", {}, draw("marker", { id: "way", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, draw("path", { d: "M0 0L8 4L0 8z", paint: "var(--quiet)" }))), ...ways, ...boxes));
}

/** There is a way from one route to another. */
function leads(ways, from, to) {
  const seen = new Set([from]), open = [from];
  while (open.length) {
    const at = open.pop();
    if (at === to) return true;
    for (const w of ways) if (w.From === at && !seen.has(w.To)) { seen.add(w.To); open.push(w.To); }
  }
  return false;
}

// --- backends ---------------------------------------------------------------------------------------------------

const DESTINATIONS = [
  ["dispatcher:list", [], "Dispatcher"], ["load_balancer:list", [], "Load balancer"], ["drouting:gw_status", [], "Gateways"],
  ["drouting:carrier_status", [], "Carriers"], ["rtpengine:show", [], "rtpengine"], ["rtpproxy:show", [], "rtpproxy"],
];
const BAD = /inactive|probing|disabled|lost|down|takes no/i;

/** Lists of things inside an answer, however deep: the innermost lists of objects. */
function things(value, path = []) {
  if (Array.isArray(value)) {
    const flat = value.filter((v) => v && typeof v === "object");
    return flat.flatMap((v) => { const inner = Object.values(v).flatMap((x) => (Array.isArray(x) && x.some((y) => y && typeof y === "object") ? things(x, [...path, Object.values(v).find((y) => typeof y !== "object")]) : [])); return inner.length ? inner : [[path, v]]; });
  }
  if (value && typeof value === "object") return Object.values(value).flatMap((v) => things(v, path));
  return [];
}

function backends(answers, statistics) {
  if (answers["page:backends"]) {
    table("table-backends", ["Name", "Module", "State", "Connections"], answers["page:backends"].Backends.map((b) => [b.Name, b.Module, make("span", { class: b.State === "up" ? "good" : "lost" }, b.State), b.Connections ?? ""]), [3], "the script uses none");
    show("destinations", ...DESTINATIONS.filter(([name]) => answers[name]).flatMap(([name, , title]) => {
      const list = things(answers[name]), heads = [...new Set(list.flatMap(([, v]) => Object.keys(v).filter((k) => typeof v[k] !== "object")))];
      const rows = list.map(([path, v]) => make("tr", {}, make("td", {}, path.filter((p) => p !== undefined).join(" / ")), ...heads.map((h) => make("td", { class: BAD.test(String(v[h] ?? "")) ? "lost" : null }, v[h] ?? ""))));
      return [make("h2", {}, title), list.length ? make("div", { class: "scroll" }, make("table", { "data-list": name }, make("thead", {}, make("tr", {}, make("th", {}, "Set"), ...heads.map((h) => make("th", {}, h)))), make("tbody", {}, ...rows))) : make("p", { class: "none" }, "none")];
    }));
    const status = answers["status_report:status"], groups = Array.isArray(status) ? status : Object.values(status ?? {}).flat();
    table("table-status", ["Part", "Ready", "Details"], groups.flatMap((g) => (g.Identifiers ?? []).map((i) => [`${g.Name ?? g.Group ?? ""} ${i.Name ?? i.Identifier ?? ""}`, make("span", { class: (i.Status ?? 1) > 0 ? "good" : "lost" }, i.Readiness === false || (i.Status ?? 1) < 0 ? "no" : "yes"), i.Details ?? ""])), [], "nothing to report");
    const kinds = new Map();
    for (const c of answers["tcp:list"]?.Connections ?? []) kinds.set(c.Type, (kinds.get(c.Type) ?? 0) + 1);
    table("table-connections", ["Transport", "Connections"], [...kinds].map(([kind, n]) => [kind, number.format(n)]), [1], "none now");
  }
}

// --- statistics -------------------------------------------------------------------------------------------------

function statistics(_, all) {
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const before = state.last, rows = [];
  for (const [name, value] of Object.entries(all)) {
    if (!words.every((word) => name.toLowerCase().includes(word))) continue;
    const step = name in before ? value - before[name] : 0;
    rows.push([name, make("span", { "data-statistic": name }, number.format(value)), step ? (step > 0 ? "+" : "") + number.format(step) : ""]);
  }
  table("table-statistics", ["Name", "Value", "Change"], rows, [1, 2], "no statistic has this in its name");
  state.last = { ...all };
}

const DRAW = { overview, waits, calls, routes, backends, statistics };

// --- moving around ----------------------------------------------------------------------------------------------

function open() {
  const view = location.hash.slice(1).split("/")[0];
  state.view = VIEWS.includes(view) ? view : "overview";
  state.drawn = false;
  state.turn = 0;
  for (const name of VIEWS) $(`view-${name}`).hidden = name !== state.view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${state.view}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.title = state.view === "overview" ? "Fermata" : `Fermata: ${state.view}`;
  state.wake?.();
}

function pause() {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", state.paused);
  $("pause").textContent = state.paused ? "Go on" : "Pause";
  say(state.paused ? "paused" : "live", state.paused ? "paused" : "");
  state.wake?.();
}

addEventListener("hashchange", open);
addEventListener("visibilitychange", () => state.wake?.());
$("pause").addEventListener("click", pause);
$("help-open").addEventListener("click", () => $("help").showModal());
$("find-form").addEventListener("submit", (event) => event.preventDefault());
$("find").addEventListener("input", () => state.statistics && statistics(null, state.statistics));
$("follow").addEventListener("submit", async (event) => {
  event.preventDefault();
  state.chosen = null;
  $("message").hidden = true;
  show("ladder");
  delete $("ladder").dataset.key;
  try { await ask([["page:follow", [$("follow-text").value]]]); state.wake?.(); } catch (error) { say(error.message, "bad"); }
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target instanceof HTMLInputElement) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key >= "1" && event.key <= String(VIEWS.length)) location.hash = VIEWS[Number(event.key) - 1];
  else if (event.key === "p") pause();
  else if (event.key === "?") $("help").showModal();
  else if (event.key === "/") { event.preventDefault(); ({ calls: $("follow-text"), statistics: $("find") })[state.view]?.focus(); }
});
state.token = sessionStorage.getItem("fermata-token") ?? "";
open();
run();
