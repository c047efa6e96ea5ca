// The status page: asks /status.json once a second and draws what is new. Everything that came from a client is set as
// text, never as markup.
"use strict";

const SECONDS = 300;
const $ = (id) => document.getElementById(id);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Numbers as people read them

function short(n) {
  if (n == null || !isFinite(n)) return "–";
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e4]]) {
    if (Math.abs(n) >= size) return (n / (unit === "k" ? 1e3 : size)).toPrecision(3) + unit;
  }
  return n >= 100 || Number.isInteger(n) ? Math.round(n).toLocaleString("en") : n.toPrecision(2);
}

function bytes(n) {
  for (const [unit, shift] of [["TiB", 40], ["GiB", 30], ["MiB", 20], ["KiB", 10]]) {
    if (n >= 2 ** shift) return (n / 2 ** shift).toPrecision(3) + " " + unit;
  }
  return n + " B";
}

function ms(n) {
  if (n == null || n === 0) return "–";
  return n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n >= 1 ? n.toFixed(2) : n.toFixed(3);
}

function span(s) {
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min` : `${s} s`;
}

// Small pieces of the page

function element(name, className, text) {
  const e = document.createElement(name);
  if (className) e.className = className;
  if (text != null) e.textContent = text;
  return e;
}

function rows(id, all, empty) {
  const body = document.querySelector(`#${id} tbody`);
  body.replaceChildren();
  for (const cells of all) {
    const row = body.insertRow();
    for (const [className, content] of cells) {
      const cell = element("td", className, content instanceof Node ? null : content);
      if (content instanceof Node) cell.append(content);
      row.append(cell);
    }
  }
  if (!all.length) {
    const cell = element("td", "empty", empty);
    cell.colSpan = 20;
    body.insertRow().append(cell);
  }
}

// Charts

const isDecade = (n) => Math.abs(Math.log10(n) - Math.round(Math.log10(n))) < 1e-6;

const QUANTILES = [["p50", "--two"], ["p99", "--one"], ["p99.9", "--three"]];
const CHARTS = {
  throughput: { format: short, lines: [["commands", "--one", (s) => s.commands], ["epochs", "--two", (s) => s.epochs]] },
  batches: { format: short, lines: [["batches", "--one", (s) => s.batches]] },
};
for (const name of ["wait", "commit", "sync", "apply"]) {
  const lines = QUANTILES.map(([label, ink], i) => [label, ink, (s) => s[name][i] || null]);
  CHARTS[name] = { format: ms, lines, log: true };
}

let samples = [];

function columns(chart) {
  return [samples.map((s) => s.time / 1000), ...chart.lines.map(([, , value]) => samples.map(value))];
}

function draw() {
  const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  for (const [name, chart] of Object.entries(CHARTS)) {
    const place = $("chart-" + name);
    const size = () => ({ width: place.clientWidth, height: 170 });
    chart.plot?.destroy();
    chart.plot = new uPlot({
      ...size(),
      cursor: { sync: { key: "look" }, points: { size: 6 } },
      legend: { live: true },
      scales: {
        x: { range: () => { const end = samples.length ? samples[samples.length - 1].time / 1000 : Date.now() / 1000; return [end - SECONDS, end]; } },
        y: chart.log ? { distr: 3, range: (_, low, high) => (high > 0 ? [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.01))] : [0.01, 10]) } : { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] },
      },
      axes: [
        { ...axis, space: 70, size: 28, values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })), incrs: [60, 120, 300] },
        { ...axis, size: 54, values: (_, ticks) => ticks.map((t) => (!chart.log ? short(t) : isDecade(t) ? String(+t.toPrecision(1)) : "")), ...(chart.log && { filter: (_, ticks) => ticks.map((t) => (isDecade(t) ? t : null)) }) },
      ],
      series: [
        { label: "", value: (_, t) => (t == null ? "" : new Date(t * 1000).toLocaleTimeString("en-GB")) },
        ...chart.lines.map(([label, ink]) => ({ label, stroke: color(ink), width: 1.75, spanGaps: false, points: { show: true, size: 3, width: 0, fill: color(ink) }, value: (_, v) => chart.format(v) })),
      ],
    }, columns(chart), place);
    chart.resize ??= new ResizeObserver(() => chart.plot.setSize(size()));
    chart.resize.observe(place);
  }
}

// What was asked for

let calls = new Map();
let callsAt = 0;

function tiles(status) {
  const now = samples[samples.length - 1];
  if (!now) return;
  const all = [
    [status.epoch.toLocaleString("en"), "epoch"],
    [short(now.epochs), "epochs/s"],
    [short(now.commands), "commands/s"],
    [ms(now.sync[1]) + " ms", "log sync, p99"],
    [status.keys.toLocaleString("en"), "keys"],
    [bytes(status.resident_bytes), "resident memory"],
    [bytes(status.window_bytes), "old versions in memory"],
    [short(now.clients), "clients"],
    [short(now.lag), "greatest lag, entries"],
  ];
  $("tiles").replaceChildren(...all.map(([value, name]) => {
    const tile = element("div", "tile");
    tile.append(element("b", null, value), element("span", null, name));
    return tile;
  }));
}

function nodes(status) {
  rows("nodes", status.nodes.map((node) => {
    const { role, addr, matched, lag, ...more } = Object.fromEntries(node.facts);
    const rest = Object.entries(more).map(([name, value]) => `${name} ${value}`).join(", ");
    const me = node.id === status.node ? `${node.id} (this)` : String(node.id);
    return [["n", me], ["", role ?? "–"], ["code", addr || "alone"], ["n", matched ?? "–"], ["n", lag ?? "–"], ["", rest]];
  }), "No node is known.");
}

function commands(status) {
  const total = status.commands.reduce((sum, c) => sum + c.ops, 0) || 1;
  const seconds = (performance.now() - callsAt) / 1000;
  const rate = (c) => (calls.has(c.name) && callsAt ? short(Math.max(0, c.calls - calls.get(c.name)) / seconds) : "–");
  rows("commands", status.commands.map((c) => {
    const share = element("span", "share", ((100 * c.ops) / total).toFixed(1) + " %");
    share.style.backgroundSize = (100 * c.ops) / total + "% 100%";
    const micros = c.micros ? short(c.micros / c.calls) : "–";
    return [["code", c.name], ["", share], ["n", short(c.calls)], ["n", rate(c)], ["n", short(c.ops)], ["n", short(c.ops / c.calls)], ["n", short(c.locs / c.calls)], ["n", micros], ["n", short(c.failed)]];
  }), "No command has run yet.");
  calls = new Map(status.commands.map((c) => [c.name, c.calls]));
  callsAt = performance.now();
}

function slow(status) {
  rows("slow", status.slow.map((s) => {
    const when = new Date(s.time_s * 1000).toLocaleString("en-GB");
    return [["", when], ["n", ms(s.micros / 1000)], ["code", s.command], ["", s.client]];
  }), "Nothing was slower than slowlog-log-slower-than.");
}

let copied = "";

function copy(status) {
  const host = ["0.0.0.0", "*", "::"].includes(status.host) ? location.hostname : status.host;
  const tls = status.port === "0";
  const cli = `redis-cli${host === "127.0.0.1" ? "" : " -h " + host} -p ${tls ? status.tls_port + " --tls" : status.port}`;
  const all = [
    [`${cli} LOOK.CLUSTER`, "nodes, roles, lag"],
    [`${cli} LOOK.AT -5s GET key`, "what it was five seconds ago"],
    [`${cli} LOOK.EXPLAIN SET key value`, "the bound of a command"],
    [`${cli} LOOK.USAGE`, "what each command has cost"],
    [`${cli} SLOWLOG GET 10`, "the newest slow commands"],
    [`${cli} CONFIG SET slowlog-log-slower-than 1000`, "remember what takes longer than 1 ms"],
    [`curl -s ${location.origin}/metrics`, "for Prometheus"],
    [`curl -s -o /dev/null -w '%{http_code}\\n' ${location.origin}/readyz`, "200 while it serves"],
  ];
  const key = JSON.stringify(all);
  if (key === copied) return; // A button under the pointer stays
  copied = key;
  $("copy").replaceChildren(...all.map(([text, why]) => {
    const line = element("div");
    const code = element("code", null, text);
    const button = element("button", null, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      } catch {
        getSelection().selectAllChildren(code); // Without a clipboard: selected, to be copied by hand
      }
    });
    line.append(code, element("span", null, why), button);
    return line;
  }));
}

function head(status) {
  const role = status.leader == null ? "no leader" : status.leader === status.node ? "leader" : "follows node " + status.leader;
  document.title = `Look node ${status.node}: ${role}`;
  $("who").textContent = "node " + status.node;
  $("role").textContent = role;
  badge(status.not_ready == null, status.not_ready ?? "ready");
  $("about").textContent = `version ${status.version}, up ${span(status.uptime_s)}, term ${status.term}, past readable since epoch ${status.since.toLocaleString("en")}`;
}

function badge(good, text) {
  $("ready").className = "badge " + (good ? "good" : "bad");
  $("ready").textContent = text;
}

async function turn() {
  const last = samples.length ? samples[samples.length - 1].time : 0;
  try {
    const response = await fetch("status.json?after=" + last, { signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error("HTTP " + response.status);
    const status = await response.json();
    samples = samples.concat(status.samples).slice(-SECONDS);
    for (const part of [head, tiles, nodes, commands, slow, copy]) part(status);
    for (const chart of Object.values(CHARTS)) {
      chart.plot.setData(columns(chart));
      // Without a pointer over it, a chart names its newest values
      if (chart.plot.cursor.idx == null) chart.plot.setLegend({ idx: samples.length - 1 });
    }
  } catch (error) {
    badge(false, "no answer: " + error.message);
  }
  setTimeout(turn, 1000);
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
turn();
